"""Grids and resampling: world positions, anti-aliasing, and thin structures that survive."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medlord.errors import InputError
from medlord.volume_files import load_volume
from medlord.volumes import Grid, Volume, require_ct, resample_mask, resample_volume

TOUCHING = np.ones((3, 3, 3), bool)


def oblique_grid(shape, spacing_mm, angles_deg, center_ras_mm=(0.0, 0.0, 0.0), mirrored=False) -> Grid:
    """A rotated grid; `mirrored` makes its determinant negative."""
    directions = nibabel.eulerangles.euler2mat(*np.radians(angles_deg))
    if mirrored:
        directions = directions @ np.diag([-1.0, 1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(spacing_mm)
    affine[:3, 3] = np.asarray(center_ras_mm) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


def positions(grid: Grid) -> np.ndarray:
    """RAS mm of every voxel centre, [i, j, k, 3]."""
    index = np.moveaxis(np.indices(grid.shape), 0, -1)
    return index @ grid.affine[:3, :3].T + grid.affine[:3, 3]


def ellipsoid(grid: Grid, radii_mm, center_ras_mm=(0.0, 0.0, 0.0)) -> np.ndarray:
    """The voxels whose centre lies in an ellipsoid along the world axes."""
    return (((positions(grid) - np.asarray(center_ras_mm)) / np.asarray(radii_mm)) ** 2).sum(-1) <= 1


def ml(mask: np.ndarray, grid: Grid) -> float:
    """Volume of a mask in ml."""
    return float(mask.sum()) * grid.voxel_volume_ml


spacings = st.tuples(*[st.floats(0.5, 6.0)] * 3)
angles = st.tuples(*[st.floats(-180.0, 180.0)] * 3)
offsets = st.tuples(*[st.floats(-4.0, 4.0)] * 3)


def test_centered_grids_lie_where_they_should():
    grid = Grid.centered((4, 5, 6), (1.0, 2.0, 3.0), (10.0, 20.0, 30.0), "LPS")
    assert grid.affine[:3, :3].tolist() == [[-1, 0, 0], [0, -2, 0], [0, 0, 3]]
    assert np.allclose(grid.center_ras_mm, (10, 20, 30))
    assert np.allclose(positions(grid).reshape(-1, 3).mean(axis=0), (10, 20, 30))
    assert np.allclose(grid.spacing_mm, (1, 2, 3)) and grid.voxel_volume_ml == pytest.approx(0.006)
    assert "".join(nibabel.aff2axcodes(grid.affine)) == "LPS"
    for orientation in ("RAS", "SAR", "PIR", "AIL"):
        oriented = Grid.centered((4, 5, 6), (1, 2, 3), orientation=orientation)
        assert "".join(nibabel.aff2axcodes(oriented.affine)) == orientation


@pytest.mark.parametrize("orientation", ["RA", "RAR", "XYZ", "RASL", ""])
def test_orientations_that_span_nothing_are_refused(orientation):
    with pytest.raises(InputError):
        Grid.centered((2, 2, 2), (1, 1, 1), orientation=orientation)


@given(spacings, angles, offsets, st.booleans())
def test_any_rotated_grid_is_valid_and_survives_json(spacing, degrees, center, mirrored):
    grid = oblique_grid((3, 4, 5), spacing, degrees, center, mirrored)
    grid.validate()
    assert np.allclose(grid.spacing_mm, spacing) and np.allclose(grid.center_ras_mm, center)
    assert grid.voxel_volume_ml == pytest.approx(np.prod(spacing) / 1000)
    assert Grid.from_dict(grid.to_dict()) == grid and hash(Grid.from_dict(grid.to_dict())) == hash(grid)
    assert np.allclose(grid.index_to_index(grid), np.eye(4))


def test_matching_is_about_positions_not_about_numbers():
    grid = Grid.centered((400, 4, 4), (1, 1, 1))
    shifted = grid.affine.copy()
    shifted[:3, 3] += 5e-4
    assert grid.matches(Grid(grid.shape, shifted))
    stretched = grid.affine.copy()
    stretched[0, 0] += 1e-4  # 0.04 mm at the far end
    assert not grid.matches(Grid(grid.shape, stretched))
    assert not grid.matches(Grid((400, 4, 5), grid.affine))


def bad_affine(**changes) -> np.ndarray:
    """The identity with entries such as `at_01=2.0` replaced."""
    affine = np.eye(4)
    for key, value in changes.items():
        affine[int(key[-2]), int(key[-1])] = value
    return affine


@pytest.mark.parametrize(
    ("affine", "reason"),
    [
        (bad_affine(at_00=np.nan), "not finite"),
        (bad_affine(at_13=np.inf), "not finite"),
        (bad_affine(at_22=0.0), "singular"),
        (bad_affine(at_11=0.0, at_01=1.0), "singular"),
        (bad_affine(at_01=0.05), "sheared affine.*limit 0.001"),
        (np.eye(3), "not finite"),
    ],
)
def test_affines_without_a_world_are_refused(affine, reason):
    with pytest.raises(InputError, match=reason) as error:
        Grid((3, 3, 3), affine).validate("mask.nii.gz")
    assert str(error.value).startswith("mask.nii.gz") and "\n" not in str(error.value)


def test_shapes_without_voxels_and_arrays_of_another_shape_are_refused():
    with pytest.raises(InputError, match="at least 1 voxel"):
        Grid((3, 0, 3), np.eye(4)).validate()
    with pytest.raises(InputError, match=r"\(3, 3, 4\).*\(3, 3, 3\)"):
        Volume(np.zeros((3, 3, 4)), Grid((3, 3, 3), np.eye(4)))


@settings(max_examples=25)
@given(spacings, angles, offsets, st.booleans())
def test_a_linear_ramp_is_resampled_exactly(spacing, degrees, center, mirrored):
    source = oblique_grid((26, 26, 26), (4.0, 4.0, 4.0), (20.0, -35.0, 50.0), (1.0, 2.0, 3.0), mirrored)
    slope, at = np.array([3.0, -5.0, 7.0]), 40.0
    volume = Volume((positions(source) @ slope + at).astype(np.float32), source)
    # Well inside: blur and interpolation see nothing of the border.
    target = oblique_grid((5, 4, 3), spacing, degrees, np.asarray(center) * 2)
    resampled = resample_volume(volume, target)
    assert np.allclose(resampled.array, positions(target) @ slope + at, atol=2e-2)


def test_outside_the_field_of_view_is_air():
    source = Grid.centered((8, 8, 8), (2, 2, 2))
    volume = Volume(np.full(source.shape, 40.0, np.float32), source)
    target = Grid.centered((20, 20, 20), (1.5, 1.5, 1.5), (3.0, 0.0, 0.0))
    array = resample_volume(volume, target).array
    inside = (np.abs(positions(target)) < 8.0).all(axis=-1)
    assert np.allclose(array[inside], 40.0) and (array[~inside] == -1000.0).all()
    assert (resample_volume(volume, target, outside_hu=-3024).array[~inside] == -3024).all()


def test_coarser_voxels_are_averages_and_the_same_grid_is_the_same_volume():
    source, target = Grid.centered((60, 60, 60), (1, 1, 1)), Grid.centered((12, 12, 12), (4, 4, 4))
    noise = np.random.default_rng(1).normal(0, 100, source.shape).astype(np.float32)
    assert resample_volume(Volume(noise, source), target).array.std() < 25
    same = resample_volume(Volume(noise, source, {"seed": 1}), source)
    assert np.array_equal(same.array, noise) and same.recipe == {"seed": 1}
    assert same.array is not noise


@settings(max_examples=8)
@given(st.tuples(*[st.floats(1.5, 3.5)] * 3), angles, offsets, st.tuples(*[st.floats(14, 22)] * 3))
def test_thick_objects_keep_their_volume(spacing, degrees, center, radii):
    source = Grid.centered((50, 50, 50), (1, 1, 1))
    target = oblique_grid((48, 48, 48), spacing, degrees, center)
    mask = ellipsoid(source, radii)
    assert ml(resample_mask(mask, source, target), target) == pytest.approx(ml(mask, source), rel=0.03)


def tube(shape, start, direction, width: int = 1) -> np.ndarray:
    """A straight tube through the index `start`, `width` voxels wide, up to two voxels from the border."""
    mask, start = np.zeros(shape, bool), np.asarray(start, dtype=float)
    direction = np.asarray(direction, dtype=float) / np.abs(direction).max()
    for step in np.arange(-max(shape), max(shape), 0.25):
        low = np.floor(start + step * direction + 0.5).astype(int)
        if (low >= 2).all() and (low + width <= np.asarray(shape) - 2).all():
            mask[tuple(slice(a, a + width) for a in low)] = True
    return mask


def far_from(mask: np.ndarray, grid: Grid, result: np.ndarray, target: Grid) -> float:
    """Largest distance, in voxels of the target, from a voxel of the mask to the nearest set voxel."""
    index = np.argwhere(mask) @ grid.affine[:3, :3].T + grid.affine[:3, 3] - target.affine[:3, 3]
    index = index @ np.linalg.inv(target.affine[:3, :3]).T
    return float(max(np.abs(np.argwhere(result) - point).max(axis=1).min() for point in index))


straight = st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, -1), (1, 1, 1), (1, -1, 1)])
oblique = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: max(abs(x) for x in v) > 0.1)
directions = straight | oblique


@settings(max_examples=40)
@given(
    directions, st.integers(1, 3), offsets, st.sampled_from([(3, 3, 3), (2.8, 2.8, 5), (2, 2, 2), (3, 3, 1)])
)
def test_thin_tubes_stay_connected(direction, width, center, spacing):
    source = Grid.centered((30, 30, 30), (1, 1, 1))
    target = Grid.centered((24, 24, 24 if spacing[2] > 1 else 48), spacing, center)
    mask = tube(source.shape, (14, 15, 14), direction, width)
    result = resample_mask(mask, source, target)
    assert ndimage.label(result, TOUCHING)[1] == 1
    assert far_from(mask, source, result, target) <= 1.5


@settings(max_examples=25)
@given(directions, offsets, st.floats(3.0, 7.0))
def test_vessels_keep_their_root(direction, center, radius):
    source, target = Grid.centered((36, 36, 36), (1, 1, 1)), Grid.centered((18, 18, 18), (3, 3, 3), center)
    mask = tube(source.shape, (17, 18, 17), direction) | ellipsoid(source, [radius] * 3)
    assert ndimage.label(mask, TOUCHING)[1] == 1
    assert ndimage.label(resample_mask(mask, source, target), TOUCHING)[1] == 1


def test_what_lies_apart_is_not_joined():
    source, target = Grid.centered((60, 60, 30), (1, 1, 1)), Grid.centered((20, 20, 10), (3, 3, 3))
    mask = ellipsoid(source, (8, 8, 8), (-16, 0, 0)) | ellipsoid(source, (8, 8, 8), (16, 0, 0))
    mask |= tube(source.shape, (30, 10, 15), (0, 0, 1))
    assert (
        ndimage.label(mask, TOUCHING)[1]
        == ndimage.label(resample_mask(mask, source, target), TOUCHING)[1]
        == 3
    )


@settings(max_examples=20)
@given(offsets, st.tuples(*[st.floats(0.6, 5.0)] * 3), angles)
def test_no_single_voxel_is_lost(center, spacing, degrees):
    source = Grid.centered((9, 9, 9), (2, 2, 2))
    target = oblique_grid((30, 30, 30), spacing, degrees, center)
    mask = np.zeros(source.shape, bool)
    mask[4, 4, 4] = True
    assert resample_mask(mask, source, target).any()


def test_the_same_grid_is_the_same_mask_and_a_shift_moves_it():
    source = Grid.centered((12, 13, 14), (1, 2, 3), (5, 6, 7), "LPS")
    mask = np.random.default_rng(3).random(source.shape) > 0.5
    same = resample_mask(mask, source, source)
    assert np.array_equal(same, mask) and not np.shares_memory(same, mask)
    shifted = source.affine.copy()
    shifted[:3, 3] += source.affine[:3, :3] @ [1, 2, 3]
    moved = resample_mask(mask, source, Grid((9, 9, 9), shifted))
    assert np.array_equal(moved, mask[1:10, 2:11, 3:12])


def test_the_border_of_the_field_of_view_is_kept_and_nothing_grows_beyond_it():
    source, target = (
        Grid.centered((30, 30, 30), (1, 1, 1)),
        Grid.centered((16, 16, 16), (3, 3, 3), (0.2, 0.4, 0.6)),
    )
    full = resample_mask(np.ones(source.shape, bool), source, target)
    inside = (np.abs(positions(target)) < 15.0).all(axis=-1)
    assert np.array_equal(full, inside)
    through = np.zeros(source.shape, bool)
    through[14, 14, :] = True
    result = resample_mask(through, source, target)
    overlapping = (np.abs(positions(target)) < 15.0 + 1.5).all(axis=-1)
    assert not (result & ~overlapping).any()
    assert set(np.argwhere(result)[:, 2]) >= set(np.argwhere(inside)[:, 2])


def test_an_empty_mask_and_a_mask_elsewhere_are_empty():
    source = Grid.centered((8, 8, 8), (1, 1, 1))
    assert not resample_mask(np.zeros(source.shape, bool), source, Grid.centered((4, 4, 4), (3, 3, 3))).any()
    far = Grid.centered((4, 4, 4), (3, 3, 3), (500, 0, 0))
    assert not resample_mask(np.ones(source.shape, bool), source, far).any()


def test_finer_voxels_keep_a_straight_vessel():
    source, target = (
        Grid.centered((12, 12, 12), (3, 3, 3)),
        Grid.centered((34, 34, 34), (1, 1, 1), (0.3, 0.1, 0.4)),
    )
    mask = tube(source.shape, (6, 6, 6), (0, 0, 1))
    result = resample_mask(mask, source, target)
    assert ndimage.label(result, TOUCHING)[1] == 1
    assert ml(result, target) == pytest.approx(ml(mask, source), rel=0.45)


def test_real_segmentations_keep_their_volumes(shared):
    path = shared / "data" / "ct" / "heart_cta_1p5mm_pulmonary_artery.nii.gz"
    volume = load_volume(path)
    mask = volume.array != 0
    center = positions(volume.grid)[mask].mean(axis=0)
    target = Grid.centered((80, 80, 40), (2.8, 2.8, 5.0), tuple(center))
    result = resample_mask(mask, volume.grid, target)
    assert ml(result, target) == pytest.approx(ml(mask, volume.grid), rel=0.05)
    # No part is lost and none falls apart.
    assert ndimage.label(result, TOUCHING)[1] <= ndimage.label(mask, TOUCHING)[1]


@pytest.mark.parametrize("name", ["chest_lidc0314_tiny", "ts_abdomen_sm", "sts002_ct", "heart_cta_1p5mm"])
def test_real_ct_is_ct(shared, name):
    require_ct(load_volume(shared / "data" / "ct" / f"{name}.nii.gz"))


@pytest.mark.parametrize("name", ["ts_mr_sm", "sts002_pet", "sts002_mr_t1", "ts_abdomen_sm_seg117"])
def test_other_images_are_refused_where_a_ct_is_needed(shared, name):
    with pytest.raises(InputError, match="no CT in HU") as error:
        require_ct(load_volume(shared / "data" / "ct" / f"{name}.nii.gz"), "The reference")
    assert str(error.value).startswith("The reference has values from")


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [(0, 1, "no CT in HU"), (-1000, np.nan, "not finite"), (-np.inf, 40, "not finite"), (-1000, 1e6, "no CT in HU"),
     (-1000, -900, "no CT in HU")],
)  # fmt: skip
def test_values_that_are_no_ct(low, high, reason):
    array = np.array([low, high] * 4, dtype=float).reshape(2, 2, 2)
    with pytest.raises(InputError, match=reason):
        require_ct(Volume(array, Grid.centered((2, 2, 2), (1, 1, 1))))
