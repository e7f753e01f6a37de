"""Runs from the panel: one, several, cancelled, failed in every way; the scene changes meanwhile; preview and log."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from panel_building import pictures, process_events, wait_until
from scene_building import add_chest, scene_content
from support.fake_worker import STEPS, fake_engine

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="ends processes the POSIX way")


@pytest.fixture
def fake(open_panel, scene):
    """Opens a panel with a fake engine of some behaviour and a chosen chest; engines are closed at the end."""
    engines = []

    def build(behaviour: str, **options):
        engine = fake_engine(behaviour, **options)
        engines.append(engine)
        opened = open_panel(engine=engine)
        opened.choose(add_chest(scene))
        return opened

    yield build
    for engine in engines:
        engine.close()


def test_a_run_shows_what_it_does_and_its_result(scene, fake, screenshots, monkeypatch):
    from MedLoRDSlicerLib.panels import run_panel

    status_bar: list[str] = []
    monkeypatch.setattr(run_panel, "show_status", status_bar.append)
    view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    opened = fake("good", pause_s=0.3)
    ui = opened.ui
    ui.seedLineEdit.text = "7"
    opened.panel.generate.attribute_boxes["contrast_phase"].currentIndex = 2
    ui.resultNameLineEdit.text = "Thorax artériel 顎"
    shown = []
    ui.progressBar.connect("valueChanged(int)", lambda value: shown.append(ui.statusLabel.text))

    ui.runButton.click()
    assert ui.cancelButton.enabled and ui.runButton.enabled and ui.runButton.text == "Add to queue"
    wait_until(lambda: "Denoising: step" in ui.statusLabel.text and ui.previewLabel.visible)
    assert ui.progressBar.maximum == STEPS
    pictures(opened, screenshots, "running")
    opened.finish()

    entry = opened.last
    ct = entry.run.volume_node
    assert entry.state == "finished" and ct.GetName() == "Thorax artériel 顎" and ct.GetScene() is scene
    assert ct.GetAttribute("MedLoRD.seed") == "7" and "arterial" in ct.GetAttribute("MedLoRD.attributes")
    assert view.GetBackgroundVolumeID() == ct.GetID() and ui.resultSelector.currentNode() is ct
    assert not ui.cancelButton.enabled and ui.runButton.text == "Run"
    assert ui.progressBar.value == ui.progressBar.maximum == 1 and not ui.previewLabel.visible
    assert "'Thorax artériel 顎' is ready" in ui.statusLabel.text
    assert "A warning of the engine." in ui.statusLabel.text
    assert any("Denoising: step" in text for text in shown)
    assert any("Denoising: step" in text for text in status_bar) and "is ready" in status_bar[-1]
    assert "fake engine: run begins, ünïcödé 顎" in ui.logText.plainText
    assert ui.queueList.count == 1 and ui.queueList.item(0).text().endswith(": finished")
    pictures(opened, screenshots, "finished")


def test_the_log_can_be_copied_and_emptied(fake):
    opened = fake("good")
    opened.panel.runs.add_log("first line")
    opened.panel.runs.add_log("x" * 5000)
    opened.ui.copyLogButton.click()
    text = opened.ui.logText.plainText
    assert text.startswith("first line\n") and len(text) < 2100
    from MedLoRDSlicerLib.headless import in_slicer_application

    if not in_slicer_application():
        from PySide6 import QtWidgets

        assert QtWidgets.QApplication.clipboard().text() == text
    opened.ui.clearLogButton.click()
    assert opened.ui.logText.plainText == ""


def test_several_runs_queue_and_seeds_become_siblings(scene, fake, screenshots):
    opened = fake("good", pause_s=0.02)
    ui = opened.ui
    ui.samplesSpinBox.value, ui.seedLineEdit.text = 3, "10"
    ui.runButton.click()
    ui.samplesSpinBox.value, ui.seedLineEdit.text = 1, "99"
    ui.runButton.click()
    assert ui.queueList.count == 4 and ui.cancelAllButton.enabled
    wait_until(lambda: opened.panel.queue.entries[0].done)
    ui.queueCollapsibleButton.collapsed = False
    pictures(opened, screenshots, "queue")
    # Drawn on while they wait: what is made is what was there at the click.
    ui.segmentationSelector.currentNode().GetSegmentation().GetNthSegment(0).SetName("no structure")
    opened.finish()
    runs = [entry.run for entry in opened.panel.queue.entries]
    assert [entry.state for entry in opened.panel.queue.entries] == ["finished"] * 4
    assert [run.volume_node.GetAttribute("MedLoRD.seed") for run in runs] == ["10", "11", "12", "99"]
    assert len({run.nodes.folder_item for run in runs[:3]}) == 1 != runs[3].nodes.folder_item
    assert len({run.volume_node.GetName() for run in runs}) == 4
    assert all("body" in run.result.conditions.masks for run in runs)
    recipes = [run.result.recipe.conditions for run in runs]
    assert all(recipe == recipes[0] for recipe in recipes)


def test_cancel_takes_the_present_run_and_the_next_one_follows(scene, fake):
    opened = fake("good", pause_s=0.1)
    opened.ui.samplesSpinBox.value = 2
    opened.ui.runButton.click()
    first, second = opened.panel.queue.entries
    wait_until(lambda: first.event is not None)
    opened.ui.cancelButton.click()
    assert opened.ui.statusLabel.text == "Cancelling..."
    opened.finish()
    assert (first.state, second.state) == ("cancelled", "finished")


def test_cancel_all_leaves_the_scene_as_it_was(scene, fake, screenshots):
    opened = fake("good", pause_s=0.1)
    before = scene_content(scene)
    opened.ui.samplesSpinBox.value = 3
    opened.ui.runButton.click()
    wait_until(lambda: opened.panel.queue.entries[0].event is not None)
    opened.ui.cancelAllButton.click()
    opened.finish()
    assert [entry.state for entry in opened.panel.queue.entries] == ["cancelled"] * 3
    assert scene_content(scene) == before
    assert opened.ui.statusLabel.text == "Cancelled; nothing was added to the scene."
    assert opened.ui.progressBar.value == 0 and not opened.ui.cancelButton.enabled
    pictures(opened, screenshots, "cancelled")


@pytest.mark.parametrize(
    ("behaviour", "words", "logged"),
    [
        ("out-of-memory", "needs 40.0 GB, the device has 8.0 GB free", "allocating 40 GB"),
        pytest.param("crash", "engine process", "Segmentation fault in libfake.so", marks=POSIX),
        ("half-line", "engine process", "ünïcödé"),
        ("wrong-result", "its result cannot be used", "ünïcödé"),
        ("no-torch", "cannot load torch", "cannot load torch"),
    ],
)
def test_every_failure_ends_in_a_sentence_and_a_log(scene, fake, screenshots, behaviour, words, logged):
    opened = fake(behaviour)
    before = scene_content(scene)
    opened.ui.runButton.click()
    opened.finish()
    assert opened.last.state == "failed" and scene_content(scene) == before
    assert opened.ui.statusLabel.text.startswith("The run failed: ") and words in opened.ui.statusLabel.text
    assert "\n" not in opened.ui.statusLabel.text and logged in opened.ui.logText.plainText
    assert opened.ui.runButton.enabled and not opened.ui.cancelButton.enabled
    pictures(opened, screenshots, f"failed-{behaviour}")


@POSIX
def test_a_crash_takes_no_waiting_run_along(scene, fake, tmp_path):
    opened = fake("crash-once", temporary_folder=tmp_path)
    opened.ui.samplesSpinBox.value = 3
    opened.ui.runButton.click()
    opened.finish()
    assert [entry.state for entry in opened.panel.queue.entries] == ["failed", "finished", "finished"]


@POSIX
@pytest.mark.parametrize("behaviour", ["hang", "deaf"])
def test_a_worker_that_hangs_is_ended_by_cancel(scene, fake, behaviour):
    opened = fake(behaviour, cancel_patience_s=0.1)
    opened.ui.runButton.click()
    wait_until(lambda: opened.last.event is not None and opened.last.event.step == 1)
    pid = opened.panel.logic.engine.pid
    opened.ui.cancelButton.click()
    opened.finish()
    assert opened.last.state == "cancelled"
    import psutil

    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_garbage_between_the_messages_goes_to_the_log(scene, fake):
    opened = fake("garbage")
    opened.ui.runButton.click()
    opened.finish()
    assert opened.last.state == "finished"
    assert "Warning: a library printed" in opened.ui.logText.plainText


def test_folders_whose_names_are_not_ascii(scene, fake, tmp_path):
    folder = tmp_path / "Ünï 顎口腔"
    folder.mkdir()
    opened = fake("good", temporary_folder=folder)
    opened.ui.runButton.click()
    opened.finish()
    assert opened.last.state == "finished"


@pytest.mark.parametrize("close", [True, False], ids=["scene closed", "node deleted"])
def test_the_scene_may_change_during_a_run(scene, fake, open_panel, close, screenshots):
    opened = fake("good", pause_s=0.1)
    ui = opened.ui
    ui.samplesSpinBox.value = 2
    ui.runButton.click()
    wait_until(lambda: opened.panel.queue.entries[0].event is not None)
    if close:
        scene.Clear()
    else:
        scene.RemoveNode(ui.segmentationSelector.currentNode())
    assert ui.segmentationSelector.currentNode() is None
    opened.finish()
    assert [entry.state for entry in opened.panel.queue.entries] == ["dropped", "dropped"]
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert "dropped" in ui.statusLabel.text and not ui.runButton.enabled and not ui.cancelButton.enabled
    pictures(opened, screenshots, f"dropped-{'scene' if close else 'node'}")
    opened.choose(add_chest(scene))
    assert opened.panel.parameters.segmentation is not None


def test_a_result_waits_for_who_works_in_another_module(scene, fake):
    opened = fake("good")
    opened.ui.runButton.click()
    opened.panel.exit()
    view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    opened.finish()
    ct = opened.last.run.volume_node
    assert opened.last.state == "finished" and not view.GetBackgroundVolumeID()
    opened.panel.enter()
    assert view.GetBackgroundVolumeID() == ct.GetID() and opened.ui.resultSelector.currentNode() is ct
    view.SetBackgroundVolumeID(None)
    opened.panel.enter()
    assert not view.GetBackgroundVolumeID(), "shown once"


@pytest.mark.parametrize("where", ["masks", "start"])
def test_a_fault_of_the_program_ends_the_run_and_not_the_queue(fake, monkeypatch, where):
    def fault(*_arguments, **_options):
        raise ZeroDivisionError("a fault")

    opened = fake("good")
    opened.ui.samplesSpinBox.value = 2
    opened.ui.runButton.click()
    queue, entries = opened.panel.queue, opened.panel.queue.entries
    if where == "masks":
        monkeypatch.setattr(entries[0].preparation, "step", fault)
    else:
        monkeypatch.setattr(opened.panel.logic, "start", fault)
    for _time in range(1 if where == "masks" else 2):
        with pytest.raises(ZeroDivisionError):
            while True:
                queue.poll()
    assert [entry.state for entry in entries] == ["failed"] * 2 and not queue.busy
    assert "a fault" in opened.ui.statusLabel.text and opened.ui.runButton.text == "Run"


def test_the_result_is_made_of_what_the_masks_are(scene, fake):
    opened = fake("good")
    opened.ui.seedLineEdit.text = "42"
    opened.ui.runButton.click()
    opened.finish()
    run = opened.last.run
    body = run.result.conditions["body"]
    assert set(np.unique(run.result.volume.array[body])) == {42}
    assert set(np.unique(run.result.volume.array[~body])) == {-1000}


def test_cleanup_lets_go_of_everything(scene, fake):
    opened = fake("good", pause_s=0.2)
    segmentation = opened.ui.segmentationSelector.currentNode().GetSegmentation()
    opened.ui.runButton.click()
    process_events()
    opened.panel.cleanup()
    opened.ui.unusedLabel.text = "untouched"
    segmentation.GetNthSegment(0).SetName("something else")
    segmentation.InvokeEvent(segmentation.SourceRepresentationModified)
    scene.Clear()
    assert opened.ui.unusedLabel.text == "untouched" and not opened.panel.conditions.measuring
    assert scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode") == 0
