"""Conditions: named masks on one grid, from labelmaps and files, and what is no mask."""

from __future__ import annotations

import numpy as np
import pytest

from medlord.conditions import Conditions
from medlord.errors import InputError
from medlord.volume_files import save_volume
from medlord.volumes import Grid, Volume

GRID = Grid.centered((6, 7, 8), (1.0, 2.0, 3.0), (10.0, 20.0, 30.0), "LPS")


def block(low: int, high: int) -> np.ndarray:
    """A cube of voxels."""
    mask = np.zeros(GRID.shape, bool)
    mask[low:high, low:high, low:high] = True
    return mask


def test_order_content_and_volumes():
    conditions = Conditions(GRID, {"lung": block(1, 3), "body": np.where(block(0, 6), 7, 0)})
    assert conditions.names == ["lung", "body"] and "lung" in conditions and "bone" not in conditions
    assert conditions["body"].dtype == bool and conditions["body"].sum() == 216
    assert conditions.volumes_ml() == pytest.approx({"lung": 8 * 0.006, "body": 216 * 0.006})


def test_overlapping_masks_are_both_kept():
    conditions = Conditions(GRID, {"lung": block(0, 4), "lung_nodules": block(1, 2)})
    placed = conditions.resampled(Grid.centered((12, 14, 16), (0.5, 1, 1.5), (10, 20, 30), "LPS"))
    assert (placed["lung"] & placed["lung_nodules"]).sum() == placed["lung_nodules"].sum() > 0


def test_hashes_are_of_voxels_in_space():
    first = Conditions(GRID, {"a": block(1, 3), "b": block(1, 3), "c": block(1, 4)}).hashes()
    assert first["a"] == first["b"] != first["c"] and len(first["a"]) == 64
    moved = Conditions(Grid.centered(GRID.shape, (1, 2, 3), (11, 20, 30), "LPS"), {"a": block(1, 3)}).hashes()
    assert moved["a"] != first["a"]
    order = np.asfortranarray(block(1, 3))
    rounded = Grid(GRID.shape, GRID.affine + 1e-9)
    assert Conditions(rounded, {"a": order}).hashes()["a"] == first["a"]


def test_the_box_around_all_masks_is_in_world_space():
    low, high = Conditions(
        GRID, {"a": block(1, 2), "b": block(2, 5), "empty": block(0, 0)}
    ).bounding_box_ras_mm()
    corner = GRID.affine @ [0.5, 0.5, 0.5, 1]
    other = GRID.affine @ [4.5, 4.5, 4.5, 1]
    assert np.allclose(low, np.minimum(corner, other)[:3]) and np.allclose(
        high, np.maximum(corner, other)[:3]
    )


def test_masks_of_another_shape_and_bad_grids_are_refused():
    with pytest.raises(InputError, match=r"'lung' has shape \(6, 7, 9\).*\(6, 7, 8\)"):
        Conditions(GRID, {"lung": np.zeros((6, 7, 9), bool)})
    affine = GRID.affine.copy()
    affine[0, 0] = np.nan
    with pytest.raises(InputError, match="grid of the conditions"):
        Conditions(Grid(GRID.shape, affine), {})


@pytest.mark.parametrize(
    ("masks", "reason"),
    [({}, "no structure"), ({"lung": block(0, 0), "body": block(0, 0)}, "lung, body: 0 voxels")],
)
def test_nothing_drawn_is_said(masks, reason):
    with pytest.raises(InputError, match=reason):
        Conditions(GRID, masks).require_content()
    with pytest.raises(InputError, match=reason):
        Conditions(GRID, masks).bounding_box_ras_mm()
    Conditions(GRID, {"lung": block(0, 1), "body": block(0, 0)}).require_content()


def test_labelmaps_are_split_by_name():
    labelmap = np.zeros(GRID.shape, np.uint16)
    labelmap[block(0, 3)] = 10
    labelmap[block(1, 2)] = 300
    labelmap[5, 5, 5] = 7
    names = {10: "lung_left", 300: "nodule", 11: "liver", 7: "nodule"}
    conditions = Conditions.from_labelmap(labelmap, GRID, names)
    assert conditions.names == ["lung_left", "nodule", "liver"]
    assert [int(mask.sum()) for mask in conditions.masks.values()] == [26, 2, 0]
    whole = Conditions.from_labelmap(labelmap.astype(np.float64), GRID, names)
    assert whole.hashes() == conditions.hashes()


@pytest.mark.parametrize(
    ("value", "reason"), [(0.5, "no whole numbers.*0.5"), (np.nan, "not finite"), (np.inf, "not finite")]
)
def test_images_that_are_no_labels_are_refused(value, reason):
    with pytest.raises(InputError, match=reason):
        Conditions.from_labelmap(np.full(GRID.shape, value), GRID, {1: "lung"})


def save(path, grid=GRID, mask=None) -> str:
    """A mask file."""
    return str(save_volume(Volume(block(1, 3) if mask is None else mask, grid), path))


def test_mask_files_share_one_grid(tmp_path):
    paths = {"lung": save(tmp_path / "a.nii.gz"), "body": save(tmp_path / "b.nrrd", mask=block(0, 5))}
    conditions = Conditions.load(paths)
    assert conditions.names == ["lung", "body"] and conditions.grid.matches(GRID)
    assert [int(mask.sum()) for mask in conditions.masks.values()] == [8, 125]
    other = Grid.centered(GRID.shape, (1, 2, 3), (10, 20, 31), "LPS")
    paths["bone"] = save(tmp_path / "c.nii.gz", other)
    with pytest.raises(InputError, match=r"'bone' \(c.nii.gz\) lies on another grid"):
        Conditions.load(paths)
    paths["bone"] = save(tmp_path / "d.nii.gz", Grid.centered((3, 3, 3), (1, 1, 1)), np.ones((3, 3, 3), bool))
    with pytest.raises(InputError, match=r"shape \(3, 3, 3\)"):
        Conditions.load(paths)
    with pytest.raises(InputError, match="There is no file"):
        Conditions.load({"lung": tmp_path / "none.nii.gz"})
    with pytest.raises(InputError, match="NAME=FILE"):
        Conditions.load({})
