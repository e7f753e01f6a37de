"""Left and right, published HU ranges, and the words of a verdict."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from medlord.conditions import Conditions
from medlord.evaluation.adherence import Adherence, StructureAdherence
from medlord.evaluation.plausibility import TissueHu
from medlord.evaluation.sides import Sides, measure_sides
from medlord.evaluation.tissue_ranges import tissue_range
from medlord.evaluation.verdicts import (
    AMBER,
    GREEN,
    RED,
    judge_adherence,
    judge_sides,
    judge_tissues,
    sorted_findings,
    worst_level,
)
from medlord.phantom import labels, tissues
from medlord.volumes import Grid

# Axis 0 runs to the patient's left, so the anatomical frame has to turn it.
GRID = Grid.centered((21, 10, 6), (5.0, 5.0, 5.0), orientation="LPS")


def masks() -> dict[str, np.ndarray]:
    """A body with a small lung on the patient's left (high index) and a large one on the right."""
    found = {name: np.zeros(GRID.shape, bool) for name in ("body", "lung")}
    found["body"][2:19] = True
    found["lung"][3:9, 2:8] = True
    found["lung"][13:17, 3:6] = True
    return found


def test_the_same_masks_fit_on_both_sides_and_their_mirror_image_does_not():
    sides = measure_sides(Conditions(GRID, masks()), masks())
    assert sides.left == sides.right == {"body": 1.0, "lung": 1.0}
    assert sides.as_found["lung"] == 1.0 and sides.mirrored["lung"] < 0.7 and sides.mirrored["body"] == 1.0
    assert sides.mirror_gain < 0 and judge_sides(sides) == []


def test_swapped_sides_are_found_wherever_the_mirror_stands():
    swapped = {name: np.roll(mask[::-1], 1, axis=0) for name, mask in masks().items()}
    sides = measure_sides(Conditions(GRID, swapped), masks())
    assert sides.mirrored == {"body": 1.0, "lung": 1.0} and sides.mirror_gain > 0.1
    (finding,) = (f for f in judge_sides(sides) if "swapped" in f.reason)
    assert finding.level == RED


def test_one_side_without_its_lung():
    found = masks()
    found["lung"][13:17] = False
    sides = measure_sides(Conditions(GRID, found), masks())
    assert sides.left["lung"] == 0.0 and sides.right["lung"] == 1.0
    (finding,) = judge_sides(sides)
    assert finding.level == RED and "Lung on the left side" in finding.reason


def test_nothing_to_compare():
    sides = measure_sides(Conditions(GRID, masks()), {"heart": np.ones(GRID.shape, bool)})
    assert sides == Sides({}, {}, {}, {}) and sides.mirror_gain == 0.0 and judge_sides(sides) == []


@pytest.mark.parametrize("phase", tissues.PHASES)
def test_the_phantoms_tissues_lie_in_the_published_ranges(phase):
    """Between patients, by two standard deviations."""
    for names, values in (
        (("heart_atrium_left", "heart_ventricle_left", "aorta"), tissues.BLOOD_LEFT),
        (("heart_atrium_right", "heart_ventricle_right", "pulmonary_artery"), tissues.BLOOD_RIGHT),
        (("superior_vena_cava",), tissues.BLOOD_CAVAL),
        (("heart_myocardium",), tissues.MYOCARDIUM),
        (("liver",), tissues.LIVER),
        (("spleen",), tissues.SPLEEN),
    ):
        mean, spread = values[phase]
        for name in names:
            for limits in (tissue_range(name, phase), tissue_range(name)):
                assert limits.low_hu <= mean - 2 * spread and mean + 2 * spread <= limits.high_hu, name
    assert tissue_range("inferior_vena_cava", phase).high_hu > tissues.BLOOD_LOWER_CAVAL[phase]


def test_every_condition_of_the_bundled_model_has_a_range_but_the_body():
    assert [name for name in labels.CONDITIONS if tissue_range(name) is None] == ["body"]
    assert tissue_range("vertebrae_T7").tissue == tissue_range("rib_left_3").tissue == "bone"
    assert tissue_range("lung_upper_lobe_left").tissue == "lung" and tissue_range("lung_vessels") is None
    assert tissue_range("superior_vena_cava", "native").tissue == "blood"
    assert all(tissue_range(name).source for name in ("lung", "bone", "aorta"))


@pytest.mark.parametrize(
    ("median", "spread", "level", "words"),
    [
        (300.0, 30.0, GREEN, ""),
        (150.0, 30.0, AMBER, "median of 150 HU where it was drawn; blood lies between 180 and 650 HU"),
        (40.0, 30.0, RED, "median of 40 HU"),
        (700.1, 30.0, RED, "median of 700 HU"),
        (650.2, 30.0, AMBER, "median of 650.2 HU where it was drawn; blood lies between 180.0 and 650.0 HU"),
        (300.0, 80.0, AMBER, "HU spread by 80"),
        (300.0, 150.0, RED, "HU spread by 150 where it was drawn, at most 70 are usual"),
    ],
)
def test_levels_of_hu(median, spread, level, words):
    row = TissueHu("aorta", "drawn", median, spread, tissue_range("aorta", "arterial"))
    findings = judge_tissues([row])
    assert worst_level(findings) == level
    assert words in " ".join(f.reason for f in findings)


def test_bright_blood_that_nobody_drew_is_no_reason_for_red():
    """It was found by its HU, so it is bright in native CT too, and may be bone."""
    blood = tissue_range("blood_pool", "native")
    levels = [
        judge_tissues([TissueHu("blood_pool", where, 270.0, 20.0, blood)])[0].level
        for where in ("found", "drawn")
    ]
    assert levels == ["amber", "red"]


def row(**changes) -> StructureAdherence:
    fields = {"found_ml": 100.0, "dice": 0.99, "offset_mm": (0.0, 0.0, 0.0)}
    return StructureAdherence("lung", 100.0, **{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, GREEN, ""),
        ({"dice": 0.85}, AMBER, "Dice of only 0.85"),
        ({"dice": 0.7}, RED, "Dice of only 0.70 (limit 0.80): 100 ml were found, 100 ml drawn"),
        ({"dice": 0.9196}, AMBER, "Dice of only 0.9196 (limit 0.9200)"),
        ({"dice": 0.85, "ceiling_dice": 0.9}, GREEN, ""),
        ({"dice": 0.85, "ceiling_dice": 0.98}, AMBER, "where the real CT reaches 0.98"),
        (
            {"dice": 0.0, "found_ml": 0.0, "offset_mm": None},
            RED,
            "was drawn (100 ml) but hu-rules finds none",
        ),
        ({"offset_mm": (6.0, 0.0, 0.0)}, AMBER, "lies off the drawn mask: 6 mm right"),
        ({"offset_mm": (0.0, -12.0, 7.0)}, RED, "12 mm backward, 7 mm up"),
        ({"offset_mm": (0.0, -12.0, 7.0), "found_ml": 40.0}, GREEN, ""),
    ],
)
def test_levels_of_overlap_and_place(changes, level, words):
    findings = judge_adherence(Adherence("hu-rules", (row(**changes),)))
    assert worst_level(findings) == level
    assert words in " ".join(f.reason for f in findings)


def test_a_segmenter_that_finds_nothing_of_it_is_said():
    only_hu = dataclasses.replace(row(), dice=None, offset_mm=None)
    (finding,) = judge_adherence(Adherence("hu-rules", (only_hu,)))
    assert finding.level == AMBER and "judged by HU alone" in finding.reason


def test_the_worst_comes_first():
    findings = judge_adherence(Adherence("x", (row(dice=0.85), row(dice=0.1))))
    assert [f.level for f in sorted_findings(findings)] == [RED, AMBER]
    assert worst_level([]) == GREEN
