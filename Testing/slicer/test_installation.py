"""What the engine needs and where it comes from, with each way an installation can go."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
import slicer

from medlord.errors import EngineError
from MedLoRDSlicerLib import installation, settings


class Settings:
    """`qt.QSettings`: one set of values for all instances."""

    values: dict[str, str] = {}

    def value(self, key, default=None):
        return self.values.get(key, default)

    def setValue(self, key, value):
        self.values[key] = value


@pytest.fixture
def application(monkeypatch):
    """As inside Slicer: settings, nothing of the engine installed but what the test adds to `installed`."""
    for module in (installation, settings):
        monkeypatch.setattr(module, "in_slicer_application", lambda: True)
    monkeypatch.setattr(Settings, "values", {})
    qt = ModuleType("qt")
    qt.QSettings = Settings
    monkeypatch.setitem(sys.modules, "qt", qt)
    monkeypatch.setattr(slicer.util, "startupEnvironment", lambda: {"PATH": "of the system"}, raising=False)
    for name in ("PyTorchUtils", "slicer.packaging"):
        monkeypatch.setitem(sys.modules, name, None)
    installed = {"numpy": "2.4.6", "vtk": "9.4.1"}
    monkeypatch.setattr(installation, "_own_version", installed.get)
    return SimpleNamespace(installed=installed, monkeypatch=monkeypatch)


def test_nothing_is_installed_while_slicer_is_tested(application, monkeypatch):
    """Slicer's own questions are answered with yes in that mode."""
    asked = give_torch(application)
    monkeypatch.setattr(installation, "in_testing_mode", lambda: True)
    with pytest.raises(EngineError, match="torch>=2.6"):
        installation.ensure_engine()
    assert asked == []


def everything() -> dict[str, str]:
    """Versions that satisfy all requirements."""
    from packaging.requirements import Requirement

    return {Requirement(text).name: "99" for text in installation.requirements()} | {"monai": "1.6.1"}


def give_torch(application, answer="torch") -> list[dict]:
    """Install a PyTorch extension whose `installTorch` installs, returns None (a refusal) or raises `answer`."""
    calls = []

    def install(**options):
        calls.append(options)
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            application.installed["torch"] = "2.9"
        return answer

    module = ModuleType("PyTorchUtils")
    module.PyTorchUtilsLogic = lambda: SimpleNamespace(installTorch=install)
    application.monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
    return calls


def give_packaging(application, behave) -> list[tuple]:
    """Install `slicer.packaging` (Slicer 5.12), whose pip_ensure does `behave`."""
    calls = []

    def ensure(requirements, constraints, requester):
        with open(constraints, encoding="utf-8") as file:
            calls.append((requirements, file.read(), requester))
        behave()

    module = ModuleType("slicer.packaging")
    module.pip_ensure = ensure
    application.monkeypatch.setitem(sys.modules, "slicer.packaging", module)
    application.monkeypatch.setattr(slicer, "packaging", module, raising=False)
    return calls


def raise_(error: Exception):
    def behave():
        raise error

    return behave


def test_the_requirements_are_torch_and_the_modules_file():
    texts = installation.requirements()
    assert texts[0].startswith("torch>=") and any(text.startswith("monai") for text in texts)
    assert not [text for text in texts if "#" in text or not text]


def test_versions_are_compared_without_an_import():
    needed = ["torch>=2.6", "monai>=1.5.2,<1.7", "PyYAML>=6", "huggingface_hub>=0.24"]
    versions = {"torch": "2.5.1+cu124", "monai": "1.6.1", "pyyaml": "6.0.2"}
    assert installation.missing_requirements(needed, versions) == ["torch>=2.6", "huggingface_hub>=0.24"]
    assert installation.missing_requirements(["no-such-package-anywhere>=1"]) == [
        "no-such-package-anywhere>=1"
    ]
    # Slicer ships builds such as this one.
    assert installation.missing_requirements(["torch>=2.6"], {"torch": "2.14.0.dev20260101+cpu"}) == []


def test_plain_python_is_checked_and_never_installed_into(monkeypatch):
    monkeypatch.setattr(installation, "_own_version", {}.get)
    with pytest.raises(EngineError, match=r"torch>=.* missing.*pip install"):
        installation.ensure_engine()
    monkeypatch.setattr(installation, "_own_version", everything().get)
    installation.ensure_engine()


def test_with_everything_there_nobody_is_asked(application):
    application.installed.update(everything())
    installation.ensure_engine()


def test_torch_and_the_rest_are_installed_after_consent(application):
    torch_calls = give_torch(application)
    pip_calls = give_packaging(application, lambda: application.installed.update(everything()))
    installation.ensure_engine()
    assert torch_calls == [{"askConfirmation": True, "torchVersionRequirement": ">=2.6"}]
    ((names, constraints, requester),) = pip_calls
    assert requester == "MedLoRDSlicer" and not [name for name in names if name.startswith("torch")]
    assert constraints == "numpy==2.4.6\nvtk==9.4.1\n"


def test_without_the_pytorch_extension_it_says_which_to_install(application):
    with pytest.raises(EngineError, match="install the extension 'PyTorch'"):
        installation.ensure_engine()


def test_declining_torch_ends_in_a_sentence(application):
    give_torch(application, answer=None)
    with pytest.raises(EngineError, match="PyTorch was not installed"):
        installation.ensure_engine()


@pytest.mark.parametrize(
    "error", [subprocess.CalledProcessError(1, ["pip"]), TypeError("a damaged torch"), ValueError("too old")]
)
def test_a_torch_that_cannot_be_installed_ends_in_a_sentence(application, error):
    give_torch(application, error)
    with pytest.raises(EngineError, match="PyTorch could not be installed .*Check the network") as failed:
        installation.ensure_engine()
    assert "\n" not in str(failed.value)


def test_an_installation_across_a_restart_is_remembered(application):
    give_torch(application, answer=None)
    assert not installation.installation_was_interrupted()
    with pytest.raises(EngineError):
        installation.ensure_engine()
    assert installation.installation_was_interrupted()
    application.installed.update(everything())
    assert not installation.installation_was_interrupted()
    installation.ensure_engine()
    assert Settings.values[settings.PENDING_INSTALLATION] == ""


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (raise_(RuntimeError("the user said no")), "were not installed .the user said no."),
        (raise_(subprocess.CalledProcessError(1, ["pip"])), "could not be installed; see the log"),
        (lambda: None, "cannot run in this Python"),  # as in Slicer's testing mode
    ],
)
def test_every_failure_of_pip_ends_in_a_sentence(application, behave, words):
    give_torch(application)
    give_packaging(application, behave)
    with pytest.raises(EngineError, match=words) as failed:
        installation.ensure_engine()
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("agree", [True, False])
def test_older_slicers_ask_by_themselves(application, agree):
    give_torch(application)
    installed = []

    def pip_install(arguments):
        installed.extend(arguments)
        application.installed.update(everything())

    application.monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text: agree and "monai" in text, raising=False
    )
    application.monkeypatch.setattr(slicer.util, "pip_install", pip_install, raising=False)
    if agree:
        installation.ensure_engine()
        assert installed[0] == "--constraint" and any(text.startswith("monai") for text in installed)
    else:
        with pytest.raises(EngineError, match="declined"):
            installation.ensure_engine()
        assert installed == []


def test_a_python_of_its_own_is_checked_before_it_is_accepted(application, tmp_path):
    assert installation.engine_python() is None
    with pytest.raises(EngineError, match="does not exist"):
        installation.set_engine_python(str(tmp_path / "nowhere" / "python"))
    assert installation.engine_python() is None

    installation.set_engine_python(sys.executable)
    assert installation.engine_python() == sys.executable
    assert installation.engine_environment() == {"PATH": "of the system"}
    installation.ensure_engine()
    installation.set_engine_python(None)
    assert installation.engine_python() is None and "PATH" in installation.engine_environment()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell script")
def test_a_program_that_is_no_python_is_refused(application, tmp_path):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    with pytest.raises(EngineError, match="does not answer as a Python should"):
        installation.set_engine_python(str(program))
    assert installation.engine_python() is None
