"""Two volumes of one grid, voxel by voxel and scale by scale: PSNR and multi-scale structural similarity."""

from __future__ import annotations

import math

import numpy as np

from ...errors import InputError
from ..sets.slices import windowed

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales, finest first (Wang et al. 2003, section 3.2)."""

KERNEL, SIGMA = 3, 1.5
"""Voxels along a side of the Gaussian window, and its standard deviation in voxels: MedLoRD's evaluation has these."""

FLOATS_PER_VOXEL = 16
"""Volumes of float32 that `ms_ssim` holds at a time, at most."""


def psnr_db(reconstruction: np.ndarray, original: np.ndarray, window_hu: tuple[float, float]) -> float:
    """Peak signal-to-noise ratio in dB of HU [i, j, k]: 10 log10(width^2 / mean squared error) over all voxels.

    Both are clipped to `window_hu` (low, high), whose width in HU is the peak. Infinite for equal arrays. Air around a
    patient is easy, so a larger field of view gives a higher number.
    Raises `InputError` for arrays of different shapes.
    """
    _require_same_shape(reconstruction, original)
    low, high = window_hu
    difference = np.clip(reconstruction, low, high).astype(np.float64) - np.clip(original, low, high)
    error = float(np.mean(difference**2))
    return math.inf if error == 0 else 10 * math.log10((high - low) ** 2 / error)


def ms_ssim(
    reconstruction: np.ndarray, original: np.ndarray, window_hu: tuple[float, float]
) -> tuple[float, int]:
    """(MS-SSIM from 0 to 1, number of scales) of HU [i, j, k], in three dimensions, by MONAI's metric.

    HU are grey values from 0 to 1 within `window_hu`. Wang et al. 2003, "Multiscale structural similarity for image
    quality assessment", with a Gaussian window of 3 x 3 x 3 voxels; five scales where the volume is large enough
    (`scales_for`), else fewer, whose exponents are scaled to the same sum.
    Raises `InputError` for arrays of different shapes and for fewer than 6 voxels along an axis.
    """
    import torch
    from monai.metrics import MultiScaleSSIMMetric

    _require_same_shape(reconstruction, original)
    scales = scales_for(original.shape)
    metric = MultiScaleSSIMMetric(
        spatial_dims=3, data_range=1.0, kernel_size=KERNEL, kernel_sigma=SIGMA, weights=weights_of(scales)
    )
    grey = [torch.from_numpy(windowed(hu, window_hu))[None, None] for hu in (reconstruction, original)]
    with torch.inference_mode():
        return float(metric(*grey)), scales


def scales_for(shape: tuple[int, ...]) -> int:
    """The most scales, up to five and at least two, for which a volume of `shape` voxels is large enough.

    The coarsest scale has to hold the Gaussian window, and MONAI asks for more than `KERNEL - 1` voxels after a
    division by (scales - 1)^2, which is 48 voxels along every axis for five. Raises `InputError` below two scales.
    """
    side = min(shape)
    for scales in range(len(SCALE_WEIGHTS), 1, -1):
        if side // (scales - 1) ** 2 >= KERNEL and side // 2 ** (scales - 1) >= KERNEL:
            return scales
    raise InputError(
        f"MS-SSIM needs at least {2 * KERNEL} voxels along every axis; the volume has {tuple(shape)} on the model's "
        "grid. Give volumes with a larger field of view."
    )


def weights_of(scales: int) -> tuple[float, ...]:
    """The exponents of that many scales, finest first: all five as published, fewer scaled to the same sum."""
    chosen = SCALE_WEIGHTS[:scales]
    return tuple(weight * (sum(SCALE_WEIGHTS) / sum(chosen)) for weight in chosen)


def _require_same_shape(reconstruction: np.ndarray, original: np.ndarray) -> None:
    if reconstruction.shape != original.shape:
        raise InputError(
            f"Volumes of shape {reconstruction.shape} and {original.shape} cannot be compared; resample one."
        )
