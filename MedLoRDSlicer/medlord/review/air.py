"""The surroundings of the body: found, and replaced by the same air in every case.

Air, table and clothes tell a scanner from a network at a glance. What lies around the skin is replaced, and nothing is
where the body was not found for certain.
"""

from __future__ import annotations

import numpy as np

AIR_LIKE_HU = -850.0
"""Below this a voxel beside the skin is air, not a part of it."""

LUNG_HU = (-920.0, -600.0)
TISSUE_HU = -200.0
MOST_LUNG_OUTSIDE = 0.01
"""Share of a volume that may look like lung between parts of the body and outside of it: folds of clothes and skin."""

_COARSE_MM = 4.0


def replace_surroundings(
    values: np.ndarray, spacing_mm: np.ndarray, air_hu: float, noise_hu: float, generator: np.random.Generator
) -> str:
    """Replace, in place, what lies around the body (air, table, clothes) by air with normal noise.

    `values` is float32 [left, posterior, superior] in HU, `noise_hu` a standard deviation. Returns "replaced", or in
    words why nothing was changed.
    """
    core, outer = _body(values, spacing_mm)
    if not core.any():
        return "no body found; left as it was"
    if _is_incomplete(values, outer):
        return "the body could not be told from its surroundings; left as it was"
    around = ~outer | (~core & (values < AIR_LIKE_HU))
    noise = generator.standard_normal(int(around.sum()), dtype=np.float32)
    values[around] = air_hu + noise_hu * noise
    return "replaced"


def _is_incomplete(values: np.ndarray, outer: np.ndarray) -> bool:
    """Whether the mask of the body misses what must not be erased: lung, or most of the tissue.

    Lung that was taken for the air of the room has body on both sides, from front to back or from left to right. A
    table has not, though its foam has the density of lung and fills up to a tenth of a scan.
    """
    between = np.zeros_like(outer)
    for axis in (0, 1):
        before = np.maximum.accumulate(outer, axis=axis)
        behind = np.flip(np.maximum.accumulate(np.flip(outer, axis), axis=axis), axis)
        between |= before & behind
    lung = between & ~outer & (values > LUNG_HU[0]) & (values < LUNG_HU[1])
    tissue = values > TISSUE_HU
    return bool(lung.mean() > MOST_LUNG_OUTSIDE or 2 * (tissue & ~outer).sum() > tissue.sum())


def _body(values: np.ndarray, spacing_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two masks: what surely is inside the skin, and what may hold parts of it. Found on voxels of about 4 mm."""
    from scipy import ndimage

    from ..evaluation.rules import Scan, find_body

    factors = np.maximum(1, np.rint(_COARSE_MM / spacing_mm)).astype(int)
    pad = [(0, int(-n % f)) for n, f in zip(values.shape, factors, strict=True)]
    whole = np.pad(values, pad, mode="edge")
    blocks = [size for n, f in zip(whole.shape, factors, strict=True) for size in (n // f, f)]
    coarse = whole.reshape(blocks).mean(axis=(1, 3, 5), dtype=np.float32)
    body = find_body(Scan(coarse, tuple((spacing_mm * factors).tolist())))
    cross = ndimage.generate_binary_structure(2, 1)[:, :, None]  # a cut through the body above is no surface
    core = ndimage.binary_erosion(body, cross, border_value=1)
    outer = ndimage.binary_dilation(body, cross)

    def fine(mask: np.ndarray) -> np.ndarray:
        for axis, factor in enumerate(factors):
            mask = np.repeat(mask, factor, axis=axis)
        return mask[tuple(slice(0, n) for n in values.shape)]

    return fine(core), fine(outer)
