"""Settings are part of the scene: kept, saved, loaded, several sets; and the table of structures."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from panel_building import parameter_node, pictures, process_events
from scene_building import add_chest, add_segmentation, box


def fill(opened, drawing) -> None:
    """Set everything to something that is no default."""
    ui = opened.ui
    opened.choose(drawing)
    ui.seedLineEdit.text, ui.resultNameLineEdit.text = "123", "Mine"
    ui.samplesSpinBox.value, ui.stepsSpinBox.value = 4, 9
    ui.controlStrengthSlider.value = 0.5
    opened.panel.generate.attribute_boxes["contrast_phase"].currentIndex = 3
    box_of(opened, "lung").currentIndex = 3


def shown(opened) -> tuple:
    """What a user sees of the settings."""
    ui = opened.ui
    node = ui.segmentationSelector.currentNode()
    return (
        node.GetName() if node is not None else None,
        ui.seedLineEdit.text,
        ui.resultNameLineEdit.text,
        ui.samplesSpinBox.value,
        ui.stepsSpinBox.value,
        ui.controlStrengthSlider.value,
        opened.panel.generate.attribute_boxes["contrast_phase"].currentText,
        box_of(opened, "lung").currentText,
    )


FILLED = ("Drawing", "123", "Mine", 4, 9, 0.5, "Venous", "lungs")


def box_of(opened, condition: str):
    """The box of a row of the table of structures."""
    rows = [row.condition for row in opened.panel.conditions.table.rows]
    return opened.ui.conditionsTable.cellWidget(rows.index(condition), 1)


def cells(opened, column: int) -> list[str]:
    """The texts of a column of that table."""
    table = opened.ui.conditionsTable
    return [table.item(row, column).text() for row in range(table.rowCount)]


def test_settings_live_in_the_parameter_node(scene, open_panel, tiny_model):
    opened = open_panel()
    fill(opened, add_chest(scene))
    assert shown(opened) == FILLED
    other = open_panel()
    assert shown(other) == FILLED and other.panel.parameters.model == tiny_model
    opened.ui.seedLineEdit.text = "124"
    assert other.ui.seedLineEdit.text == "124", "both show the same parameter node"


def test_several_sets_of_settings(scene, open_panel, tiny_model):
    opened = open_panel()
    ui = opened.ui
    fill(opened, add_chest(scene))
    first = ui.parameterSetSelector.currentNode()
    ui.parameterSetSelector.addNode()
    second = ui.parameterSetSelector.currentNode()
    assert second is not first and second.GetAttribute("ModuleName") == "MedLoRDSlicer"
    opened.panel.parameters.model = tiny_model
    assert shown(opened) == (None, "0", "", 1, 25, 1.0, "Left to the model", "—")
    ui.seedLineEdit.text = "5"
    ui.parameterSetSelector.setCurrentNode(first)
    assert shown(opened) == FILLED
    ui.seedLineEdit.text = "6"
    ui.parameterSetSelector.setCurrentNode(second)
    assert ui.seedLineEdit.text == "5" and first.GetParameter("seed") == "6"


def test_without_a_parameter_set_nothing_can_be_set(scene, open_panel):
    opened = open_panel()
    ui = opened.ui
    sections = (ui.inputsCollapsibleButton, ui.conditionsCollapsibleButton, ui.generateCollapsibleButton)
    scene.RemoveNode(opened.panel.parameters.parameterNode)
    assert opened.panel.parameters is None and ui.reasonLabel.text == "Make a parameter set first."
    assert not any(widget.enabled for widget in (*sections, ui.runButton, ui.reloadRecipeButton))
    ui.parameterSetSelector.addNode()
    assert all(section.enabled for section in sections)


def test_a_scene_that_is_closed_from_another_module_gets_no_parameter_node(scene, open_panel):
    opened = open_panel()
    opened.panel.exit()
    scene.Clear()
    assert scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode") == 0
    opened.panel.enter()
    assert scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode") == 1
    assert opened.panel.parameters is not None


def test_a_labelmap_is_no_ct_to_compare_with(scene, open_panel):
    opened = open_panel()
    scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "map")
    assert opened.ui.referenceSelector.nodeCount() == 0
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scan")
    assert opened.ui.referenceSelector.nodeCount() == 1


def test_nodes_of_other_modules_are_no_parameter_sets(scene, open_panel):
    scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "of another module")
    opened = open_panel()
    assert opened.ui.parameterSetSelector.nodeCount() == 1


def test_a_saved_scene_brings_its_settings_back(scene, open_panel, tmp_path, tiny_model):
    opened = open_panel()
    fill(opened, add_chest(scene))
    path = tmp_path / "ünï scene.mrml"
    scene.SetURL(str(path))
    assert scene.Commit()
    scene.Clear()
    process_events()
    assert opened.panel.parameters is not None and opened.ui.segmentationSelector.currentNode() is None
    assert opened.ui.seedLineEdit.text == "0"
    scene.SetURL(str(path))
    scene.Import()
    process_events()
    # A .mrml file has no voxels, so the segmentation is empty; what was set is all there.
    assert opened.ui.segmentationSelector.currentNode().GetName() == "Drawing"
    assert shown(opened)[:-1] == FILLED[:-1]
    assert opened.ui.parameterSetSelector.nodeCount() == 1, "the untouched set of the empty scene is gone"
    assert opened.panel.parameters.model == tiny_model


def test_a_parameter_node_that_somebody_edited_is_survived(scene, open_panel, tiny_model):
    node = parameter_node(scene, tiny_model)
    node.SetParameter("attributes", "{broken")
    node.SetParameter("centerRas", '["a", 2, 3]')
    node.SetParameter("conditionsByHand", "[1]")
    opened = open_panel()
    opened.ui.segmentationSelector.setCurrentNode(add_chest(scene))
    assert "choose the segments in the table again" in opened.ui.reasonLabel.text
    assert not opened.ui.runButton.enabled and opened.ui.matchAgainButton.visible
    opened.ui.matchAgainButton.click()
    assert opened.ui.runButton.enabled


def test_values_out_of_range_never_enter_a_parameter_node(scene, open_panel):
    parameters = open_panel().panel.parameters
    for name, value in (("samples", 0), ("steps", 1001), ("controlStrength", 2.5)):
        with pytest.raises(ValueError):
            setattr(parameters, name, value)
    assert (parameters.samples, parameters.controlStrength) == (1, 1.0)


def test_the_table_says_how_and_how_much(scene, open_panel, screenshots):
    opened = open_panel()
    masks = {
        "body": box((1, 1, 0), (23, 19, 16)),
        "Lungs": box((4, 5, 3), (10, 14, 13)),
        "scribble": box((1, 1, 1), (2, 2, 2)),
    }
    opened.choose(add_segmentation(scene, masks))
    assert [row.condition for row in opened.panel.conditions.table.rows] == ["body", "lung", "bone", "aorta"]
    assert cells(opened, 2) == ["name", "alias", "", ""]
    assert cells(opened, 3) == ["10644.5", "907.2", "", ""]
    assert opened.ui.unusedLabel.text == "Not used: scribble"
    said = "Bones, Aorta: No segment makes it; it is left to the model."
    assert said in opened.ui.conditionsWarningLabel.text.splitlines()
    assert [bool(text) for text in cells(opened, 4)] == [False, True, True, True], "the lungs are thin"
    pictures(opened, screenshots, "structures")


def test_a_segment_can_be_chosen_by_hand_and_given_back(scene, open_panel):
    opened = open_panel()
    opened.choose(add_chest(scene))
    assert cells(opened, 2)[1] == "alias" and not opened.ui.matchAgainButton.visible
    bone = opened.ui.segmentationSelector.currentNode().GetSegmentation().GetSegmentIdBySegmentName("bone")
    box_of(opened, "aorta").currentIndex = 2 + 2
    opened.settle()
    assert opened.panel.context.place()["by_hand"] == {"aorta": (bone,)}
    assert cells(opened, 2)[3] == "by hand" and cells(opened, 3)[3] == "161.3"
    box_of(opened, "lung").currentIndex = 1
    assert opened.panel.context.place()["by_hand"]["lung"] == ()
    assert box_of(opened, "lung").currentText == "(leave empty)"
    box_of(opened, "lung").currentIndex = 0
    assert "lung" not in opened.panel.context.place()["by_hand"] and cells(opened, 2)[1] == "alias"
    opened.ui.matchAgainButton.click()
    assert opened.panel.parameters.conditionsByHand == "" and cells(opened, 2)[3] == ""


def test_what_may_go_wrong_is_said_below_the_table(scene, open_panel, screenshots):
    opened = open_panel()
    far = box((0, 0, 0), (24, 20, 16))
    thin = box((4, 5, 3), (5, 6, 13))
    drawing = add_segmentation(scene, {"body": far, "lung": thin, "bone": box((0, 0, 0), (0, 0, 0))})
    segmentation = drawing.GetSegmentation()
    box_id = segmentation.AddEmptySegment("aorta", "aorta")
    opened.choose(drawing)
    box_of(opened, "aorta").currentIndex = 1 + 4
    segmentation.RemoveSegment(box_id)
    opened.settle()
    text = opened.ui.conditionsWarningLabel.text
    assert "Bones: Nothing is drawn" in text and "Aorta: 1 chosen segments no longer exist" in text
    assert cells(opened, 4)[2] and opened.ui.conditionsWarningLabel.visible
    pictures(opened, screenshots, "warnings")


def test_a_frame_of_a_sequence_is_said(scene, open_panel, monkeypatch):
    import slicer

    if not hasattr(slicer.modules, "sequences"):
        logic = slicer.vtkSlicerSequencesLogic()
        logic.SetMRMLScene(scene)
        monkeypatch.setattr(slicer.modules, "sequences", SimpleNamespace(logic=lambda: logic), raising=False)
    drawing = add_chest(scene)
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode")
    sequence.SetDataNodeAtValue(drawing, "0")
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    browser.AddProxyNode(drawing, sequence, False)
    opened = open_panel()
    opened.choose(drawing)
    assert "a frame of a sequence" in opened.ui.conditionsWarningLabel.text and opened.ui.runButton.enabled


def test_drawing_measures_again(scene, open_panel):
    from scene_building import AFFINE, BINARY

    from MedLoRDSlicerLib.arrays import oriented_image

    opened = open_panel()
    drawing = add_chest(scene)
    opened.choose(drawing)
    before = cells(opened, 3)[2]
    segmentation = drawing.GetSegmentation()
    segment = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName("bone"))
    segment.AddRepresentation(BINARY, oriented_image(box((11, 14, 0), (15, 17, 16)), AFFINE))
    segmentation.InvokeEvent(segmentation.SourceRepresentationModified)
    assert opened.panel.conditions.measuring
    opened.settle()
    assert float(cells(opened, 3)[2]) == pytest.approx(2 * float(before), rel=0.01)
