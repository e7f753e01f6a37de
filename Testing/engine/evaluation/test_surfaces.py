"""Surface measures against boxes worked out by hand, MONAI's own functions, and SimpleITK on two real segmentations."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from medlord.errors import InputError
from medlord.evaluation.regions import regional_volumes
from medlord.evaluation.surfaces import compare_masks, surface_distances_mm
from medlord.segmentation_files import read_segmentation
from medlord.volumes import Grid

GRID = Grid.centered((20, 16, 12), (2.0, 3.0, 5.0))
# Large, paired, thin, and cut by the border of the volume.
STRUCTURES = (
    "liver",
    "spleen",
    "kidney_left",
    "aorta",
    "autochthon_left",
    "colon",
    "rib_left_11",
    "vertebrae_L1",
)


def box(first: tuple[int, int, int], last: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros(GRID.shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(first, last, strict=True))] = True
    return mask


@pytest.fixture(scope="module")
def real(shared):
    """Two real segmentations of one CT by two models of TotalSegmentator: (fast, full), conditions on one grid."""
    folder = shared / "data" / "ct"
    full = read_segmentation(folder / "ts_abdomen_sm_seg117.nii.gz").conditions(STRUCTURES).conditions
    larger = read_segmentation(folder / "ts_abdomen_3mm_seg117.nii.gz").conditions(STRUCTURES).conditions
    # The small CT is the upper end of the large one, voxel by voxel.
    fast = {name: mask[:, :, -full.grid.shape[2] :].copy() for name, mask in larger.masks.items()}
    return fast, full


def with_sitk(
    found: np.ndarray, drawn: np.ndarray, grid: Grid, tolerance_mm: float
) -> tuple[float, float, float]:
    """(Dice, 95 % Hausdorff distance, surface Dice) by SimpleITK alone: overlap filter, contours, distance maps.

    The definitions are those of the module under test: contours over faces with the outside beyond the border of the
    array, the larger 95th percentile of both directions.
    """
    images = []
    for mask in (found, drawn):
        image = sitk.GetImageFromArray(np.pad(mask, 1).T.astype(np.uint8))
        image.SetSpacing([float(s) for s in grid.spacing_mm])
        images.append(image)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    contours = [sitk.LabelContour(image, fullyConnected=False) for image in images]
    lines = [sitk.GetArrayFromImage(contour) > 0 for contour in contours]
    distances = []
    for line, other in ((lines[0], contours[1]), (lines[1], contours[0])):
        away = sitk.SignedMaurerDistanceMap(other, squaredDistance=False, useImageSpacing=True)
        values = np.abs(sitk.GetArrayFromImage(away))
        values[sitk.GetArrayFromImage(other) > 0] = 0
        distances.append(values[line])
    hd95 = max(np.percentile(values, 95) for values in distances)
    within = sum((values <= tolerance_mm + 1e-3).sum() for values in distances)
    return overlap.GetDiceCoefficient(), hd95, within / sum(values.size for values in distances)


@pytest.mark.parametrize("name", STRUCTURES)
def test_real_labels_agree_with_simpleitk(real, name):
    fast, full = real
    found, drawn = fast[name], full[name]
    assert drawn.any() and not np.array_equal(found, drawn)
    for tolerance in (0.0, 3.0, 4.5):
        measured = compare_masks(found, drawn, full.grid, tolerance)
        dice, hd95, surface = with_sitk(found, drawn, full.grid, tolerance)
        assert measured.dice == pytest.approx(dice, abs=1e-4)
        assert measured.hd95_mm == pytest.approx(hd95, abs=0.1)
        assert measured.surface_dice == pytest.approx(surface, abs=1e-4)
    assert measured.difference_ml == pytest.approx((found.sum() - drawn.sum()) * 0.027)


def test_real_labels_agree_with_monais_own_metrics(real):
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    fast, full = real
    spacing = full.grid.spacing_mm.tolist()
    for name in ("liver", "aorta"):
        pair = [torch.from_numpy(mask)[None, None].float() for mask in (fast[name], full[name])]
        options = {"include_background": True, "spacing": spacing}
        measured = compare_masks(fast[name], full[name], full.grid, 3.0)
        hd95 = compute_hausdorff_distance(*pair, percentile=95, **options).item()
        assert measured.hd95_mm == pytest.approx(hd95, abs=1e-3)
        assert measured.surface_dice == pytest.approx(
            compute_surface_dice(*pair, class_thresholds=[3.0], **options).item(), abs=1e-6
        )


def test_regional_volumes_of_real_labels_are_counts(real, shared):
    import nibabel

    _, full = real
    labels = np.asarray(nibabel.load(shared / "data" / "ct" / "ts_abdomen_sm_seg117.nii.gz").dataobj)
    regions = regional_volumes(full)
    # Values of TotalSegmentator's class map "total".
    for name, value in {"spleen": 1, "kidney_left": 3, "liver": 5, "aorta": 52}.items():
        count = int((labels == value).sum())
        assert count > 0
        assert regions[name].voxels == count
        assert regions[name].rvr == count / labels.size
        assert regions[name].ml == pytest.approx(count * 0.027)


@pytest.mark.parametrize(("axis", "expected_mm"), [(0, 4.0), (1, 6.0), (2, 10.0)])
def test_a_shift_is_as_long_as_the_voxels_along_it(axis, expected_mm):
    drawn = box((4, 4, 3), (12, 10, 8))
    measured = compare_masks(np.roll(drawn, 2, axis), drawn, GRID)
    assert measured.hd95_mm == pytest.approx(expected_mm)
    assert measured.difference_ml == 0.0


def test_surface_dice_counts_both_surfaces():
    drawn, found = box((4, 4, 3), (12, 10, 8)), box((4, 4, 3), (13, 10, 8))
    there, back = surface_distances_mm(found, drawn, GRID)
    # The wall of 6 x 5 voxels that moved by 2 mm lies off in either direction; its rim is off for the larger box only.
    assert (there > 0).sum() == 30 and there.max() == pytest.approx(2.0)
    assert back.max() == pytest.approx(2.0) and 0 < (back > 0).sum() <= 30
    assert compare_masks(found, drawn, GRID, 2.0).surface_dice == 1.0
    share = 1 - ((there > 0).sum() + (back > 0).sum()) / (there.size + back.size)
    assert compare_masks(found, drawn, GRID, 1.0).surface_dice == pytest.approx(share)


def test_masks_without_voxels_have_no_surface():
    drawn, empty = box((4, 4, 3), (12, 10, 8)), np.zeros(GRID.shape, bool)
    missing = compare_masks(empty, drawn, GRID)
    assert (missing.dice, missing.hd95_mm, missing.surface_dice) == (0.0, None, 0.0)
    assert missing.difference_ml == pytest.approx(-8 * 6 * 5 * 0.03)
    both = compare_masks(empty, empty, GRID)
    assert (both.dice, both.hd95_mm, both.surface_dice, both.difference_ml) == (1.0, None, 1.0, 0.0)


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_a_tolerance_is_a_length(tolerance):
    drawn = box((4, 4, 3), (12, 10, 8))
    with pytest.raises(InputError, match="The tolerance is .* mm; give a number from 0 on"):
        compare_masks(drawn, drawn, GRID, tolerance)
