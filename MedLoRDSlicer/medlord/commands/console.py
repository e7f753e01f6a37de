"""What a command says and hears: progress and notes on stderr, results on stdout, Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from ..progress import ProgressEvent

_REDRAW_S = 0.1
_PLAIN_LINE_S = 15.0
_PHASES = {
    "load": "Loading the model",
    "condition": "Placing the masks",
    "embed": "Embedding the masks",
    "denoise": "Denoising",
    "decode": "Decoding",
    "paint": "Painting the anatomy",
}


class Console:
    """Progress is one line that is redrawn on a terminal, and a few plain lines in a log file."""

    def __init__(self, quiet: bool = False, errors: TextIO | None = None, output: TextIO | None = None):
        self.quiet = quiet
        self._errors, self._output = errors or sys.stderr, output or sys.stdout
        self._terminal = self._errors.isatty()
        self._drawn = ""
        self._phase, self._said_at = "", 0.0
        self._interrupted = threading.Event()

    def progress(self, event: ProgressEvent) -> None:
        """Show one event of a long function."""
        if self.quiet:
            return
        now, last = time.monotonic(), event.step >= event.total
        new_phase = event.phase != self._phase
        pause = _REDRAW_S if self._terminal else _PLAIN_LINE_S
        if not (new_phase or last or now - self._said_at >= pause):
            return
        self._phase, self._said_at = event.phase, now
        text = describe(event)
        if self._terminal:
            self._errors.write("\r" + text.ljust(len(self._drawn)))
            self._drawn = text
            if last:
                self._end_line()
            self._errors.flush()
        elif last or event.step:
            print(text, file=self._errors, flush=True)

    def note(self, text: str) -> None:
        """A line for the user on stderr."""
        if not self.quiet:
            self._end_line()
            print(text, file=self._errors, flush=True)

    def result(self, text: object) -> None:
        """A line on stdout: what other programs read."""
        self._end_line()
        print(text, file=self._output, flush=True)

    def error(self, text: str) -> None:
        """The one line that says why a command failed; also said when quiet."""
        self._end_line()
        print(text, file=self._errors, flush=True)

    def cancel(self) -> bool:
        """True once Ctrl-C was pressed within `interruptible`."""
        return self._interrupted.is_set()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within it Ctrl-C asks the running function to stop at its next step; a second one stops at once."""

        def on_interrupt(number, frame):
            if self._interrupted.is_set():
                raise KeyboardInterrupt
            self._interrupted.set()
            self.note("Cancelling at the next step; press Ctrl-C again to stop at once.")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _end_line(self) -> None:
        if self._drawn:
            self._drawn = ""
            self._errors.write("\n")


def describe(event: ProgressEvent) -> str:
    """One event in words: phase, steps, seconds left, message."""
    text = _PHASES.get(event.phase, event.phase.capitalize())
    if event.total > 1:
        text += f" {event.step}/{event.total}"
    if event.step >= event.total:
        text += f", {event.elapsed_s:.1f} s"
    elif event.eta_s is not None:
        text += f", {event.eta_s:.0f} s left"
    return f"{text} {event.message}".rstrip()
