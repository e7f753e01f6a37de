"""What tests of the engine process share: small inputs, waiting, and worker processes with a changed inside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import psutil

from medlord.conditions import Conditions
from medlord.processes import start_process
from medlord.volumes import Grid

# The machine may be busy with other tests; what is waited for comes at once on an idle one.
PATIENCE_S = 60.0


def box_conditions() -> Conditions:
    """Body and lung as boxes, 320 x 320 x 240 mm, off the origin of world space."""
    grid = Grid.centered((40, 40, 30), (8.0, 8.0, 8.0), (10.0, 20.0, 30.0))
    body, lung = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    body[6:34, 8:32, 3:27] = True
    lung[10:18, 12:28, 8:20] = True
    return Conditions(grid, {"body": body, "lung": lung})


def one_thread_environment(**more: str) -> dict[str, str]:
    """This process's environment with one computing thread: the same sums in the same order in every process."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **more}


@contextmanager
def one_thread() -> Iterator[None]:
    """torch in this process with one computing thread, as in `one_thread_environment`."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Wait until `condition()` is true; fails with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


def leaving_s() -> float:
    """How long a worker may outlive its parent: 5 s where it has a core to itself, more where it must share."""
    return 5.0 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def is_running(pid: int) -> bool:
    """True while the process exists and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def changed_worker(code: str, *, before: str = "", launcher: bool = False):
    """A process factory whose worker runs `code` in the engine process before each verb (names: verb, cancel).

    `before` runs before the worker takes stdout for itself. With `launcher` a shell stands between, as
    PythonSlicer does: the process that was started is not the one that works.
    """
    script = f"""
import ctypes, os, signal, subprocess, sys, time
{before}
from medlord import worker, worker_verbs
original = worker_verbs.Engine.run
def run(self, verb, arguments, progress, cancel):
    exec({code!r})
    return original(self, verb, arguments, progress, cancel)
worker_verbs.Engine.run = run
worker.main(sys.argv[1:])
"""

    def factory(arguments: list[str], environment: Mapping[str, str], folder: str) -> subprocess.Popen:
        assert arguments[:3] == [sys.executable, "-m", "medlord.worker"]
        command = [sys.executable, "-c", script, *arguments[3:]]
        if launcher:
            # Two commands, so that the shell cannot become the worker itself.
            command = ["/bin/sh", "-c", '"$@"; exit $?', "launcher", *command]
        return start_process(command, dict(environment), folder)

    return factory
