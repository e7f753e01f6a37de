"""Rubrics: the built-in ones, those of others, and which values count as an answer."""

from __future__ import annotations

import copy
import json

import pytest

from medlord.errors import InputError
from medlord.review.rubric import MODES, default_rubric, load_rubric, rubric_from_dict


def good() -> dict[str, object]:
    """An answer to every required question of the default rubric."""
    scales = ("realism", "anatomy", "consistency", "image_quality", "diagnostic_quality", "interest")
    return {"real_or_synthetic": "real", "confidence": 5, **dict.fromkeys(scales, 3)}


def test_the_default_asks_what_the_study_needs():
    rubric = default_rubric()
    assert rubric.missing({}) == list(good()) and rubric.missing(good()) == []
    assert len(rubric.question("realism").options) == 4
    for question in rubric.questions:
        assert question.text and all(option.label for option in question.options)
    assert rubric.with_role("verdict").id == "real_or_synthetic"
    assert default_rubric("pair").with_role("preference").values == ("left", "right")
    assert default_rubric("match").with_role("match").values == ("match", "partial", "not")


@pytest.mark.parametrize("mode", MODES)
def test_a_rubric_survives_its_file(tmp_path, mode):
    path = tmp_path / "rubric.json"
    path.write_text(json.dumps(default_rubric(mode).to_dict()), encoding="utf-8")
    assert load_rubric(path, mode) == default_rubric(mode)


@pytest.mark.parametrize(
    ("question", "value"),
    [
        ("real_or_synthetic", "fake"), ("confidence", 0), ("confidence", 6), ("confidence", "5"), ("realism", 2.5),
        ("realism", True), ("comment", 5), ("comment", "x" * 10_001), ("artefacts", "blur"),
        ("artefacts", [{"kind": "blur"}]), ("artefacts", [{"kind": "ufo", "position_ras_mm": [0, 0, 0]}]),
        ("artefacts", [{"kind": "blur", "position_ras_mm": [0, 0, float("nan")]}]),
        ("artefacts", [{"kind": "blur", "position_ras_mm": [0, 0]}]), ("mood", "good"),
    ],
)  # fmt: skip
def test_values_outside_the_rubric_are_refused(question, value):
    with pytest.raises(InputError) as caught:
        default_rubric().check({**good(), question: value})
    assert question in str(caught.value) and "\n" not in str(caught.value)


def test_artefacts_have_a_kind_and_a_place():
    entry = {"kind": "blur", "position_ras_mm": [1.5, -20.0, 3]}
    default_rubric().check({"artefacts": [entry, {"kind": "other", "position_ras_mm": None}], "comment": ""})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(format="x"), "no rubric"),
        (lambda r: r.update(questions=[]), "asks nothing"),
        (lambda r: r["questions"][0].update(id="two words"), "no id"),
        (lambda r: r["questions"][1].update(id="real_or_synthetic"), "two questions"),
        (lambda r: r["questions"][1].update(role="verdict"), "role"),
        (lambda r: r["questions"][0].update(kind="slider"), "kind"),
        (lambda r: r["questions"][0]["options"].pop(), "two or more options"),
        (lambda r: r["questions"][0]["options"][0].update(value="yes"), "real, synthetic"),
        (lambda r: r["questions"][2]["options"][0].update(value=7), "counts 1, 2, 3"),
        (lambda r: r["questions"][2].update(text=" "), "no text"),
    ],
)
def test_a_broken_rubric_names_what_is_wrong(change, says):
    data = copy.deepcopy(default_rubric().to_dict())
    change(data)
    with pytest.raises(InputError, match=says):
        rubric_from_dict(data, "rating")


def test_a_rubric_must_suit_the_mode(tmp_path):
    with pytest.raises(InputError, match="role 'preference'"):
        rubric_from_dict(default_rubric("rating").to_dict(), "pair")
    with pytest.raises(InputError, match="cannot ask"):
        rubric_from_dict(default_rubric("pair").to_dict(), "rating")
    with pytest.raises(InputError, match="cannot be read"):
        load_rubric(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        load_rubric(tmp_path / "bad.json")


def test_typed_text_becomes_the_value_it_stands_for():
    rubric = default_rubric()
    assert rubric.question("confidence").parse("4") == 4
    assert rubric.question("real_or_synthetic").parse("real") == "real"
    assert rubric.question("artefacts").parse("[]") == []
    with pytest.raises(InputError, match="no JSON list"):
        rubric.question("artefacts").parse("blur")
