"""From original volumes to cases that look alike: one grid, one header, one range, one kind of air.

A case keeps the anatomy of its original and nothing that tells where it came from. Each function works on one
volume, so a study needs the memory of one or two.
"""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..evaluation.orientation import AnatomicalFrame
from ..volume_files import NRRD_SYNTHETIC_KEYS, load_volume
from ..volumes import AIR_HU, Grid, Volume, require_ct, resample_mask, resample_volume
from .air import AIR_LIKE_HU, replace_surroundings
from .study import file_sha256

LOWEST_HU = -1024
"""Lower limit of every case: what scanners store for air at the least."""

HIGHEST_HU = 1000
"""Upper limit of every case, unless a volume with a lower maximum forces a lower one on all."""

LOWEST_CEILING_HU = 600
"""No volume may force a limit below this, where bone begins to lose its marrow."""

AIR_NOISE_HU = 10.0
"""Standard deviation of the noise that the air around every body gets."""

_COMB_WINDOW = 32
# Voxels per HU that make a histogram dense: a value is then missing by chance once in 160 000.
_DENSE = 12.0
_ENOUGH_VOXELS = 2**23
_PADDING_VOXELS = 500


@dataclass(frozen=True)
class Survey:
    """What an original is: its grid with axes to left, posterior and superior, and the part of it that holds voxels.

    `start` and `stop` bound that part; `highest_hu` is its maximum; `step_hu` the mean distance of the values that
    occur (1 where all whole HU do). `has_recipe`: a model made it; `marked_synthetic`: the file says so of itself,
    as those of models and of phantoms do.
    """

    path: Path
    sha256: str
    grid: Grid
    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    highest_hu: float
    step_hu: float
    has_recipe: bool
    marked_synthetic: bool

    @property
    def extent_mm(self) -> np.ndarray:
        """Size of the part that holds voxels, faces included."""
        return (np.array(self.stop) - self.start) * self.grid.spacing_mm


@dataclass(frozen=True)
class Equalisation:
    """What all cases share. `grid` is in the cases' own space, centred on 0; HU are clipped to `lowest`..`highest`."""

    grid: Grid
    highest_hu: int
    lowest_hu: int = LOWEST_HU
    air_hu: float = AIR_HU
    air_noise_hu: float = AIR_NOISE_HU
    equal_air: bool = True

    def to_dict(self) -> dict:
        """The record in study.json: the same for every case, so it tells nothing."""
        return {
            "clip_hu": [self.lowest_hu, self.highest_hu],
            "voxel_type": "int16",
            "orientation": "LPS",
            "padding": "constant border slices cut off; the rest filled like the air around the body",
            "air_around_the_body": (
                {"mean_hu": self.air_hu, "noise_hu": self.air_noise_hu, "table": "removed"}
                if self.equal_air
                else "as in the originals"
            ),
            "gaps_in_the_histogram": "filled by a dither of the width of the gaps",
        }


@dataclass
class Case:
    """Voxels of a case, int16 [i, j, k] on the shared grid, and what was done to the original, for the key."""

    array: np.ndarray
    changes: dict = field(default_factory=dict)


def survey(path: Path) -> Survey:
    """Read an original and measure what the plan for all cases needs.

    Raises `InputError` that names the file when it cannot be read or is no CT in HU.
    """
    volume = oriented(load_volume(path))
    require_ct(volume, path.name)
    start, stop = _content_box(volume.array)
    part = volume.array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    return Survey(
        path=path,
        sha256=file_sha256(path),
        grid=volume.grid,
        start=start,
        stop=stop,
        highest_hu=float(part.max()),
        step_hu=histogram_step(part),
        has_recipe=volume.recipe is not None,
        marked_synthetic=_marked(path),
    )


def oriented(volume: Volume) -> Volume:
    """The same voxels with axes towards the patient's left, posterior and superior; no value changes."""
    frame = AnatomicalFrame.of(volume.grid)
    array = frame.to_anatomy(volume.array)[::-1, ::-1]
    affine = np.eye(4)
    affine[:3, 3] = volume.grid.affine[:3, 3]
    for axis, (source, flipped) in enumerate(zip(frame.order, frame.flipped, strict=True)):
        column = volume.grid.affine[:3, source]
        backwards = flipped != (axis < 2)
        affine[:3, axis] = -column if backwards else column
        if backwards:
            affine[:3, 3] += column * (volume.grid.shape[source] - 1)
    return Volume(array, Grid(array.shape, affine), volume.recipe)


def plan_grid(
    surveys: list[Survey],
    spacing_mm: tuple[float, float, float] | None = None,
    shape: tuple[int, int, int] | None = None,
) -> Grid:
    """The grid of all cases: the coarsest spacing along each axis, and the field of view that every volume covers.

    Coarsest, so that no volume is blown up and looks smoother than the others for it. Raises `InputError` when that
    leaves fewer than 16 voxels along an axis, naming the smallest volume.
    """
    spacing = np.array(spacing_mm or np.max([entry.grid.spacing_mm for entry in surveys], axis=0))
    extents = np.array([entry.extent_mm for entry in surveys])
    if shape is None:
        shape = tuple(int(n) for n in np.floor(extents.min(axis=0) / spacing + 1e-3))
        if min(shape) < 16:
            axis = int(np.argmin(shape))
            smallest = surveys[int(np.argmin(extents[:, axis]))]
            raise InputError(
                f"{smallest.path.name} is only {extents[:, axis].min():.0f} mm long along the axis to "
                f"{('left', 'posterior', 'superior')[axis]}: at {spacing[axis]:g} mm the cases would have "
                f"{shape[axis]} voxels there (limit 16). Leave this volume out, or give --spacing and --shape."
            )
    return Grid.centered(shape, tuple(spacing.tolist()), orientation="LPS")


def plan_ceiling(surveys: list[Survey]) -> int:
    """The upper limit of all cases in HU: the lowest maximum of the volumes, between 600 and 1000 HU."""
    lowest = min(entry.highest_hu for entry in surveys)
    return int(np.clip(np.floor(lowest), LOWEST_CEILING_HU, HIGHEST_HU))


def make_case(entry: Survey, plan: Equalisation, generator: np.random.Generator) -> Case:
    """Make the case of an original: cut, dithered, resampled, its surroundings replaced, clipped and rounded."""
    volume = oriented(load_volume(entry.path))
    changes: dict = {"original_spacing_mm": np.round(entry.grid.spacing_mm, 4).tolist()}
    array, padded = _air_for_padding(volume.array)
    if padded:
        changes["padding_voxels"] = padded
    if entry.step_hu > 1.1:
        changes["dither_hu"] = round(entry.step_hu, 3)
        half = entry.step_hu / 2
        array = array + generator.uniform(-half, half, array.shape).astype(np.float32)
    target = _target(entry, plan.grid)
    values, exact = _onto(array, entry.grid, target, plan.air_hu)
    changes["resampled"] = not exact
    if plan.equal_air:
        changes["air"] = replace_surroundings(
            values, plan.grid.spacing_mm, plan.air_hu, plan.air_noise_hu, generator
        )
    return Case(np.clip(np.rint(values), plan.lowest_hu, plan.highest_hu).astype(np.int16), changes)


def make_mask(mask: np.ndarray, grid: Grid, entry: Survey, plan: Equalisation) -> np.ndarray:
    """A binary mask on `grid` as boolean [i, j, k] on the grid of the cases, where `make_case` puts the volume."""
    return resample_mask(mask, grid, _target(entry, plan.grid))


def histogram_step(array: np.ndarray) -> float:
    """Mean distance in HU of the values that occur where the histogram is dense: 1 without gaps, 8 for a comb of 8."""
    part = array[..., :: max(1, array.size // _ENOUGH_VOXELS)]
    whole = part if part.dtype.kind in "iu" else np.rint(part)
    values = np.clip(whole, -1200, 2000).astype(np.int32) + 1200
    counts = np.bincount(values.ravel(), minlength=3201).astype(float)
    # The ends collect what was clipped.
    counts[[0, -1]] = 0
    sums = np.concatenate(
        [np.zeros(_COMB_WINDOW + 1), np.cumsum(counts), np.full(_COMB_WINDOW, counts.sum())]
    )
    # Dense on both sides: beside a peak there are no values, and that is no gap.
    here = np.arange(len(counts)) + _COMB_WINDOW
    below = sums[here] - sums[here - _COMB_WINDOW]
    above = sums[here + 1 + _COMB_WINDOW] - sums[here + 1]
    dense = np.minimum(below, above) >= _DENSE * _COMB_WINDOW
    occupied = np.flatnonzero(counts)
    distances = np.diff(occupied)[dense[occupied[:-1]] & dense[occupied[1:]]]
    return float(distances.mean()) if len(distances) else 1.0


def nrrd_header(grid: Grid, voxel_type: str, encoding: str) -> bytes:
    """The header of a case: nothing but the grid, the type and the encoding, so equal for all."""

    def vector(values: np.ndarray) -> str:
        # + 0.0 turns -0 into 0.
        return "(" + ",".join(f"{value + 0.0:.10g}" for value in values) + ")"

    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine
    directions = " ".join(vector(to_lps[:3, axis]) for axis in range(3))
    lines = [
        "NRRD0004",
        f"type: {voxel_type}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(str(n) for n in grid.shape)}",
        f"space directions: {directions}",
        "kinds: domain domain domain",
        "endian: little",
        f"encoding: {encoding}",
        f"space origin: {vector(to_lps[:3, 3])}",
    ]
    return ("\n".join(lines) + "\n\n").encode("ascii")


def write_case(path: Path, array: np.ndarray, grid: Grid, encoding: str = "raw") -> str:
    """Write voxels [i, j, k] (int16 HU, or uint8 labels) as NRRD and return the SHA-256 of the file.

    `encoding` is "raw" (all files have the same size) or "gzip". The file is on the disk when this returns; one that
    was there is emptied and written again, so that it keeps the time at which it was made.
    """
    voxel_type, kind = {"int16": ("short", "<i2"), "uint8": ("unsigned char", "u1")}[array.dtype.name]
    content = array.astype(kind, copy=False).tobytes(order="F")
    if encoding == "gzip":
        content = gzip.compress(content, compresslevel=4, mtime=0)
    with path.open("wb") as stream:
        stream.write(nrrd_header(grid, voxel_type, encoding))
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return file_sha256(path)


def _content_box(array: np.ndarray) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First and last + 1 index along each axis between which slices are not constant.

    Constant slices of air stay along the first two axes: there they are the surroundings of a body without noise.
    """
    start, stop = [], []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        low, high = array.min(axis=others), array.max(axis=others)
        padding = (low == high) & ((axis == 2) | (low > AIR_LIKE_HU))
        kept = np.flatnonzero(~padding)
        start.append(int(kept[0]) if len(kept) else 0)
        stop.append(int(kept[-1]) + 1 if len(kept) else array.shape[axis])
    return tuple(start), tuple(stop)


def _air_for_padding(array: np.ndarray) -> tuple[np.ndarray, int]:
    """The array with air where a constant value that is not air fills corners, and how many voxels that were."""
    from scipy import ndimage

    corners = [(i, j, k) for i in (0, -1) for j in (0, -1) for k in (0, -1)]
    replaced = 0
    for value in {float(array[corner]) for corner in corners}:
        if value < AIR_LIKE_HU or not np.isfinite(value):
            continue
        same = array == value
        if same.sum() < _PADDING_VOXELS:
            continue
        labels, _ = ndimage.label(same)
        sizes = np.bincount(labels.ravel())
        touching = {int(labels[corner]) for corner in corners} - {0}
        for label in sorted(touching):
            if sizes[label] >= _PADDING_VOXELS:
                array = array if replaced else array.copy()
                array[labels == label] = LOWEST_HU
                replaced += int(sizes[label])
    return array, replaced


def _target(entry: Survey, grid: Grid) -> Grid:
    """The grid of the cases in the world of an original, about the middle of its voxels.

    Where the spacing is the original's own, the voxels coincide, so that nothing is interpolated.
    """
    spacing, wanted = entry.grid.spacing_mm, grid.spacing_mm
    same = np.abs(spacing / wanted - 1) < 1e-3
    ratio = np.where(same, 1.0, wanted / spacing)
    start, size = np.array(entry.start), np.array(entry.stop) - entry.start
    first = start - 0.5 + (size - np.array(grid.shape) * ratio) / 2 + 0.5 * ratio
    first = np.where(same, np.floor(first + 0.5), first)
    step = np.diag([*ratio, 1.0])
    step[:3, 3] = first
    return Grid(grid.shape, entry.grid.affine @ step)


def _onto(array: np.ndarray, source: Grid, target: Grid, outside_hu: float) -> tuple[np.ndarray, bool]:
    """Values on `target` as float32, and whether they are exact copies of voxels (nothing was interpolated)."""
    matrix = source.index_to_index(target)
    first = np.rint(matrix[:3, 3]).astype(int)
    if not np.allclose(matrix[:3, :3], np.eye(3), atol=1e-6) or not np.allclose(
        matrix[:3, 3], first, atol=1e-3
    ):
        return resample_volume(Volume(array, source), target, outside_hu).array, False
    values = np.full(target.shape, outside_hu, dtype=np.float32)
    low = np.maximum(first, 0)
    high = np.minimum(first + target.shape, source.shape)
    if (high > low).all():
        there = tuple(slice(a, b) for a, b in zip(low - first, high - first, strict=True))
        values[there] = array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return values, True


def _marked(path: Path) -> bool:
    """Whether the header says that the volume is synthetic."""
    if path.name.lower().endswith((".nii", ".nii.gz")):
        import nibabel

        return b"SYNTHETIC" in nibabel.load(path).header["descrip"].item().upper()
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return not NRRD_SYNTHETIC_KEYS.isdisjoint(reader.GetMetaDataKeys())
