"""This computer's settings: another Python for the engine, a model folder, and the ways an installation can go."""

from __future__ import annotations

import sys
import time

import pytest
from panel_building import pictures, process_events, wait_until
from scene_building import add_chest
from support.tiny_bundle import write_tiny_bundle

from medlord.errors import EngineError


@pytest.fixture
def accepted(monkeypatch) -> list:
    """What was accepted as the engine's Python, instead of the program's own settings."""
    from MedLoRDSlicerLib.panels import settings_panel

    calls: list = []
    monkeypatch.setattr(settings_panel, "accept_python", calls.append)
    return calls


@pytest.fixture
def pythons(tmp_path):
    """Makes programs that answer as a Python with these packages would."""

    def make(answer: str, name: str = "python ü"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n", encoding="utf-8")
        program.chmod(0o755)
        return str(program)

    return make


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs a shell script")
WHOLE = (
    '{"python": [3, 12, 1], "device": "cuda:0 (NVIDIA H200)", "problem": "", "versions": {"torch": "2.9.0", '
    '"monai": "1.6.1", "einops": "1", "huggingface-hub": "1", "matplotlib": "4", "nibabel": "6", "platformdirs": "5", '
    '"psutil": "6", "pyyaml": "7", "safetensors": "1", "tqdm": "5"}}'
)


@POSIX
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (WHOLE.replace('"torch": "2.9.0", ', ""), "torch>=2.6 missing"),
        (WHOLE.replace("1.6.1", "1.4.0"), "monai>=1.5.2,<1.7 missing"),
        (WHOLE.replace("[3, 12, 1]", "[3, 10, 9]"), "is Python 3.10.9; the engine needs 3.11"),
        (
            WHOLE.replace('"cuda:0 (NVIDIA H200)", "problem": ""', '"", "problem": "libcudnn is broken"'),
            "libcudnn is broken",
        ),
        ("hello", "does not answer as a Python should"),
    ],
)
def test_a_python_that_cannot_be_the_engines_is_refused(
    open_panel, accepted, pythons, answer, words, screenshots
):
    opened = open_panel()
    ui = opened.ui
    ui.settingsCollapsibleButton.collapsed = False
    ui.pythonPathLineEdit.currentPath = pythons(answer)
    ui.checkPythonButton.click()
    assert "Looking at" in ui.pythonStatusLabel.text and not ui.checkPythonButton.enabled
    wait_until(lambda: not opened.panel.settings.busy)
    assert words in ui.pythonStatusLabel.text and accepted == [] and ui.checkPythonButton.enabled
    pictures(opened, screenshots, "python-refused")


@POSIX
def test_a_python_that_fits_is_taken(open_panel, accepted, pythons, stored, screenshots):
    opened = open_panel()
    ui = opened.ui
    ui.settingsCollapsibleButton.collapsed = False
    path = pythons("A start-up file speaks first.\n" + WHOLE)
    ui.pythonPathLineEdit.currentPath = path
    ui.checkPythonButton.click()
    wait_until(lambda: not opened.panel.settings.busy)
    assert accepted == [path]
    assert ui.pythonStatusLabel.text == (
        "In use: Python 3.12.1, torch 2.9.0, monai 1.6.1, computes on cuda:0 (NVIDIA H200)."
    )
    pictures(opened, screenshots, "python-taken")
    stored["MedLoRD/EnginePython"] = path
    opened.panel.refresh()
    ui.ownPythonButton.click()
    assert accepted == [path, None]


def test_no_path_is_said(open_panel, accepted):
    opened = open_panel()
    opened.ui.checkPythonButton.click()
    assert opened.ui.pythonStatusLabel.text == "Choose a Python program first." and accepted == []


def test_a_folder_of_models_is_offered(open_panel, stored, tmp_path):
    folder = write_tiny_bundle(tmp_path, model_id="räre")
    (tmp_path / "no model").mkdir()
    opened = open_panel()
    box = opened.ui.modelComboBox
    count = box.count
    opened.ui.modelFolderLineEdit.currentPath = str(tmp_path)
    assert stored["MedLoRD/ModelFolder"] == str(tmp_path) and box.findData(str(folder)) >= 0
    opened.ui.modelFolderLineEdit.currentPath = str(tmp_path / "nowhere")
    assert box.findData(str(folder)) < 0 and box.count <= count


def test_a_model_of_the_users_own_can_be_deleted(open_panel, tmp_path, monkeypatch, screenshots):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path))
    folder = write_tiny_bundle(tmp_path / "Models", model_id="mine")
    opened = open_panel("mine")
    ui, section = opened.ui, opened.panel.settings
    ui.settingsCollapsibleButton.collapsed = False
    assert str(folder) in ui.modelPlaceLabel.text and ui.deleteModelButton.enabled
    assert ui.conditionsTable.rowCount == 4
    asked = []
    section.confirm = lambda question: asked.append(question) or len(asked) > 1
    ui.deleteModelButton.click()
    assert folder.is_dir() and "'mine'" in asked[0]
    ui.deleteModelButton.click()
    assert not folder.exists() and "There is no model 'mine'" in ui.reasonLabel.text
    assert not ui.deleteModelButton.enabled and not ui.runButton.enabled
    ui.modelComboBox.currentIndex = ui.modelComboBox.findData("thorax-phantom")
    assert "thorax-phantom" in ui.modelPlaceLabel.text and not ui.deleteModelButton.enabled
    pictures(opened, screenshots, "settings")


@pytest.mark.parametrize(
    "sentence",
    [
        "PyTorch was not installed, so the engine cannot run; run again and agree to install it.",
        "The engine's packages could not be installed; see the log. Check the network.",
        "The engine needs PyTorch: install the extension 'PyTorch' in the Extensions Manager.",
    ],
    ids=["declined", "offline", "no extension"],
)
def test_an_installation_that_fails_ends_in_its_sentence(scene, open_panel, sentence, screenshots):
    from MedLoRDSlicerLib.engine import Engine

    def factory():
        raise EngineError(sentence)

    opened = open_panel(engine=Engine(factory))
    opened.choose(add_chest(scene))
    opened.ui.runButton.click()
    opened.finish()
    assert opened.last.state == "failed" and opened.ui.statusLabel.text == f"The run failed: {sentence}"
    assert opened.ui.runButton.enabled
    opened.ui.findDevicesButton.click()
    assert opened.ui.memoryLabel.text == sentence
    pictures(opened, screenshots, "not-installed")


def test_a_question_in_the_middle_is_asked_once(scene, open_panel):
    """The dialogs of an installation process events, and with them the panel's timer."""
    from MedLoRDSlicerLib.engine import Engine

    asked = []

    def factory():
        asked.append(True)
        # Pressed meanwhile: no second installation beside the first.
        opened.ui.findDevicesButton.click()
        assert "being installed or started" in opened.ui.memoryLabel.text
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            process_events()
        raise EngineError("declined")

    opened = open_panel(engine=Engine(factory))
    opened.choose(add_chest(scene))
    opened.ui.runButton.click()
    opened.finish()
    assert asked == [True] and opened.last.state == "failed"


def test_settings_are_text_whatever_the_store_gives_back(stored):
    from panel_building import DictionarySettings

    from MedLoRDSlicerLib.settings import MachineSettings

    settings = MachineSettings(DictionarySettings(stored))
    assert (settings.device, settings.engine_python, settings.accepted_licences) == ("auto", "", ())
    settings.accepted_licences = ["a: b", "a: b", "c: d"]
    assert settings.accepted_licences == ("a: b", "c: d")
    settings.installation_pending = True
    assert settings.installation_pending
    settings.installation_pending = False
    assert not settings.installation_pending
    stored["MedLoRD/Device"] = None
    assert settings.device == "auto"
