"""Does a scale factor fit an autoencoder? It should be 1/std of the latents of real volumes, and no file holds it.

A wrong factor gives wrong images without an error, so it is measured when the user has volumes to measure it on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..progress import Cancel, Progress
from .description import OWN_RANGE
from .medlord_preprocessing import crop_or_pad, read_file_order, resize_trilinear, scale_by_own_range

if TYPE_CHECKING:
    from ..networks.autoencoder import VectorQuantizedAutoencoder

DOUBTFUL, IMPOSSIBLE = 0.05, 0.25
"""Relative difference from 1/std of the latents from which a factor is doubted, and refused."""
RESIZE, CROP_AND_PAD = "resize", "centre-crop-and-pad"
_TILE_VOXELS = 128


def check_scale_factor(
    autoencoder: VectorQuantizedAutoencoder,
    scale_factor: float,
    paths: Sequence[Path],
    preprocessing: Mapping[str, Any],
    shape: Sequence[int],
    *,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """Compare `scale_factor` with 1/std over the quantised latents of NIfTI volumes in HU, prepared as for training.

    `preprocessing` is that of the bundle (intensity_map, clip_hu, volume_fit, padding_value), `shape` its voxels
    (i, j, k). Returns {"measured", "difference" (relative to the measured one), "volumes"}. Raises `InputError` when
    the two differ by more than `IMPOSSIBLE`, or for a file that is no volume.
    """
    import torch

    from ..networks.tiling import encode_tiled

    count, total, squares = 0, 0.0, 0.0
    tile = tuple(max(1, _TILE_VOXELS // factor) for factor in autoencoder.downsampling_factors)
    for path in paths:
        image = torch.from_numpy(prepared(read_file_order(path), preprocessing, shape))[None]
        with torch.inference_mode():
            latent = encode_tiled(autoencoder, image, tile, progress=progress, cancel=cancel)
            values = autoencoder.codebook.embed(autoencoder.codebook.indices(latent)).double()
        count += values.numel()
        total += float(values.sum())
        squares += float((values**2).sum())
    variance = squares / count - (total / count) ** 2
    if not variance > 0:
        raise InputError(
            f"The latents of the {len(paths)} volumes given to check the scale factor are constant; give volumes "
            "with anatomy."
        )
    measured = 1 / math.sqrt(variance)
    difference = abs(scale_factor - measured) / measured
    if difference > IMPOSSIBLE:
        raise InputError(
            f"The scale factor {scale_factor:g} cannot be right: 1/std of the latents of {len(paths)} volumes is "
            f"{measured:.4g}, {difference:.0%} away (limit {IMPOSSIBLE:.0%}); correct it, or give volumes like those "
            "of the training."
        )
    return {"measured": measured, "difference": difference, "volumes": len(paths)}


def prepared(hu: np.ndarray, preprocessing: Mapping[str, Any], shape: Sequence[int]) -> np.ndarray:
    """HU [i, j, k] in file order -> what the autoencoder saw in training: (1, i, j, k) float32 in [-1, 1]."""
    low, high = preprocessing["clip_hu"]
    if preprocessing["intensity_map"] == OWN_RANGE:
        scaled = scale_by_own_range(hu, (low, high))
    else:
        scaled = (np.clip(hu.astype(np.float32), low, high) - low) / np.float32(high - low) * 2 - 1
    if preprocessing["volume_fit"] == RESIZE:
        return resize_trilinear(scaled[None], shape)
    return crop_or_pad(scaled[None], shape, preprocessing["padding_value"])
