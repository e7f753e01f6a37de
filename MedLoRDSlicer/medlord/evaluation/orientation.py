"""Bring voxels into the anatomical frame: axis 0 to the patient's right, 1 to anterior, 2 to superior.

Only permutations and flips: no value changes. An oblique grid is taken along its closest anatomical axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..volumes import Grid


@dataclass(frozen=True)
class AnatomicalFrame:
    """How the voxel axes of a grid lie in the patient.

    `order[a]` is the voxel axis along anatomical axis a (right, anterior, superior), `flipped[a]` whether it runs
    the other way, `spacing_mm[a]` the distance of voxel centres along it.
    """

    order: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    spacing_mm: tuple[float, float, float]

    @classmethod
    def of(cls, grid: Grid) -> AnatomicalFrame:
        """The frame of `grid`, with the permutation that follows its directions best."""
        from itertools import permutations

        cosines = grid.affine[:3, :3] / grid.spacing_mm
        order = max(permutations(range(3)), key=lambda axes: sum(abs(cosines[a, axes[a]]) for a in range(3)))
        flipped = tuple(bool(cosines[a, order[a]] < 0) for a in range(3))
        return cls(order, flipped, tuple(float(grid.spacing_mm[axis]) for axis in order))

    def to_anatomy(self, array: np.ndarray) -> np.ndarray:
        """A view of `array` [i, j, k] with axes towards right, anterior and superior."""
        turned = array.transpose(self.order)
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]

    def to_voxels(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `to_anatomy`, as a contiguous array."""
        turned = array[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]
        return np.ascontiguousarray(turned.transpose(np.argsort(self.order)))
