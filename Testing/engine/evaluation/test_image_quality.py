"""Air, noise, sharpness, saturation and breaks, on arrays whose numbers are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from medlord.evaluation.image_quality import measure_image_quality
from medlord.evaluation.verdicts import AMBER, RED, judge_image, worst_level
from medlord.volumes import Grid, Volume

SHAPE = (64, 48, 40)
GRID = Grid.centered(SHAPE, (3.0, 3.0, 4.0))


@pytest.fixture(scope="module")
def body() -> np.ndarray:
    """An ellipsoid-like cylinder through all slices."""
    i, j = np.ogrid[: SHAPE[0], : SHAPE[1]]
    disc = ((i - 31.5) / 24) ** 2 + ((j - 23.5) / 17) ** 2 <= 1
    return np.repeat(disc[:, :, None], SHAPE[2], axis=2)


@pytest.fixture(scope="module")
def tissue(body) -> np.ndarray:
    """Soft tissue in air with smooth variation and noise of 12 HU."""
    draw = np.random.default_rng(3)
    inside = 40 + 400 * ndimage.gaussian_filter(draw.standard_normal(SHAPE), 3.0)
    return np.where(body, inside, -1000.0) + draw.normal(0, 12.0, SHAPE)


def measure(array: np.ndarray, body: np.ndarray, grid: Grid = GRID):
    return measure_image_quality(Volume(array.astype(np.float32), grid), body)


def test_a_plain_picture_has_its_own_noise_and_no_finding(tissue, body):
    quality = measure(tissue, body)
    assert quality.noise_hu == pytest.approx(12.0, rel=0.15)
    assert quality.outside_air_hu == pytest.approx(-1000, abs=2)
    assert quality.saturated_low == 0 and quality.saturated_high < 1e-4
    assert 1.0 <= quality.edge_width_voxels < 1.2, "the skin rises within one step"
    assert quality.edge_width_mm == pytest.approx(3.0 * quality.edge_width_voxels)
    assert all(value is None or value < 0.9 for value in quality.incoherence), quality.incoherence
    assert judge_image(quality) == []


def test_values_do_not_depend_on_the_order_of_the_axes(tissue, body):
    expected = measure(tissue, body)
    affine = np.eye(4)
    affine[:3, :3] = GRID.affine[:3, [2, 0, 1]] * (1, -1, 1)
    turned = [np.ascontiguousarray(a.transpose(2, 0, 1)[:, ::-1]) for a in (tissue, body)]
    measured = measure(*turned, Grid(turned[0].shape, affine))
    assert measured.noise_hu == pytest.approx(expected.noise_hu)
    assert measured.seam == pytest.approx(expected.seam) and measured.seam_position == expected.seam_position


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_step_between_two_slices_is_a_seam(tissue, body, axis):
    array = tissue.copy()
    np.moveaxis(array, axis, 0)[SHAPE[axis] // 2 :] += 60.0
    quality = measure(array, body)
    assert quality.seam[axis] > 7.0
    # Slices are counted from 1, and the break lies after the last slice of the first half.
    assert quality.seam_position[axis] == SHAPE[axis] // 2 - 1
    findings = [f for f in judge_image(quality) if "break" in f.reason]
    assert len(findings) == 1 and findings[0].level == RED


def test_shuffled_slices_do_not_continue_each_other(tissue, body):
    order = np.random.default_rng(1).permutation(SHAPE[2])
    quality = measure(tissue[:, :, order], body)
    assert quality.incoherence[2] > 0.9 > 0.8 > max(quality.incoherence[:2])
    assert any("out of order" in f.reason and f.level == RED for f in judge_image(quality))


def test_a_blurred_skin_is_wide(tissue, body):
    quality = measure(ndimage.gaussian_filter(tissue, 2.0), body)
    # A step blurred by s rises at most by 1 / (s sqrt(2 pi)) per voxel.
    assert quality.edge_width_voxels == pytest.approx(2.0 * np.sqrt(2 * np.pi), rel=0.25)
    assert any("blurred" in f.reason and f.level == RED for f in judge_image(quality))


def test_clipped_and_offset_values_are_seen(tissue, body):
    quality = measure(np.clip(tissue, None, 40.0) + 200, body)
    assert quality.saturated_high == pytest.approx(0.5, abs=0.1)
    assert quality.outside_air_hu == pytest.approx(-800, abs=2)
    reasons = [f.reason for f in judge_image(quality) if f.level == RED]
    assert any("instead of -1000" in reason for reason in reasons)
    assert any("highest value" in reason for reason in reasons)


def test_a_picture_without_noise_is_unusual(body):
    quality = measure(np.where(body, 40.0, -1000.0), body)
    assert quality.noise_hu == 0
    assert worst_level(judge_image(quality)) == RED, "one value everywhere in the body is the highest value"
    ramp = np.where(body, 0.1 * np.arange(SHAPE[0])[:, None, None], -1000.0)
    assert worst_level(judge_image(measure(ramp, body))) == AMBER


def test_what_is_too_small_is_not_measured():
    grid = Grid.centered((6, 5, 3), (3.0, 3.0, 4.0))
    quality = measure(np.zeros(grid.shape), np.ones(grid.shape, bool), grid)
    assert quality.noise_hu is quality.outside_air_hu is quality.edge_width_mm is None
    assert quality.seam == quality.incoherence == (None, None, None)
    assert not any("break" in f.reason or "order" in f.reason for f in judge_image(quality))
