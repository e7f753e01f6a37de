"""Processes on POSIX and Windows: start a worker, stop a whole process tree, notice that a parent is gone.

Slicer's `PythonSlicer` (and a virtual environment's python.exe on Windows) is a launcher: its child holds the
pipes and the GPU. So a worker is started as the leader of a group of its own, and the group is stopped, never
the one process.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .errors import EngineError

WINDOWS = sys.platform == "win32"
_PACKAGE_ROOT = str(Path(__file__).resolve().parent.parent)
# Variables that tie a child to the Python (or the Slicer) it was started from.
_FOREIGN_PYTHON = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONEXECUTABLE",
    "PYTHONNOUSERSITE",
    "__PYVENV_LAUNCHER__",
    "VIRTUAL_ENV",
)
_LIBRARY_PATHS = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PATH", "QT_PLUGIN_PATH")
_NTSTATUS = {
    0xC0000005: "access violation",
    0xC0000017: "out of memory",
    0xC000001D: "illegal instruction",
    0xC00000FD: "stack overflow",
    0xC0000135: "a DLL is missing",
    0xC0000142: "a DLL could not be initialised",
    0xC0000409: "fatal program error",
}


def find_python(python: str | None) -> str:
    """Absolute path of the Python to run the engine with (default: the running one); links are not followed.

    Raises `EngineError` when there is no such program.
    """
    python = python or sys.executable
    if not python:
        raise EngineError(
            "This program does not know its own Python; name the engine's Python in the settings."
        )
    found = shutil.which(python)
    if found is None:
        raise EngineError(
            f"The engine's Python {python} does not exist or cannot be executed; "
            "choose another in the settings."
        )
    return os.path.abspath(found)


def worker_environment(base: Mapping[str, str], python: str) -> dict[str, str]:
    """Environment of a worker: UTF-8 everywhere, `medlord` importable, nothing of a foreign Python or Slicer.

    `base` is the caller's environment. When `python` is not the running interpreter, variables that belong to
    the running one are dropped, and what Slicer put into the library paths too (below its SLICER_HOME).
    """
    environment = dict(base)
    if not sys.executable or os.path.abspath(python) != os.path.abspath(sys.executable):
        for name in _FOREIGN_PYTHON:
            environment.pop(name, None)
        slicer_home = base.get("SLICER_HOME")
        for name in _LIBRARY_PATHS if slicer_home else ():
            home = os.path.normcase(os.path.normpath(slicer_home))
            parts = [p for p in base.get(name, "").split(os.pathsep) if p and not _is_below(p, home)]
            environment.pop(name, None)
            if parts:
                environment[name] = os.pathsep.join(parts)
    earlier = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = _PACKAGE_ROOT + (os.pathsep + earlier if earlier else "")
    environment.update(PYTHONUTF8="1", PYTHONIOENCODING="utf-8", PYTHONUNBUFFERED="1", PYTHONSAFEPATH="1")
    return environment


def _is_below(path: str, home: str) -> bool:
    path = os.path.normcase(os.path.normpath(path))
    return path == home or path.startswith(home + os.sep)


def start_process(arguments: list[str], environment: dict[str, str], folder: str) -> subprocess.Popen:
    """Start a program with three pipes in the working folder `folder`, as the leader of a process group.

    This is the default process factory of `EngineClient`; a replacement takes the same arguments and returns
    an object with the attributes of `subprocess.Popen`. Raises `OSError` when the program cannot be started.
    """
    if WINDOWS:
        separate = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    else:
        separate = {"start_new_session": True}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        arguments, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd=folder, **separate
    )


def terminate_tree(process: subprocess.Popen) -> None:
    """Ask a process and its children to end (SIGTERM); on Windows, where that is not possible, kill them."""
    if WINDOWS:
        kill_tree(process)
    else:
        _signal_group(process, signal.SIGTERM)


def kill_tree(process: subprocess.Popen) -> None:
    """Kill a process and all its children; those that are gone already are no error."""
    if WINDOWS:
        taskkill = os.path.join(os.environ.get("SystemRoot", r"C:\Windows"), "System32", "taskkill.exe")
        subprocess.run(
            [taskkill, "/T", "/F", "/PID", str(process.pid)],
            capture_output=True,
            creationflags=0x08000000,
            check=False,
        )
        process.kill()
    else:
        _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen, number: int) -> None:
    """Signal the group that `process` leads. A process of a factory that made no group is signalled alone."""
    if process.pid == os.getpgrp():
        raise EngineError("The worker's process group is that of this program; it was not signalled.")
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        if process.poll() is None:
            process.send_signal(number)
    except PermissionError:
        # macOS answers so for a group that holds zombies only.
        process.poll()


def describe_exit(code: int | None) -> str:
    """How a process ended, in words, from its return code as `subprocess` gives it."""
    if code is None:
        return "is still running but closed its output"
    number = -code if code < 0 else code - 128
    if not WINDOWS and (code < 0 or 128 < code < 160):
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        why = (
            " (often the system's out-of-memory guard, or someone who killed it)" if name == "SIGKILL" else ""
        )
        return f"was ended by {name}{why}"
    words = _NTSTATUS.get(code & 0xFFFFFFFF)
    return (
        f"ended with exit code {code & 0xFFFFFFFF:#x} ({words})" if words else f"ended with exit code {code}"
    )


def process_exists(pid: int) -> bool:
    """True while a process of this number exists (on POSIX also one that ended and was not waited for)."""
    if WINDOWS:
        handle = _open_process(pid)
        if not handle:
            return False
        running = _is_running(handle)
        ctypes.windll.kernel32.CloseHandle(handle)
        return running
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class ParentWatch:
    """Tells whether the process that this one works for is still there.

    `client` is the process number of the client, which is not always the parent: it may use a launcher. This is
    asked again and again instead of a death signal (PR_SET_PDEATHSIG of Linux): that one also comes when only
    the *thread* that started this process ends, and leaves no time to remove the files of a patient.
    """

    def __init__(self, client: int | None):
        self._parent = None if WINDOWS else os.getppid()
        self._client = client
        self._handle = _open_process(client) if WINDOWS and client else None

    def gone(self) -> bool:
        """True when the parent changed (POSIX) or the client's process ended."""
        if WINDOWS:
            return bool(self._handle) and not _is_running(self._handle)
        return os.getppid() != self._parent or (self._client is not None and not process_exists(self._client))


def _open_process(pid: int):
    kernel = ctypes.windll.kernel32
    kernel.OpenProcess.restype = ctypes.c_void_p
    return kernel.OpenProcess(0x00100000, False, pid)  # SYNCHRONIZE


def _is_running(handle) -> bool:
    wait_timeout = 0x102
    return ctypes.windll.kernel32.WaitForSingleObject(ctypes.c_void_p(handle), 0) == wait_timeout
