"""Small chest-like volumes for studies: the same anatomy from every source, and each source's own way to give itself
away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from medlord.volume_files import save_volume
from medlord.volumes import Grid, Volume

SHAPE = (48, 48, 24)
SPACING_MM = (8.0, 8.0, 8.0)

# voxels [i, j, k] in HU, generator -> voxels
Quirk = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def thorax(seed: int, shape: tuple[int, int, int] = SHAPE, noise_hu: float = 12.0) -> np.ndarray:
    """A body with two lungs, a spine and a table in air, float32 [i, j, k] in HU with axes to L, P, S."""
    generator = np.random.default_rng(seed)
    i, j, _ = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    wide, deep = 0.72 + 0.04 * generator.random(), 0.5 + 0.04 * generator.random()
    hu = np.full(shape, -1000.0, np.float32)
    hu[(i / wide) ** 2 + (j / deep) ** 2 < 1] = 40.0
    for side in (-1, 1):
        hu[((i - side * 0.33) / 0.24) ** 2 + (j / 0.36) ** 2 < 1] = -850.0
    hu[(i / 0.08) ** 2 + ((j - 0.36) / 0.08) ** 2 < 1] = 700.0 + 200.0 * generator.random()
    hu[:, int(0.92 * shape[1])] = -300.0  # the table
    hu += noise_hu * generator.standard_normal(shape).astype(np.float32)
    return hu


def write_source(
    folder: Path,
    first_seed: int,
    count: int,
    quirk: Quirk | None = None,
    grid: Grid | None = None,
    ending: str = ".nii.gz",
) -> Path:
    """Volumes patient_SEED in `folder`, changed by `quirk`; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    grid = grid or Grid.centered(SHAPE, SPACING_MM, orientation="LPS")
    for seed in range(first_seed, first_seed + count):
        array = thorax(seed, grid.shape)
        if quirk is not None:
            array = quirk(array, np.random.default_rng(seed))
        save_volume(Volume(array, grid), folder / f"patient_{seed}{ending}")
    return folder


def quiet_air(array: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """No table, and air without noise: what a network makes."""
    array = array.copy()
    array[:, int(0.9 * array.shape[1]) :] = -1000
    array[array < -930] = -1000
    return array


def comb(array: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Values in steps of 8 HU: what was once stored in 8 bits."""
    return np.round(array / 8) * 8


def zero_padding(array: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Corners and the first slices filled with 0."""
    array = array.copy()
    i, j, _ = np.meshgrid(*(np.linspace(-1, 1, n) for n in array.shape), indexing="ij")
    array[i**2 + j**2 > 1.2] = 0
    array[:, :, :3] = 0
    return array


def low_ceiling(array: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Nothing above 650 HU: the window of a model."""
    return np.minimum(array, 650)
