"""Use the engine from another process: Slicer, the command line, a test. Needs numpy only, never torch.

Blocking:

    with EngineClient() as client:
        result = client.synthesize(conditions, seed=1, progress=print)

With a timer (Qt):

    job = client.submit_synthesis(conditions, seed=1)
    for message in client.poll():            # every 50 ms or so, in the thread that owns the client
        if message.id == job and message.type == "result": use(message.value)

A client belongs to one thread. The worker starts with the first request and again after it died; it ends with
`close`, when the client is forgotten, or with this process, however that ends.
"""

from __future__ import annotations

import queue
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import exchange
from .client_messages import EngineResult, Job, error_message, error_of, plain_argument, with_value
from .client_process import ProcessFactory, WorkerProcess, make_job_folder, remove_folder
from .conditions import Conditions
from .errors import CancelledError, EngineError, InputError, MedlordError
from .progress import Cancel, Progress
from .protocol import (
    LOG_TAIL_LINES,
    PROTOCOL_VERSION,
    Message,
    ProtocolError,
    check_arguments,
    decode_message,
)
from .recipe import Recipe
from .volumes import Volume

_WAIT_S = 0.03
_KILL_AFTER_S = 2.0
_END_PATIENCE_S = 2.0


class EngineClient:
    """A handle on one engine process, started when it is needed.

    python              program to run the engine with; default: the running Python
    process_factory     called as (arguments, environment, working folder), returns a `Popen` or its like
    log                 called with each line of the worker's log, from `poll` and the blocking calls
    environment         what the worker's environment is made of; default: os.environ (in Slicer, give
                        `slicer.util.startupEnvironment()` when the engine has a Python of its own)
    temporary_folder    where the private folder is made; default: the system's
    start_timeout_s     how long loading torch may take
    cancel_patience_s   how long a cancelled run may go on before its process is ended, and killed 2 s later
    idle_seconds        the worker frees its models after so long without work; default 300
    """

    def __init__(
        self,
        python: str | None = None,
        process_factory: ProcessFactory | None = None,
        log: Callable[[str], None] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        temporary_folder: str | Path | None = None,
        start_timeout_s: float = 180.0,
        cancel_patience_s: float = 15.0,
        idle_seconds: float | None = None,
    ):
        self._python = python
        self._options = {
            "factory": process_factory,
            "environment": environment,
            "temporary_folder": temporary_folder,
            "idle_seconds": idle_seconds,
        }
        self.log = log
        self._start_timeout_s, self._cancel_patience_s = start_timeout_s, cancel_patience_s
        self._process: WorkerProcess | None = None
        self._finalizer: weakref.finalize | None = None
        self._jobs: dict[str, Job] = {}
        self._undelivered: list[Message] = []
        self._number = 0
        self._start_error: MedlordError | None = None
        self._ended_since: float | None = None
        self.ready: Message | None = None

    def __enter__(self) -> EngineClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process number of the worker (of its launcher, until it is ready), None while none runs."""
        if self._process is None:
            return None
        return self.ready.body.get("pid", self._process.pid) if self.ready else self._process.pid

    def start(self) -> None:
        """Start the worker unless it runs; returns at once, the `ready` message follows.

        Raises `EngineError` when the Python or the temporary folder cannot be used.
        """
        self._pump(0.0)
        while self._process is not None and self._process.has_ended():
            self._pump(_WAIT_S)
        if self._process is None:
            self.ready = self._start_error = self._ended_since = None
            self._process = WorkerProcess(self._python, **self._options)
            self._finalizer = weakref.finalize(self, self._process.dispose)

    def submit(self, verb: str, arguments: dict[str, Any] | None = None) -> str:
        """Send a request and return the id of its job; the answer comes through `poll`.

        Raises `InputError` for an unknown verb or a wrong argument, `EngineError` when no worker can start.
        """
        return self._submit(verb, arguments or {}, None).id

    def submit_synthesis(
        self, conditions: Conditions | None, *, reference: Volume | None = None, **options: Any
    ) -> str:
        """Send a synthesis and return the id of its job; its result message has an `EngineResult` as `value`.

        `options` are those of `medlord.synthesis.synthesize`: model, seed, sampler, steps, control_scale,
        attributes, device, precision, center_ras_mm, unconditional, memory_limit (bytes), preview_every.
        """
        files = {}
        if conditions is not None:
            files["conditions.npz"] = lambda path: exchange.write_conditions(path, conditions)
        if reference is not None:
            files["reference.npz"] = lambda path: exchange.write_volume(path, reference)
        return self.submit_files("synthesize", options, files)

    def submit_repeat(self, recipe: Recipe | dict, **options: Any) -> str:
        """Send a recipe to be run again and return the id of its job.

        `options` are those of `medlord.synthesis.repeat_recipe`: model, device, memory_limit (bytes), preview_every.
        """
        data = recipe if isinstance(recipe, dict) else recipe.to_dict()
        files = {"recipe.json": lambda path: exchange.write_json(path, data)}
        return self.submit_files("repeat_recipe", options, files)

    def submit_files(self, verb: str, options: dict[str, Any], files: dict[str, Callable]) -> str:
        """`submit` for a verb whose arrays travel as files: name of each file -> what writes it, given its path."""
        return self._submit(verb, options, files).id

    def poll(self) -> list[Message]:
        """What came since the last call, without waiting; also does what became due (cancel, time limits).

        Messages of a job that a blocking call waits for are not among them. Every job ends with exactly one
        message of type "result" or "error", whatever happens to the worker.
        """
        self._pump(0.0)
        messages, self._undelivered = self._undelivered, []
        return messages

    def cancel(self, job: str) -> None:
        """Ask a job to stop; when it does not within `cancel_patience_s`, `poll` ends its worker."""
        state = self._jobs.get(job)
        if state is None or state.cancel_stage:
            return
        state.cancel_stage, state.cancel_deadline = 1, time.monotonic() + self._cancel_patience_s
        self._process.send({"id": f"cancel-{job}", "verb": "cancel", "arguments": {"job": job}})

    def wait(
        self,
        job: str,
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        idle: Callable[[], None] | None = None,
    ) -> Any:
        """Wait for a job and return its value; `idle` is called about 30 times a second (for GUI events).

        Raises the job's `MedlordError`. An exception from a callback cancels the job and reaches the caller.
        """
        state = self._jobs.get(job) or Job(job)
        state.waited_for = True
        state.messages = [m for m in self._undelivered if m.id == job]
        if job not in self._jobs and not state.messages:
            raise InputError(f"There is no job {job!r}, or its end was taken from `poll` already.")
        self._undelivered = [m for m in self._undelivered if m.id != job]
        try:
            while True:
                self._pump(0.0 if state.messages else _WAIT_S)
                while state.messages:
                    message = state.messages.pop(0)
                    if message.type == "progress" and progress is not None:
                        progress(message.value)
                    elif message.type == "result":
                        return message.value
                    elif message.type == "error":
                        raise message.value
                if cancel is not None and cancel():
                    self.cancel(job)
                if idle is not None:
                    idle()
        finally:
            self.cancel(job)

    def synthesize(
        self,
        conditions: Conditions | None,
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        idle: Callable[[], None] | None = None,
        **options: Any,
    ) -> EngineResult:
        """`submit_synthesis` and `wait` in one; arguments as there."""
        return self.wait(
            self.submit_synthesis(conditions, **options), progress=progress, cancel=cancel, idle=idle
        )

    def repeat_recipe(
        self,
        recipe: Recipe | dict,
        *,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        idle: Callable[[], None] | None = None,
        **options: Any,
    ) -> EngineResult:
        """`submit_repeat` and `wait` in one: the same volume again."""
        return self.wait(self.submit_repeat(recipe, **options), progress=progress, cancel=cancel, idle=idle)

    def call(self, verb: str, arguments: dict[str, Any] | None = None, **callbacks: Any) -> dict[str, Any]:
        """Any verb, blocking: `client.call("describe")["devices"]`; answers are listed in `worker_verbs`."""
        return self.wait(self.submit(verb, arguments), **callbacks)

    def close(self) -> None:
        """End the worker and remove the private folder; running jobs fail. The client can be used on."""
        process, self._process, self.ready = self._process, None, None
        if process is not None:
            self._finalizer.detach()
            process.dispose()
            self._fail_jobs(EngineError("The engine was closed before the run ended; run again."))

    def _submit(self, verb: str, arguments: dict[str, Any], files: dict[str, Callable] | None) -> Job:
        self.start()
        self._number += 1
        job = Job(str(self._number), verb)
        arguments = {name: plain_argument(name, value) for name, value in arguments.items()}
        if files is not None:
            job.folder = self._process.folder / f"job-{self._number:05d}"
            arguments["folder"] = str(job.folder)
            arguments.update({name.split(".")[0]: str(job.folder / name) for name in files})
        check_arguments(verb, arguments)
        try:
            if files is not None:
                make_job_folder(job.folder)
                for name, write in files.items():
                    write(job.folder / name)
            self._jobs[job.id] = job
            self._process.send({"id": job.id, "verb": verb, "arguments": arguments})
        except BaseException:
            self._jobs.pop(job.id, None)
            remove_folder(job.folder)
            raise
        return job

    def _pump(self, timeout_s: float) -> None:
        """Take what the worker wrote (waiting for the first piece at most `timeout_s`) and do what is due."""
        process = self._process
        if process is None:
            return
        while self._process is process:
            try:
                kind, content = (
                    process.inbox.get(timeout=timeout_s) if timeout_s else process.inbox.get_nowait()
                )
            except queue.Empty:
                break
            timeout_s = 0.0
            if kind == "message":
                self._take_line(content)
            elif kind == "log":
                self._tell_log(content)
            else:
                self._worker_ended(process)
        if self._process is process:
            self._watch_deadlines(process)

    def _take_line(self, line: bytes) -> None:
        try:
            message = decode_message(line)
        except ProtocolError:
            # Printed before the worker took stdout for itself, for example by a start-up file of Python.
            self._tell_log(line.decode("utf-8", errors="replace"))
            return
        if message.type == "log":
            self._process.log_tail.append(message.body["text"])
            self._tell_log(message.body["text"])
        elif message.type == "ready":
            self._take_ready(message)
        elif message.type == "error" and message.id is None:
            if message.body.get("fatal"):
                self._start_error = error_of(message)
            self._tell_log(message.body["message"])
        elif message.id in self._jobs:
            self._take_answer(self._jobs[message.id], message)

    def _take_ready(self, message: Message) -> None:
        if message.body["protocol"] != PROTOCOL_VERSION:
            error = EngineError(
                f"The engine of {self._process.python} speaks protocol {message.body['protocol']}, this "
                f"program {PROTOCOL_VERSION}; install the same version of both."
            )
            self._abandon(error)
            return
        self.ready = message
        self._undelivered.append(message)

    def _take_answer(self, job: Job, message: Message) -> None:
        message = with_value(message, job)
        if message.type == "progress":
            self._deliver(job, message)
        else:
            self._finish(job, message)

    def _deliver(self, job: Job, message: Message) -> None:
        (job.messages if job.waited_for else self._undelivered).append(message)

    def _finish(self, job: Job, message: Message) -> None:
        self._jobs.pop(job.id, None)
        remove_folder(job.folder)
        self._deliver(job, message)

    def _tell_log(self, text: str) -> None:
        if self.log is not None:
            self.log(text)

    def _worker_ended(self, process: WorkerProcess) -> None:
        """The worker is gone though nobody closed it: its jobs fail and say why."""
        how = process.how_it_ended()
        error = self._start_error
        if error is None:
            where = "during the run" if self.ready else "before it was ready"
            error = EngineError(
                f"The engine process {how} {where}; nothing else was affected. "
                "Run again, a new one starts by itself."
            )
        self._abandon(error)

    def _watch_deadlines(self, process: WorkerProcess) -> None:
        now = time.monotonic()
        if self.ready is None and now - process.started > self._start_timeout_s:
            error = EngineError(
                f"The engine did not start within {self._start_timeout_s:g} s (Python {process.python}); "
                "see the log, or choose another Python in the settings."
            )
            self._abandon(error)
            return
        for job in list(self._jobs.values()):
            if job.cancel_deadline is not None and now > job.cancel_deadline:
                job.cancel_stage += 1
                job.cancel_deadline = now + _KILL_AFTER_S
                if job.cancel_stage == 2:
                    process.terminate()
                else:
                    process.kill()
        if process.has_ended():
            # The launcher is gone; when a child of it lives on, the output stays open and no "end" comes.
            self._ended_since = self._ended_since or now
            process.kill()
            if now - self._ended_since > _END_PATIENCE_S:
                self._worker_ended(process)

    def _abandon(self, error: MedlordError) -> None:
        """Give up the present worker; every job ends with `error`, or as cancelled when that was asked."""
        process, self._process, self.ready = self._process, None, None
        self._finalizer.detach()
        process.dispose(patience_s=0.0)
        if not getattr(error, "details", ""):
            error.details = "\n".join(list(process.log_tail)[-LOG_TAIL_LINES:])
        if self._jobs:
            self._tell_log(str(error))
        self._fail_jobs(error)

    def _fail_jobs(self, error: MedlordError) -> None:
        for job in list(self._jobs.values()):
            own = error
            if job.cancel_stage:
                own = CancelledError(
                    "Cancelled; the engine process had to be ended. A new one starts by itself."
                )
            self._finish(job, error_message(job.id, own))
