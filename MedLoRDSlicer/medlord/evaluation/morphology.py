"""Binary morphology in millimetres: the same radius means the same on a 0.7 mm and on a 5 mm grid.

All masks are boolean arrays [i, j, k] and `spacing_mm` is the distance of voxel centres along i, j, k. Beyond the
border of the array the anatomy is taken to go on as it is there, so a cut through the body is no surface.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def signed_distance_mm(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Distance in mm of every voxel centre to the surface of `mask` (float32 [i, j, k]), positive inside.

    The surface is the layer of voxels of the mask that touch the outside (Maurer et al., IEEE TPAMI 2003;25:265).
    A mask without voxels gives -inf everywhere, a mask without an outside +inf.
    """
    import SimpleITK as sitk

    if not mask.any() or mask.all():
        return np.full(mask.shape, np.inf if mask.any() else -np.inf, dtype=np.float32)
    image = sitk.GetImageFromArray(np.ascontiguousarray(mask.T).astype(np.uint8))
    image.SetSpacing([float(value) for value in spacing_mm])
    distance = sitk.SignedMaurerDistanceMap(
        image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
    )
    return np.ascontiguousarray(sitk.GetArrayViewFromImage(distance).T)


def dilate_mm(mask: np.ndarray, radius_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """All voxels whose centre lies within `radius_mm` of a voxel of `mask`."""
    dilated = mask.copy()
    box = _box_around(mask, [int(radius_mm / length) + 1 for length in spacing_mm])
    if box is not None:
        dilated[box] |= signed_distance_mm(mask[box], spacing_mm) >= -radius_mm
    return dilated


def erode_mm(mask: np.ndarray, radius_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """The voxels of `mask` that lie further than `radius_mm` from every voxel outside of it."""
    eroded = np.zeros_like(mask)
    # One voxel more than the mask: the outside that is nearest to any of its voxels lies in there.
    box = _box_around(mask, (1, 1, 1))
    if box is not None:
        outside = ~mask[box]
        eroded[box] = ~(outside | (signed_distance_mm(outside, spacing_mm) >= -radius_mm))
    return eroded


def _box_around(mask: np.ndarray, margin: Sequence[int]) -> tuple[slice, ...] | None:
    """The box of a mask with so many voxels more on every side, as far as the array goes; None for an empty mask.

    Distances in a part of the array are the same and take a fraction of the time.
    """
    box = []
    for axis, more in enumerate(margin):
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not len(filled):
            return None
        box.append(slice(max(int(filled[0]) - more, 0), int(filled[-1]) + more + 1))
    return tuple(box)


def open_mm(mask: np.ndarray, radius_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """What a ball of `radius_mm` can reach inside `mask`: parts thinner than the ball vanish."""
    return mask & dilate_mm(erode_mm(mask, radius_mm, spacing_mm), radius_mm, spacing_mm)


def close_mm(mask: np.ndarray, radius_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """`mask` with gaps narrower than a ball of `radius_mm` filled."""
    return ~open_mm(~mask, radius_mm, spacing_mm)


def label_parts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Face-connected parts: labels [i, j, k] (0 outside, 1...n) and the number of voxels of each (index 0 unused)."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels, sizes


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The face-connected part of `mask` with the most voxels (empty when the mask is)."""
    labels, sizes = label_parts(mask)
    if len(sizes) < 2:
        return np.zeros_like(mask)
    return labels == int(sizes.argmax())


def parts_above(mask: np.ndarray, minimum_voxels: float) -> np.ndarray:
    """`mask` without its face-connected parts of fewer than `minimum_voxels` voxels."""
    labels, sizes = label_parts(mask)
    keep = sizes >= max(minimum_voxels, 1)
    return keep[labels]


def each_part(mask: np.ndarray, minimum_voxels: float = 1) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """Face-connected parts of at least `minimum_voxels`: (box, mask within the box), largest first."""
    from scipy import ndimage

    labels, sizes = label_parts(mask)
    boxes = ndimage.find_objects(labels)
    for label in np.argsort(sizes, kind="stable")[::-1]:
        if label == 0 or sizes[label] < minimum_voxels:
            continue
        box = boxes[label - 1]
        yield box, labels[box] == label


def touching(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The face-connected parts of `mask` that hold at least one voxel of `seed`."""
    labels, sizes = label_parts(mask)
    keep = np.zeros(len(sizes), dtype=bool)
    keep[np.unique(labels[seed & mask])] = True
    keep[0] = False
    return keep[labels]


def fill_holes_in_slices(mask: np.ndarray, axis: int) -> np.ndarray:
    """Fill, in every slice across `axis`, what the mask encloses in that slice."""
    from scipy import ndimage

    filled = mask.copy()
    for index in range(mask.shape[axis]):
        place = (slice(None),) * axis + (index,)
        if mask[place].any():
            filled[place] = ndimage.binary_fill_holes(mask[place])
    return filled


def largest_part_in_slices(mask: np.ndarray, axis: int) -> np.ndarray:
    """Keep, in every slice across `axis`, only the largest face-connected part."""
    kept = np.zeros_like(mask)
    for index in range(mask.shape[axis]):
        place = (slice(None),) * axis + (index,)
        kept[place] = largest_part(mask[place])
    return kept
