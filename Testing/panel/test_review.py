"""The review mode by keyboard alone: a whole study, nothing on the screen or in the scene that tells a source."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
from panel_building import pictures
from review_reading import (
    close_reading,
    make_large_study,
    make_study,
    open_reading,
    start_layout,
    tells,
    texts_in_the_scene,
    texts_on_the_screen,
    write_originals,
)
from support.fake_worker import fake_engine

from medlord.errors import InputError
from medlord.review.answers import read_answers, status
from medlord.review.key import read_key

pytest.importorskip("PySide6", reason="in Slicer the keyboard of a test is not that of the window")

REPOSITORY = Path(__file__).resolve().parents[2]
PER_SOURCE = 3
LONGEST_S = 0.3
ANSWERS = ("s", "4", "3", "3", "2", "4", "2", "3")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Volumes of four sources."""
    return write_originals(tmp_path_factory.mktemp("hospital-archive"), PER_SOURCE)


@pytest.fixture(scope="module")
def study(originals, tmp_path_factory):
    """A study of two cases without going back; answers to it lie elsewhere."""
    out = tmp_path_factory.mktemp("studies") / "study"
    return make_study(originals, out, 1, ("real", "generator-alpha"), seed=1, going_back=False).study


@pytest.fixture
def reading(scene):
    """The review section in a window that names a source everywhere."""
    layout = start_layout(scene)
    opened = open_reading(scene, leak="generator-alpha/patient_100.nii.gz")
    yield opened
    close_reading(opened)
    layout.SetMRMLScene(None)


def test_a_whole_study_by_keyboard_alone(reading, scene, originals, tmp_path, screenshots):
    created = make_study(
        originals, tmp_path / "study", PER_SOURCE, seed=3, training=1, repeats=2, blocks=2, window="bone"
    )
    study = created.study
    own = scene.AddNewNodeByClass("vtkMRMLModelNode", "My heart")
    own.CreateDefaultDisplayNodes()
    nodes_before = {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}

    reading.review.start(study.folder, "Dr Ada")
    assert "Realism of chest CT" in reading.review.page_ui.messageLabel.text
    assert own.GetDisplayNode().GetVisibility() == 0
    shown, truths, breaks = [], [], 0
    for _step in range(60):
        reading.press("n")
        session = reading.session
        if session.state == "finished":
            break
        if session.state == "break":
            breaks += 1
            assert not np.any(reading.pictures()), "the next case is covered"
            reading.screenshot(screenshots, f"review-break-{breaks}")
            continue
        if session.state == "reading":
            shown.append(reading.review.page_ui.caseLabel.text)
            assert (reading.session.room.nodes()[0].GetDisplayNode().GetWindow()) == 1800
            assert all(picture.std() > 5 for picture in reading.pictures())
            if shown[-1] == "Case 5 of 14":
                reading.screenshot(screenshots, "review-open")
                pictures(reading, screenshots, "review-form")
            reading.press(*ANSWERS)
            if shown[-1] == "Case 5 of 14":
                use_everything(reading, screenshots)
            assert not tells(texts_in_the_scene(scene), originals)
            assert not tells(texts_on_the_screen(reading.window), originals)
            assert session.missing() == []
        elif session.state == "feedback":
            truths.append(reading.review.page_ui.messageLabel.text)
            if len(truths) == 1:
                reading.screenshot(screenshots, "review-feedback")

    reading.screenshot(screenshots, "review-finished")
    assert shown == [f"Training case {n} of 4" for n in range(1, 5)] + [
        f"Case {n} of 14" for n in range(1, 15)
    ]
    assert breaks == 2, "one after the training, one between the blocks"
    assert sum("is real; you said synthetic" in text for text in truths) == 1
    reading.review.page_ui.leaveButton.click()

    the_scene_is_as_before(scene, own, nodes_before)
    all_answers_are_there(study, originals)


def the_scene_is_as_before(scene, own, nodes_before: set) -> None:
    """The user's layout and model are back, and nothing of the reading is left."""
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView
    assert own.GetDisplayNode().GetVisibility() == 1
    left = {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())} - nodes_before
    kinds = {scene.GetNodeByID(identifier).GetClassName() for identifier in left}
    # Views, and what Slicer's slice logic makes for each of them; no volume, mask, mark or colour.
    of_views = {"vtkMRMLSliceNode", "vtkMRMLSliceCompositeNode", "vtkMRMLSliceDisplayNode"}
    assert kinds <= of_views | {"vtkMRMLModelNode", "vtkMRMLLinearTransformNode"}


def all_answers_are_there(study, originals: Path) -> None:
    """Eighteen readings, what was typed, both marks, and no source in any file."""
    (entry,) = status(study)
    assert (entry.confirmed, entry.readings) == (18, 18)
    answers = read_answers(study)
    assert len({answer.position for answer in answers}) == 14
    assert {a.value for a in answers if a.question == "real_or_synthetic"} == {"synthetic"}
    (comment,) = {a.value for a in answers if a.question == "comment"}
    assert comment == "vessel n breaks off"
    (marks,) = [a.value for a in answers if a.question == "artefacts"]
    assert [mark["kind"] for mark in marks] == ["discontinuity", "blur"]
    assert len(marks[0]["position_ras_mm"]) == 3 and marks[1]["position_ras_mm"] is None
    for path in study.folder.rglob("*"):
        assert not path.is_file() or not tells(path.read_bytes().decode("latin-1"), originals)


def use_everything(reading, screenshots) -> None:
    """Windows, views, slices, artefacts, comment, pause, back and forth: all by keys but the click into the image."""
    room, page = reading.session.room, reading.review.page_ui
    reading.press("w")
    assert (
        room.nodes()[0].GetDisplayNode().GetWindow() == 800
        and page.readingWindowComboBox.currentData == "ccta"
    )
    axial = room.slice_node(room.views[0])
    before, picture = axial.GetSliceOffset(), reading.pictures()[0]
    reading.press("Up", "Up", "Up", "Down")
    assert axial.GetSliceOffset() == pytest.approx(before + 2 * 8.0)
    assert (reading.pictures()[0] != picture).any()
    reading.press("PgDown", "Right", "Down")
    assert axial.GetSliceOffset() == pytest.approx(before - 8 * 8.0), "Down moves the other view now"
    reading.press("v")
    assert [view.orientation for view in room.views] == ["Axial"]
    reading.press("v", "v")
    reading.press("a", "2")
    reading.click(room.views[0].name, 120, 110, drag=30)
    assert reading.session.marks.positions() == []
    reading.click(room.views[0].name, 120, 110)
    (place,) = reading.session.marks.positions()
    assert place[2] == pytest.approx(axial.GetSliceOffset(), abs=0.01)
    reading.press("1", "3", "Backspace")
    reading.press("c")
    reading.type("vessel n breaks off")
    reading.press("Return")
    reading.screenshot(screenshots, "review-answered")
    reading.press("p")
    assert reading.session.state == "paused" and not np.any(reading.pictures())
    reading.press("p", "b")
    assert page.caseLabel.text == "Case 4 of 14"
    reading.press("n")
    assert page.caseLabel.text == "Case 5 of 14"
    assert reading.session.values()["comment"] == "vessel n breaks off"
    assert room.nodes()[0].GetDisplayNode().GetWindow() == 1800, (
        "every case begins in the window of the study"
    )


def test_the_window_shows_nothing_but_the_case(reading, originals, study, tmp_path):
    assert tells(texts_on_the_screen(reading.window), originals), "the test can see what a window tells"
    reading.review.start(study.folder, "Dr Ben", tmp_path / "answers")
    assert not tells(texts_on_the_screen(reading.window), originals)
    assert reading.window.windowTitle == "Case 1 of 2"
    assert not reading.ui.resultsCollapsibleButton.isVisible()
    reading.review.leave()
    assert tells(texts_on_the_screen(reading.window), originals)
    assert reading.ui.resultsCollapsibleButton.isVisible() and reading.ui.reviewStartButton.isVisible()
    assert reading.window.windowTitle.startswith("generator-alpha")


def test_time_runs_only_while_the_case_is_seen(reading, study, tmp_path):
    session = reading.review.start(study.folder, "Dr Ben", tmp_path / "answers")
    now = reading.seconds
    now[0] += 50  # the introduction
    reading.press("n")
    now[0] += 7
    reading.press("s")
    reading.seen[0] = False
    reading.review._on_visible_timer()
    now[0] += 1000
    reading.seen[0] = True
    reading.review._on_visible_timer()
    now[0] += 3
    reading.press("p")
    now[0] += 500
    reading.press("p", *ANSWERS[1:], "n")
    assert session.sitting.store.visible_s(session.sitting.store.order[0]) == pytest.approx(10)


def test_a_reader_goes_on_where_they_stopped(reading, study, tmp_path):
    reading.review.start(study.folder, "Dr Ben", tmp_path / "answers")
    reading.press("n", *ANSWERS, "n", "b")
    assert "does not allow going back" in reading.review.page_ui.messageLabel.text
    reading.press("s", "2", "n")
    assert reading.review.page_ui.messageLabel.text.startswith("Still open: How realistic")
    assert reading.review.form.active.id == "realism"
    reading.review.page_ui.leaveButton.click()
    assert not study.answers_folder.exists()
    reading.ui.reviewStudyLineEdit.currentPath = str(study.folder)
    reading.ui.reviewReaderLineEdit.text = "Dr  Ben"
    reading.ui.reviewAnswersLineEdit.currentPath = str(tmp_path / "answers")
    reading.ui.reviewStartButton.click()
    reading.press("n")
    assert reading.review.page_ui.caseLabel.text == "Case 2 of 2"
    assert reading.session.values() == {"real_or_synthetic": "synthetic", "confidence": 2}
    assert reading.review.form.active.id == "realism"
    assert reading.review.form.widgets["confidence"].answer_label.text == "2  Rather unsure"


def test_what_cannot_be_read_is_said_and_changes_nothing(reading, scene, study, tmp_path):
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    nodes = scene.GetNumberOfNodes()
    reading.ui.reviewStudyLineEdit.currentPath = str(tmp_path)
    reading.ui.reviewReaderLineEdit.text = "Dr Ben"
    reading.ui.reviewStartButton.click()
    assert "is no study" in reading.ui.reviewStatusLabel.text and not reading.review.active
    with pytest.raises(InputError, match="cannot name a reader"):
        reading.review.start(study.folder, " ", tmp_path / "answers")
    assert scene.GetNumberOfNodes() == nodes
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView

    reading.review.start(study.folder, "Dr Ben", tmp_path / "answers")
    with pytest.raises(InputError, match="being read"):
        reading.review.start(study.folder, "Dr Ben", tmp_path / "answers")
    second = study.file(reading.session.sitting.store.order[1].item)
    content = second.read_bytes()
    second.write_bytes(content[:-2] + b"xx")
    reading.press("n", *ANSWERS, "n")
    assert "was changed after the study was made" in reading.review.page_ui.messageLabel.text
    assert not np.any(reading.pictures()), "the case before does not stay under the new number"
    second.write_bytes(content)
    reading.press("n")
    assert reading.session.state == "reading" and reading.pictures()[0].std() > 5
    scene.Clear(0)
    reading.review.leave()
    assert not reading.review.active


def test_the_next_case_costs_the_main_thread_little(reading, tmp_path):
    """Processor time, which does not depend on what else the machine does; the wall time is printed."""
    folder = make_large_study(tmp_path, (256, 256, 128))
    reading.review.start(folder, "Dr Ada")
    reading.press("n", *ANSWERS)
    _cases, waiting = reading.session._loader._waiting
    waiting.result()
    reading.pictures()
    wall, own = time.perf_counter(), time.thread_time()
    reading.press("n")
    pictures = reading.pictures()
    own, wall = time.thread_time() - own, time.perf_counter() - wall
    assert reading.review.page_ui.caseLabel.text == "Case 2 of 3" and pictures[0].std() > 5
    print(f"next case of 256 x 256 x 128 on the screen: {1000 * wall:.0f} ms, processor {1000 * own:.0f} ms")
    assert own < LONGEST_S


def test_pairs_lie_side_by_side(reading, scene, originals, tmp_path, screenshots):
    created = make_study(
        originals,
        tmp_path / "study",
        2,
        ("real", "generator-alpha"),
        seed=2,
        mode="pair",
        layout="two-planes",
    )
    reading.review.start(created.study.folder, "Dr Ada")
    reading.press("n")
    assert [view.name for view in reading.session.room.views] == [
        "MedLoRDReviewLeftAxial", "MedLoRDReviewLeftCoronal", "MedLoRDReviewRightAxial", "MedLoRDReviewRightCoronal",
    ]  # fmt: skip
    left, _, right, _ = reading.pictures()
    assert left.std() > 5 and (left != right).any()
    assert [node.GetName() for node in reading.session.room.nodes()[:2]] == ["Case 1 left", "Case 1 right"]
    reading.screenshot(screenshots, "review-pair")
    key = {case.case: case.kind for case in read_key(created.key_path, study=created.study).cases}
    for _ in range(2):
        cases = reading.session.shown.cases
        reading.press("l" if key[cases[0]] == "real" else "r", "5", "n")
    assert reading.session.state == "finished"
    assert not tells(texts_in_the_scene(scene), originals)
    assert {a.value for a in read_answers(created.study) if a.question == "preference"} <= {"left", "right"}


def test_masks_are_drawn_over_the_volume(reading, scene, originals, tmp_path, screenshots):
    from offscreen_views import coloured

    from medlord.segmentation_files import write_segmentation
    from medlord.volume_files import load_volume

    for name in ("real", "generator-alpha"):
        for path in sorted((originals / name).glob("patient_*.nii.gz")):
            volume = load_volume(path)
            mask = {"lung": (volume.array < -600) & (volume.array > -920), "bone": volume.array > 400}
            stem = path.name.removesuffix(".nii.gz")
            write_segmentation(path.with_name(f"mask_{stem}.seg.nrrd"), volume.grid, mask)
    created = make_study(
        originals, tmp_path / "study", 1, ("real", "generator-alpha"), True, seed=2, mode="match"
    )
    reading.review.start(created.study.folder, "Dr Ada")
    reading.press("n")
    with_outlines = reading.pictures()[0]
    reading.screenshot(screenshots, "review-match")
    reading.press("o")
    assert coloured(with_outlines).sum() > 100 and coloured(reading.pictures()[0]).sum() == 0
    reading.press("m", "n", "3", "n")
    assert reading.session.state == "finished"
    values = [a.value for a in read_answers(created.study) if a.question == "match"]
    assert sorted(values) == ["match", "not"]


def test_the_pages_ui_file_uses_what_slicer_has(shared):
    from pythonqt_facade.contract import Contract

    path = shared / "background" / "pythonqt" / "classes.json"
    if not path.is_file():
        pytest.skip(f"reference data not here: {path.name}")
    contract = Contract(path)
    tree = ElementTree.parse(REPOSITORY / "MedLoRDSlicer" / "Resources" / "UI" / "MedLoRDReview.ui")
    for widget in tree.iter("widget"):
        assert widget.find("property[@name='toolTip']/string") is not None, widget.get("name")
        for entry in widget.findall("property"):
            assert contract.has(widget.get("class"), "property", entry.get("name"))


def test_the_module_opens_it_from_the_console(reading, study, tmp_path, monkeypatch):
    import MedLoRDSlicer
    from MedLoRDSlicerLib.review import start

    logic = MedLoRDSlicer.MedLoRDSlicerLogic()
    with pytest.raises(InputError, match="no window to read in"):
        logic.review(study.folder, reader="Dr Ada")
    # What only the application has: its window and its list of modules.
    selected, widget = [], SimpleNamespace(panel=SimpleNamespace(review=reading.review))
    monkeypatch.setattr(start, "in_slicer_application", lambda: True)
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: reading.window)
    monkeypatch.setattr(slicer.util, "selectModule", selected.append)
    monkeypatch.setattr(slicer.util, "getModuleWidget", {"MedLoRDSlicer": widget}.get)
    session = logic.review(study.folder, reader="Dr Ada", answers=tmp_path / "answers")
    assert session is reading.session and selected == ["MedLoRDSlicer"]
    assert session.sitting.store.reader == "Dr Ada"


def test_leaving_the_module_ends_the_reading(scene, open_panel, study, tmp_path):
    engine = fake_engine("good")
    scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    opened = open_panel(engine=engine)
    before = visible_in(opened)
    opened.panel.review.start(study.folder, "Dr Ada", tmp_path / "answers")
    opened.panel.refresh()
    assert not set(visible_in(opened)) & set(before) - {"reviewCollapsibleButton", "MedLoRDSlicer"}
    opened.panel.exit()
    assert not opened.panel.review.active and set(before) <= set(visible_in(opened))
    engine.close()


def visible_in(opened) -> list[str]:
    """Names of the widgets of the panel that are visible."""
    children = opened.widget.findChildren("QWidget")
    names = [child.objectName for child in children if child.isVisible()]
    return [name for name in names if isinstance(name, str) and name and not name.startswith("qt_")]
