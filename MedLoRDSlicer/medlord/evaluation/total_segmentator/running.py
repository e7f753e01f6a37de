"""Run the process of TotalSegmentator: its output to the log, its progress bars as events, cancel, and its end."""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import CancelledError, EngineError, InsufficientMemoryError, MedlordError, error_from_code
from ...processes import (
    describe_exit,
    find_python,
    kill_tree,
    start_process,
    terminate_tree,
    worker_environment,
)
from ...progress import Cancel, Progress, ProgressEvent
from .process import ANSWER, REQUEST

Runner = Callable[[list[str], dict[str, str], str], subprocess.Popen]
"""Starts a program: (arguments, environment, working folder) -> process with three pipes, leader of its group."""

_LOG = logging.getLogger("medlord.totalsegmentator")
_MODULE = "medlord.evaluation.total_segmentator.process"
_BAR = re.compile(r"(\d+)%\|[^|]*\|\s*(?:(\d+)/(\d+)\b)?")
_LINES_KEPT = 60
_POLL_S = 0.1
_GRACE_S = 3.0
# How Windows and POSIX end a process that the system has no memory for.
_OUT_OF_MEMORY_EXITS = (-9, 137, 0xC0000017)


def ask(
    request: dict[str, Any],
    folder: Path,
    *,
    python: str | None = None,
    runner: Runner | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """The result of a request (see `process`) in the private `folder`, which also holds its temporary files.

    Raises the error of the family that the process answers with, `EngineError` with the end of its output in `details`
    when it crashes, `InsufficientMemoryError` when the system kills it, `CancelledError` when `cancel` answers true.
    """
    (folder / REQUEST).write_text(json.dumps(request), encoding="utf-8")
    program = find_python(python)
    environment = worker_environment(os.environ, program)
    # What nnU-Net leaves behind when it is stopped is a patient's CT.
    environment.update(dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder)))
    process = (runner or start_process)([program, "-m", _MODULE, str(folder)], environment, str(folder))
    output = _Output(process, progress, request.get("license_key"))
    try:
        ended = None
        while output.forward(_POLL_S):
            if cancel is not None and cancel():
                raise CancelledError(
                    "Cancelled during the segmentation by TotalSegmentator; nothing was written."
                )
            if process.poll() is not None:
                ended = ended or time.monotonic()
                if time.monotonic() - ended > _GRACE_S:
                    # Something that it started and left behind still holds its output.
                    kill_tree(process)
                    break
        process.wait()
    finally:
        _stop(process, output)
    return _result(folder / ANSWER, process.returncode, output.tail)


class _Output:
    """What a process prints, line by line, as log and progress; bars are redrawn, so \\r ends a line too.

    TotalSegmentator prints a licence key that it refuses; the `secret` gets into no log.
    """

    def __init__(self, process: subprocess.Popen, progress: Progress | None, secret: str | None = None):
        self.tail: deque[str] = deque(maxlen=_LINES_KEPT)
        self._progress, self._started = progress, time.perf_counter()
        self._stage = ""
        self._secret = secret
        self._inbox: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._open = 2
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (process.stdout, process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream) -> None:
        pending = b""
        while True:
            try:
                data = os.read(stream.fileno(), 65536)
            except (OSError, ValueError):  # closed by `_stop`
                data = b""
            *lines, pending = re.split(rb"[\r\n]+", pending + data)
            # A bar ends with a bracket, and its \r comes only with the next one.
            if pending.endswith(b"]") or not data:
                lines, pending = [*lines, pending], b""
            for line in lines:
                text = line.decode("utf-8", errors="replace").strip()
                if text:
                    self._inbox.put(text.replace(self._secret, "(licence key)") if self._secret else text)
            if not data:
                self._inbox.put(None)
                return

    def forward(self, timeout: float) -> bool:
        """Handle at most one line; False once both streams have ended."""
        try:
            line = self._inbox.get(timeout=timeout)
        except queue.Empty:
            return True
        if line is None:
            self._open -= 1
            return self._open > 0
        bar = _BAR.search(line)
        if bar:
            percent, step, total = bar.groups()
            self._report(*((int(step), int(total)) if total else (int(percent), 100)))
        else:
            self.tail.append(line)
            _LOG.info("%s", line)
            self._stage = line.rstrip(" .")[:80]
            self._report(0, 1)
        return True

    def wait_for_readers(self, timeout: float) -> None:
        """Give the threads time to read what is left."""
        for reader in self._readers:
            reader.join(timeout)

    def _report(self, step: int, total: int) -> None:
        if self._progress is not None:
            elapsed = time.perf_counter() - self._started
            self._progress(ProgressEvent("segment", step, max(total, 1), elapsed, message=self._stage))


def _stop(process: subprocess.Popen, output: _Output) -> None:
    """Make sure that the process and all it started are gone, and close the pipes."""
    if process.poll() is None:
        terminate_tree(process)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            kill_tree(process)
            process.wait()
    output.wait_for_readers(_GRACE_S)
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()


def _result(path: Path, code: int, tail: deque[str]) -> dict[str, Any]:
    if path.is_file():
        answer = json.loads(path.read_text(encoding="utf-8"))
        if "result" in answer:
            return answer["result"]
        raise _with_details(error_from_code(**answer["error"]), tail)
    said = f" Its last line: {tail[-1]}" if tail else ""
    if code in _OUT_OF_MEMORY_EXITS:
        raise _with_details(
            InsufficientMemoryError(
                f"TotalSegmentator {describe_exit(code)}; choose totalsegmentator:fast or fewer structures with "
                "--subset."
            ),
            tail,
        )
    raise _with_details(
        EngineError(f"TotalSegmentator {describe_exit(code)}; the CT was not segmented.{said}"), tail
    )


def _with_details(error: MedlordError, tail: deque[str]) -> MedlordError:
    error.details = "\n".join(tail)
    return error
