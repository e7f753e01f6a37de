"""One sitting of a reader, without any window: which case is shown, its visible time, drafts, confirming, going back.

A panel draws what this says. Every value is stored when it is set, so that a crash costs the word being typed at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from .answer_database import ReaderAnswers
from .order import Reading
from .study import Study, verify_cases


class Sitting:
    """A reader at work; use it as a context manager.

    `current` is the reading on the screen, None when the study is finished. `clock` gives seconds.
    """

    def __init__(
        self,
        study: Study,
        reader: str,
        answers: str | Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.store = ReaderAnswers(study, reader, answers)
        self.study, self._clock = study, clock
        self.current: Reading | None = self.store.next_reading()
        self._visible_since: float | None = None
        self._seconds = 0.0

    def __enter__(self) -> Sitting:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Store the time of the reading on the screen and leave."""
        try:
            self._store_time()
        finally:
            self.store.close()

    @property
    def progress(self) -> tuple[int, int]:
        """Readings that are confirmed, and all."""
        return len(self.store.confirmed()), len(self.store.order)

    @property
    def upcoming(self) -> Reading | None:
        """The reading to load in the background: the one that follows the current one."""
        if self.current is None or self.current.position == len(self.store.order):
            return None
        return self.store.order[self.current.position]

    @property
    def break_due(self) -> bool:
        """True when the current reading is the first of a block after another one and nothing of it is answered."""
        if self.current is None or self.current.position == 1 or self.store.visible_s(self.current):
            return False
        return self.store.order[self.current.position - 2].block != self.current.block

    def files(self, reading: Reading) -> list[Path]:
        """The volumes of a reading, whose SHA-256 is checked; raises `InputError` for one that was changed."""
        verify_cases(self.study, reading.cases)
        return [self.study.file(case) for case in reading.cases]

    def show(self) -> None:
        """The current case is on the screen from now on: its visible time runs."""
        if self._visible_since is None:
            self._visible_since = self._clock()

    def hide(self) -> None:
        """The case is covered (pause, another window, loading): its visible time stands still."""
        if self._visible_since is not None:
            self._seconds += max(0.0, self._clock() - self._visible_since)
            self._visible_since = None

    def pause(self) -> None:
        """Stop for a while; the time so far is stored."""
        self._store_time()
        self.store.event("paused")

    def values(self) -> dict[str, object]:
        """What is answered of the current reading."""
        return self.store.values(self._reading())

    def set(self, question: str, value: object) -> None:
        """Store one value of the current reading at once; raises `InputError` when the rubric does not allow it.

        In a reading that was confirmed the change is confirmed with it: it counts wherever the reader goes from there.
        """
        self._record({question: value}, confirmed=self._reading().position in self.store.confirmed())

    def confirm(self) -> Reading | None:
        """End the current reading and go to the next; returns it, None at the end of the study.

        Raises `InputError` that names the required questions which are still open.
        """
        reading = self._reading()
        self._record({}, confirmed=True)
        self.hide()
        self._seconds = 0.0
        following = self.store.next_reading()
        after = self.store.order[reading.position] if reading.position < len(self.store.order) else None
        # After going back, on through the confirmed ones as well.
        self.current = after if after and following and after.position <= following.position else following
        if self.current is None:
            self.store.event("finished")
        return self.current

    def back(self) -> Reading:
        """Go to the reading before; raises `InputError` where the study does not allow it or there is none."""
        if not self.study.order.going_back:
            raise InputError("This study does not allow going back.")
        position = self.current.position if self.current else len(self.store.order) + 1
        if position == 1:
            raise InputError("This is the first case; there is none before it.")
        self._store_time()
        self._seconds = 0.0
        self.current = self.store.order[position - 2]
        return self.current

    def feedback(self, reading: Reading) -> str | None:
        """After a training case: "real" or "synthetic"; None otherwise."""
        return self.store.feedback(reading)

    def _reading(self) -> Reading:
        if self.current is None:
            raise InputError("The study is finished; there is no case to answer.")
        return self.current

    def _store_time(self) -> None:
        self.hide()
        if self.current is not None and self._seconds:
            self._record({})

    def _record(self, values: dict[str, object], confirmed: bool = False) -> None:
        """Store values with the visible time since the last record."""
        reading, running = self._reading(), self._visible_since is not None
        self.hide()
        if running:
            self.show()
        self.store.record(reading, values, self._seconds, confirmed=confirmed)
        self._seconds = 0.0
