"""What is measured of one CT with its segmentation: the same numbers for references and for the volume to check."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..conditions import Conditions
from ..volumes import Grid, Volume
from .hu_samples import sample_hu
from .image_quality import ImageQuality, measure_image_quality
from .regions import regional_volumes

STRUCTURE_MEASURES = {
    "rvr": "regional volume ratio: voxels of the structure / voxels of the volume; depends on the field of view",
    "ml": "volume of the structure in ml",
    "median_hu": "median HU inside the structure, a few mm away from its surface; null where it is absent",
    "spread_hu": "interquartile range of these HU / 1.349; null where the structure is absent",
}
SCAN_MEASURES = {
    "noise_hu": "standard deviation of the noise in soft tissue, HU",
    "edge_width_mm": "length over which HU rise from air to tissue across the skin, mm",
    "outside_air_hu": "median HU of the air around the body",
    "incoherence AXIS": "difference of neighbouring slices over that of slices two apart",
    "seam AXIS": "largest break between two slices, as a multiple of what is usual nearby",
}
SCAN_TITLES = {
    "noise_hu": "Noise in soft tissue (HU)",
    "edge_width_mm": "Width of the skin's edge (mm)",
    "outside_air_hu": "Air around the body (HU)",
}
"""Titles of those measures whose names are no words."""


@dataclass(frozen=True)
class VolumeMeasures:
    """Numbers of one volume: structure -> measure -> value (None: not measurable), and those of the whole scan."""

    structures: dict[str, dict[str, float | None]]
    quality: ImageQuality
    extent_mm: tuple[float, float, float]

    @property
    def scan(self) -> dict[str, float | None]:
        """The measures of the whole scan, by the names in `SCAN_MEASURES`."""
        return self.quality.measures()


def measure_volume(volume: Volume, found: Conditions) -> VolumeMeasures:
    """Measure a CT in HU; `found` are the masks that a segmenter found in it, on its grid, with or without `body`.

    Without a mask of the body, that of the HU rules is taken.
    """
    structures = {}
    for name, region in regional_volumes(found).items():
        sample = sample_hu(volume.array, found[name], volume.grid)
        structures[name] = {
            "rvr": region.rvr,
            "ml": region.ml,
            "median_hu": None if sample is None else sample.median_hu,
            "spread_hu": None if sample is None else sample.spread_hu,
        }
    return VolumeMeasures(
        structures, measure_image_quality(volume, body_of(volume, found)), extent_mm(volume.grid)
    )


def body_of(volume: Volume, found: Conditions) -> np.ndarray:
    """The mask of the body: the segmenter's, else what the HU rules find."""
    if "body" in found and found["body"].any():
        return found["body"]
    from .rules import segment_by_rules

    return segment_by_rules(volume, ("body",))["body"]


def extent_mm(grid: Grid) -> tuple[float, float, float]:
    """Size of the field of view along right, anterior and superior, in mm."""
    from .orientation import AnatomicalFrame

    frame = AnatomicalFrame.of(grid)
    return tuple(float(grid.shape[axis] * length) for axis, length in zip(frame.order, frame.spacing_mm))
