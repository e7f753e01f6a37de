"""How long work tells where it is, and how it is asked to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .errors import CancelledError


@dataclass(frozen=True)
class ProgressEvent:
    """One report of a long function.

    `phase` names the part of the work ("load", "denoise", "decode", ...), `step` of `total` are done in it,
    `elapsed_s` and `eta_s` are seconds within the phase, `preview` is an optional picture (rows, columns) of
    uint8 grey values.
    """

    phase: str
    step: int
    total: int
    elapsed_s: float
    eta_s: float | None = None
    preview: np.ndarray | None = field(default=None, compare=False, repr=False)
    message: str = ""


Progress = Callable[[ProgressEvent], None]
Cancel = Callable[[], bool]


def raise_if_cancelled(cancel: Cancel | None, where: str) -> None:
    """Raise `CancelledError` when `cancel` answers true; `where` says in words how far the work was."""
    if cancel is not None and cancel():
        raise CancelledError(f"Cancelled during {where}; nothing was written.")


class PhaseClock:
    """Reports the steps of one phase with the elapsed time and the time that is left at the present speed."""

    def __init__(self, phase: str, total: int, progress: Progress | None):
        self.phase, self.total, self._progress = phase, total, progress
        self._started = time.perf_counter()

    def report(self, step: int, preview: np.ndarray | None = None, message: str = "") -> None:
        """Say that `step` of `total` steps are done."""
        if self._progress is None:
            return
        elapsed = time.perf_counter() - self._started
        eta = elapsed / step * (self.total - step) if step else None
        self._progress(ProgressEvent(self.phase, step, self.total, elapsed, eta, preview, message))

    @property
    def elapsed_s(self) -> float:
        """Seconds since the phase began."""
        return time.perf_counter() - self._started
