"""Sampling, resolution, partial volume, noise: the picture is the geometry, whatever the grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medlord.phantom import case as case_module
from medlord.phantom import labels, make_phantom, sample_parameters
from medlord.phantom.frame import BodyFrame
from medlord.phantom.imaging import add_noise
from medlord.phantom.rasterise import Block, Tubes
from medlord.phantom.shapes import coverage, ellipsoid
from medlord.volumes import Grid

PLAIN = {"nodules": 0, "pleural_effusion": False, "ground_glass": False, "pericardial_effusion_mm": 0.0}


def test_one_seed_is_one_volume_and_two_seeds_are_two(small_grid, monkeypatch):
    first = make_phantom(50, small_grid)
    monkeypatch.setattr(case_module, "VOXELS_PER_BLOCK", 13 * 80 * 80)
    again = make_phantom(50, small_grid)
    other = make_phantom(51, small_grid)
    assert np.array_equal(first.volume.array, again.volume.array)
    assert np.array_equal(first.labelmap, again.labelmap)
    assert all(np.array_equal(first.labels[name], again.labels[name]) for name in labels.FLAGS)
    assert first.parameters == again.parameters
    assert first.volume.array.dtype == np.int16
    assert not np.array_equal(first.labelmap, other.labelmap)


def test_overriding_one_field_leaves_the_others():
    plain, changed = sample_parameters(60), sample_parameters(60, kernel="lung", dose=3.0)
    different = {name for name, value in plain.to_dict().items() if changed.to_dict()[name] != value}
    assert different <= {"kernel", "dose"}
    assert changed.dose == 3.0 and changed.kernel == "lung"


def test_volumes_do_not_depend_on_the_grid():
    """Volume of each structure, and of the whole skeleton, at 2.8 x 2.8 x 5 mm and on a finer, differently cut grid."""
    fine = Grid.centered((176, 150, 120), (2.2, 2.2, 2.6), (1.1, -4.0, 0.7))
    coarse = make_phantom(52, Grid.centered((138, 118, 63), (2.8, 2.8, 5.0), (1.1, -4.0, 0.7)), **PLAIN)
    fine = make_phantom(52, fine, **PLAIN)
    for name in (
        "lung",
        "heart_ventricle_left",
        "heart_atrium_left",
        "heart_atrium_right",
        "heart_ventricle_right",
        "heart_myocardium",
        "aorta",
        "lung_lower_lobe_left",
        "bone",
    ):
        volumes = [c.mask(name).sum() * c.volume.grid.voxel_volume_ml for c in (coarse, fine)]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.04), name


@pytest.mark.parametrize("orientation", ["LPS", "SAR"])
def test_the_patient_does_not_depend_on_the_direction_of_the_axes(small_grid, orientation):
    order = [next(n for n, pair in enumerate(("RL", "AP", "SI")) if letter in pair) for letter in orientation]
    shape, spacing = np.array(small_grid.shape)[order], small_grid.spacing_mm[order]
    turned = make_phantom(53, Grid.centered(tuple(shape), tuple(spacing), orientation=orientation), **PLAIN)
    straight = make_phantom(53, small_grid, **PLAIN)
    back = turned.labelmap.transpose(np.argsort(order))
    flips = ["RAS".find(orientation[order.index(axis)]) < 0 for axis in range(3)]
    back = back[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    same = back == straight.labelmap
    assert same[straight.labelmap > 0].mean() > 0.985


@given(st.integers(0, 10_000), st.lists(st.floats(-150, 150), min_size=3, max_size=3))
@settings(max_examples=15)
def test_body_frame_goes_to_canonical_space_and_back(seed, point):
    frame = BodyFrame(sample_parameters(seed, **PLAIN))
    world = frame.to_world(np.array([point]))
    assert frame.to_canonical(world)[0] == pytest.approx(point, abs=0.02)


def test_coordinates_on_a_grid_are_those_of_its_points():
    frame = BodyFrame(sample_parameters(54, scoliosis_mm=15.0, **PLAIN))
    grid = Grid.centered((9, 8, 7), (30.0, 25.0, 40.0), (4.0, 5.0, 6.0), "LPS")
    block = Block(grid, frame, 0, 7)
    k, j, i = 5, 2, 7
    world = grid.affine[:3, :3] @ [i, j, k + block.first] + grid.affine[:3, 3]
    expected = frame.to_canonical(world[None])[0]
    assert [v[k, j, i] for v in (block.x, block.y, block.z)] == pytest.approx(expected, abs=1e-3)


@given(st.floats(5.0, 20.0), st.floats(-1.0, 1.0))
@settings(max_examples=20)
def test_partial_volume_keeps_the_volume_of_a_sphere(radius, shift):
    """The ramp across the surface adds a share that goes with the square of voxel size over radius."""
    x, y, z = (
        v.astype(np.float32)
        for v in np.meshgrid(*(np.arange(-26, 27, s) + shift for s in (2.0, 2.0, 3.0)), indexing="ij")
    )
    filled = coverage(ellipsoid(x, y, z, (0, 0, 0), (radius,) * 3)).sum() * 2 * 2 * 3
    assert filled == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.02 + 1.5 * (1.6 / radius) ** 2)


@pytest.mark.parametrize("radius", [0.6, 1.2, 2.5, 6.0])
def test_tubes_keep_their_volume_however_thin(radius):
    grid = Grid.centered((40, 40, 24), (2.8, 2.8, 5.0))
    block = Block(grid, BodyFrame(sample_parameters(55, **PLAIN)), 0, 24)
    start, end = np.array([[-35.0, -28.0, -30.0]]), np.array([[30.0, 22.0, 33.0]])
    tubes = Tubes(start, end, np.array([radius]), np.array([radius]))
    filled = block.tube_fraction(tubes)[0].sum() * np.prod(grid.spacing_mm)
    expected = np.pi * radius**2 * np.linalg.norm(end - start) + 4 / 3 * np.pi * radius**3
    assert filled == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("kernel", ["soft", "lung"])
def test_noise_at_the_native_grid_is_between_6_and_14_hu_and_falls_with_dose_and_voxel_size(kernel):
    def deviation(spacing, level):
        noise = add_noise(np.zeros((24, 64, 64), np.float32), spacing, kernel, 1, np.float32(level))
        return float(noise.std())

    native, fine = deviation((2.8, 2.8, 5.0), 1.0), deviation((0.7, 0.7, 1.25), 1.0)
    assert 6 <= native <= 14
    assert 1.3 * native < fine < 4 * native
    assert deviation((2.8, 2.8, 5.0), 0.5) == pytest.approx(native / 2, rel=1e-3)


def test_noise_in_the_liver_of_a_case(native_case):
    from scipy.ndimage import binary_erosion

    liver = binary_erosion(native_case.labels["liver"], iterations=2)
    assert 4 <= native_case.volume.array[liver].std() <= 22
