"""Make one phantom: CT, labels, parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..conditions import Conditions
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ..volumes import Grid, Volume
from . import labels
from .imaging import add_noise, apply_kernel, noise_level
from .parameters import PhantomParameters, sample_parameters
from .scene import Scene

# Blocks that fit in the processor's cache; at least a few slices, as each block has two more for its margins.
VOXELS_PER_BLOCK, SLICES_PER_BLOCK = 400_000, 8


class StructureMasks(Mapping):
    """Masks by name, boolean [i, j, k], made when asked for: all of them at once would fill the memory."""

    def __init__(self, labelmap: np.ndarray, flags: np.ndarray):
        self._labelmap, self._flags = labelmap, flags
        self._names = (*labels.FLAGS, *labels.NAMES)

    def __getitem__(self, name: str) -> np.ndarray:
        if name in labels.FLAGS:
            return (self._flags & labels.FLAGS[name]) != 0
        return self._labelmap == labels.VALUES[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass
class PhantomCase:
    """A phantom on a grid.

    volume: CT, int16 HU [i, j, k]. labelmap: uint8 [i, j, k], values of `labels.VALUES`. labels: mapping of structure
    names to boolean masks [i, j, k]; structures of the labelmap are disjoint, those of `labels.FLAGS` overlap them.
    """

    volume: Volume
    labelmap: np.ndarray
    labels: Mapping
    parameters: PhantomParameters

    @property
    def conditions(self) -> Conditions:
        """The masks that the bundled model takes, in its channel order."""
        return Conditions(self.volume.grid, {name: self.mask(name) for name in labels.CONDITIONS})

    def mask(self, name: str) -> np.ndarray:
        """A structure, an overlapping mask or a union ("lung", "bone"), boolean [i, j, k]."""
        if name in labels.AGGREGATES:
            members = np.zeros(256, dtype=bool)
            members[[labels.VALUES[part] for part in labels.AGGREGATES[name]]] = True
            return members[self.labelmap]
        return self.labels[name]


def default_grid() -> Grid:
    """The native grid of the bundled model: 128 x 128 x 64 voxels of 2.8 x 2.8 x 5 mm about the origin."""
    return Grid.centered((128, 128, 64), (2.8, 2.8, 5.0))


def make_phantom(
    seed: int,
    grid: Grid | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
    **overrides,
) -> PhantomCase:
    """Draw the parameters of a seed and make its phantom on `grid` (default: `default_grid()`).

    Same seed, grid and overrides: the same bits. Raises `InputError` for bad parameters or geometry and
    `CancelledError` when `cancel` answers true.
    """
    grid = default_grid() if grid is None else grid
    grid.validate("The grid of the phantom")
    return render(sample_parameters(seed, **overrides), grid, progress, cancel)


def render(
    parameters: PhantomParameters, grid: Grid, progress: Progress | None = None, cancel: Cancel | None = None
) -> PhantomCase:
    """Make the phantom of given parameters on a grid, block of slices by block of slices."""
    scene = Scene(parameters)
    hu, labelmap, flags = paint_all(scene, grid, progress, cancel)
    spacing = grid.spacing_mm
    raise_if_cancelled(cancel, "image formation")
    apply_kernel(hu, spacing, parameters.kernel)
    along, across = noise_level(scene, grid)
    add_noise(hu, spacing, parameters.kernel, parameters.seed, along * across)
    np.rint(hu, out=hu)
    np.clip(hu, -1024, 3071, out=hu)
    array = np.ascontiguousarray(hu.astype(np.int16).transpose(2, 1, 0))
    labelmap = np.ascontiguousarray(labelmap.transpose(2, 1, 0))
    flags = np.ascontiguousarray(flags.transpose(2, 1, 0))
    return PhantomCase(Volume(array, grid), labelmap, StructureMasks(labelmap, flags), parameters)


def paint_all(scene: Scene, grid: Grid, progress: Progress | None = None, cancel: Cancel | None = None):
    """Exact tissue HU (float32), labelmap and overlap bits (uint8), each [k, j, i], before image formation."""
    ni, nj, nk = grid.shape
    step = min(max(VOXELS_PER_BLOCK // (ni * nj), SLICES_PER_BLOCK), nk)
    shape = (nk, nj, ni)
    hu = np.empty(shape, dtype=np.float32)
    labelmap, flags = np.empty(shape, dtype=np.uint8), np.empty(shape, dtype=np.uint8)
    clock = PhaseClock("paint", nk, progress)
    for start in range(0, nk, step):
        raise_if_cancelled(cancel, "painting of the anatomy")
        stop = min(start + step, nk)
        block = scene.paint(start, stop, grid)
        hu[start:stop], labelmap[start:stop], flags[start:stop] = (
            block.hu[1:-1],
            block.label[1:-1],
            block.flags[1:-1],
        )
        clock.report(stop)
    return hu, labelmap, flags
