"""What the panel says and allows before anything runs: every state that keeps Run off, and the way out of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from panel_building import pictures, process_events, wait_until
from scene_building import add_chest, add_segmentation, box
from support.tiny_bundle import write_tiny_bundle


def test_an_empty_scene_says_what_to_do(open_panel, screenshots):
    opened = open_panel()
    ui = opened.ui
    assert not any(button.enabled for button in (ui.runButton, ui.cancelButton, ui.cancelAllButton))
    assert not any(button.enabled for button in (ui.editButton, ui.compareButton, ui.reloadRecipeButton))
    assert "Choose a segmentation" in ui.reasonLabel.text
    phases = opened.panel.generate.attribute_boxes["contrast_phase"]
    assert [phases.itemData(row) for row in range(phases.count)] == ["", "native", "arterial", "venous"]
    assert ui.licenceLabel.text.endswith("Apache-2.0") and not ui.acceptLicenceButton.visible
    assert ui.conditionsTable.rowCount == 4
    pictures(opened, screenshots, "empty")


def test_run_is_possible_as_soon_as_a_structure_is_there(scene, open_panel, screenshots):
    opened = open_panel()
    ui = opened.ui
    drawing = add_segmentation(scene, {})
    opened.choose(drawing)
    assert "no segments" in ui.reasonLabel.text and not ui.runButton.enabled
    segmentation = drawing.GetSegmentation()
    segmentation.AddEmptySegment("Segment_1", "my scribble")
    assert "rename a segment" in ui.reasonLabel.text and not ui.runButton.enabled
    assert ui.unusedLabel.text == "Not used: my scribble" and ui.unusedLabel.visible
    pictures(opened, screenshots, "no-match")
    segmentation.GetSegment("Segment_1").SetName("Lungs")
    assert ui.runButton.enabled and not ui.reasonLabel.visible and not ui.unusedLabel.visible
    segmentation.RemoveSegment("Segment_1")
    assert not ui.runButton.enabled


def test_an_unknown_model_is_said_and_run_stays_off(scene, open_panel, screenshots):
    opened = open_panel("no-such-model")
    opened.ui.segmentationSelector.setCurrentNode(add_chest(scene))
    assert not opened.ui.runButton.enabled and not opened.panel.generate.attribute_boxes
    assert "There is no model 'no-such-model'" in opened.ui.reasonLabel.text
    assert opened.ui.modelComboBox.currentData == "no-such-model"
    pictures(opened, screenshots, "unknown-model")
    row = opened.ui.modelComboBox.findData("thorax-phantom")
    opened.ui.modelComboBox.currentIndex = row
    assert opened.ui.runButton.enabled and opened.ui.conditionsTable.rowCount == 12


def test_a_model_without_structures_is_said(scene, open_panel, monkeypatch):
    opened = open_panel()
    ui, panel = opened.ui, opened.panel
    free = replace(panel.context.description, conditions=[])
    panel.parameters.model = "no-such-model"  # takes away the table's rows, with their boxes
    monkeypatch.setattr(panel.logic, "describe_model", lambda model: free)
    panel.parameters.model = "free"
    ui.segmentationSelector.setCurrentNode(add_chest(scene))
    assert "follows no structures" in ui.reasonLabel.text and not ui.runButton.enabled
    assert ui.conditionsTable.rowCount == 0


@pytest.mark.parametrize("text", ["", "-1", "1.5", "seed", "9223372036854775808", "٣x"])
def test_a_seed_that_is_none_is_said(scene, open_panel, text):
    opened = open_panel()
    opened.choose(add_chest(scene))
    opened.ui.seedLineEdit.text = text
    assert not opened.ui.runButton.enabled and "is no whole number from 0" in opened.ui.reasonLabel.text
    opened.ui.newSeedButton.click()
    assert opened.ui.runButton.enabled and opened.ui.seedLineEdit.text.isdecimal()


def test_a_seed_larger_than_a_spin_box_holds_stays_what_it_is(scene, open_panel):
    opened = open_panel()
    opened.choose(add_chest(scene))
    opened.ui.seedLineEdit.text = "9000000000000000000"
    assert opened.ui.runButton.enabled
    assert opened.panel.generate.seeds() == [9_000_000_000_000_000_000]
    opened.ui.samplesSpinBox.value = 3
    assert opened.panel.generate.seeds() == [9_000_000_000_000_000_000 + number for number in range(3)]


def test_more_steps_than_the_model_was_trained_with_are_refused(scene, open_panel):
    opened = open_panel()
    opened.choose(add_chest(scene))
    opened.ui.stepsSpinBox.value = 301
    assert not opened.ui.runButton.enabled and "1 to 300" in opened.ui.reasonLabel.text
    opened.ui.stepsSpinBox.value = 300
    assert opened.ui.runButton.enabled


def test_quality_sets_the_steps(open_panel):
    opened = open_panel()
    box, steps = opened.ui.presetComboBox, opened.ui.stepsSpinBox
    box.currentIndex = box.findData("ddpm")
    assert (steps.value, steps.enabled) == (300, False)
    box.currentIndex = box.findData("sde-dpm-solver++")
    assert (steps.value, steps.enabled) == (25, True)
    options = opened.panel.generate.options()
    assert (options["sampler"], options["steps"]) == ("sde-dpm-solver++", 25)


def test_what_is_shown_of_the_contrast_is_what_a_run_gets(open_panel):
    opened = open_panel()
    box = opened.panel.generate.attribute_boxes["contrast_phase"]
    chosen = []
    for row in (0, 3, 0):
        box.currentIndex = row
        chosen.append((box.currentData, opened.panel.generate.options()["attributes"]))
    assert chosen == [("", {}), ("venous", {"contrast_phase": "venous"}), ("", {})]
    assert opened.panel.parameters.attributes == ""
    opened.panel.parameters.attributes = '{"contrast_phase": "portal"}'
    assert (box.currentData, opened.panel.generate.options()["attributes"]) == ("", {}), "of another model"


def test_every_quality_that_is_offered_exists(open_panel):
    from medlord.sampling import SAMPLERS

    box = open_panel().ui.presetComboBox
    assert {box.itemData(row) for row in range(box.count)} == set(SAMPLERS)


def test_a_licence_that_asks_for_something_is_accepted_once(scene, open_panel, stored, tmp_path, screenshots):
    folder = write_tiny_bundle(tmp_path)
    metadata = folder / "configs" / "metadata.json"
    text = metadata.read_text(encoding="utf-8")
    metadata.write_text(text.replace('"Apache-2.0"', '"CC-BY-NC-4.0"'), encoding="utf-8")
    opened = open_panel(str(folder))
    opened.choose(add_chest(scene))
    ui = opened.ui
    assert not ui.runButton.enabled and "licence" in ui.reasonLabel.text
    assert ui.licenceLabel.text.endswith("CC-BY-NC-4.0") and ui.licenceLabel.visible
    pictures(opened, screenshots, "licence")
    ui.acceptLicenceButton.click()
    assert ui.runButton.enabled and not ui.acceptLicenceButton.visible and ui.licenceLabel.visible
    assert stored["MedLoRD/AcceptedLicences"] == "tiny: CC-BY-NC-4.0"
    ui.forgetLicencesButton.click()
    assert not ui.runButton.enabled


def test_new_canvas_gives_something_to_draw_on(scene, open_panel, screenshots):
    opened = open_panel()
    ui = opened.ui
    ui.referenceSelector.setCurrentNode(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT of another"))
    ui.newCanvasButton.click()
    drawing = ui.segmentationSelector.currentNode()
    names = [drawing.GetSegmentation().GetNthSegment(n).GetName() for n in range(4)]
    assert len(names) == 4 and drawing.GetScene() is scene
    assert opened.panel.parameters.segmentation is drawing
    assert ui.referenceSelector.currentNode() is None, "a blank volume is no CT to compare with"
    opened.settle()
    pictures(opened, screenshots, "canvas")
    ui.editButton.click()
    assert opened.modules == ["SegmentEditor"] and not ui.jobLabel.visible
    editor = scene.GetFirstNodeByClass("vtkMRMLSegmentEditorNode")
    assert editor.GetSegmentationNode() is drawing and editor.GetSourceVolumeNode() is not None


def test_the_sample_becomes_the_input(scene, open_panel, screenshots):
    opened = open_panel()
    ui = opened.ui
    ui.sampleButton.click()
    assert ui.jobLabel.text == "Making the sample..." and ui.stopJobButton.visible
    assert not ui.sampleButton.enabled and not ui.newCanvasButton.enabled
    pictures(opened, screenshots, "making-sample")
    asked_in = ui.parameterSetSelector.currentNode()
    ui.parameterSetSelector.addNode()
    wait_until(lambda: not opened.panel.inputs.busy)
    assert not ui.jobLabel.visible and ui.sampleButton.enabled
    assert ui.segmentationSelector.currentNode() is None, "another set of settings had asked for it"
    ui.parameterSetSelector.setCurrentNode(asked_in)
    assert ui.segmentationSelector.currentNode().GetName() == "Phantom CT segmentation"
    assert ui.referenceSelector.currentNode().GetName() == "Phantom CT"


def test_a_template_outlives_the_parameter_set_that_asked_for_it(scene, open_panel):
    opened = open_panel()
    opened.ui.templateButton.click()
    scene.RemoveNode(opened.ui.parameterSetSelector.currentNode())
    wait_until(lambda: not opened.panel.inputs.busy)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1 and opened.panel.parameters is None


def test_the_template_can_be_stopped(scene, open_panel):
    opened = open_panel()
    opened.ui.templateButton.click()
    assert opened.panel.inputs.busy
    opened.ui.stopJobButton.click()
    assert not opened.panel.inputs.busy and not opened.ui.jobLabel.visible
    assert opened.ui.segmentationSelector.currentNode() is None and opened.ui.templateButton.enabled


def test_edit_says_why_it_cannot(scene, open_panel):
    opened = open_panel("no-such-model")
    opened.ui.newCanvasButton.enabled = True
    assert not opened.ui.editButton.enabled
    opened.ui.segmentationSelector.setCurrentNode(add_segmentation(scene, {}))
    assert opened.ui.editButton.enabled


def test_devices_are_asked_for_and_kept_for_this_computer(scene, open_panel, stored, screenshots):
    from support.fake_worker import fake_engine

    engine = fake_engine("good")
    opened = open_panel(engine=engine)
    ui = opened.ui
    assert ui.memoryLabel.text == "not asked yet" and engine.pid is None
    ui.findDevicesButton.click()
    assert "asking" in ui.memoryLabel.text
    wait_until(lambda: ui.memoryLabel.text == "3.0 GB of 8.0 GB on cpu (processor)")
    assert not ui.runButton.enabled
    wait_until(lambda: ui.estimateLabel.text == "at most 2.0 GB; 3.0 GB are free")
    ui.controlStrengthSlider.value = 0.0
    wait_until(lambda: ui.estimateLabel.text == "at most 1.0 GB; 3.0 GB are free")
    ui.deviceComboBox.currentIndex = ui.deviceComboBox.findData("cpu")
    assert stored["MedLoRD/Device"] == "cpu" and opened.panel.generate.options()["device"] == "cpu"
    opened.choose(add_chest(scene))
    pictures(opened, screenshots, "ready")
    engine.close()
    assert open_panel().ui.deviceComboBox.currentData == "cpu"


def test_a_device_of_another_computer_is_still_shown(open_panel, stored):
    from support.fake_worker import fake_engine

    stored["MedLoRD/Device"] = "cuda:7"
    engine = fake_engine("good")
    opened = open_panel(engine=engine)
    assert opened.ui.deviceComboBox.currentData == "cuda:7" and not opened.ui.estimateLabel.visible
    opened.ui.findDevicesButton.click()
    wait_until(lambda: "The run needs 2.0 GB" in opened.ui.estimateLabel.text)
    engine.close()


def test_bad_input_that_shows_only_in_the_voxels_is_said(scene, open_panel, screenshots):
    opened = open_panel()
    opened.choose(add_segmentation(scene, {"lung": box((0, 0, 0), (0, 0, 0))}))
    opened.ui.runButton.enabled = True
    opened.ui.runButton.click()
    wait_until(lambda: not opened.panel.queue.busy)
    process_events()
    assert "0 voxels" in opened.ui.statusLabel.text + opened.ui.reasonLabel.text
    pictures(opened, screenshots, "refused")
