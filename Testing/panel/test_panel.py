"""The panel as a user meets it: every state, a whole run, cancel, what happens when the scene changes meanwhile."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scene_building import add_chest, add_segmentation, box, scene_content


def process_events() -> None:
    """Let Qt do what is due."""
    from MedLoRDSlicerLib.headless import in_slicer_application

    if in_slicer_application():
        import slicer

        slicer.app.processEvents()
    else:
        from PySide6.QtCore import QCoreApplication

        QCoreApplication.processEvents()


def wait_until(condition, seconds: float = 900.0) -> None:
    """Process events until something happens; fails when it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        process_events()
        time.sleep(0.005)


def choose(opened, node) -> None:
    opened.ui.segmentationSelector.setCurrentNode(node)
    process_events()


def picture(opened, path) -> np.ndarray:
    """The panel as PNG, and its pixels (rows, columns, 4)."""
    process_events()
    pixmap = opened.widget.grab()
    assert pixmap.save(str(path))
    image = pixmap.toImage()
    return np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), -1, 4)


def text_is_whole(opened) -> bool:
    """No label is cut: each is at least as high as its text, wrapped at its width, needs."""
    from PySide6 import QtWidgets

    labels = [label for label in opened.widget.findChildren(QtWidgets.QLabel) if label.isVisible()]
    return all(not label.wordWrap or label.height >= label.heightForWidth(label.width) for label in labels)


def test_an_empty_scene_says_what_to_do(open_panel, screenshots):
    opened = open_panel()
    assert not opened.ui.runButton.enabled and not opened.ui.cancelButton.enabled
    assert opened.ui.reasonLabel.text == "Choose a segmentation."
    phases = opened.ui.contrastPhaseComboBox
    assert [phases.itemData(row) for row in range(phases.count)] == ["native", "arterial", "venous"]
    assert picture(opened, screenshots / "empty.png").std() > 0


def test_run_is_possible_as_soon_as_a_structure_is_there(scene, open_panel):
    opened = open_panel()
    drawing = add_segmentation(scene, {})
    choose(opened, drawing)
    assert "no segments" in opened.ui.reasonLabel.text and not opened.ui.runButton.enabled
    segmentation = drawing.GetSegmentation()
    segmentation.AddEmptySegment("Segment_1", "my scribble")
    assert "rename a segment" in opened.ui.reasonLabel.text and not opened.ui.runButton.enabled
    assert opened.ui.structuresLabel.text == "Not used: my scribble"
    segmentation.GetSegment("Segment_1").SetName("Lungs")
    assert opened.ui.runButton.enabled and opened.ui.reasonLabel.text == ""
    assert opened.ui.structuresLabel.text == "Used: Lungs (lung)"
    segmentation.RemoveSegment("Segment_1")
    assert not opened.ui.runButton.enabled


def test_an_unknown_model_is_said_and_run_stays_off(scene, open_panel):
    opened = open_panel("no-such-model")
    choose(opened, add_chest(scene))
    assert not opened.ui.runButton.enabled and not opened.ui.contrastPhaseComboBox.enabled
    assert "There is no model 'no-such-model'" in opened.ui.reasonLabel.text


def test_a_whole_run(scene, open_panel, screenshots):
    from MedLoRDSlicerLib.results import recipe_of

    view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    opened = open_panel()
    ui = opened.ui
    choose(opened, add_chest(scene))
    picture(opened, screenshots / "ready.png")
    ui.seedSpinBox.value = 2**31 - 1
    ui.contrastPhaseComboBox.currentIndex = 1
    ui.resultNameLineEdit.text = "Thorax artériel"
    shown = []
    ui.progressBar.connect("valueChanged(int)", lambda value: shown.append((value, ui.statusLabel.text)))

    ui.runButton.click()
    assert not ui.runButton.enabled and ui.cancelButton.enabled
    wait_until(lambda: "Denoising: step" in ui.statusLabel.text or opened.panel.run.done)
    picture(opened, screenshots / "running.png")
    wait_until(lambda: opened.panel.run.done)

    ct = opened.panel.run.volume_node
    assert ct.GetName() == "Thorax artériel" and ct.GetScene() is scene
    recipe = recipe_of(ct)
    assert (recipe["seed"], recipe["attributes"]) == (2**31 - 1, {"contrast_phase": "arterial"})
    assert view.GetBackgroundVolumeID() == ct.GetID()
    assert ui.runButton.enabled and not ui.cancelButton.enabled
    assert ui.progressBar.value == ui.progressBar.maximum == 1
    assert (
        "'Thorax artériel' is ready" in ui.statusLabel.text
        and "left to the model: aorta" in ui.statusLabel.text
    )
    assert any("Denoising: step" in text for _, text in shown)
    picture(opened, screenshots / "finished.png")
    assert text_is_whole(opened)


def test_cancel(scene, open_panel, screenshots):
    opened = open_panel()
    drawing = add_chest(scene)
    choose(opened, drawing)
    # Slow enough to be caught: the reference sampler with all its steps.
    start = opened.panel.logic.start
    opened.panel.logic.start = lambda *given, **options: start(*given, sampler="ddpm", **options)
    before = scene_content(scene)
    opened.ui.runButton.click()
    wait_until(lambda: opened.panel.run.event is not None and opened.panel.run.event.phase == "denoise")
    opened.ui.cancelButton.click()
    wait_until(lambda: opened.panel.run.done)
    assert opened.panel.run.state == "cancelled" and scene_content(scene) == before
    assert opened.ui.statusLabel.text == "Cancelled; nothing was added to the scene."
    assert opened.ui.runButton.enabled and not opened.ui.cancelButton.enabled
    assert opened.ui.progressBar.value == 0
    picture(opened, screenshots / "cancelled.png")


def test_bad_input_is_said_and_nothing_runs(scene, open_panel, screenshots):
    opened = open_panel()
    choose(opened, add_segmentation(scene, {"lung": box((0, 0, 0), (0, 0, 0))}))
    before = scene_content(scene)
    opened.ui.runButton.click()
    assert opened.panel.run is None and scene_content(scene) == before
    assert "0 voxels" in opened.ui.statusLabel.text
    assert opened.ui.runButton.enabled and not opened.ui.cancelButton.enabled
    picture(opened, screenshots / "refused.png")


@pytest.mark.parametrize("close", [True, False], ids=["scene closed", "node deleted"])
def test_the_scene_may_change_during_a_run(scene, open_panel, close):
    opened = open_panel()
    drawing = add_chest(scene)
    choose(opened, drawing)
    opened.ui.runButton.click()
    if close:
        scene.Clear()
    else:
        scene.RemoveNode(drawing)
    assert opened.ui.segmentationSelector.currentNode() is None
    wait_until(lambda: opened.panel.run.done)
    assert opened.panel.run.state == "dropped" and "dropped" in opened.ui.statusLabel.text
    assert not opened.ui.runButton.enabled and not opened.ui.cancelButton.enabled
    choose(opened, add_chest(scene))
    assert opened.ui.runButton.enabled


def test_a_failed_run_says_why(scene, open_panel):
    from medlord.errors import EngineError

    opened = open_panel()
    choose(opened, add_chest(scene))
    opened.ui.runButton.click()
    opened.panel.logic.engine.close()
    wait_until(lambda: opened.ui.runButton.enabled)
    assert isinstance(opened.panel.run.error, EngineError)
    assert opened.ui.statusLabel.text.startswith("The run failed: ")


def test_cleanup_lets_go_of_the_scene(scene, open_panel):
    opened = open_panel()
    drawing = add_chest(scene)
    choose(opened, drawing)
    segmentation = drawing.GetSegmentation()
    assert segmentation.HasObserver(segmentation.SegmentAdded)
    opened.panel.cleanup()
    opened.ui.runButton.enabled = False
    segmentation.GetNthSegment(0).SetName("something else")
    assert not opened.ui.runButton.enabled
