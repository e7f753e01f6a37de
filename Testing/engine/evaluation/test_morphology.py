"""Morphology in millimetres against brute force and its defining properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medlord.evaluation import morphology

SPACING = (2.8, 2.0, 5.0)


def random_mask(seed: int, share: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).random((13, 11, 7)) < share


@pytest.mark.parametrize("radius_mm", [2.0, 2.9, 5.1, 9.0])
def test_dilation_reaches_exactly_the_radius_in_mm(radius_mm):
    mask = random_mask(1, 0.02)
    distance = ndimage.distance_transform_edt(~mask, sampling=SPACING)
    assert np.array_equal(morphology.dilate_mm(mask, radius_mm, SPACING), distance <= radius_mm)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.floats(1.0, 12.0))
def test_opening_and_closing_bracket_the_mask_and_are_idempotent(seed, radius_mm):
    mask = random_mask(seed)
    opened, closed = (
        morphology.open_mm(mask, radius_mm, SPACING),
        morphology.close_mm(mask, radius_mm, SPACING),
    )
    assert not (opened & ~mask).any() and not (mask & ~closed).any()
    assert np.array_equal(morphology.open_mm(opened, radius_mm, SPACING), opened)
    assert np.array_equal(morphology.close_mm(closed, radius_mm, SPACING), closed)


def test_nothing_and_everything_have_no_surface():
    nothing, everything = np.zeros((4, 5, 6), bool), np.ones((4, 5, 6), bool)
    assert not morphology.dilate_mm(nothing, 50.0, SPACING).any()
    assert morphology.erode_mm(everything, 50.0, SPACING).all()
    assert not morphology.largest_part(nothing).any()
    assert list(morphology.each_part(nothing)) == []


def test_opening_takes_a_plate_by_its_thickness_in_mm_not_in_voxels():
    plate = np.zeros((20, 20, 20), bool)
    plate[:, 8:12, :] = True
    assert not morphology.open_mm(plate, 6.0, (1.0, 1.0, 1.0)).any()
    assert morphology.open_mm(plate, 6.0, (4.0, 4.0, 4.0)).any()


def test_parts_come_largest_first_and_small_ones_are_left_out():
    mask = np.zeros((12, 6, 6), bool)
    mask[0:2, 0:2, 0:2], mask[5:9, 0:3, 0:3], mask[11, 5, 5] = True, True, True
    parts = list(morphology.each_part(mask, 8))
    assert [int(part.sum()) for _, part in parts] == [36, 8]
    assert parts[0][0][0] == slice(5, 9)
    assert np.array_equal(
        morphology.parts_above(mask, 2),
        mask & ~morphology.touching(mask, mask & (np.arange(12) == 11)[:, None, None]),
    )


def test_holes_are_filled_slice_by_slice_only():
    tube = np.zeros((7, 7, 5), bool)
    tube[1:6, 1:6, :] = True
    tube[3, 3, :] = False
    filled = morphology.fill_holes_in_slices(tube, axis=2)
    assert filled[3, 3].all()
    assert not morphology.fill_holes_in_slices(tube, axis=0)[3, 3].any()
