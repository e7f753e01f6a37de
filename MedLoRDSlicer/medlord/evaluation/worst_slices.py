"""Where two masks differ most, for pictures and for jumping there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..volumes import Grid
from .orientation import AnatomicalFrame


@dataclass(frozen=True)
class WorstSlice:
    """The axial slice in which two masks differ most.

    `index` counts from the lowest slice (0) in the anatomical frame, as `pictures.Slicer2D` does; `position_ras_mm` is
    the middle of what differs there, in world mm, `differing_mm2` its area.
    """

    index: int
    position_ras_mm: tuple[float, float, float]
    differing_mm2: float


def worst_axial_slice(found: np.ndarray, drawn: np.ndarray, grid: Grid) -> WorstSlice | None:
    """Where `found` and `drawn` (boolean [i, j, k] on `grid`) differ most; None where they are equal."""
    frame = AnatomicalFrame.of(grid)
    differing = found ^ drawn
    area = frame.to_anatomy(differing).sum(axis=(0, 1))
    index = int(area.argmax())
    if not area[index]:
        return None
    axis = frame.order[2]
    slice_number = grid.shape[axis] - 1 - index if frame.flipped[2] else index
    only = np.zeros_like(differing)
    place = (slice(None),) * axis + (slice_number,)
    only[place] = differing[place]
    area_mm2 = float(area[index]) * frame.spacing_mm[0] * frame.spacing_mm[1]
    return WorstSlice(index, tuple(float(x) for x in centre_ras_mm(only, grid)), area_mm2)


def centre_ras_mm(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """The centre of mass of a mask that is not empty, in RAS mm."""
    index = np.empty(3)
    for axis in range(3):
        line = mask.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.int64)
        index[axis] = (line * np.arange(len(line))).sum() / line.sum()
    return grid.affine[:3, :3] @ index + grid.affine[:3, 3]
