"""The resident engine process: `python -m medlord.worker`. Its protocol is described in `protocol`.

Threads: one reads requests from stdin, one computes (always the same one: cuDNN plans belong to a thread),
the main thread watches the parent. So a cancel, or the end of stdin, is seen in the middle of a computation.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import logging
import os
import queue
import shutil
import sys
import threading
import traceback
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .bundles.loaded_models import release_memory
from .devices import choose_device
from .errors import CancelledError, MedlordError
from .exchange import write_preview
from .processes import ParentWatch
from .progress import ProgressEvent
from .protocol import (
    FOLDER_PREFIX,
    LOG_TAIL_LINES,
    MAX_LINE_BYTES,
    PROTOCOL_VERSION,
    LineSplitter,
    ProtocolError,
    Request,
    decode_request,
    encode,
)
from .recipe import library_versions
from .worker_verbs import Engine, describe_error, require_torch

DEFAULT_IDLE_S = 300.0
_PARENT_POLL_S = 0.5
_GRACE_S = 0.5
# Not __name__: run as a program that is "__main__".
_LOG = logging.getLogger("medlord.worker")


@dataclass
class Job:
    """One request on its way: waiting, running or cancelled."""

    request: Request
    cancelled: threading.Event = field(default_factory=threading.Event)
    previews: int = 0


class LogTail(io.TextIOBase):
    """A text stream that passes everything on to stderr and remembers the last lines."""

    def __init__(self, target: io.TextIOBase):
        self._target = target
        self._lines: deque[str] = deque(maxlen=LOG_TAIL_LINES)
        self._partial = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._partial = (self._partial + text).split("\n")
            self._lines.extend(lines)
            self._partial = self._partial[-10_000:]
        self._target.write(text)
        self._target.flush()
        return len(text)

    def remember(self, text: str) -> None:
        """Add lines to the tail without writing them to stderr."""
        with self._lock:
            self._lines.extend(text.split("\n"))

    def flush(self) -> None:
        self._target.flush()

    def fileno(self) -> int:
        return self._target.fileno()

    @property
    def buffer(self):
        return self._target.buffer

    @property
    def encoding(self) -> str:
        return "utf-8"

    def tail(self) -> list[str]:
        """The last lines, oldest first, each at most 1000 characters."""
        with self._lock:
            lines = [*self._lines, self._partial] if self._partial else list(self._lines)
        return [line[:1000] for line in lines[-LOG_TAIL_LINES:]]


class Channel:
    """Writes messages, each as one whole line, from any thread."""

    def __init__(self, descriptor: int, on_broken):
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._on_broken = on_broken

    def send(self, kind: str, message_id: Any, **body: Any) -> None:
        """Send one message; when nobody reads any more, leave."""
        line = memoryview(encode({"type": kind, "id": message_id, **body}))
        try:
            with self._lock:
                while line:
                    line = line[os.write(self._descriptor, line) :]
        except OSError:
            self._on_broken()


class _ChannelHandler(logging.Handler):
    """Sends the engine's own log records as messages of the running request, and not to stderr."""

    def __init__(self, worker: Worker):
        super().__init__(logging.INFO)
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        job = self._worker.running
        text = self.format(record)[:4000]
        self._worker.log.remember(text)
        self._worker.channel.send(
            "log", job.request.id if job else None, level=record.levelname.lower(), text=text
        )


class Worker:
    """Reads requests, runs them one at a time, and leaves when the client does."""

    def __init__(self, read_descriptor: int, write_descriptor: int, log: LogTail, *, folder: Path | None,
                 client: int | None, idle_s: float):  # fmt: skip
        self.channel = Channel(write_descriptor, self.leave)
        self.running: Job | None = None
        self._read_descriptor = read_descriptor
        self.log = log
        self._folder = folder
        self._idle_s = idle_s
        self._engine = Engine()
        self._waiting: queue.Queue[Job | None] = queue.Queue()
        self._jobs: dict[str | int, Job] = {}
        self._lock = threading.Lock()
        self._computed = threading.Event()
        self._leaving = threading.Event()
        self._exit_code = 0
        self._parent = ParentWatch(client)

    def run(self) -> None:
        """Work until it is time to leave; ends the process and never returns."""
        for name, target in (("reader", self._read), ("compute", self._compute_or_leave)):
            threading.Thread(target=target, name=name, daemon=True).start()
        try:
            while not self._leaving.wait(_PARENT_POLL_S):
                if self._parent.gone():
                    self.leave()
        except KeyboardInterrupt:
            self.leave(130)
        with self._lock:
            for job in self._jobs.values():
                job.cancelled.set()
        self._waiting.put(None)
        self._computed.wait(_GRACE_S)
        if self._folder is not None and self._folder.name.startswith(FOLDER_PREFIX):
            os.chdir(self._folder.parent)
            shutil.rmtree(self._folder, ignore_errors=True)
        # No clean interpreter exit: a computation that goes on, or a hanging device, must not keep it.
        os._exit(self._exit_code)

    def leave(self, exit_code: int = 0) -> None:
        """End the process soon; may be called from any thread."""
        self._exit_code = max(self._exit_code, exit_code)
        self._leaving.set()

    def _read(self) -> None:
        splitter = LineSplitter()
        while True:
            try:
                data = os.read(self._read_descriptor, 65536)
            except OSError:
                data = b""
            if not data:
                self.leave()
                return
            for line in splitter.feed(data):
                self._accept(line)

    def _accept(self, line: bytes | None) -> None:
        """Queue or answer one line; whatever is wrong with it becomes an error message."""
        try:
            if line is None:
                raise ProtocolError(f"A line is longer than {MAX_LINE_BYTES} bytes; put data into files.")
            request = decode_request(line)
            with self._lock:
                if request.id in self._jobs:
                    raise ProtocolError(
                        f"The id {request.id!r} is in use; give each request its own.", request.id
                    )
                if request.verb not in ("ping", "cancel", "shutdown"):
                    job = self._jobs[request.id] = Job(request)
                    self._waiting.put(job)
                    return
            self._answer_now(request)
        except Exception as error:
            self.channel.send("error", getattr(error, "request_id", None), **self._failure(error))

    def _answer_now(self, request: Request) -> None:
        running = self.running
        if request.verb == "ping":
            value = {"pid": os.getpid(), "running": running.request.id if running else None}
        elif request.verb == "cancel":
            value = {"job": request.arguments["job"], "found": self._cancel(request.arguments["job"])}
        else:
            value = {"stopped": True}
        self.channel.send("result", request.id, value=value)
        if request.verb == "shutdown":
            self.leave()

    def _cancel(self, request_id: str | int) -> bool:
        """Ask the running request to stop, or answer for one that waits; False when there is none of this id."""
        with self._lock:
            job = self._jobs.get(request_id)
            if job is None:
                return False
            job.cancelled.set()
            if job is self.running:
                return True
            del self._jobs[request_id]
        error = CancelledError(f"Cancelled before '{job.request.verb}' began; nothing was written.")
        self.channel.send("error", request_id, **self._failure(error))
        return True

    def _compute_or_leave(self) -> None:
        """The compute thread: what breaks it ends the process, so that the client is never left waiting."""
        try:
            self._compute()
        except BaseException:
            traceback.print_exc(file=self.log)
            self.leave(1)
        self._computed.set()

    def _compute(self) -> None:
        try:
            require_torch()
        except MedlordError as error:
            self.channel.send("error", None, **self._failure(error), fatal=True)
            self.leave(1)
            return
        self.channel.send(
            "ready",
            None,
            protocol=PROTOCOL_VERSION,
            pid=os.getpid(),
            python=sys.executable,
            versions=library_versions(),
            device=str(choose_device("auto")),
        )
        while not self._leaving.is_set():
            try:
                job = self._waiting.get(timeout=self._idle_s if self._engine.holds_models else None)
            except queue.Empty:
                count = self._engine.unload()
                _LOG.info("freed %d model(s) after %g s without work", count, self._idle_s)
                continue
            if job is None:
                return
            with self._lock:
                if job.cancelled.is_set():
                    continue
                self.running = job
            self._run_job(job)
            self.running = None

    def _run_job(self, job: Job) -> None:
        """Run one request and send its one answer."""
        request, failure = job.request, None
        try:
            value = self._engine.run(
                request.verb,
                request.arguments,
                lambda event: self._progress(job, event),
                job.cancelled.is_set,
            )
        except BaseException as error:
            failure = self._failure(error)
        # Only here the error and the arrays that its frames hold are gone.
        if failure is not None:
            self._engine.unload() if failure["code"] == "not-enough-memory" else release_memory()
        with self._lock:
            del self._jobs[request.id]
        if failure is None:
            self.channel.send("result", request.id, value=value)
        else:
            self.channel.send("error", request.id, **failure)

    def _failure(self, error: BaseException) -> dict[str, Any]:
        """The fields of the error message; the log gets the traceback of what was not raised on purpose."""
        code, message, hint = describe_error(error)
        if not isinstance(error, MedlordError):
            traceback.print_exception(error, file=self.log)
        return {"code": code, "message": message, "hint": hint, "log": self.log.tail()}

    def _progress(self, job: Job, event: ProgressEvent) -> None:
        preview = None
        folder = job.request.arguments.get("folder")
        if event.preview is not None and folder is not None:
            job.previews += 1
            preview = Path(folder) / f"preview-{job.previews:04d}.npy"
            write_preview(preview, event.preview)
        eta = event.eta_s if event.eta_s is None or abs(event.eta_s) < float("inf") else None
        self.channel.send(
            "progress",
            job.request.id,
            phase=event.phase,
            step=int(event.step),
            total=int(event.total),
            elapsed_s=float(event.elapsed_s),
            eta_s=None if eta is None else float(eta),
            message=event.message,
            preview=str(preview) if preview else None,
        )


def _take_standard_streams() -> tuple[int, int, LogTail]:
    """Keep stdin and stdout for the protocol alone: (descriptor to read, descriptor to write, the log).

    Descriptor 1 becomes stderr, also for C libraries and child processes that print; descriptor 0 becomes
    empty, so that no child process eats requests.
    """
    sys.stdout.flush()
    read_descriptor, write_descriptor = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    log = LogTail(open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False))
    sys.stdout = sys.stderr = log
    return read_descriptor, write_descriptor, log


def main(arguments: list[str] | None = None) -> int:
    """Run the engine process until its client leaves."""
    parser = argparse.ArgumentParser(
        prog="medlord worker",
        description="Engine process for other programs: JSON lines on stdin and stdout, as medlord.protocol describes "
        "them; medlord.client.EngineClient speaks them.",
    )
    parser.add_argument(
        "--folder", type=Path, help="private folder of the client; removed when the client is gone"
    )
    parser.add_argument("--client", type=int, metavar="PID", help="leave when this process is gone")
    parser.add_argument(
        "--idle-seconds", type=float, default=DEFAULT_IDLE_S, help="free models after so long (300)"
    )
    options = parser.parse_args(arguments)
    read_descriptor, write_descriptor, log = _take_standard_streams()
    faulthandler.enable(2)
    logging.basicConfig(stream=log, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    worker = Worker(read_descriptor, write_descriptor, log, folder=options.folder, client=options.client,
                    idle_s=options.idle_seconds)  # fmt: skip
    engine_log = logging.getLogger("medlord")
    engine_log.setLevel(logging.INFO)
    engine_log.propagate = False
    engine_log.addHandler(_ChannelHandler(worker))
    worker.run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
