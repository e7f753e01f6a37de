"""MedLoRD's own preparation of volumes, for models that were trained with it.

It takes voxels in file order whatever their orientation and spacing, maps each volume's own minimum and maximum to -1
and 1, and pads with zeros, i.e. mid grey. Models trained by this engine do none of that; imported ones need it to see
what they saw in training.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np

from ..errors import InputError

CLIP_HU = (-1000.0, 1000.0)


def read_file_order(path: str | Path) -> np.ndarray:
    """Stored values of a NIfTI volume [i, j, k] in file order, scaled by its header; no reorientation."""
    try:
        values = np.asanyarray(nibabel.load(path).dataobj)
    except (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        raise InputError(
            f"{Path(path).name} cannot be read as NIfTI: {' '.join(str(error).split())}; give an undamaged file."
        ) from error
    if values.ndim != 3:
        raise InputError(f"{Path(path).name} has {values.ndim} axes; a volume with three is needed.")
    return values


def scale_by_own_range(hu: np.ndarray, clip_hu: tuple[float, float] = CLIP_HU) -> np.ndarray:
    """Clip to `clip_hu`, then map the volume's own minimum and maximum to -1 and 1; float32."""
    clipped = np.clip(hu.astype(np.float32), *clip_hu)
    low, high = clipped.min(), clipped.max()
    if not low < high:
        raise InputError(
            f"The volume is {low:g} HU everywhere between {clip_hu[0]:g} and {clip_hu[1]:g} HU; it needs contrast "
            "to scale."
        )
    return (clipped - low) / (high - low) * np.float32(2) - np.float32(1)


def resize_trilinear(volume: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Volume (channel, i, j, k) on `shape` voxels: trilinear, half-pixel centres, no smoothing; float32."""
    import torch

    batch = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))[None]
    resized = torch.nn.functional.interpolate(batch, size=tuple(shape), mode="trilinear", align_corners=False)
    return resized[0].numpy()


def crop_or_pad(volume: np.ndarray, shape: Sequence[int], value: float) -> np.ndarray:
    """Centre crop and symmetric padding of the last three axes to `shape`; an odd extra voxel is padded at the end."""
    for axis, wanted in enumerate(shape, start=volume.ndim - 3):
        size = volume.shape[axis]
        start = max(size // 2 - wanted // 2, 0)
        volume = volume.take(range(start, min(start + wanted, size)), axis=axis)
        lacking = wanted - volume.shape[axis]
        widths = [(0, 0)] * volume.ndim
        widths[axis] = (lacking // 2, lacking - lacking // 2)
        volume = np.pad(volume, widths, constant_values=value)
    return volume


def read_condition_table(path: str | Path, names: Sequence[str], shape: Sequence[int]) -> list[np.ndarray]:
    """Masks of every row of MedLoRD's CSV: (condition, i, j, k), order of `names`, cropped or padded to `shape`.

    Cells are paths relative to the table; an empty cell is an all-zero channel. Labels are kept as stored. Raises
    InputError for a missing table, column or file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no condition table {path.name} in {path.parent}; check the path.")
    with path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        rows, columns = list(table), table.fieldnames or []
    missing = [name for name in names if name not in columns]
    if missing:
        raise InputError(f"{path.name} has no column {missing[0]!r}, only {', '.join(columns)}; add it.")
    return [np.stack([_condition(path.parent, row[name], shape) for name in names]) for row in rows]


def to_hounsfield(decoded: np.ndarray) -> np.ndarray:
    """Decoder output -> int16 HU as MedLoRD stores it: clip to [-1, 1], (v + 1)*1000 - 1000, truncated towards zero."""
    clipped = np.clip(decoded.astype(np.float32), np.float32(-1), np.float32(1))
    return ((clipped + np.float32(1)) * np.float32(1000) - np.float32(1000)).astype(np.int16)


def _condition(folder: Path, cell: str | None, shape: Sequence[int]) -> np.ndarray:
    if not cell or not cell.strip():
        return np.zeros(tuple(shape), np.uint8)
    return crop_or_pad(read_file_order(folder / cell.strip()), shape, 0)
