"""Conditions: an ordered set of named binary masks on one grid.

Names are those of the vocabulary (TotalSegmentator class names where one exists). Masks may overlap: each is a
channel of its own and none wins over another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InputError
from .volumes import Grid, resample_mask


@dataclass
class Conditions:
    """Named boolean masks [i, j, k], all on `grid`, in the order they were given."""

    grid: Grid
    masks: dict[str, np.ndarray]

    def __post_init__(self):
        self.grid.validate("The grid of the conditions")
        checked = {}
        for name, mask in self.masks.items():
            mask = np.asarray(mask)
            if tuple(mask.shape) != self.grid.shape:
                raise InputError(
                    f"The mask '{name}' has shape {tuple(mask.shape)} but the grid of the conditions "
                    f"{self.grid.shape}; all masks must lie on one grid. Resample it first."
                )
            checked[name] = _as_mask(mask, f"The mask '{name}'")
        self.masks = checked

    @property
    def names(self) -> list[str]:
        """The names, in order."""
        return list(self.masks)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.masks[name]

    def __contains__(self, name: object) -> bool:
        return name in self.masks

    def volumes_ml(self) -> dict[str, float]:
        """Volume of every mask in ml."""
        return {
            name: float(np.count_nonzero(m)) * self.grid.voxel_volume_ml for name, m in self.masks.items()
        }

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every mask: grid (shape, affine rounded to 1e-6 mm) and voxels, so equal means equal in space."""
        head = repr((self.grid.shape, (np.round(self.grid.affine, 6) + 0.0).tolist())).encode()
        return {
            name: hashlib.sha256(head + np.packbits(np.ascontiguousarray(mask)).tobytes()).hexdigest()
            for name, mask in self.masks.items()
        }

    def require_content(self) -> None:
        """Raise `InputError` when there is no mask or all are empty."""
        if not self.masks:
            raise InputError("The segmentation holds no structure; draw or load at least one and run again.")
        if not any(mask.any() for mask in self.masks.values()):
            raise InputError(
                f"All masks are empty ({', '.join(self.masks)}: 0 voxels each); "
                "draw at least one structure and run again."
            )

    def bounding_box_ras_mm(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest corner, in RAS mm, of the box around all voxels of all masks."""
        self.require_content()
        union = np.zeros(self.grid.shape, dtype=bool)
        for mask in self.masks.values():
            union |= mask
        limits = []
        for axis in range(3):
            line = np.flatnonzero(union.any(axis=tuple(a for a in range(3) if a != axis)))
            limits.append((line[0] - 0.5, line[-1] + 0.5))
        corners = np.array(np.meshgrid(*limits)).reshape(3, -1)
        world = self.grid.affine[:3, :3] @ corners + self.grid.affine[:3, 3:]
        return world.min(axis=1), world.max(axis=1)

    def resampled(self, grid: Grid) -> Conditions:
        """The same masks on another grid (anti-aliased; thin structures survive, see `resample_mask`)."""
        return Conditions(
            grid, {name: resample_mask(mask, self.grid, grid) for name, mask in self.masks.items()}
        )

    @classmethod
    def from_labelmap(cls, labelmap: np.ndarray, grid: Grid, names: Mapping[int, str]) -> Conditions:
        """Split an integer labelmap [i, j, k] into masks; `names` maps label values (> 0) to structure names.

        A structure may have several label values. Values of the labelmap that `names` lacks are left out; a name
        whose value does not occur becomes an empty mask. Raises `InputError` when the labelmap is not integer.
        """
        labelmap = whole_numbers(labelmap, "The labelmap")
        masks: dict[str, np.ndarray] = {}
        for value, name in names.items():
            mask = labelmap == int(value)
            masks[name] = masks[name] | mask if name in masks else mask
        return cls(grid, masks)

    @classmethod
    def load(cls, paths: Mapping[str, str | Path]) -> Conditions:
        """Read one mask file per structure; every whole number above zero counts. All files must share one grid.

        Raises `InputError` for files that are no masks: fractions, negative values (a CT), values that are not finite.
        """
        from .volume_files import load_volume

        if not paths:
            raise InputError("No condition was given; name at least one as NAME=FILE.")
        grid: Grid | None = None
        masks = {}
        for name, path in paths.items():
            volume = load_volume(path)
            if grid is not None and not volume.grid.matches(grid):
                raise InputError(
                    f"The mask '{name}' ({Path(path).name}) lies on another grid (shape "
                    f"{volume.grid.shape}) than the first one (shape {grid.shape}); resample it to the same grid."
                )
            grid = grid or volume.grid
            masks[name] = _as_mask(volume.array, f"The mask '{name}' ({Path(path).name})")
        return cls(grid, masks)


def _as_mask(array: np.ndarray, what: str) -> np.ndarray:
    """`array` as bool: whole numbers, above zero inside; raises `InputError` for what is an image instead."""
    if array.dtype == bool:
        return array
    values = whole_numbers(array, what)
    if values.size and values.min() < 0:
        raise InputError(
            f"{what} holds negative values (lowest {values.min()}): that is an image, such as a CT, and no mask; "
            "give a mask of 0 and 1."
        )
    return values > 0


def whole_numbers(labelmap: np.ndarray, what: str) -> np.ndarray:
    """`labelmap` as integers; raises `InputError` when a value is none (a CT in HU with fractions, probabilities)."""
    labelmap = np.asarray(labelmap)
    if labelmap.dtype.kind in "iub":
        return labelmap
    if not np.isfinite(labelmap).all():
        raise InputError(f"{what} holds values that are not finite; give a label image of whole numbers.")
    if not np.array_equal(labelmap, np.rint(labelmap)):
        raise InputError(
            f"{what} holds values that are no whole numbers (lowest {labelmap.min():g}, highest {labelmap.max():g}); "
            "give a label image, not a CT or a probability map."
        )
    return labelmap.astype(np.int64)
