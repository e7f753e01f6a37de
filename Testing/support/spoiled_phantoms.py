"""Ten ways to spoil the CT of a phantom, each of which a check must notice; the drawn masks stay as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage

from medlord.phantom import PhantomCase
from medlord.phantom.labels import CHAMBERS, LOBES, VESSELS
from medlord.volumes import Volume

SHIFT_MM = 20.0
OFFSET_HU = 200.0
BLUR_MM = 5.0
# A tile is off by so many HU, to either side.
TILE_HU = (40.0, 80.0)

# What "organ deleted" may take away.
ORGANS = {
    "left lung": [name for name in LOBES if name.endswith("left")],
    "right lung": [name for name in LOBES if name.endswith("right")],
    "heart": [*CHAMBERS, *VESSELS],
    "spine and ribs": ["bone"],
}

Spoiler = Callable[[PhantomCase, PhantomCase, np.random.Generator], np.ndarray]


def spoiled_versions(
    case: PhantomCase, other: PhantomCase, seed: int = 0
) -> Iterator[tuple[str, Volume, PhantomCase]]:
    """(name of the fault, spoiled volume, phantom whose masks are to be checked against it), ten times.

    `other` is another phantom on a grid of the same shape: its masks are those of "another patient".
    """
    for number, (name, spoil) in enumerate(SPOILERS.items()):
        array = spoil(case, other, np.random.default_rng([seed, number]))
        masks = other if name == "mask of another patient" else case
        yield name, Volume(np.clip(np.rint(array), -1024, 3071).astype(np.int16), case.volume.grid), masks


def organ_deleted(case: PhantomCase, other: PhantomCase, draw: np.random.Generator) -> np.ndarray:
    """One organ takes the HU of what lies around it."""
    names = ORGANS[sorted(ORGANS)[draw.integers(len(ORGANS))]]
    organ = np.logical_or.reduce([case.mask(name) for name in names])
    organ = ndimage.binary_dilation(organ, iterations=2) & case.mask("body")
    spacing = case.volume.grid.spacing_mm
    nearest = ndimage.distance_transform_edt(organ, spacing, return_distances=False, return_indices=True)
    return np.where(organ, case.volume.array[tuple(nearest)], case.volume.array)


def sides_swapped(case: PhantomCase, other: PhantomCase, draw: np.random.Generator) -> np.ndarray:
    """The picture is mirrored, the masks are not."""
    return case.volume.array[::-1]


def shifted(case: PhantomCase, other: PhantomCase, draw: np.random.Generator) -> np.ndarray:
    """The whole picture lies 20 mm off, along one axis."""
    axis, sign = int(draw.integers(3)), int(draw.choice([-1, 1]))
    offset = np.zeros(3)
    offset[axis] = sign * SHIFT_MM / case.volume.grid.spacing_mm[axis]
    return ndimage.shift(case.volume.array.astype(np.float32), offset, order=1, mode="nearest")


def scaled_to_one(case: PhantomCase, other: PhantomCase, draw: np.random.Generator) -> np.ndarray:
    """HU of -1000 to 1000 became 0 to 1, as networks see them."""
    return np.clip((case.volume.array + 1000) / 2000, 0, 1)


def offset(case: PhantomCase, other: PhantomCase, draw: np.random.Generator) -> np.ndarray:
    """All HU are 200 too high or too low."""
    return case.volume.array.astype(np.float32) + OFFSET_HU * draw.choice([-1, 1])


def shuffled(case: PhantomCase, other: PhantomCase, draw: np.random.Generator) -> np.ndarray:
    """The axial slices lie in a random order."""
    return case.volume.array[:, :, draw.permutation(case.volume.array.shape[2])]


def seams(case: PhantomCase, other: PhantomCase, draw: np.random.Generator) -> np.ndarray:
    """Eight tiles were made apart from each other: each has an offset of its own."""
    array = case.volume.array.astype(np.float32)
    middle = [n // 2 for n in array.shape]
    sign = int(draw.choice([-1, 1]))
    for corner in np.ndindex(2, 2, 2):
        # Neighbours are off to opposite sides.
        change = sign * (-1) ** sum(corner) * draw.uniform(*TILE_HU) / 2
        tile = tuple(slice(0, m) if c == 0 else slice(m, None) for c, m in zip(corner, middle, strict=True))
        array[tile] += change
    return array


def blurred(case: PhantomCase, other: PhantomCase, draw: np.random.Generator) -> np.ndarray:
    """A Gaussian of 5 mm."""
    sigma = BLUR_MM / case.volume.grid.spacing_mm
    return ndimage.gaussian_filter(case.volume.array.astype(np.float32), sigma, mode="nearest")


def unchanged(case: PhantomCase, other: PhantomCase, draw: np.random.Generator) -> np.ndarray:
    """The volume is good, but it belongs to other masks."""
    return case.volume.array


def constant(case: PhantomCase, other: PhantomCase, draw: np.random.Generator) -> np.ndarray:
    """One value everywhere."""
    return np.full(case.volume.array.shape, float(draw.choice([-1000, 0, 40])))


SPOILERS: dict[str, Spoiler] = {
    "organ deleted": organ_deleted,
    "left and right swapped": sides_swapped,
    "shifted by 20 mm": shifted,
    "HU scaled to [0, 1]": scaled_to_one,
    "HU offset of 200": offset,
    "slices shuffled": shuffled,
    "seams": seams,
    "blur": blurred,
    "mask of another patient": unchanged,
    "constant volume": constant,
}
