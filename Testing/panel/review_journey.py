"""A whole study by keyboard: what a reader does with it, and what must be so afterwards."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from panel_building import pictures
from review_reading import texts_in_the_scene, texts_on_the_screen

from medlord.review.answers import read_answers, status

# One answer to each required question: synthetic, confidence 4, then the scales.
ANSWERS = ("s", "4", "3", "3", "2", "4", "2", "3")


def read_all(reading, scene, last: int, secret, screenshots) -> tuple[list[str], list[str], int]:
    """Read a study to its end by keys: the titles of the cases, what the training said, the number of breaks.

    `last` is the number of the last case, `secret` finds in a text what no reader may know.
    """
    shown, truths, breaks = [], [], 0
    for _step in range(2 * last + 20):
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
            if shown[-1] == f"Case 5 of {last}":
                reading.screenshot(screenshots, "review-open")
                pictures(reading, screenshots, "review-form")
            reading.press(*ANSWERS)
            if shown[-1] == f"Case 5 of {last}":
                bar = reading.review.page_ui.readingProgressBar
                assert (bar.value, bar.maximum) == (4, last), (
                    "counted as the title counts, without the training"
                )
                use_everything(reading, last, screenshots)
            assert not secret(texts_in_the_scene(scene))
            assert not secret(texts_on_the_screen(reading.window))
            assert session.missing() == []
        elif session.state == "feedback":
            truths.append(reading.review.page_ui.messageLabel.text)
            if len(truths) == 1:
                reading.screenshot(screenshots, "review-feedback")
    return shown, truths, breaks


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


def all_answers_are_there(study, last: int, secret) -> None:
    """All readings with every answer, what was typed, both marks, and no source in any file."""
    (entry,) = status(study)
    assert (entry.confirmed, entry.readings) == (last + 4, last + 4)
    answers = read_answers(study)
    by_question = Counter(answer.question for answer in answers)
    required = [question.id for question in study.rubric.questions if question.required]
    assert [by_question[name] for name in required] == [last] * len(ANSWERS)
    assert {answer.position for answer in answers} == set(range(5, last + 5))
    assert {a.value for a in answers if a.question == "real_or_synthetic"} == {"synthetic"}
    (comment,) = {a.value for a in answers if a.question == "comment"}
    assert comment == "vessel n breaks off"
    (marks,) = [a.value for a in answers if a.question == "artefacts"]
    assert [mark["kind"] for mark in marks] == ["discontinuity", "blur"]
    assert len(marks[0]["position_ras_mm"]) == 3 and marks[1]["position_ras_mm"] is None
    for path in study.folder.rglob("*"):
        assert not path.is_file() or not secret(path.read_bytes().decode("latin-1"))


def use_everything(reading, last: int, screenshots) -> None:
    """Windows, views, slices, artefacts, comment, pause, back and forth: all by keys but the click into the image."""
    room, page = reading.session.room, reading.review.page_ui
    reading.press("w")
    assert (
        room.nodes()[0].GetDisplayNode().GetWindow() == 800
        and page.readingWindowComboBox.currentData == "ccta"
    )
    axial = room.slice_node(room.views[0])
    thickness = reading.session.study.content["grid"]["spacing_mm"][2]
    before, picture = axial.GetSliceOffset(), reading.pictures()[0]
    reading.press("Up", "Up", "Up", "Down")
    assert axial.GetSliceOffset() == pytest.approx(before + 2 * thickness)
    assert (reading.pictures()[0] != picture).any()
    reading.press("PgDown", "Right", "Down")
    assert axial.GetSliceOffset() == pytest.approx(before - 8 * thickness), "Down moves the other view now"
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
    assert page.caseLabel.text == f"Case 4 of {last}"
    reading.press("n")
    assert page.caseLabel.text == f"Case 5 of {last}"
    assert reading.session.values()["comment"] == "vessel n breaks off"
    assert room.nodes()[0].GetDisplayNode().GetWindow() == 1800, (
        "every case begins in the window of the study"
    )
