"""What can be done with a result: compare, window, swap, reload its recipe, make it again, spread over seeds."""

from __future__ import annotations

import numpy as np
import pytest
from panel_building import pictures, process_events, wait_until
from scene_building import add_chest
from support.fake_worker import fake_engine


@pytest.fixture
def finished(open_panel, scene):
    """Opens a panel and makes CTs of a chest with the given seeds, by the fake engine."""
    engine = fake_engine("good")

    def build(*seeds: int):
        opened = open_panel(engine=engine)
        opened.choose(add_chest(scene))
        for seed in seeds:
            opened.ui.seedLineEdit.text = str(seed)
            opened.ui.runButton.click()
        opened.finish()
        return opened

    yield build
    engine.close()


def test_a_synthetic_ct_that_came_as_a_file_is_a_result(open_panel, scene, tmp_path):
    import slicer
    from scene_building import AFFINE, SHAPE, chest_masks, synthetic

    from medlord.volume_files import save_volume
    from medlord.volumes import Grid

    volume, _conditions = synthetic(Grid(SHAPE, AFFINE), chest_masks(), 42)
    save_volume(volume, tmp_path / "ct.nii.gz", recipe=volume.recipe, synthetic=True)
    opened = open_panel()
    ui = opened.ui
    assert ui.resultSelector.nodeCount() == 0
    slicer.modules.volumes.logic().AddArchetypeVolume(str(tmp_path / "ct.nii.gz"), "from a file")
    wait_until(lambda: ui.resultSelector.nodeCount() == 1)
    ui.resultSelector.setCurrentNode(scene.GetFirstNodeByName("from a file"))
    assert ui.reloadRecipeButton.enabled and ui.repeatButton.enabled
    ui.reloadRecipeButton.click()
    assert ui.seedLineEdit.text == "42"
    assert ui.segmentationSelector.currentNode().GetName() == "from a file conditions"


def test_without_a_result_nothing_can_be_done(finished, scene):
    opened = finished()
    ui = opened.ui
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "a real CT")
    assert ui.resultSelector.nodeCount() == 0
    for button in (
        ui.compareButton,
        ui.swapButton,
        ui.reloadRecipeButton,
        ui.repeatButton,
        ui.deviationButton,
    ):
        assert not button.enabled


def test_compare_swap_window_and_back(finished, scene, screenshots):
    layout = scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(2)
    opened = finished(1)
    ui, compare = opened.ui, opened.panel.results.compare
    assert not ui.swapButton.enabled
    ui.compareButton.click()
    assert compare.active and ui.swapButton.enabled and ui.compareButton.checked
    ui.swapButton.click()
    assert compare.swapped
    ui.resultsCollapsibleButton.collapsed = True
    press_swap_key(opened)
    assert not compare.swapped, "the key works while the section is folded"
    ui.resultsCollapsibleButton.collapsed = False
    ui.windowComboBox.currentIndex = ui.windowComboBox.findData("lung")
    assert opened.last.run.volume_node.GetDisplayNode().GetWindow() == 1500
    pictures(opened, screenshots, "compare")
    opened.panel.exit()
    assert not compare.active and not ui.compareButton.checked and layout.GetViewArrangement() == 2
    press_swap_key(opened)
    assert not compare.swapped
    ui.compareButton.click()
    ui.compareButton.click()
    assert not compare.active


def press_swap_key(opened) -> None:
    """Press the key of Swap; where the window has no focus (Slicer's tests) its action is triggered."""
    from MedLoRDSlicerLib.headless import in_slicer_application

    if in_slicer_application():
        opened.panel.results.swap_action.trigger()
        return
    from PySide6 import QtCore, QtTest

    opened.widget.activateWindow()
    process_events()
    QtTest.QTest.keyClick(opened.widget, QtCore.Qt.Key.Key_X, QtCore.Qt.KeyboardModifier.AltModifier)
    process_events()


def test_a_deleted_result_ends_the_comparison_quietly(finished, scene):
    scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    opened = finished(1)
    opened.ui.compareButton.click()
    scene.RemoveNode(opened.last.run.volume_node)
    assert opened.panel.results.result is None and not opened.ui.reloadRecipeButton.enabled
    opened.ui.compareButton.click()
    assert not opened.panel.results.compare.active


def test_reload_recipe_sets_the_panel(finished, scene):
    opened = finished(77)
    ui, parameters = opened.ui, opened.panel.parameters
    drawing = ui.segmentationSelector.currentNode()
    ui.segmentationSelector.setCurrentNode(None)
    ui.seedLineEdit.text, ui.samplesSpinBox.value, ui.controlStrengthSlider.value = "1", 5, 0.2
    ui.reloadRecipeButton.click()
    assert ui.segmentationSelector.currentNode() is drawing
    assert (ui.seedLineEdit.text, ui.samplesSpinBox.value, ui.controlStrengthSlider.value) == ("77", 1, 1.0)
    assert "is set as for" in ui.resultStatusLabel.text
    middle = opened.last.run.result.conditions.grid.center_ras_mm
    np.testing.assert_allclose(opened.panel.context.place()["center_ras_mm"], middle, atol=1e-6)
    assert ui.centerLabel.visible
    ui.clearCenterButton.click()
    assert parameters.centerRas == "" and not ui.centerLabel.visible


def test_make_again_queues_the_recipe(finished, scene):
    opened = finished(3)
    opened.ui.repeatButton.click()
    assert len(opened.panel.queue.entries) == 2 and opened.last.title.endswith(", again")
    opened.ui.cancelButton.click()
    opened.finish()


def test_spread_over_seeds(finished, scene):
    opened = finished(10, 20)
    ui = opened.ui
    ui.deviationButton.click()
    assert "was added" in ui.resultStatusLabel.text
    names = [node.GetName() for node in volumes(scene)]
    assert any("standard deviation of 2 seeds" in name for name in names)


def test_one_seed_has_no_spread(finished, scene):
    opened = finished(10)
    opened.ui.deviationButton.click()
    assert "at least 2 seeds" in opened.ui.resultStatusLabel.text and opened.ui.resultStatusLabel.visible


def test_a_new_result_enters_an_open_comparison(finished, scene):
    scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    opened = finished(1)
    opened.ui.compareButton.click()
    opened.ui.seedLineEdit.text = "2"
    opened.ui.runButton.click()
    wait_until(lambda: not opened.panel.queue.busy)
    assert opened.panel.results.compare.active
    assert opened.ui.resultSelector.currentNode() is opened.last.run.volume_node


def volumes(scene) -> list:
    """All scalar volumes of a scene."""
    count = scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    return [scene.GetNthNodeByClass(number, "vtkMRMLScalarVolumeNode") for number in range(count)]
