"""Slices of a CT as pictures: three anatomical planes, equal pixels, windows of HU."""

from __future__ import annotations

import numpy as np

from ...errors import InputError
from ...volumes import Volume
from ..orientation import AnatomicalFrame

PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}
"""Plane -> the axis of `AnatomicalFrame` across it."""

WINDOWS = {
    "wide": (-1000.0, 1000.0),
    "lung": (-1350.0, 150.0),
    "vessel": (-100.0, 500.0),
    "soft tissue": (-160.0, 240.0),
    "bone": (-500.0, 1300.0),
}
"""Window -> (black, white) in HU. The first is the range of the networks, the others are those of reading rooms."""

SMALLEST_PICTURE = 32
"""Pixels along a side; a ResNet halves a picture five times."""

_TISSUE_HU = -500.0
_LEAST_TISSUE = 0.02


def plane_slices(
    volume: Volume, plane: str, count: int, pixel_mm: float, *, chosen_by: Volume | None = None
) -> np.ndarray:
    """Up to `count` slices across an anatomical plane, evenly spaced, as float32 HU [slices, rows, columns].

    Rows go down from anterior (axial) or superior, columns start at the patient's right (axial, coronal) or anterior
    (sagittal): the way such pictures are read. Pixels are `pixel_mm` wide, by linear interpolation with the smoothing
    that a coarser grid needs. Slices with less than 2 % of tissue (above -500 HU) are passed over; a volume without any
    tissue gives slices of air, since a failed synthesis must count. `chosen_by` is a volume on the same grid whose
    tissue decides instead, so that slices of both belong together.
    Raises `InputError` for a field of view of less than 32 pixels.
    """
    import torch

    frame = AnatomicalFrame.of(volume.grid)
    across = PLANES[plane]
    anatomy = np.moveaxis(frame.to_anatomy(volume.array), across, 0)
    deciding = anatomy
    if chosen_by is not None:
        deciding = np.moveaxis(frame.to_anatomy(chosen_by.array), across, 0)
    chosen = anatomy[_evenly(_with_tissue(deciding), count)]
    pictures = np.ascontiguousarray(chosen.transpose(0, 2, 1)[:, ::-1, ::-1], dtype=np.float32)
    wide, high = (length for axis, length in enumerate(frame.spacing_mm) if axis != across)
    size = tuple(round(n * mm / pixel_mm) for n, mm in zip(pictures.shape[1:], (high, wide), strict=True))
    if min(size) < SMALLEST_PICTURE:
        raise InputError(
            f"The {plane} slices are {size[1]} x {size[0]} pixels of {pixel_mm:g} mm; at least {SMALLEST_PICTURE} are "
            "needed. Choose smaller pixels or volumes with a larger field of view."
        )
    if size == pictures.shape[1:]:
        return pictures
    tensor = torch.from_numpy(pictures)[:, None]
    return torch.nn.functional.interpolate(tensor, size, mode="bilinear", antialias=True)[:, 0].numpy()


def windowed(pictures: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """HU as grey values from 0 (black and below) to 1 (white and above), in float32."""
    low, high = window
    return np.clip((pictures - np.float32(low)) / np.float32(high - low), 0, 1)


def _with_tissue(anatomy: np.ndarray) -> np.ndarray:
    """Numbers of the slices along axis 0 that hold tissue; all of them where none does."""
    shares = (anatomy > _TISSUE_HU).mean(axis=(1, 2))
    found = np.flatnonzero(shares >= _LEAST_TISSUE)
    return found if len(found) else np.arange(len(anatomy))


def _evenly(numbers: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of `numbers`, evenly spaced and away from both ends."""
    if len(numbers) <= count:
        return numbers
    return numbers[((np.arange(count) + 0.5) * len(numbers) / count).astype(int)]
