"""HU inside masks, away from their surfaces, and HU of two volumes compared voxel by voxel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..volumes import Grid
from .morphology import erode_mm
from .surfaces import box_of

CT_RANGE_HU = 2000.0
"""Width of the range -1000...1000 HU that the networks see; the peak of the PSNR."""

_SMALLEST_SAMPLE_VOXELS = 10
# Interquartile range of a normal distribution with a standard deviation of 1.
_NORMAL_QUARTILES = 1.349


@dataclass(frozen=True)
class HuSample:
    """HU inside a mask: mean, standard deviation, median and `spread_hu`, the interquartile range / 1.349.

    `spread_hu` is the standard deviation where values are normal, and hardly moved by calcifications or borders.
    """

    mean_hu: float
    sd_hu: float
    median_hu: float
    spread_hu: float
    eroded_mm: float


def sample_hu(array: np.ndarray, mask: np.ndarray, grid: Grid) -> HuSample | None:
    """HU of `array` [i, j, k] inside `mask`, away from its surface (see `inner_part`); None for an empty mask."""
    if not mask.any():
        return None
    inner, eroded = inner_part(mask, grid)
    return summarize_hu(array[inner], eroded)


def summarize_hu(values: np.ndarray, eroded_mm: float) -> HuSample:
    """The sample of at least one value in HU, taken `eroded_mm` away from the surface of a mask."""
    values = values.astype(np.float64)
    low, middle, high = np.percentile(values, (25, 50, 75))
    return HuSample(
        mean_hu=float(values.mean()),
        sd_hu=float(values.std()),
        median_hu=float(middle),
        spread_hu=float(high - low) / _NORMAL_QUARTILES,
        eroded_mm=eroded_mm,
    )


def mean_hu(array: np.ndarray, masks: Mapping[str, np.ndarray], grid: Grid) -> dict[str, float]:
    """Mean HU of `array` [i, j, k] inside every mask that is not empty, away from its surface (see `inner_part`)."""
    return {
        name: float(array[inner_part(mask, grid)[0]].mean()) for name, mask in masks.items() if mask.any()
    }


def inner_part(mask: np.ndarray, grid: Grid) -> tuple[np.ndarray, float]:
    """The voxels of `mask` that partial volume does not reach, and how many mm the mask was eroded for that.

    One voxel (at least 3 mm) is taken off; where too little would remain, 3 mm, else nothing.
    """
    if not mask.any():
        return mask, 0.0
    # A voxel of background on every side is enough for the erosion, and the box is much smaller than the array.
    box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box_of(mask))
    inner = np.zeros_like(mask)
    for radius in sorted({max(3.0, float(grid.spacing_mm.max())), 3.0}, reverse=True):
        inner[box] = erode_mm(mask[box], radius, grid.spacing_mm)
        if np.count_nonzero(inner) >= _SMALLEST_SAMPLE_VOXELS:
            return inner, radius
    return mask, 0.0


def psnr_db(volume: np.ndarray, reference: np.ndarray, data_range_hu: float = CT_RANGE_HU) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(range^2 / mean squared error), over all voxels.

    Both arrays are HU and are clipped to -1000...1000 first, the range that the networks see; `data_range_hu` is
    2000 HU accordingly. Infinite for equal arrays. A field of view with much air makes the number higher, so it
    compares only volumes of one kind.
    """
    if volume.shape != reference.shape:
        raise InputError(
            f"Volumes of shape {volume.shape} and {reference.shape} cannot be compared; resample one."
        )
    difference = np.clip(volume, -1000, 1000).astype(np.float64) - np.clip(reference, -1000, 1000)
    error = float(np.mean(difference**2))
    return float("inf") if error == 0 else float(10 * np.log10(data_range_hu**2 / error))
