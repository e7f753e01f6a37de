"""The section "Checks": a click, after every run, rows that lead somewhere, and what can go wrong."""

from __future__ import annotations

import pytest
import slicer
from panel_building import pictures, wait_until
from scene_building import add_chest
from support.fake_worker import fake_engine


@pytest.fixture
def made(open_panel, scene):
    """Opens a panel and makes one CT of a chest, by a fake engine of the behaviour."""
    engines = []

    def build(behaviour: str = "good", *, after_run: bool = False):
        engines.append(fake_engine(behaviour))
        opened = open_panel(engine=engines[-1])
        opened.choose(add_chest(scene))
        opened.ui.checkAfterRunCheckBox.checked = after_run
        opened.ui.runButton.click()
        opened.finish()
        return opened

    yield build
    for engine in engines:
        engine.close()


def finish_checks(opened) -> None:
    """Wait until no check runs or waits."""
    wait_until(lambda: not opened.panel.checks.busy)


def cells(table, row: int) -> list[str]:
    return [table.item(row, column).text() for column in range(table.columnCount)]


def test_a_check_by_click_its_rows_and_the_slices(made, scene, screenshots):
    opened = made()
    ui, view = opened.ui, scene.AddNode(slicer.vtkMRMLSliceNode())
    assert not ui.checkTable.visible and not ui.showChartButton.enabled
    assert ui.checkVolumeSelector.currentNode() is opened.last.run.volume_node
    ui.checkButton.click()
    assert not ui.checkButton.enabled and ui.cancelCheckButton.enabled
    finish_checks(opened)
    assert ui.checkButton.enabled and not ui.cancelCheckButton.enabled
    table = ui.checkTable
    assert cells(table, 0)[:2] == ["whole volume", "amber"]
    assert cells(table, 1)[:3] == ["lung", "red", "0.00"] and cells(table, 2)[:4] == [
        "body",
        "green",
        "0.99",
        "2.0",
    ]
    assert "Verdict: red" in ui.verdictLabel.text and "made up (N = 4)" in ui.verdictLabel.text
    view.SetOrientation("Axial")
    table.setCurrentCell(1, 0)
    position = opened.panel.checks.rows[1].position_ras_mm
    assert view.GetSliceToRAS().GetElement(2, 3) == pytest.approx(position[2])
    assert ui.checkStatusLabel.text == "lung is missing."
    pictures(opened, screenshots, "checks")
    ui.showChartButton.click()
    assert "no views" in ui.checkStatusLabel.text


def test_every_new_ct_is_checked_when_that_is_wanted(made, scene):
    opened = made(after_run=True)
    finish_checks(opened)
    assert opened.panel.parameters.checkAfterRun and opened.ui.checkTable.visible
    assert scene.GetFirstNodeByClass("vtkMRMLPlotChartNode") is not None
    scene.RemoveNode(opened.last.run.volume_node)
    assert not opened.ui.checkTable.visible and not opened.ui.checkButton.enabled


def test_choices_live_in_the_parameter_set(made):
    opened = made()
    ui, parameters = opened.ui, opened.panel.parameters
    ui.checkReferenceComboBox.currentIndex = ui.checkReferenceComboBox.findData("none")
    assert parameters.checkReference == "none"
    ui.checkReferenceComboBox.currentIndex = ui.checkReferenceComboBox.findData("file")
    assert ui.checkReferencePathLineEdit.visible and not ui.checkButton.enabled
    ui.checkReferencePathLineEdit.currentPath = "own.json"
    assert parameters.checkReference == "own.json" and ui.checkButton.enabled
    ui.checkSegmenterComboBox.currentIndex = ui.checkSegmenterComboBox.findData("labelmap")
    assert parameters.checkSegmenter == "labelmap" and parameters.checkReference == ""
    assert ui.checkFoundSelector.visible and not ui.checkButton.enabled
    ui.checkFoundSelector.setCurrentNode(ui.segmentationSelector.currentNode())
    assert ui.checkButton.enabled


def test_cancel_and_failure_leave_the_panel_usable(made, scene):
    opened = made()
    ui = opened.ui
    ui.checkButton.click()
    ui.cancelCheckButton.click()
    finish_checks(opened)
    assert "Cancelled" in ui.checkStatusLabel.text and ui.checkButton.enabled
    ui.checkSegmenterComboBox.currentIndex = ui.checkSegmenterComboBox.findData("labelmap")
    ui.checkFoundSelector.setCurrentNode(scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "nothing"))
    ui.checkButton.click()
    finish_checks(opened)
    assert "The check failed" in ui.checkStatusLabel.text and not ui.checkTable.visible
    assert not ui.downloadWeightsButton.visible
    ui.checkSegmenterComboBox.currentIndex = 0
    ui.checkReferenceComboBox.currentIndex = ui.checkReferenceComboBox.findData("none")
    ui.checkButton.click()
    finish_checks(opened)
    assert "no reference population" in ui.verdictLabel.text
    ui.checkButton.click()
    scene.RemoveNode(ui.checkVolumeSelector.currentNode())
    finish_checks(opened)
    assert "deleted" in ui.checkStatusLabel.text and not ui.checkTable.visible


def test_weights_are_downloaded_when_the_user_agreed(made):
    opened = made()
    ui = opened.ui
    ui.checkSegmenterComboBox.currentIndex = ui.checkSegmenterComboBox.findData("totalsegmentator")
    ui.checkButton.click()
    finish_checks(opened)
    assert "250 MB" in ui.checkStatusLabel.text and ui.downloadWeightsButton.visible
    ui.downloadWeightsButton.click()
    finish_checks(opened)
    assert "Segmenter totalsegmentator" in ui.verdictLabel.text and not ui.downloadWeightsButton.visible
