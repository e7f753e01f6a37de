"""How large a mask is on another grid, found in pieces that a main thread can afford."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medlord.volumes import Grid, resample_mask

# Of one piece; resampling so many voxels takes some 20 ms.
_TARGET_VOXELS, _SOURCE_VOXELS = 100_000, 1_000_000


def volume_in_pieces(mask: np.ndarray, source: Grid, target: Grid) -> Iterator[float]:
    """Resample `mask` from `source` to `target`, slab by slab along the target's k axis; yields ml of each slab.

    Their sum is the volume of `resample_mask` of the whole to about a percent: voxels that join parts or round edges at
    the cuts may differ.
    """
    box = _box_of(mask)
    if box is None:
        return
    low, high = _range_in(target, source, *box, margin=2)
    low, high = np.maximum(low, 0), np.minimum(high, target.shape)
    if (high <= low).any():
        return
    slab = max(1, int(_TARGET_VOXELS // np.prod(high[:2] - low[:2])))
    whole = np.prod(box[1] - box[0])
    slab = max(1, min(slab, int((high[2] - low[2]) * _SOURCE_VOXELS // max(whole, 1))))
    for start in range(int(low[2]), int(high[2]), slab):
        stop = min(start + slab, int(high[2]))
        # One layer more on both sides: what a voxel becomes depends on its neighbours.
        first = np.array([low[0], low[1], max(start - 1, 0)])
        last = np.array([high[0], high[1], min(stop + 1, target.shape[2])])
        from_, to = _range_in(source, target, first, last, margin=3)
        from_, to = np.maximum(from_, 0), np.minimum(to, mask.shape)
        if (to <= from_).any():
            continue
        piece = mask[tuple(slice(a, b) for a, b in zip(from_, to))]
        placed = resample_mask(piece, _cut(source, from_, to), _cut(target, first, last))
        counted = placed[:, :, start - first[2] : stop - first[2]]
        yield float(np.count_nonzero(counted)) * target.voxel_volume_ml


def _box_of(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """First and last + 1 index of the set voxels along each axis."""
    lines = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    if not lines[0].size:
        return None
    return np.array([line[0] for line in lines]), np.array([line[-1] + 1 for line in lines])


def _range_in(grid: Grid, other: Grid, low: np.ndarray, high: np.ndarray, margin: int) -> tuple:
    """Indices of `grid` that hold the indices from `low` up to, not including, `high` of `other`, and a margin.

    The margin is in voxels of the coarser of the two grids.
    """
    matrix = grid.index_to_index(other)
    corners = np.array(np.meshgrid(*zip(low - 0.5, high - 0.5))).reshape(3, -1)
    placed = matrix[:3, :3] @ corners + matrix[:3, 3:]
    reach = np.ceil(margin * np.maximum(1.0, np.abs(matrix[:3, :3]).sum(axis=1))).astype(int)
    lowest, highest = np.floor(placed.min(axis=1)).astype(int), np.ceil(placed.max(axis=1)).astype(int)
    return lowest - reach, highest + reach + 1


def _cut(grid: Grid, low: np.ndarray, high: np.ndarray) -> Grid:
    """The part of a grid from index `low` up to, not including, `high`."""
    affine = grid.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    return Grid(tuple(high - low), affine)
