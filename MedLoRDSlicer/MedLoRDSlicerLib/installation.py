"""What the engine needs and where it runs: Slicer's own Python, or one that the user chose.

Nothing is installed at import. In Slicer's own Python torch comes through the PyTorch extension and the rest through
`slicer.packaging` (Slicer 5.12) or `slicer.util.pip_install`, when a run first needs it and after the user agreed.
A Python of the user's own is only looked at, never changed.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import slicer

from medlord.errors import EngineError
from medlord.processes import find_python, worker_environment

from .headless import in_slicer_application
from .translation import _

TORCH_REQUIREMENT = "torch>=2.6"
PYTHON_SETTING = "MedLoRD/EnginePython"
# Slicer is built on these; another package must not replace them.
_KEEP_VERSIONS = ("numpy", "scipy", "SimpleITK", "vtk")
_VERSIONS_SCRIPT = (
    "import importlib.metadata, json, sys\n"
    "print(json.dumps({d.metadata['Name'].lower().replace('_', '-'): d.version"
    " for d in importlib.metadata.distributions() if d.metadata['Name']}))"
)


def requirements() -> list[str]:
    """What the engine needs beside Python, one requirement each: torch and the lines of Resources/requirements.txt."""
    path = Path(__file__).resolve().parent.parent / "Resources" / "requirements.txt"
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [TORCH_REQUIREMENT, *(line for line in lines if line)]


def engine_python() -> str | None:
    """The Python that the user chose for the engine, None for the running one."""
    if not in_slicer_application():
        return None
    import qt

    return str(qt.QSettings().value(PYTHON_SETTING, "") or "") or None


def set_engine_python(python: str | None) -> None:
    """Choose the engine's Python (None: Slicer's own) after a look whether it has what the engine needs.

    A worker of the earlier choice is ended, with its runs.
    Raises `EngineError` that names what is missing; then the setting stays as it was.
    """
    import qt

    from .engine import shared_engine

    if python:
        require_installed(python)
    qt.QSettings().setValue(PYTHON_SETTING, python or "")
    shared_engine().close()


def engine_environment() -> Mapping[str, str]:
    """Environment that the worker's is made of: for a Python of its own the one that Slicer itself was started in."""
    if in_slicer_application() and engine_python():
        return slicer.util.startupEnvironment()
    return os.environ


def missing_requirements(needed: Sequence[str], versions: Mapping[str, str] | None = None) -> list[str]:
    """Those of `needed` that are absent or too old or new, without importing them.

    `versions` maps normalised names to versions; default: what is installed in the running Python.
    """
    from packaging.requirements import Requirement

    missing = []
    for text in needed:
        requirement = Requirement(text)
        found = (
            _own_version(requirement.name)
            if versions is None
            else versions.get(_normalised(requirement.name))
        )
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            missing.append(text)
    return missing


def require_installed(python: str | None = None) -> None:
    """Raise `EngineError` naming what is missing in the running Python, or in the one at path `python`."""
    missing = missing_requirements(requirements(), _versions_of(python) if python else None)
    if missing:
        where = python or _("this Python")
        raise EngineError(
            _(
                "The engine cannot run in {where}: {missing} missing or in a version that does not fit. "
                "Install with: {command}"
            ).format(
                where=where,
                missing=", ".join(missing),
                command=f"{python or 'python'} -m pip install " + " ".join(f'"{text}"' for text in missing),
            )
        )


def ensure_engine() -> None:
    """Make sure that the engine can run, installing into Slicer's own Python after the user agreed.

    Raises `EngineError` with one sentence that says what to do when it was declined, failed or is not possible.
    """
    python = engine_python()
    if python or not in_slicer_application():
        require_installed(python)
        return
    if not missing_requirements(requirements()):
        return
    if missing_requirements([TORCH_REQUIREMENT]):
        _install_torch()
    if missing := missing_requirements(requirements()):
        _install_with_pip(missing)
    require_installed()


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
    if (
        PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=version)
        is None
    ):
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
            _pip_ensure(missing, constraints)
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


def _pip_ensure(missing: Sequence[str], constraints: Path) -> None:
    """Ask and install with what this Slicer has; raises RuntimeError when declined."""
    try:
        from slicer.packaging import pip_ensure
    except ModuleNotFoundError:
        question = _("MedLoRDSlicer needs these Python packages: {names}. Install them now?").format(
            names=", ".join(missing)
        )
        if not slicer.util.confirmOkCancelDisplay(question):
            raise RuntimeError(_("declined")) from None
        slicer.util.pip_install(["--constraint", str(constraints), *missing])
    else:
        pip_ensure(list(missing), constraints=str(constraints), requester="MedLoRDSlicer")


def _own_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions_of(python: str) -> dict[str, str]:
    """Versions of all distributions of another Python. Raises `EngineError` when it cannot be asked."""
    program = find_python(python)
    environment = worker_environment(engine_environment(), program)
    try:
        answer = subprocess.run(
            [program, "-c", _VERSIONS_SCRIPT],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise EngineError(
            _("{python} does not answer as a Python should ({reason}); choose another.").format(
                python=python, reason=error
            )
        ) from error


def _normalised(name: str) -> str:
    return name.lower().replace("_", "-")
