"""Timers of the panel."""

from __future__ import annotations

from collections.abc import Callable

import qt


def make_timer(interval_ms: int, callback: Callable[[], None], *, single_shot: bool = False):
    """A timer that stands still; `start` it. Stop and delete it (`end_timer`) before what it calls is gone."""
    timer = qt.QTimer()
    timer.interval = interval_ms
    timer.singleShot = single_shot
    timer.connect("timeout()", callback)
    return timer


def end_timer(timer) -> None:
    """Stop a timer for ever."""
    timer.stop()
    timer.deleteLater()
