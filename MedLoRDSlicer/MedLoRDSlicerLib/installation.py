"""What the engine needs and where it runs: Slicer's own Python, or one that the user chose.

Nothing is installed at import. In Slicer's own Python torch comes through the PyTorch extension and the rest through
pip (`compatibility.pip_ensure`), when a run first needs it and after the user agreed. A Python of the user's own is
only looked at, never changed.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import slicer

from medlord.errors import EngineError, MedlordError
from medlord.processes import find_python, worker_environment

from .compatibility import pip_ensure, requirement_class
from .headless import in_slicer_application, in_testing_mode
from .settings import machine_settings
from .translation import _

TORCH_REQUIREMENT = "torch>=2.6"
OLDEST_PYTHON = (3, 11)
# Slicer is built on these; another package must not replace them.
_KEEP_VERSIONS = ("numpy", "scipy", "SimpleITK", "vtk")
_CHECK_TIMEOUT_S = 120.0
_LOOK_SCRIPT = """
import importlib.metadata, json, sys
versions = {d.metadata["Name"].lower().replace("_", "-"): d.version
            for d in importlib.metadata.distributions() if d.metadata["Name"]}
device, problem = "", ""
try:
    import torch
    cuda = torch.cuda.is_available()
    device = "cuda:0 (" + torch.cuda.get_device_name(0) + ")" if cuda else "cpu"
except Exception as error:
    problem = " ".join(str(error).split())[:200]
print(json.dumps({"python": list(sys.version_info[:3]), "versions": versions, "device": device, "problem": problem}))
"""


@dataclass(frozen=True)
class PythonReport:
    """What was found in a Python: its version, packages (normalised names), the device torch would compute on.

    `missing` are the requirements it does not meet; `problem` is what torch said when it could not be loaded.
    """

    path: str
    version: tuple[int, ...]
    versions: Mapping[str, str]
    device: str
    problem: str
    missing: tuple[str, ...]

    def require_usable(self) -> None:
        """Raise `EngineError` with one sentence that says what to do unless the engine can run there."""
        if self.version[:2] < OLDEST_PYTHON:
            raise EngineError(
                _("{python} is Python {found}; the engine needs {needed} or newer. Choose another.").format(
                    python=self.path,
                    found=".".join(map(str, self.version)),
                    needed=".".join(map(str, OLDEST_PYTHON)),
                )
            )
        if self.missing:
            raise _missing_error(self.path, self.missing)
        if not self.device:
            raise EngineError(
                _("{python} has torch but cannot load it ({problem}); repair it or choose another.").format(
                    python=self.path, problem=self.problem
                )
            )

    def summary(self) -> str:
        """One line for the panel."""
        return _("Python {version}, torch {torch}, monai {monai}, computes on {device}.").format(
            version=".".join(map(str, self.version)),
            torch=self.versions.get("torch", "?"),
            monai=self.versions.get("monai", "?"),
            device=self.device,
        )


class PythonCheck:
    """`look_at_python` in a thread of its own, since loading torch takes seconds; ask `done` from a timer.

    `report` is what was found; `error` says why that Python cannot be the engine's, None when it can.
    """

    def __init__(self, python: str):
        self.python = python
        self.report: PythonReport | None = None
        self.error: MedlordError | None = None
        # Slicer may only be asked in its main thread, which is this one.
        environment = _environment_for_own_python()
        self._thread = threading.Thread(target=self._look, args=(environment,), daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """True when the look has ended."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Wait for the end."""
        self._thread.join()

    def _look(self, environment: Mapping[str, str]) -> None:
        try:
            self.report = look_at_python(self.python, environment)
            self.report.require_usable()
        except MedlordError as error:
            self.error = error


def requirements() -> list[str]:
    """What the engine needs beside Python, one requirement each: torch and the lines of Resources/requirements.txt."""
    path = Path(__file__).resolve().parent.parent / "Resources" / "requirements.txt"
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [TORCH_REQUIREMENT, *(line for line in lines if line)]


def engine_python() -> str | None:
    """The Python that the user chose for the engine, None for the running one."""
    return machine_settings().engine_python or None


def set_engine_python(python: str | None) -> None:
    """Choose the engine's Python (None: Slicer's own) after a look whether it has what the engine needs.

    Waits for that look; the panel uses `PythonCheck` and `accept_python`. A worker of the earlier choice is ended,
    with its runs. Raises `EngineError` that names what is missing; then the setting stays as it was.
    """
    if python:
        look_at_python(python, _environment_for_own_python()).require_usable()
    accept_python(python)


def accept_python(python: str | None) -> None:
    """Make a Python that was looked at the engine's (None: Slicer's own); a worker of the earlier choice is ended."""
    from .engine import shared_engine

    machine_settings().engine_python = python or ""
    shared_engine().close()


def engine_environment() -> Mapping[str, str]:
    """Environment that the worker's is made of: for a Python of its own the one that Slicer itself was started in."""
    return _environment_for_own_python() if engine_python() else os.environ


def _environment_for_own_python() -> Mapping[str, str]:
    return slicer.util.startupEnvironment() if in_slicer_application() else os.environ


def look_at_python(python: str, environment: Mapping[str, str]) -> PythonReport:
    """Start a Python and see what it has; takes as long as loading torch there, may run in any thread.

    Raises `EngineError` when it does not answer.
    """
    program = find_python(python)
    try:
        answer = subprocess.run(
            [program, "-c", _LOOK_SCRIPT],
            env=worker_environment(environment, program),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_CHECK_TIMEOUT_S,
            check=True,
        )
        # A start-up file may print before.
        found = json.loads(answer.stdout.strip().splitlines()[-1])
        versions = found["versions"]
        missing = tuple(missing_requirements(requirements(), versions))
        version = tuple(found["python"])
        return PythonReport(python, version, versions, found["device"], found["problem"], missing)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, IndexError, TypeError) as error:
        raise EngineError(
            _("{python} does not answer as a Python should ({reason}); choose another.").format(
                python=python, reason=" ".join(str(error).split())[:200]
            )
        ) from error


def missing_requirements(needed: Sequence[str], versions: Mapping[str, str] | None = None) -> list[str]:
    """Those of `needed` that are absent or too old or new, without importing them.

    `versions` maps normalised names to versions; default: what is installed in the running Python.
    """
    make = requirement_class()
    missing = []
    for text in needed:
        requirement = make(text)
        name = requirement.name
        found = _own_version(name) if versions is None else versions.get(_normalised(name))
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            missing.append(text)
    return missing


def require_installed() -> None:
    """Raise `EngineError` naming what is missing in the running Python."""
    if missing := missing_requirements(requirements()):
        raise _missing_error(None, missing)


def ensure_engine() -> None:
    """Make sure that the engine can run, installing into Slicer's own Python after the user agreed.

    A Python of the user's own was looked at when it was chosen; what changed there since is told by the worker.
    Raises `EngineError` with one sentence that says what to do when it was declined, failed or is not possible.
    """
    if engine_python():
        return
    if not in_slicer_application() or in_testing_mode():
        require_installed()
        return
    settings = machine_settings()
    if missing_requirements(requirements()):
        # The PyTorch extension may ask for a restart in between.
        settings.installation_pending = True
        if missing_requirements([TORCH_REQUIREMENT]):
            _install_torch()
        if missing := missing_requirements(requirements()):
            _install_with_pip(missing)
        require_installed()
    settings.installation_pending = False


def installation_was_interrupted() -> bool:
    """True when an installation began before a restart and something is still missing."""
    return machine_settings().installation_pending and bool(missing_requirements(requirements()))


def _install_torch() -> None:
    """Through the PyTorch extension, which finds the build for this computer's graphics card."""
    try:
        import PyTorchUtils
    except ModuleNotFoundError as error:
        raise EngineError(
            _(
                "The engine needs PyTorch: install the extension 'PyTorch' in the Extensions Manager, restart Slicer, "
                "run again."
            )
        ) from error
    version = TORCH_REQUIREMENT.removeprefix("torch")
    try:
        torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=True, torchVersionRequirement=version
        )
    except (subprocess.CalledProcessError, OSError, ImportError, TypeError, ValueError) as error:
        # TypeError is what the extension makes of a damaged torch.
        raise EngineError(
            _(
                "PyTorch could not be installed ({reason}); see the log. Check the network, or choose a Python that "
                "has it as the engine's Python."
            ).format(reason=" ".join(str(error).split())[:200])
        ) from error
    if torch is None:
        raise EngineError(
            _("PyTorch was not installed, so the engine cannot run; run again and agree to install it.")
        )


def _install_with_pip(missing: Sequence[str]) -> None:
    """Everything else, without touching the packages that Slicer is built on."""
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        kept = {name: _own_version(name) for name in _KEEP_VERSIONS}
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in kept.items() if version))
        try:
            pip_ensure(missing, constraints, "MedLoRDSlicer")
        except RuntimeError as error:
            raise EngineError(
                _(
                    "The engine's packages were not installed ({reason}); run again and agree to install them."
                ).format(reason=error)
            ) from error
        except subprocess.CalledProcessError as error:
            raise EngineError(
                _(
                    "The engine's packages could not be installed; see the log. Check the network, or choose a "
                    "Python that has them as the engine's Python."
                )
            ) from error


def _own_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _normalised(name: str) -> str:
    return name.lower().replace("_", "-")


def _missing_error(python: str | None, missing: Sequence[str]) -> EngineError:
    return EngineError(
        _(
            "The engine cannot run in {where}: {missing} missing or in a version that does not fit. "
            "Install with: {command}"
        ).format(
            where=python or _("this Python"),
            missing=", ".join(missing),
            command=f"{python or 'python'} -m pip install " + " ".join(f'"{text}"' for text in missing),
        )
    )
