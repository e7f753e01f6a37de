"""The rules against the exact masks of phantoms, on real CT, and on input that is none."""

from __future__ import annotations

import numpy as np
import pytest

from medlord.errors import CancelledError, InputError
from medlord.evaluation.adherence import BLOOD_POOL_PARTS, dice
from medlord.evaluation.rules import STRUCTURES, segment_by_rules
from medlord.volume_files import load_volume
from medlord.volumes import Grid, Volume, resample_volume


@pytest.fixture(scope="module")
def found(arterial):
    return segment_by_rules(arterial.volume)


def blood_pool(case) -> np.ndarray:
    return np.logical_or.reduce([case.mask(name) for name in BLOOD_POOL_PARTS])


def test_rules_find_the_phantom_again(arterial, found):
    assert dice(found["body"], arterial.mask("body")) >= 0.985
    assert dice(found["lung"], arterial.mask("lung")) >= 0.97
    assert dice(found["bone"], arterial.mask("bone")) >= 0.83
    assert dice(found["blood_pool"], blood_pool(arterial)) >= 0.88
    assert dice(found["airways"], arterial.mask("trachea")) >= 0.8


def test_bone_and_contrast_are_told_apart(arterial, found):
    assert not (found["bone"] & found["blood_pool"]).any()
    blood_taken_for_bone = found["bone"] & blood_pool(arterial)
    bone_taken_for_blood = found["blood_pool"] & arterial.mask("bone")
    assert blood_taken_for_bone.sum() < 0.08 * blood_pool(arterial).sum()
    assert bone_taken_for_blood.sum() < 0.01 * arterial.mask("bone").sum()


def test_without_contrast_there_is_no_blood_pool_and_no_table_in_the_body(native):
    found = segment_by_rules(native.volume)
    assert found.volumes_ml()["blood_pool"] < 25.0
    assert dice(found["body"], native.mask("body")) >= 0.985
    assert dice(found["lung"], native.mask("lung")) >= 0.97
    assert dice(found["bone"], native.mask("bone")) >= 0.8


def test_masks_lie_in_the_patient_whatever_the_order_of_the_axes(arterial, found):
    volume = arterial.volume
    turned = volume.array.transpose(2, 0, 1)[:, ::-1, :]
    affine = np.eye(4)
    affine[:3, :3] = volume.grid.affine[:3, [2, 0, 1]] * (1, -1, 1)
    affine[:3, 3] = (volume.grid.affine @ (volume.grid.shape[0] - 1, 0, 0, 1))[:3]
    again = segment_by_rules(
        Volume(np.ascontiguousarray(turned), Grid(turned.shape, affine)), ("lung", "airways")
    )
    for name in again.names:
        assert np.array_equal(again[name], found[name].transpose(2, 0, 1)[:, ::-1, :])


def test_strong_noise_changes_little(arterial):
    noise = np.random.default_rng(5).normal(0, 45, arterial.volume.array.shape)
    found = segment_by_rules(Volume(arterial.volume.array + noise, arterial.volume.grid))
    assert dice(found["body"], arterial.mask("body")) >= 0.98
    assert dice(found["lung"], arterial.mask("lung")) >= 0.95
    assert dice(found["blood_pool"], blood_pool(arterial)) >= 0.85


def test_a_missing_organ_is_missing(arterial):
    """The rules see the voxels only: an organ that is erased is not found."""
    without = arterial.volume.array.copy()
    left = arterial.mask("lung_upper_lobe_left") | arterial.mask("lung_lower_lobe_left")
    without[left] = 45
    found = segment_by_rules(Volume(without, arterial.volume.grid), ("lung",))
    assert dice(found["lung"] & left, left) < 0.05
    assert dice(found["lung"] & ~left, arterial.mask("lung") & ~left) >= 0.96


def test_real_chest_ct(shared):
    """Whole chest, 6 mm voxels: sizes of an adult, lung inside body, table (below the back) not part of it."""
    volume = load_volume(shared / "data" / "ct" / "chest_lidc0314_tiny.nii.gz")
    found = segment_by_rules(volume, ("body", "lung"))
    volumes = found.volumes_ml()
    assert 2500 < volumes["lung"] < 3300
    assert 15000 < volumes["body"] < 18500
    assert not (found["lung"] & ~found["body"]).any()
    behind = volume.array > -500
    behind &= ~found["body"]
    assert behind.any(), "the table is in the picture"


def test_real_native_chest_has_bones_and_no_contrast(shared):
    """Dense vertebrae beside the aorta are not taken for contrast; on the grid of the bundled model."""
    volume = load_volume(shared / "data" / "ct" / "chest_lidc0314_2mm.nii.gz")
    grid = Grid.centered((128, 128, 64), (2.8, 2.8, 5.0), tuple(volume.grid.center_ras_mm))
    volumes = segment_by_rules(resample_volume(volume, grid), ("bone", "blood_pool")).volumes_ml()
    assert 450 < volumes["bone"] < 900
    assert volumes["blood_pool"] < 10


def test_real_ct_angiography_of_the_heart(shared):
    """A cropped field of view, in which the lungs reach the border and the spine is cut off."""
    folder = shared / "data" / "ct"
    found = segment_by_rules(load_volume(folder / "heart_cta_1p5mm.nii.gz"), ("lung", "blood_pool"))
    artery = load_volume(folder / "heart_cta_1p5mm_pulmonary_artery.nii.gz").array > 0
    heart = load_volume(folder / "heart_cta_1p5mm_heart.nii.gz").array > 0
    assert (found["blood_pool"] & artery).sum() > 0.7 * artery.sum()
    assert (found["blood_pool"] & heart).sum() > 0.4 * heart.sum(), (
        "blood is about half of a heart with its walls"
    )
    assert (found["lung"] & heart).sum() < 0.01 * heart.sum()
    assert 1700 < found.volumes_ml()["lung"] < 2000


def test_only_what_was_asked_for_in_that_order(arterial):
    assert segment_by_rules(arterial.volume, ("lung", "body")).names == ["lung", "body"]


def test_water_in_air_is_a_body_without_organs():
    grid = Grid.centered((40, 40, 20), (4.0, 4.0, 5.0))
    i, j, k = np.indices(grid.shape)
    ball = ((i - 20) * 4.0) ** 2 + ((j - 20) * 4.0) ** 2 + ((k - 10) * 5.0) ** 2 < 45.0**2
    found = segment_by_rules(Volume(np.where(ball, 0.0, -1000.0), grid))
    assert dice(found["body"], ball) > 0.97
    assert all(not found[name].any() for name in STRUCTURES if name != "body")


@pytest.mark.parametrize("values", [(0.0, 1.0), (-1000.0, -1000.0), (40.0, 60.0), (np.nan, -1000.0)])
def test_what_is_no_ct_is_refused(values):
    grid = Grid.centered((8, 8, 8), (2.0, 2.0, 2.0))
    array = np.full(grid.shape, values[0])
    array[4:] = values[1]
    with pytest.raises(InputError, match="CT in HU"):
        segment_by_rules(Volume(array, grid))


def test_mr_is_refused(shared):
    with pytest.raises(InputError, match="no CT in HU"):
        segment_by_rules(load_volume(shared / "data" / "ct" / "ts_mr_sm.nii.gz"))


def test_unknown_structure_is_refused(arterial):
    with pytest.raises(InputError, match="does not know 'liver'; it finds body"):
        segment_by_rules(arterial.volume, ("body", "liver"))


def test_progress_and_cancel(arterial):
    events = []
    with pytest.raises(CancelledError):
        segment_by_rules(arterial.volume, progress=events.append, cancel=lambda: len(events) > 1)
    assert [event.step for event in events] == [0, 1]
    assert events[-1].total == 3
