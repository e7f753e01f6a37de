"""A user's whole journey in the panel, with the bundled model and a real worker: from nothing to the same volume.

New canvas, a body, a lung and a heart drawn with the Segment Editor's own logic, the heart mapped by hand, a run, the
Compare layout, the recipe reloaded, the scene saved, closed and loaded, and from what the panel then shows a run again.
"""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from drawing import SegmentEditor
from panel_building import pictures, process_events, wait_until
from scene_building import save_and_load

STEPS = 2
# Room for whichever model is bundled: the canvas is its grid, 300 mm wide and high at least.
BODY, LUNG, HEART = ((0, 0, 0), (140, 100, 140)), ((70, 0, 10), (45, 60, 90)), ((-25, 20, -10), (45, 40, 45))


def draw_on_a_new_canvas(scene, opened) -> None:
    """New canvas, Edit, three structures, and back to the panel; no condition of the model is called "heart"."""
    opened.ui.newCanvasButton.click()
    drawing = opened.panel.parameters.segmentation
    drawing.GetSegmentation().AddEmptySegment("heart", "heart")
    opened.ui.editButton.click()
    assert opened.modules == ["SegmentEditor"]
    opened.panel.exit()
    editor_node = scene.GetFirstNodeByClass("vtkMRMLSegmentEditorNode")
    application_logic = slicer.modules.segmentations.logic().GetMRMLApplicationLogic()
    editor = SegmentEditor(scene, application_logic, editor_node)
    for segment, place in (("body", BODY), ("lung", LUNG), ("heart", HEART)):
        editor.draw_ellipsoid(segment, *place)
    opened.panel.enter()
    opened.settle()


def map_the_heart(opened) -> None:
    """Give the myocardium the drawn heart, in the table; the canvas's own empty segment of that name makes room."""
    table = opened.panel.conditions.table
    assert opened.ui.unusedLabel.text == "Not used: heart"
    row = [row.condition for row in table.rows].index("heart_myocardium")
    choice = [segment.segment_id for segment in table.segments].index("heart")
    opened.ui.conditionsTable.cellWidget(row, 1).currentIndex = 2 + choice
    opened.settle()
    mapped = opened.panel.conditions.table.rows[row]
    assert mapped.how == "by hand" and opened.ui.conditionsTable.item(row, 2).text() == "by hand"
    assert mapped.volume_ml == pytest.approx(4 / 3 * np.pi * np.prod(HEART[1]) / 1000, rel=0.15)


def settings(ui) -> tuple:
    """What the panel shows of the settings that make a volume what it is."""
    return (
        ui.segmentationSelector.currentNode().GetName(),
        ui.seedLineEdit.text,
        ui.stepsSpinBox.value,
        ui.modelComboBox.currentData,
        ui.presetComboBox.currentData,
        ui.controlStrengthSlider.value,
    )


def compare_and_back(scene, opened) -> None:
    """The Compare layout, swapped, in another window, and the layout of before."""
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    before = layout.GetViewArrangement()
    ui, compare = opened.ui, opened.panel.results.compare
    ui.compareButton.click()
    assert compare.active and len(list(compare.slice_nodes())) == 4
    opened.panel.results.swap_action.trigger()
    assert compare.swapped
    ui.windowComboBox.currentIndex = ui.windowComboBox.findData("lung")
    process_events()
    ui.compareButton.click()
    assert not compare.active and layout.GetViewArrangement() == before


@pytest.mark.timeout(1800)
def test_from_a_new_canvas_to_the_same_volume_again(scene, open_panel, tmp_path, screenshots):
    from MedLoRDSlicerLib.arrays import volume_from_node

    if not hasattr(slicer, "vtkSlicerSegmentEditorLogic"):
        pytest.skip("this Slicer has no vtkSlicerSegmentEditorLogic (5.13 has)")
    layout = scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(layout.SlicerLayoutFourUpView)
    opened = open_panel("thorax-phantom")
    ui = opened.ui
    draw_on_a_new_canvas(scene, opened)
    map_the_heart(opened)

    ui.stepsSpinBox.value = 25
    pictures(opened, screenshots, "journey-drawn")
    ui.stepsSpinBox.value, ui.seedLineEdit.text = STEPS, "5"
    phases = opened.panel.generate.attribute_boxes["contrast_phase"]
    phases.currentIndex = phases.findData("arterial")
    shown = settings(ui)
    ui.runButton.click()
    wait_until(lambda: ui.previewLabel.visible or not opened.panel.queue.busy)
    pictures(opened, screenshots, "journey-running")
    opened.finish()
    assert opened.last.state == "finished", opened.last.error
    ct = opened.last.run.volume_node
    made, name = volume_from_node(ct), ct.GetName()
    pictures(opened, screenshots, "journey-finished")
    compare_and_back(scene, opened)

    # The settings are changed, and come back with the recipe.
    ui.seedLineEdit.text, ui.stepsSpinBox.value, ui.controlStrengthSlider.value = "99", 7, 0.5
    phases.currentIndex = phases.findData("native")
    ui.matchAgainButton.click()
    ui.resultSelector.setCurrentNode(ct)
    ui.reloadRecipeButton.click()
    by_hand = {"heart_myocardium": ("heart",)}
    assert settings(ui) == shown and opened.panel.context.place()["by_hand"] == by_hand

    save_and_load(scene, tmp_path / "journey.mrb")
    process_events()
    loaded = scene.GetFirstNodeByName(name)
    np.testing.assert_array_equal(volume_from_node(loaded).array, made.array)
    assert settings(ui) == shown and opened.panel.context.place()["by_hand"] == by_hand
    opened.settle()
    ui.runButton.click()
    opened.finish()
    again = opened.last.run.volume_node
    assert again is not loaded and again.GetName() != name
    np.testing.assert_array_equal(volume_from_node(again).array, made.array)
    assert volume_from_node(again).grid.matches(made.grid)
    assert again.GetAttribute("MedLoRD.attributes") == loaded.GetAttribute("MedLoRD.attributes")
