"""The whole check: on a phantom, on boxes whose numbers are known, on input that is none, and its page."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medlord.conditions import Conditions
from medlord.errors import CancelledError, InputError
from medlord.evaluation import scorecard_page
from medlord.evaluation.adherence import Adherence, StructureAdherence
from medlord.evaluation.pictures import picture_of_ct
from medlord.evaluation.reference import collect_reference
from medlord.evaluation.reference_check import compare_sets
from medlord.evaluation.report import NOT_CLINICAL, ReportContent, render_report
from medlord.evaluation.scorecard import check_volume, reference_for
from medlord.evaluation.segmenters import HuRules, Labelmap
from medlord.evaluation.set_page import render_set_page, warnings_section
from medlord.evaluation.verdicts import Finding, judge_adherence, outside_the_chest
from medlord.evaluation.volume_measures import measure_volume
from medlord.volumes import Grid, Volume

GRID = Grid.centered((48, 40, 30), (7.0, 7.0, 9.0))


def box_masks(lung_levels: int = 16) -> dict[str, np.ndarray]:
    """A body with two lungs."""
    masks = {name: np.zeros(GRID.shape, bool) for name in ("body", "lung")}
    masks["body"][6:42, 6:34] = True
    masks["lung"][10:20, 12:28, 6 : 6 + lung_levels] = True
    masks["lung"][28:38, 12:28, 6 : 6 + lung_levels] = True
    return masks


def box_volume(masks: dict[str, np.ndarray], recipe: dict | None = None) -> Volume:
    """The CT of such a body, with noise."""
    noise = np.random.default_rng(4).normal(0, 12, GRID.shape)
    return Volume(
        np.where(masks["lung"], -850.0, np.where(masks["body"], 40.0, -1000.0)) + noise, GRID, recipe
    )


def box_reference(levels=range(12, 20), **changes):
    """A population of such bodies with lungs of several lengths, each three times: 24 bodies."""
    measured = []
    for number in levels:
        masks = box_masks(number)
        measured += [measure_volume(box_volume(masks), Conditions(GRID, masks))] * 3
    options = {"name": "boxes", "population": "Boxes.", "segmenter": "labelmap", "segmenter_version": "1"}
    return collect_reference(measured, **{**options, **changes})


@pytest.fixture(scope="module")
def phantom_check(arterial):
    """Scorecard and found masks of a good phantom with its own masks and its own CT as the ceiling."""
    return check_volume(
        arterial.volume, arterial.conditions, real_ct=arterial.volume, contrast_phase="arterial"
    )


def test_a_good_phantom_passes(phantom_check, arterial):
    card, found = phantom_check
    assert card.level == "green" and card.findings == ()
    assert set(found.names) == set(HuRules.structures)
    for name in ("body", "lung", "bone", "blood_pool"):
        row = card.adherence[name]
        # The rules also find contrast in vessels beyond those that are drawn, as far as the shoulders.
        farthest_mm = 40 if name == "blood_pool" else 10
        assert row.dice == row.ceiling_dice and row.hd95_mm == row.ceiling_hd95_mm < farthest_mm
        assert row.surface_dice == row.ceiling_surface_dice > 0.8
        assert max(map(abs, row.offset_mm)) < (10 if name == "blood_pool" else 5)
    values = card.measures.structures["lung"]
    assert values["rvr"] == found["lung"].sum() / found["lung"].size
    assert values["ml"] == pytest.approx(found.volumes_ml()["lung"])
    heart = next(row for row in card.tissues if row.name == "heart_ventricle_left")
    assert heart.where == "drawn" and heart.median_hu == pytest.approx(
        arterial.parameters.blood_left_hu, abs=8
    )
    assert card.sides.mirror_gain < -0.1


def test_the_scorecard_as_json(phantom_check):
    data = json.loads(json.dumps(phantom_check[0].to_dict(), allow_nan=False))
    verdict = data["verdict"]
    assert verdict["level"] == "green" and verdict["meaning"] == "this check found nothing wrong"
    compared, _, others = verdict["scope"].partition(" Drawn, but judged by HU alone: ")
    assert verdict["findings"] == [] and compared.endswith("blood pool.") and "lung, bone" in compared
    assert "heart ventricle left" in others and "body" not in others
    assert data["notice"] == NOT_CLINICAL and "not clinical validity" in data["notice"]
    assert data["surface_tolerance_mm"] == 3.0 and "3 mm" in data["explanations"]["surface_dice"]
    lung = next(row for row in data["structures"] if row["name"] == "lung")
    assert lung["worst_slice"]["differing_mm2"] > 0 and len(lung["worst_slice"]["position_ras_mm"]) == 3
    assert data["reference"] is None and data["regions"]["structures"]["lung"]["reference"] is None
    assert data["image"]["axes"] == ["right-left", "anterior-posterior", "superior-inferior"]


def test_the_page_has_the_verdict_first_and_the_worst_slices(phantom_check, arterial, monkeypatch):
    drawn = []

    def recorded(volume, plane, index, window, caption=""):
        drawn.append((window.name, caption))
        return picture_of_ct(volume, plane, index, window, caption)

    monkeypatch.setattr(scorecard_page, "picture_of_ct", recorded)
    card, found = phantom_check
    content = ReportContent(
        arterial.volume, arterial.conditions, card.adherence, {}, {}, 0, found=found, scorecard=card
    )
    page = render_report(content)
    assert page.index("Check: green") < page.index("Input and result") < page.index("Where it differs most")
    assert NOT_CLINICAL in page and "HU of tissues" in page and "No reference population" in page
    assert "judged by HU alone: heart atrium left" in page and "Ann Intern Med 158" in page
    slices = page[page.index("Where it differs most") :]
    order = [slices.index(f"<figcaption>{name} ") for name in ("bone", "blood pool", "lung", "body")]
    dice = [card.adherence[name].dice for name in ("bone", "blood_pool", "lung", "body")]
    assert (order == sorted(order)) == (dice == sorted(dice)), "worst first"
    # What a picture shows goes with it, and bone and contrast are not white on white.
    assert sorted(drawn) == [(window, "CT OF UNKNOWN ORIGIN") for window in ("bone", "bone", "lung", "lung")]


def test_a_volume_among_its_population():
    reference = box_reference()
    masks = box_masks(15)
    card, _ = check_volume(box_volume(masks), Conditions(GRID, masks), Labelmap(Conditions(GRID, masks)),
                           reference=reference)  # fmt: skip
    assert [f for f in card.findings if f.structure == "lung"] == []
    lung = next(row for row in card.regions if row.name == "lung")
    assert lung.measures["ml"].percentile == pytest.approx(100 * 3.5 / 8) and not lung.missing
    assert lung.measures["rvr"].count == 24
    data = card.to_dict()
    assert data["reference"]["count"] == 24 and data["reference"]["comparable_field_of_view"]
    assert data["regions"]["structures"]["lung"]["reference"]["ml"]["count"] == 24


def test_a_reference_that_is_too_small_shows_no_percentiles():
    masks = box_masks(15)
    conditions, volume = Conditions(GRID, masks), box_volume(masks)
    card, found = check_volume(
        volume, conditions, Labelmap(conditions), reference=box_reference(range(12, 13))
    )
    assert card.reference_too_small and card.unusual is None
    data = json.loads(json.dumps(card.to_dict(), allow_nan=False))
    lung = data["regions"]["structures"]["lung"]
    assert data["reference"]["too_small"] and data["reference"]["unusual"] is None
    assert lung["reference"]["ml"]["percentile"] is None and lung["reference"]["ml"]["count"] == 3
    assert data["image"]["reference"]["noise_hu"]["unusual"] is None
    page = render_report(
        ReportContent(volume, conditions, card.adherence, {}, {}, 0, found=found, scorecard=card)
    )
    assert page.count("Reference too small (3 of 20 volumes): no percentiles") == 2
    assert "Percentile" not in page and "Central 95" not in page and "reference distribution" not in page
    # Which table is of which masks is said, and the HU of what was found are on the page.
    assert "Mask drawn: inside the mask that was drawn" in page and "All of what labelmap found" in page
    assert f"<td>{lung['median_hu']:.0f}</td>" in page and lung["median_hu"] is not None


def test_a_missing_structure_is_red():
    masks, seen = box_masks(), box_masks(0)
    volume = box_volume(seen)
    card, found = check_volume(
        volume, Conditions(GRID, masks), Labelmap(Conditions(GRID, seen)), reference=box_reference()
    )
    assert card.level == "red"
    reasons = [f.reason for f in card.findings if f.level == "red"]
    assert any(
        "Lung is missing: none of it was found, while every volume of the reference boxes" in r
        for r in reasons
    )
    assert any("Lung was drawn" in r and "finds none" in r for r in reasons)
    assert any("median of 40 HU where it was drawn; lung lies between" in r for r in reasons)
    page = render_report(
        ReportContent(volume, Conditions(GRID, masks), card.adherence, {}, {}, 0, found=found, scorecard=card)
    )
    assert "Reference boxes, N = 24" in page and "Check: red" in page


def test_a_reference_of_another_version_is_said():
    masks = box_masks()
    conditions = Conditions(GRID, masks)
    reference = box_reference(segmenter_version="0")
    card, _ = check_volume(box_volume(masks), conditions, Labelmap(conditions), reference=reference)
    assert any("version 0 of labelmap" in f.reason for f in card.findings)


def test_masks_and_volumes_of_different_places_are_refused():
    masks = box_masks()
    conditions, volume = Conditions(GRID, masks), box_volume(masks)
    elsewhere = Grid.centered(GRID.shape, (7.0, 7.0, 9.0), (5000.0, 0.0, 0.0))
    with pytest.raises(InputError, match="No voxel of the masks lies within the CT"):
        check_volume(volume, Conditions(elsewhere, masks), NeverAsked())
    with pytest.raises(InputError, match="No voxel of the segmentation that was given lies within the CT"):
        check_volume(volume, conditions, Labelmap(Conditions(elsewhere, masks)))
    real = Volume(volume.array, elsewhere)
    with pytest.raises(InputError, match="shows only air where the synthetic volume lies"):
        check_volume(volume, conditions, real_ct=real)


def test_a_segmentation_of_one_ct_is_no_ceiling():
    """It would be compared with itself, and whatever is wrong with it would be as good as its ceiling."""
    masks = box_masks()
    conditions, volume = Conditions(GRID, masks), box_volume(masks)
    with pytest.raises(InputError, match="it has no ceiling"):
        check_volume(volume, conditions, Labelmap(conditions), real_ct=volume)


def test_the_drawn_masks_themselves_are_no_look_at_the_ct():
    """Chosen as the segmentation of the CT by mistake, they agree with themselves whatever the CT shows."""
    conditions = Conditions(GRID, box_masks())
    card, _ = check_volume(box_volume(box_masks()), conditions, Labelmap(conditions))
    assert any(f.level == "amber" and "equals the drawn masks" in f.reason for f in card.findings)
    seen = box_masks(15)
    card, _ = check_volume(box_volume(seen), conditions, Labelmap(Conditions(GRID, seen)))
    assert not any("equals the drawn masks" in f.reason for f in card.findings)


def test_what_was_drawn_and_is_not_in_the_segmentation_is_told():
    masks = box_masks()
    body = Conditions(GRID, {"body": masks["body"]})
    card, _ = check_volume(box_volume(masks), Conditions(GRID, masks), Labelmap(body))
    found = {finding.structure: (finding.level, finding.reason) for finding in card.findings}
    assert found["lung"][0] == "amber" and "but the segmentation of the CT has none" in found["lung"][1]


def test_a_low_ceiling_is_no_praise():
    """The same low Dice on the real CT means that the comparison fails, not that the synthesis is good."""
    row = StructureAdherence("lung", 4000.0, found_ml=300.0, dice=0.13, ceiling_dice=0.14)
    (finding,) = judge_adherence(Adherence("hu-rules", (row,), has_ceiling=True))
    assert (
        finding.level == "amber" and "on the real CT hu-rules reaches a Dice of only 0.14" in finding.reason
    )


def test_the_hu_rules_hold_bone_against_chests_only():
    """A real abdomen was red because the rules found a fifth of its bone."""
    given = [
        Finding("red", "adherence", "bone", "Bone overlaps by a Dice of only 0.29."),
        Finding("red", "adherence", "body", "Body overlaps by a Dice of only 0.29."),
    ]
    assert outside_the_chest(given, 4000.0) == given
    bone, body, note = outside_the_chest(given, 116.0)
    assert (bone.level, body.level, note.level) == ("amber", "red", "amber")
    assert "116 ml of lung, and hu-rules is made for chest CT" in note.reason


def test_without_masks_the_volume_alone_is_judged():
    masks = box_masks()
    card, _ = check_volume(box_volume(masks), None, Labelmap(Conditions(GRID, masks)))
    assert card.adherence is None and card.sides is None
    assert card.to_dict()["structures"] == [] and card.measures.structures["lung"]["ml"] > 0


class NeverAsked(HuRules):
    """A segmenter that must not run."""

    def segment(self, volume, structures=(), progress=None, cancel=None):
        raise AssertionError("segmented before the input was checked")


def test_what_is_no_ct_is_refused_before_any_work():
    masks = box_masks()
    good = box_volume(masks)
    scaled = Volume(np.clip((good.array + 1000) / 2000, 0, 1), GRID)
    for volume in (scaled, Volume(np.full(GRID.shape, 40.0), GRID), Volume(good.array * np.nan, GRID)):
        with pytest.raises(InputError, match="The volume to check"):
            check_volume(volume, Conditions(GRID, masks), NeverAsked())
    with pytest.raises(InputError, match="All masks are empty"):
        check_volume(good, Conditions(GRID, {"lung": np.zeros(GRID.shape, bool)}), NeverAsked())
    with pytest.raises(InputError, match="does not hold 'heart'; it has body, lung"):
        Labelmap(Conditions(GRID, masks)).segment(good, ["heart"])


def test_cancel_stops_between_the_parts():
    masks = box_masks()
    segmenter = Labelmap(Conditions(GRID, masks))
    for after in (0, 1, 3):
        answers = iter([False] * after + [True] * 20)
        with pytest.raises(CancelledError):
            check_volume(
                box_volume(masks), Conditions(GRID, masks), segmenter, cancel=lambda a=answers: next(a)
            )


def test_only_volumes_of_a_known_model_get_its_reference():
    masks = box_masks()
    assert reference_for(box_volume(masks), "hu-rules") is None
    assert reference_for(box_volume(masks, {"model": "huge"}), "hu-rules") is None
    known = reference_for(box_volume(masks, {"model": "thorax-phantom"}), "hu-rules")
    assert known.name == "thorax-phantom"


def test_the_page_of_a_set_shows_every_structure():
    made, reference = box_reference(range(10, 14), name="<set>"), box_reference()
    rows = compare_sets(made, reference)
    page = render_set_page(made, reference, rows, ["<few>"])
    assert "&lt;set&gt; against boxes" in page and "<set>" not in page
    assert page.count("<img class='plot'") == 2 and "N = 12" in page and "N = 24" in page
    assert "<h2>To keep in mind</h2><ul><li>&lt;few&gt;" in page and warnings_section([]) == ""
    assert "not clinical validity" in page
