"""What kills or disturbs the engine process: every fault has a worker of its own."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.engine_clients import (
    box_conditions,
    changed_worker,
    is_running,
    leaving_s,
    one_thread_environment,
    wait_until,
)
from support.tiny_bundle import write_tiny_bundle

from medlord.client import EngineClient
from medlord.errors import CancelledError, EngineError
from medlord.exchange import write_conditions
from medlord.processes import start_process, worker_environment
from medlord.protocol import MAX_LINE_BYTES

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills processes the POSIX way")
LONG_RUN = {"sampler": "ddpm", "steps": 300}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model, in a folder whose name is not ASCII."""
    return write_tiny_bundle(tmp_path_factory.mktemp("modèles 顎口腔"))


class RawWorker:
    """A worker on bare pipes, to send what no client would send."""

    def __init__(self, folder: Path, *arguments: str, **streams):
        environment = worker_environment(one_thread_environment(), sys.executable)
        command = [sys.executable, "-m", "medlord.worker", "--folder", str(folder), *arguments]
        self.process = subprocess.Popen(
            command, env=environment, **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **streams}
        )

    def send(self, *requests: dict | bytes) -> None:
        for request in requests:
            line = request if isinstance(request, bytes) else json.dumps(request).encode()
            self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def receive(self, *, until: str) -> list[dict]:
        """Messages up to and with the first of the given type."""
        messages = []
        while not messages or messages[-1]["type"] != until:
            messages.append(json.loads(self.process.stdout.readline()))
        return messages


@pytest.fixture
def raw(tmp_path):
    """A raw worker with a private folder; killed at the end, whatever the test did."""
    folder = tmp_path / "medlord-worker-raw"
    folder.mkdir()
    worker = RawWorker(folder, stderr=subprocess.DEVNULL)
    yield worker
    worker.process.kill()
    worker.process.wait()


def test_garbage_cancel_and_end_of_input(raw, model, tmp_path):
    folder = tmp_path / "medlord-worker-raw"
    garbage = [
        b"no json", b"\xff\xfe\x00", b"[" * 100_000, b"[1, 2]", b'{"id": {}, "verb": "ping"}', b'{"id": 1}',
        b"x" * (MAX_LINE_BYTES + 10), b'{"id": 2, "verb": "fly"}', b'{"id": 3, "verb": "synthesize"}',
        b'{"id": 4, "verb": "ping", "arguments": {"a": 1}}', b'{"id": "\\ud800", "verb": "fly"}',
    ]  # fmt: skip
    raw.send(b"", *garbage)
    errors = [raw.receive(until="error")[-1] for _ in garbage]
    assert [error["id"] for error in errors] == [None] * 5 + [1, None, 2, 3, 4, "\ud800"]
    assert {error["code"] for error in errors} == {"protocol", "bad-input"}
    assert all("\n" not in error["message"] for error in errors)

    write_conditions(folder / "conditions.npz", box_conditions())
    files = {"conditions": str(folder / "conditions.npz"), "folder": str(folder)}
    run = {"id": "run", "verb": "synthesize", "arguments": {**files, "model": str(model), **LONG_RUN}}
    raw.send(run)
    while raw.receive(until="progress")[-1]["phase"] != "denoise":
        pass
    raw.send(run, {"id": "stop", "verb": "cancel", "arguments": {"job": "run"}})
    refused = raw.receive(until="error")[-1]
    assert refused["id"] == "run" and "in use" in refused["message"]
    raw.receive(until="result")
    rest = raw.receive(until="error")
    assert rest[-1]["code"] == "cancelled" and rest[-1]["id"] == "run"
    assert len(rest) - 1 <= 1, "more than one step after the cancel was taken"

    raw.send({**run, "id": "run 2"})
    while raw.receive(until="progress")[-1]["phase"] != "denoise":
        pass
    raw.process.stdin.close()
    assert raw.process.wait(timeout=leaving_s()) == 0
    assert not folder.exists()


def test_a_parent_that_dies_takes_the_worker_along_even_when_the_pipe_stays_open(tmp_path):
    """The write end of stdin is held by this test, so that only the death of the parent can tell."""
    folder = tmp_path / "medlord-worker-orphan"
    folder.mkdir()
    read_end, write_end = os.pipe()
    code = (
        "import os, subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-m', 'medlord.worker', '--folder', sys.argv[1], '--client',"
        " str(os.getpid())], stdin=int(sys.argv[2]), stderr=subprocess.DEVNULL)\n"
        "print(p.pid, file=sys.stderr, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(read_end)],
        env=worker_environment(one_thread_environment(), sys.executable),
        pass_fds=[read_end], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(read_end)
    worker = int(parent.stderr.readline())
    try:
        assert json.loads(parent.stdout.readline())["type"] == "ready"
        os.kill(parent.pid, signal.SIGKILL)
        wait_until(lambda: not is_running(worker), "the worker ends with its parent", timeout_s=leaving_s())
        assert not folder.exists()
    finally:
        os.close(write_end)
        parent.wait()
        parent.stdout.close()
        parent.stderr.close()


def test_a_killed_program_leaves_no_process_and_no_file(model, tmp_path):
    """What a crash of Slicer in mid-run is: the program with the client gets SIGKILL."""
    code = (
        "import sys\n"
        "from medlord.client import EngineClient\n"
        "from support.engine_clients import box_conditions\n"
        "client = EngineClient(temporary_folder=sys.argv[1])\n"
        "def tell(event):\n"
        "    if event.phase == 'denoise': print(client.pid, flush=True)\n"
        f"client.synthesize(box_conditions(), model=sys.argv[2], progress=tell, **{LONG_RUN!r})\n"
    )
    environment = worker_environment(one_thread_environment(), sys.executable)
    environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent.parent)
    program = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(model)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with program:
        worker = int(program.stdout.readline())
        assert is_running(worker)
        os.kill(program.pid, signal.SIGKILL)
        wait_until(lambda: not is_running(worker), "the worker ends with the program", timeout_s=leaving_s())
    wait_until(lambda: not list(tmp_path.iterdir()), "the private folder is gone", timeout_s=leaving_s())


def test_killed_worker_is_said_and_the_next_run_works(model, tmp_path):
    temporary = tmp_path / "Zwischenablage ü 顎"
    temporary.mkdir()
    environment = one_thread_environment()
    with EngineClient(environment=environment, temporary_folder=temporary) as client:
        killed = []

        def kill(event):
            if event.phase == "denoise" and not killed:
                killed.append(client.pid)
                os.kill(client.pid, signal.SIGKILL)

        with pytest.raises(EngineError, match="was ended by SIGKILL.*during the run") as caught:
            client.synthesize(box_conditions(), model=model, progress=kill, **LONG_RUN)
        assert "\n" not in str(caught.value) and isinstance(caught.value.details, str)
        assert client.pid is None and not list(temporary.iterdir())
        result = client.synthesize(box_conditions(), model=model, steps=2)
        assert result.volume.array.size and not result.reused_model
        assert client.pid not in killed
    assert not list(temporary.iterdir())


def test_idle_worker_frees_its_model_and_a_forgotten_client_leaves_nothing(model, tmp_path):
    log = []
    options = {"environment": one_thread_environment(), "temporary_folder": tmp_path, "idle_seconds": 0.3}
    client = EngineClient(log=log.append, **options)
    client.synthesize(box_conditions(), model=model, steps=1)

    while not any("freed 1 model" in line for line in log):  # ends at the latest with the test's own limit
        client.poll()
        time.sleep(0.02)
    assert client.call("describe")["loaded"] == []
    assert not client.synthesize(box_conditions(), model=model, steps=1).reused_model
    running = client.pid
    client.submit_synthesis(box_conditions(), model=model, **LONG_RUN)
    del client
    gc.collect()
    assert not is_running(running)
    assert not list(tmp_path.iterdir())


NOISE = """
os.write(1, b"raw noise on descriptor 1\\n")
print("noise of print")
print("{\\"type\\": \\"result\\", \\"id\\": \\"1\\", \\"value\\": 0}")
libc = ctypes.CDLL(None)
libc.puts(b"noise of a C library")
libc.fflush(None)
subprocess.run(["/bin/sh", "-c", "echo noise of a child; cat"], check=True)
if verb == "models":
    raise ValueError("first line" + chr(10) + "second line")
"""


def test_what_libraries_print_goes_to_the_log(tmp_path):
    log = []
    before = 'print("noise of a start-up file", flush=True)'
    client = EngineClient(
        process_factory=changed_worker(NOISE, before=before), log=log.append, temporary_folder=tmp_path
    )
    with client:
        assert client.call("describe")["pid"] == client.pid
        with pytest.raises(EngineError, match="ValueError: first line second line") as caught:
            client.call("models")
        assert "\n" not in str(caught.value)
        assert "Traceback" in caught.value.details and "noise of print" in caught.value.details
        assert caught.value.hint
        kinds = ("on descriptor 1", "of print", "of a C library", "of a child", "of a start-up file")

        def all_arrived() -> bool:
            client.poll()
            return all(any(f"noise {kind}" in line for line in log) for kind in kinds)

        wait_until(all_arrived, "all noise is in the log")
        assert client.call("ping")


def test_a_launcher_and_a_worker_that_does_not_listen_are_killed_together(tmp_path):
    """PythonSlicer is a launcher: its child works, and here ignores cancel and SIGTERM."""
    deaf = "while verb == 'models': time.sleep(0.1)"
    factory = changed_worker(deaf, before="signal.signal(signal.SIGTERM, signal.SIG_IGN)", launcher=True)
    client = EngineClient(process_factory=factory, temporary_folder=tmp_path, cancel_patience_s=0.2)
    with client:
        client.call("describe")
        worker = client.pid
        launcher = psutil.Process(worker).ppid()
        assert launcher != os.getpid()
        with pytest.raises(CancelledError, match="had to be ended"):
            client.call("models", cancel=lambda: True)
        assert not is_running(worker) and not is_running(launcher)
        assert client.pid is None
    assert not list(tmp_path.iterdir())


def test_an_engine_without_torch_says_so(tmp_path):
    broken = tmp_path / "site"
    broken.mkdir()
    (broken / "torch.py").write_text("raise ImportError('libcudnn.so.9: cannot open shared object file')")
    environment = {**os.environ, "PYTHONPATH": str(broken)}
    with (
        EngineClient(environment=environment) as client,
        pytest.raises(EngineError, match=r"cannot load torch \(libcudnn.*settings"),
    ):
        client.call("describe")


def other_program(code: str):
    """A process factory that starts a Python program that is no worker."""

    def factory(arguments, environment, folder):
        return start_process([sys.executable, "-S", "-c", code], environment, folder)

    return factory


@pytest.mark.parametrize(
    ("code", "options", "words"),
    [
        ("import time; time.sleep(600)", {"start_timeout_s": 0.3}, "did not start within 0.3 s"),
        (
            "import sys; print('no licence', file=sys.stderr); sys.exit(7)",
            {},
            "exit code 7 before it was ready",
        ),
        ("import os, time; os.close(1); time.sleep(600)", {}, "closed its output"),
        (
            'import time; print(\'{"type": "ready", "id": null, "protocol": 99}\', flush=True); time.sleep(600)',
            {},
            "speaks protocol 99",
        ),
    ],
)
def test_what_starts_but_is_no_worker(tmp_path, code, options, words):
    client = EngineClient(process_factory=other_program(code), temporary_folder=tmp_path, **options)
    started = time.monotonic()
    with pytest.raises(EngineError, match=words) as caught:
        client.call("describe")
    assert time.monotonic() - started < 60
    assert "no licence" in caught.value.details or "licence" not in code
    assert client.pid is None and not list(tmp_path.iterdir())


def test_a_python_that_does_not_exist_is_said(tmp_path):
    with pytest.raises(EngineError, match="does not exist"):
        EngineClient(str(tmp_path / "python")).start()
    (tmp_path / "program").write_text("not a program")
    (tmp_path / "program").chmod(0o755)
    with pytest.raises(EngineError, match="could not be started"):
        EngineClient(str(tmp_path / "program"), temporary_folder=tmp_path).start()
    assert [path.name for path in tmp_path.iterdir()] == ["program"]
