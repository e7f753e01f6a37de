"""Regional volumes: how large every structure is, as a share of the volume and in ml.

The regional volume ratio (RVR) of the MedLoRD paper (arXiv 2503.13211) is voxels of the region over voxels of the
volume. It depends on the field of view: the same lung has half the RVR in a volume twice as large. So it is compared
only between volumes of about one extent, and ml stand beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..conditions import Conditions


@dataclass(frozen=True)
class Region:
    """A structure's number of voxels, `ml`, and `rvr` = voxels of the region / voxels of the volume (0 to 1)."""

    voxels: int
    ml: float
    rvr: float


def regional_volumes(found: Conditions) -> dict[str, Region]:
    """The size of every mask in `found`; a structure that is not there has 0 voxels."""
    total = int(np.prod(found.grid.shape))
    regions = {}
    for name, mask in found.masks.items():
        voxels = int(np.count_nonzero(mask))
        regions[name] = Region(voxels, voxels * found.grid.voxel_volume_ml, voxels / total)
    return regions
