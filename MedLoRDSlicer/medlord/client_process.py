"""The client's side of one worker process: its pipes, its private folder, and its end.

Nothing here refers to the `EngineClient`, so that a forgotten client can be collected and its worker ended.
"""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

from .errors import EngineError
from .processes import (
    describe_exit,
    find_python,
    kill_tree,
    process_exists,
    start_process,
    terminate_tree,
    worker_environment,
)
from .protocol import FOLDER_PREFIX, LineSplitter, encode

# Kept for the details of an error; protocol.LOG_TAIL_LINES of them are shown.
_LOG_LINES = 200
_STALE_AFTER_S = 24 * 3600.0

ProcessFactory = Callable[[list[str], dict[str, str], str], subprocess.Popen]


class WorkerProcess:
    """One running worker. Two daemon threads move what it writes into `inbox`; the methods are for one thread.

    inbox holds ("message", line as bytes), ("log", text) and, once, ("end", "") when its output was closed.
    """

    def __init__(
        self,
        python: str | None,
        *,
        factory: ProcessFactory | None = None,
        environment: Mapping[str, str] | None = None,
        temporary_folder: str | Path | None = None,
        idle_seconds: float | None = None,
    ):
        self.python = find_python(python)
        self.inbox: queue.SimpleQueue[tuple[str, bytes | str]] = queue.SimpleQueue()
        self.log_tail: deque[str] = deque(maxlen=_LOG_LINES)
        self.started = time.monotonic()
        self.owner_pid = os.getpid()
        self.folder = _make_private_folder(temporary_folder)
        arguments = [
            self.python,
            "-m",
            "medlord.worker",
            "--folder",
            str(self.folder),
            "--client",
            str(os.getpid()),
        ]
        if idle_seconds is not None:
            arguments += ["--idle-seconds", str(idle_seconds)]
        base = os.environ if environment is None else environment
        try:
            self._process = (factory or start_process)(
                arguments, worker_environment(base, self.python), str(self.folder)
            )
        except (OSError, subprocess.SubprocessError) as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise EngineError(
                f"The engine's Python {self.python} could not be started ({error}); "
                "choose another in the settings."
            ) from error
        self._threads = [
            threading.Thread(target=_read_messages, args=(self._process.stdout, self.inbox), daemon=True),
            threading.Thread(
                target=_read_log, args=(self._process.stderr, self.inbox, self.log_tail), daemon=True
            ),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Process number of what was started: the worker, or the launcher before it."""
        return self._process.pid

    def has_ended(self) -> bool:
        """True when the process (or its launcher) ended."""
        return self._process.poll() is not None

    def send(self, fields: dict) -> None:
        """Write one request. A worker that is gone is not noticed here but by the "end" in `inbox`."""
        line = memoryview(encode(fields))
        try:
            while line:
                line = line[self._process.stdin.write(line) or 0 :]
        except (OSError, ValueError):
            # The pipe is broken: its reader ended, and "end" follows.
            self.log_tail.append("(the engine's input was closed before a request could be written)")

    def terminate(self) -> None:
        """Ask the whole tree to end."""
        terminate_tree(self._process)

    def kill(self) -> None:
        """Kill the whole tree."""
        kill_tree(self._process)

    def how_it_ended(self) -> str:
        """Wait for the end of a worker that closed its output, and say it in words."""
        return describe_exit(self._wait(2.0))

    def dispose(self, patience_s: float = 2.0) -> None:
        """End the worker: close its input, wait up to `patience_s`, kill what is left, remove its folder."""
        if os.getpid() != self.owner_pid:
            # A forked copy of the client's process: the worker belongs to the original.
            return
        _close(self._process.stdin)
        if self._wait(patience_s) is None:
            self.kill()
            self._wait(5.0)
        else:
            # The launcher may be gone while its child lives on.
            self.kill()
        for thread in self._threads:
            thread.join(2.0)
        if not any(thread.is_alive() for thread in self._threads):
            # Never under a thread that reads: the number of the descriptor would be given to another file.
            _close(self._process.stdout)
            _close(self._process.stderr)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self, timeout_s: float) -> int | None:
        try:
            return self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return None


def _read_messages(stream, inbox: queue.SimpleQueue) -> None:
    splitter = LineSplitter()
    for data in _chunks(stream):
        for line in splitter.feed(data):
            inbox.put(
                ("message", line) if line is not None else ("log", "(a line that is too long was left out)")
            )
    rest = splitter.rest().decode("utf-8", errors="replace").strip()
    if rest:
        inbox.put(("log", rest))
    inbox.put(("end", ""))


def _read_log(stream, inbox: queue.SimpleQueue, tail: deque[str]) -> None:
    splitter = LineSplitter()

    def take(line: bytes) -> None:
        text = line.decode("utf-8", errors="replace").rstrip()
        tail.append(text)
        inbox.put(("log", text))

    for data in _chunks(stream):
        for line in splitter.feed(data):
            take(line if line is not None else b"(a line that is too long was left out)")
    if splitter.rest().strip():
        take(splitter.rest())


def _chunks(stream):
    while True:
        try:
            data = os.read(stream.fileno(), 65536)
        except (OSError, ValueError):
            return
        if not data:
            return
        yield data


def _close(stream) -> None:
    try:
        stream.close()
    except OSError:
        # Unwritten bytes for a reader that is gone.
        return


def _make_private_folder(parent: str | Path | None) -> Path:
    """A new folder that only this user can enter (0700). Raises `EngineError` when it cannot be made."""
    parent = Path(parent if parent is not None else tempfile.gettempdir()).absolute()
    try:
        _remove_stale_folders(parent)
        return Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir=parent))
    except OSError as error:
        raise EngineError(
            f"The temporary folder {parent} cannot be used ({error.strerror}); "
            "point TMPDIR (TEMP on Windows) to a folder that can be written."
        ) from error


def _remove_stale_folders(parent: Path) -> None:
    """Remove private folders that a crash of both processes (a power cut) left: they hold segmentations.

    Only those whose process is gone and that nobody touched for a day: on a shared disk the process may run
    elsewhere.
    """
    for folder in parent.glob(f"{FOLDER_PREFIX}*-*"):
        number = folder.name[len(FOLDER_PREFIX) :].split("-")[0]
        try:
            old = time.time() - folder.stat().st_mtime > _STALE_AFTER_S
        except OSError:
            continue
        if old and number.isdigit() and not process_exists(int(number)):
            shutil.rmtree(folder, ignore_errors=True)


def make_job_folder(folder: Path) -> None:
    """Make the folder for the files of one job. Raises `EngineError` when that is not possible."""
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise EngineError(
            f"The temporary folder {folder.parent} cannot be written ({error.strerror}); "
            "close the engine and run again."
        ) from error


def remove_folder(folder: Path | None) -> None:
    """Remove a folder with all that is in it; none, or one that is gone, is no error."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
