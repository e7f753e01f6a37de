"""Pictures: grey scale, true size, and the patient's right on the left whatever the voxel axes are."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from medlord.conditions import Conditions
from medlord.errors import InputError
from medlord.evaluation.pictures import (
    AXIAL,
    CORONAL,
    LUNG,
    MEDIASTINAL,
    PIXELS_PER_MM,
    PLANES,
    SAGITTAL,
    Outline,
    Slicer2D,
    most_telling_slice,
    picture_of_ct,
    picture_of_masks,
    picture_of_outlines,
)
from medlord.volumes import Grid, Volume

SHAPE, SPACING = (40, 50, 20), (2.0, 2.0, 5.0)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def marker(grid: Grid, ras_mm: tuple[float, float, float]) -> np.ndarray:
    """A mask of the voxel at a world position."""
    mask = np.zeros(grid.shape, bool)
    index = np.linalg.inv(grid.affine) @ (*ras_mm, 1)
    mask[tuple(np.rint(index[:3]).astype(int))] = True
    return mask


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SLA", "PIR"])
def test_radiological_convention(orientation):
    grid = Grid.centered(SHAPE, SPACING, orientation=orientation)
    mask = marker(grid, (15.0, 15.0, 12.0))  # right, anterior, superior of the middle
    seen = {"axial": (0, 0), "coronal": (0, 0), "sagittal": (0, 0)}  # upper left quadrant in every plane
    for plane in PLANES:
        slicer = Slicer2D(grid, plane)
        index = next(n for n in range(slicer.count) if slicer.cut(mask, n).any())
        rows, columns = np.argwhere(slicer.cut(mask, index))[0]
        height, width = slicer.cut(mask, index).shape
        assert (int(rows > height / 2), int(columns > width / 2)) == seen[plane.name]
        assert slicer.position_mm(index) == pytest.approx((15.0, 15.0, 12.0)[plane.axis], abs=max(SPACING))


@pytest.mark.parametrize("plane,size_mm", [(AXIAL, (80, 100)), (CORONAL, (80, 100)), (SAGITTAL, (100, 100))])
def test_pictures_are_true_to_scale(plane, size_mm):
    grid = Grid.centered(SHAPE, SPACING)
    image = pixels(picture_of_ct(Volume(np.zeros(SHAPE), grid), plane, 5, LUNG))
    assert image.shape[:2] == (size_mm[1] * PIXELS_PER_MM, size_mm[0] * PIXELS_PER_MM)


def test_windows_map_hu_to_grey():
    grid = Grid.centered(SHAPE, SPACING)
    array = np.full(SHAPE, -1000.0)
    array[20:, :25] = 40.0  # the patient's right, posterior: lower left of the picture
    array[20:, 25:] = 240.0
    image = pixels(picture_of_ct(Volume(array, grid), AXIAL, 10, MEDIASTINAL))
    assert image.dtype == np.uint8 and image.ndim == 2
    height, width = image.shape
    assert image[int(0.75 * height), int(0.25 * width)] == pytest.approx(127, abs=2)
    assert image[int(0.25 * height), int(0.25 * width)] == 255
    assert image[int(0.25 * height), int(0.75 * width)] == 0


def test_outlines_surround_the_mask_on_a_transparent_ground():
    grid = Grid.centered(SHAPE, SPACING)
    mask = np.zeros(SHAPE, bool)
    mask[10:30, 15:35, 8:12] = True
    image = pixels(picture_of_outlines(grid, AXIAL, 10, [Outline(mask, "#ff0000")]))
    drawn = np.argwhere(image[..., 3] > 128) / PIXELS_PER_MM
    assert drawn.min(axis=0) == pytest.approx([30, 20], abs=2.5)
    assert drawn.max(axis=0) == pytest.approx([70, 60], abs=2.5)
    assert tuple(image[image[..., 3] > 200][0][:3]) == (255, 0, 0)
    assert image[image.shape[0] // 2, image.shape[1] // 2, 3] == 0, "nothing is drawn inside"


def test_masks_are_coloured_areas():
    grid = Grid.centered(SHAPE, SPACING)
    mask = np.zeros(SHAPE, bool)
    mask[10:30, 15:35] = True
    image = pixels(picture_of_masks(grid, AXIAL, 10, [Outline(mask, "#00ff00")]))
    middle = image[image.shape[0] // 2, image.shape[1] // 2, :3]
    assert middle[1] > 150 and middle[0] == middle[2] == 0
    assert not image[image.shape[0] // 5, image.shape[1] // 2, :3].any()


def test_the_telling_slice_shows_small_structures_too():
    grid = Grid.centered(SHAPE, SPACING)
    large, small = np.ones(SHAPE, bool), np.zeros(SHAPE, bool)
    small[5:8, 5:8, 13:15] = True
    index = most_telling_slice(Conditions(grid, {"body": large, "lung_nodules": small}), AXIAL)
    assert index in (13, 14)


def test_a_slice_that_does_not_exist():
    with pytest.raises(InputError, match="no axial slice 20; the volume has 0 to 19"):
        Slicer2D(Grid.centered(SHAPE, SPACING), AXIAL).cut(np.zeros(SHAPE), 20)
