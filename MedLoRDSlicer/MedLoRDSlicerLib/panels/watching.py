"""Observers that are taken back: VTK keeps a callback, and what it holds, alive until then."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Watch:
    """Observers on one subject at a time."""

    def __init__(self, callback: Callable):
        self._callback = callback
        self._subject = None
        self._tags: list[int] = []

    def on(self, subject, events: Sequence[int]) -> None:
        """Follow `subject` (None: nobody) instead of the one before."""
        for tag in self._tags:
            self._subject.RemoveObserver(tag)
        self._subject = subject
        self._tags = (
            [] if subject is None else [subject.AddObserver(event, self._callback) for event in events]
        )
