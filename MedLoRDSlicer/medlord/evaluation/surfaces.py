"""Two masks of one structure compared: overlap, distance of the surfaces, volume.

Surfaces are those of MONAI (`monai.metrics.utils.get_mask_edges`): the voxels of a mask that touch the outside over a
face, the border of the array counted as outside. Distances run between the centres of such voxels in mm, so a shift
by one voxel counts as the length of that voxel. Definitions of the 95 % Hausdorff distance differ between programs;
here, as in MONAI and in Maier-Hein et al. ("Metrics reloaded", Nature Methods 21 (2024) 195-212), it is the larger of
two 95th percentiles, one for each direction, with linear interpolation between distances. Others take one percentile
over both directions together, which is never larger.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..volumes import Grid

SURFACE_TOLERANCE_MM = 3.0
"""Usual tolerance of the surface Dice, as in Wasserthal et al., Radiology: Artificial Intelligence 5 (2023) e230024."""

# A distance that equals the tolerance on paper may lie above it by rounding.
_ROUNDING_MM = 1e-3


@dataclass(frozen=True)
class MaskComparison:
    """What `compare_masks` measures of a found mask against a drawn one.

    `dice` is 2|A and B| / (|A| + |B|), 0 to 1; `hd95_mm` the 95 % Hausdorff distance in mm; `surface_dice` the share
    of both surfaces (0 to 1) that lies within `tolerance_mm` of the other one; `difference_ml` found minus drawn.
    `hd95_mm` is None when one of the masks is empty: there is no surface to be far from.
    """

    dice: float
    hd95_mm: float | None
    surface_dice: float
    difference_ml: float
    tolerance_mm: float


def compare_masks(
    found: np.ndarray, drawn: np.ndarray, grid: Grid, tolerance_mm: float = SURFACE_TOLERANCE_MM
) -> MaskComparison:
    """Compare two boolean masks [i, j, k] on `grid`; the surfaces are measured once for both surface measures.

    Raises `InputError` for masks of different shapes and for a tolerance that is no number of mm from 0 on.
    """
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise InputError(f"The tolerance is {tolerance_mm} mm; give a number from 0 on.")
    overlap = dice(found, drawn)
    difference = (int(np.count_nonzero(found)) - int(np.count_nonzero(drawn))) * grid.voxel_volume_ml
    if not (found.any() and drawn.any()):
        both_empty = float(not found.any() and not drawn.any())
        return MaskComparison(overlap, None, both_empty, difference, tolerance_mm)
    distances = surface_distances_mm(found, drawn, grid)
    within = sum(int(np.count_nonzero(d <= tolerance_mm + _ROUNDING_MM)) for d in distances)
    return MaskComparison(
        dice=overlap,
        hd95_mm=max(float(np.percentile(d, 95)) for d in distances),
        surface_dice=within / sum(len(d) for d in distances),
        difference_ml=difference,
        tolerance_mm=tolerance_mm,
    )


def surface_distances_mm(first: np.ndarray, second: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Distances in mm from every surface voxel of `first` to the surface of `second`, and the other way round.

    Both masks are boolean [i, j, k] on `grid` and hold at least one voxel.
    """
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    box = box_of(first | second)
    edges = get_mask_edges(first[box], second[box], crop=True)
    spacing = [float(length) for length in grid.spacing_mm]
    there = get_surface_distance(*edges, spacing=spacing)
    back = get_surface_distance(*edges[::-1], spacing=spacing)
    return np.asarray(there, dtype=np.float64), np.asarray(back, dtype=np.float64)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice coefficient 2|A and B| / (|A| + |B|) of two boolean masks of one shape; 1.0 when both are empty."""
    if first.shape != second.shape:
        raise InputError(
            f"Masks of shape {first.shape} and {second.shape} cannot be compared; resample one of them."
        )
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2.0 * int(np.count_nonzero(first & second)) / total if total else 1.0


def box_of(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest box around a mask that is not empty; much faster to work in than the whole array."""
    lines = (mask.any(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3))
    ends = [np.flatnonzero(line)[[0, -1]] for line in lines]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends)
