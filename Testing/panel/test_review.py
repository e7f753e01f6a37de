"""The review mode by keyboard alone: a whole study, nothing on the screen or in the scene that tells a source."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
from review_journey import ANSWERS, all_answers_are_there, read_all, the_scene_is_as_before
from review_reading import (
    close_reading,
    make_large_study,
    make_study,
    open_reading,
    small_patterns,
    start_layout,
    tells,
    texts_in_the_scene,
    texts_on_the_screen,
    write_originals,
)
from support.fake_worker import fake_engine
from support.model_volumes import patterns_of

from medlord.errors import InputError
from medlord.review.answers import read_answers
from medlord.review.key import read_key
from medlord.review.unblind import unblind_study

pytest.importorskip("PySide6", reason="in Slicer the keyboard of a test is not that of the window")

REPOSITORY = Path(__file__).resolve().parents[2]
PER_SOURCE = 3
LONGEST_S = 0.3
# Three of them fill a screen of 1920 x 1200.
LARGE_VIEW = (960, 800)


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


@pytest.mark.parametrize(
    ("volumes", "per_source"),
    [
        ("originals", PER_SOURCE),
        pytest.param(
            "synthesized_volumes",
            15,
            marks=[pytest.mark.long, pytest.mark.timeout(4 * 3600)],
            id="synthesized",
        ),
    ],
)
def test_a_whole_study_by_keyboard_alone(
    reading, scene, volumes, per_source, request, tmp_path, screenshots, capfd, caplog
):
    patterns = small_patterns if volumes == "originals" else patterns_of
    volumes = request.getfixturevalue(volumes)
    created = make_study(
        volumes, tmp_path / "study", per_source, patterns=patterns,
        seed=3, training=1, repeats=2, blocks=2, window="bone",
    )  # fmt: skip
    study, last = created.study, 4 * per_source + 2
    own = scene.AddNewNodeByClass("vtkMRMLModelNode", "My heart")
    own.CreateDefaultDisplayNodes()
    nodes_before = {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}
    capfd.readouterr()
    caplog.clear()

    reading.review.start(study.folder, "Dr Ada")
    assert "Realism of chest CT" in reading.review.page_ui.messageLabel.text
    assert own.GetDisplayNode().GetVisibility() == 0
    secret = partial(tells, originals=volumes, names=tuple(patterns(volumes)))
    shown, truths, breaks = read_all(reading, scene, last, secret, screenshots)
    reading.screenshot(screenshots, "review-finished")
    assert shown == [f"Training case {n} of 4" for n in range(1, 5)] + [
        f"Case {n} of {last}" for n in range(1, last + 1)
    ]
    assert breaks == 2, "one after the training, one between the blocks"
    assert len(truths) == 4 and sum("is real; you said synthetic" in text for text in truths) == 1
    reading.review.page_ui.leaveButton.click()

    the_scene_is_as_before(scene, own, nodes_before)
    all_answers_are_there(study, last, secret)
    assert not secret("".join((*capfd.readouterr(), caplog.text))), "console and logs"
    unblind_study(study, created.key_path)
    with pytest.raises(InputError, match="takes no more answers"):
        reading.review.start(study.folder, "Dr Ada")


def test_a_new_name_is_noted_where_others_have_begun(reading, study, tmp_path):
    """Mistyped, it begins the study anew: the reader is told before the first case, but not who the others are."""
    told = []
    for name in ("Dr Ada", "Dr Adda"):
        reading.review.start(study.folder, name, tmp_path / "answers")
        told.append(reading.review.page_ui.messageLabel.text)
        reading.review.leave()
    assert 'Nothing is answered yet by "Dr Adda"; 1 under other names have begun.' in told[1]
    assert "Dr Ada" not in told[1] and "Nothing is answered" not in told[0]


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
    reading.ui.reviewStartButton.click()
    assert "Choose the folder of the study and write your name" in reading.ui.reviewStatusLabel.text
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
    """From the key that confirms a case until all three views show the next one, on views that fill a large screen.

    Processor time is asserted, which does not depend on what else the machine does; the wall time is printed.
    """
    reading.view_size = LARGE_VIEW
    reading.review.start(make_large_study(tmp_path, (256, 256, 128)), "Dr Ada")
    reading.press("n")
    before = reading.pictures()
    costs = []
    for case in (2, 3):
        reading.press(*ANSWERS)
        _cases, waiting = reading.session._loader._waiting
        waiting.result()
        wall, own = time.perf_counter(), time.thread_time()
        reading.press("n")
        pictures = reading.pictures()
        own, wall = time.thread_time() - own, time.perf_counter() - wall
        assert reading.review.page_ui.caseLabel.text == f"Case {case} of 3"
        assert all((new != old).any() for new, old in zip(pictures, before, strict=True))
        print(
            f"next case of 256 x 256 x 128 on the screen: {1000 * wall:.0f} ms, processor {1000 * own:.0f} ms"
        )
        before = pictures
        costs.append(own)
    assert min(costs) < LONGEST_S


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
