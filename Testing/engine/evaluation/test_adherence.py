"""Dice, volumes, HU and PSNR against numbers worked out by hand, and the whole measurement on phantoms."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medlord.conditions import Conditions
from medlord.errors import InputError
from medlord.evaluation.adherence import (
    BLOOD_POOL_PARTS,
    LUNG_LOBES,
    adherence,
    dice,
    drawn_structures,
    inner_part,
    psnr_db,
)
from medlord.evaluation.segmenters import find_segmenter
from medlord.volumes import Grid, Volume

GRID = Grid.centered((10, 10, 10), (2.0, 2.0, 5.0))


def box(start: int, stop: int) -> np.ndarray:
    mask = np.zeros(GRID.shape, bool)
    mask[start:stop, 1:9, 1:9] = True
    return mask


class FixedSegmenter:
    """Finds what it was told, so that the numbers can be worked out by hand."""

    name, licence, device = "fixed", "none", "cpu"

    def __init__(self, masks):
        self.masks, self.structures = masks, tuple(masks)

    def segment(self, volume, structures, progress=None, cancel=None):
        return Conditions(volume.grid, {name: self.masks[name] for name in structures})


def test_dice_of_known_overlaps():
    assert dice(box(0, 4), box(2, 6)) == pytest.approx(0.5)
    assert dice(box(0, 4), box(0, 4)) == 1.0
    assert dice(box(0, 4), box(5, 9)) == 0.0
    assert dice(box(0, 0), box(0, 0)) == 1.0
    with pytest.raises(InputError, match="cannot be compared"):
        dice(box(0, 4), box(0, 4)[1:])


def test_psnr_of_a_known_error():
    reference = np.linspace(-900, 900, 1000).reshape(10, 10, 10)
    assert psnr_db(reference + 20.0, reference) == pytest.approx(20 * np.log10(2000 / 20))
    assert psnr_db(reference, reference) == float("inf")
    assert psnr_db(np.full((2, 2, 2), 3000.0), np.full((2, 2, 2), 1000.0)) == float("inf"), (
        "clipped to the range"
    )


def test_numbers_of_one_structure():
    array = np.full(GRID.shape, -1000.0)
    array[box(2, 8)] = 50.0
    drawn, seen = box(2, 8), box(2, 5)
    result = adherence(Volume(array, GRID), Conditions(GRID, {"body": drawn}), FixedSegmenter({"body": seen}))
    row = result["body"]
    assert row.drawn_ml == pytest.approx(6 * 8 * 8 * 0.02)
    assert row.found_ml == pytest.approx(3 * 8 * 8 * 0.02)
    assert row.dice == pytest.approx(2 * 3 / 9)
    assert (row.mean_hu, row.sd_hu, row.median_hu, row.spread_hu) == (50.0, 0.0, 50.0, 0.0)
    assert row.ceiling_dice is None and row.reference_mean_hu is None
    assert row.difference_ml == pytest.approx(-row.found_ml)
    # The far wall of the drawn box lies three voxels of 2 mm beyond that of the found one.
    assert row.hd95_mm == pytest.approx(6.0) and 0 < row.surface_dice < 1
    # The middle of what was found lies a voxel and a half towards the left of what was drawn.
    assert row.offset_mm == pytest.approx((-3.0, 0.0, 0.0))
    assert row.worst_slice.index in range(1, 9)
    assert row.worst_slice.differing_mm2 == pytest.approx(3 * 8 * 4.0)
    assert row.worst_slice.position_ras_mm[:2] == pytest.approx(
        tuple(GRID.affine[n, n] * place + GRID.affine[n, 3] for n, place in ((0, 6.0), (1, 4.5)))
    )


def test_reference_gives_ceiling_and_hu_to_compare_with():
    drawn = Conditions(GRID, {"body": box(2, 8)})
    volume = Volume(np.where(box(2, 8), 50.0, -1000.0), GRID)
    reference = Volume(np.where(box(2, 8), 30.0, -1000.0), GRID)
    row = adherence(volume, drawn, FixedSegmenter({"body": box(2, 8)}), reference)["body"]
    assert (row.ceiling_dice, row.mean_hu, row.reference_mean_hu) == (1.0, 50.0, 30.0)
    assert (row.ceiling_hd95_mm, row.ceiling_surface_dice, row.worst_slice) == (0.0, 1.0, None)


def test_hu_is_taken_away_from_the_surface():
    mask = np.zeros((20, 20, 20), bool)
    mask[3:17, 3:17, 3:17] = True
    inner, eroded = inner_part(mask, Grid.centered(mask.shape, (2.0, 2.0, 5.0)))
    assert eroded == 5.0
    assert inner.sum() == 10 * 10 * 12, "on each side two voxels of 2 mm, or one of 5 mm, lie within 5 mm"
    thin = np.zeros_like(mask)
    thin[9:11, 9:11, :] = True
    assert inner_part(thin, Grid.centered(mask.shape, (2.0, 2.0, 5.0)))[1] == 0.0


def test_unions_are_made_only_when_nothing_is_missing():
    parts = {name: box(n, n + 2) for n, name in enumerate(BLOOD_POOL_PARTS)}
    names = ("lung", "blood_pool")
    assert np.array_equal(drawn_structures(Conditions(GRID, parts), names)["blood_pool"], box(0, 8))
    del parts["aorta"]
    assert "blood_pool" not in drawn_structures(Conditions(GRID, parts), names)
    lobes = {name: box(n, n + 1) for n, name in enumerate(LUNG_LOBES)}
    assert np.array_equal(drawn_structures(Conditions(GRID, lobes), names)["lung"], box(0, 5))
    del lobes["lung_middle_lobe_right"]
    assert "lung" not in drawn_structures(Conditions(GRID, lobes), names)


def test_a_native_result_has_no_blood_to_find():
    conditions = Conditions(GRID, {name: box(2, 8) for name in BLOOD_POOL_PARTS})
    array = np.where(box(2, 8), 40.0, -1000.0)
    segmenter = FixedSegmenter({"blood_pool": box(0, 0)})
    native = Volume(array, GRID, {"attributes": {"contrast_phase": "native"}})
    row = adherence(native, conditions, segmenter)["blood_pool"]
    assert row.dice is None and "Made as native" in row.note and row.mean_hu == 40.0
    arterial = Volume(array, GRID, {"attributes": {"contrast_phase": "arterial"}})
    assert adherence(arterial, conditions, segmenter)["blood_pool"].dice == 0.0, "contrast was asked for"
    unknown = Volume(array, GRID)
    row = adherence(unknown, conditions, segmenter)["blood_pool"]
    assert row.dice is None and "Of unknown phase, with 40 HU" in row.note
    assert adherence(unknown, conditions, segmenter, contrast_phase="arterial")["blood_pool"].dice == 0.0


def test_masks_on_another_grid_are_brought_to_the_result():
    fine = Grid.centered((20, 20, 20), (1.0, 1.0, 2.5))
    mask = np.zeros(fine.shape, bool)
    mask[4:16, 2:18, 2:18] = True
    volume = Volume(np.where(box(2, 8), 50.0, -1000.0), GRID)
    row = adherence(volume, Conditions(fine, {"body": mask}), FixedSegmenter({"body": box(2, 8)}))["body"]
    assert row.dice == 1.0
    assert row.drawn_ml == pytest.approx(6 * 8 * 8 * 0.02)


def test_a_phantom_against_its_own_masks(arterial):
    volume = Volume(
        arterial.volume.array, arterial.volume.grid, {"attributes": {"contrast_phase": "arterial"}}
    )
    result = adherence(volume, arterial.conditions, reference=arterial.volume)
    for name in ("body", "lung", "bone", "blood_pool"):
        assert result[name].dice == result[name].ceiling_dice > 0.8
    assert result["heart_ventricle_left"].dice is None and result["heart_ventricle_left"].note
    assert result["heart_ventricle_left"].mean_hu == pytest.approx(arterial.parameters.blood_left_hu, abs=8)
    assert result["heart_myocardium"].mean_hu == pytest.approx(arterial.parameters.myocardium_hu, abs=25)
    data = json.loads(json.dumps(result.to_dict()))
    assert data["segmenter"] == "hu-rules"
    assert {"dice", "ceiling_dice", "mean_hu"} <= set(data["explanations"])
    assert "hu-rules" in data["explanations"]["dice"]


def test_what_cannot_be_measured_is_refused(arterial):
    with pytest.raises(InputError, match="no segmenter 'nnunet'; choose one of hu-rules"):
        find_segmenter("nnunet")
    with pytest.raises(InputError, match="All masks are empty"):
        adherence(
            arterial.volume, Conditions(arterial.volume.grid, {"body": np.zeros(arterial.volume.grid.shape)})
        )
    scaled = Volume(np.clip(arterial.volume.array / 1000.0, 0, 1), arterial.volume.grid)
    with pytest.raises(InputError, match="The synthetic volume has values from 0 to 0"):
        adherence(scaled, arterial.conditions)
