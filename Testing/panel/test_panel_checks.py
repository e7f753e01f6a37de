"""The section "Checks": a click, after every run, rows that lead somewhere, and what can go wrong."""

from __future__ import annotations

import pytest
import slicer
from panel_building import pictures, wait_until
from scene_building import add_chest
from support.fake_worker import fake_engine

from medlord.errors import MedlordError, WeightsError


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
    assert cells(table, 0)[:3] == ["lung", "red", "0.00"], "worst first"
    assert cells(table, 1)[:2] == ["whole volume", "amber"]
    assert cells(table, 2)[:4] == ["body", "green", "0.99", "2.0"]
    assert "Verdict: red" in ui.verdictLabel.text and "made up (N = 4)" in ui.verdictLabel.text
    assert "Compared with what was drawn: body, lung." in ui.verdictLabel.text
    view.SetOrientation("Axial")
    table.setCurrentCell(0, 0)
    position = opened.panel.checks.rows[0].position_ras_mm
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
    assert "--" not in ui.checkStatusLabel.text, "an option of the command line is no help here"
    ui.downloadWeightsButton.click()
    finish_checks(opened)
    assert "Segmenter totalsegmentator" in ui.verdictLabel.text and not ui.downloadWeightsButton.visible


def test_a_licence_key_is_asked_for_passed_on_and_kept_out_of_the_scene(
    made, open_panel, scene, stored, tmp_path, screenshots
):
    key = "aca_SECRETOFMINE12"
    opened = made()
    ui = opened.ui
    assert not ui.checkLicenceKeyLineEdit.visible and not ui.checkWeightsPathLineEdit.visible
    choice = ui.checkSegmenterComboBox.findData("totalsegmentator:heartchambers_highres")
    ui.checkSegmenterComboBox.currentIndex = choice
    assert ui.checkLicenceKeyLineEdit.visible and ui.checkWeightsPathLineEdit.visible
    ui.checkButton.click()
    finish_checks(opened)
    said = ui.checkStatusLabel.text
    assert "needs a licence key" in said and "backend.totalsegmentator.com" in said and "--" not in said
    assert not ui.downloadWeightsButton.visible, "a key cannot be downloaded"
    ui.checkLicenceKeyLineEdit.text = f" {key} "
    ui.checkButton.click()
    finish_checks(opened)
    assert "weights for this task are not on this computer" in ui.checkStatusLabel.text
    pictures(opened, screenshots, "checks-licence")
    ui.checkWeightsPathLineEdit.currentPath = str(tmp_path)
    ui.checkButton.click()
    finish_checks(opened)
    assert "Segmenter totalsegmentator:heartchambers_highres" in ui.verdictLabel.text
    # On this computer, for the next panel; in no scene and no log.
    assert key in stored.values() and str(tmp_path) in stored.values()
    again = open_panel().ui
    assert again.checkLicenceKeyLineEdit.text == key and again.checkWeightsPathLineEdit.currentPath == str(
        tmp_path
    )
    scene.SetSaveToXMLString(1)
    scene.Commit()
    saved = scene.GetSceneXMLString()
    assert "MedLoRD.check" in saved and key not in saved
    assert key not in opened.ui.logText.plainText
    # Another task gets no key.
    assert opened.panel.checks.fields.options("totalsegmentator") == {"weights": str(tmp_path)}
    assert opened.panel.checks.fields.options("hu-rules") == {}


def engine_sentences(tmp_path) -> dict[str, MedlordError]:
    """What the engine really says when TotalSegmentator cannot run."""
    from medlord.evaluation.total_segmentator import process

    def fail(dataset):
        raise OSError("Name or service not known")

    found = {}
    task, request = "heartchambers_highres", {"task": "heartchambers_highres", "license_key": None}
    with pytest.raises(WeightsError) as caught:
        process._guarded_download(fail, tmp_path, False, task)(297)
    found["missing"] = caught.value
    with pytest.raises(WeightsError) as caught:
        process._guarded_download(fail, tmp_path, True, task)(297)
    found["failed"] = caught.value
    with pytest.raises(WeightsError) as caught:
        process._prepare_home(tmp_path / "home", tmp_path / "none", tmp_path, request)
    found["no key"] = caught.value
    found["bad key"] = process._error(SystemExit(1), task)
    found["absent"] = process._error(ModuleNotFoundError(name="totalsegmentator"), task)
    found["damaged"] = process._error(ImportError("no module torchvision"), task)
    found["memory"] = process._error(MemoryError("out"), task)
    found["other"] = process._error(ValueError("broken"), task)
    return found


def test_the_engines_sentences_become_those_of_the_panel(qt_application, tmp_path):
    from MedLoRDSlicerLib.check_failures import failure_in_words

    expected = {
        "missing": "agree to their download",
        "failed": "could not be downloaded: Name or service not known. Check the network",
        "no key": "needs a licence key, free of charge",
        "bad key": "refused the licence key",
        "absent": "does not have TotalSegmentator",
        "damaged": "cannot start in the Python that runs the engine: no module torchvision. Install it again",
        "memory": "ran out of memory",
        "other": "The check failed: TotalSegmentator failed: ValueError: broken.",
    }
    sentences = engine_sentences(tmp_path)
    assert set(sentences) == set(expected)
    for name, error in sentences.items():
        failure = failure_in_words(error, "totalsegmentator:heartchambers_highres")
        assert expected[name] in failure.text, name
        assert "--" not in failure.text and "MEDLORD_" not in failure.text
        assert failure.can_download == (name in ("missing", "failed"))
