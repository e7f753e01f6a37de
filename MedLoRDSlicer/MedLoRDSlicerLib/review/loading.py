"""Cases from their files, the next one in a thread of its own while the present one is read."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from medlord.review.case_files import CaseVoxels, read_case, read_case_mask

if TYPE_CHECKING:
    from medlord.review.order import Reading
    from medlord.review.study import Study


class CaseLoader:
    """Reads, checks and decompresses the files of readings; nothing in the thread touches scene, VTK or Qt.

    At most two readings are in memory: the one that was taken last is the caller's, one more waits.
    """

    def __init__(self, study: Study):
        self._study = study
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="review-cases")
        self._waiting: tuple[tuple[str, ...], Future] | None = None

    def prefetch(self, reading: Reading | None) -> None:
        """Begin to read the files of a reading; None for nothing."""
        if reading is None or (self._waiting is not None and self._waiting[0] == reading.cases):
            return
        self._drop()
        self._waiting = (reading.cases, self._thread.submit(self._read, reading.cases))

    def take(self, reading: Reading) -> list[tuple[CaseVoxels, CaseVoxels | None]]:
        """Volume and mask (None outside the mode match) of each case of a reading, waiting for them if need be.

        Raises `InputError` for a file that is missing or not the one the study was made with.
        """
        self.prefetch(reading)
        waiting, self._waiting = self._waiting, None
        return waiting[1].result()

    def close(self) -> None:
        """End the thread."""
        self._drop()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _drop(self) -> None:
        if self._waiting is not None:
            self._waiting[1].cancel()
            self._waiting = None

    def _read(self, cases: tuple[str, ...]) -> list[tuple[CaseVoxels, CaseVoxels | None]]:
        match = self._study.mode == "match"
        return [
            (read_case(self._study, case), read_case_mask(self._study, case) if match else None)
            for case in cases
        ]
