"""Sizes of a phantom as a radiologist would measure them, from its geometry alone (no image formation)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..volumes import Grid
from . import labels
from .case import paint_all
from .parameters import PhantomParameters
from .scene import Scene


@dataclass(frozen=True)
class PhantomMeasures:
    """Volumes in ml, lengths in mm.

    `heart_ml` is chambers and left-ventricular myocardium. `cardiothoracic_ratio` is the transverse width of those
    over the largest inner width of the chest (both lungs with what lies between), on the whole scan.
    `ascending_aorta_mm` is the diameter of the circle of the section's area at the level of the pulmonary trunk.
    """

    lung_ml: float
    left_lung_fraction: float
    heart_ml: float
    chambers_ml: dict[str, float]
    cardiothoracic_ratio: float
    ascending_aorta_mm: float
    body_width_mm: float
    pleural_effusion_ml: float


def measure_phantom(parameters: PhantomParameters, spacing_mm: float = 5.0) -> PhantomMeasures:
    """Measure a phantom on a grid of `spacing_mm` around the whole thorax; error about half a voxel in length."""
    scene = Scene(parameters, grow_trees=False)
    shape = np.ceil(np.array([420.0, 330.0, 400.0]) / spacing_mm).astype(int)
    grid = Grid.centered(tuple(int(n) for n in shape), (spacing_mm,) * 3, (0.0, 0.0, -10.0))
    _, labelmap, flags = paint_all(scene, grid)
    voxel = grid.voxel_volume_ml

    def mask(*names):
        members = np.zeros(256, dtype=bool)
        members[[labels.VALUES[name] for name in names]] = True
        return members[labelmap]

    lung, heart = mask(*labels.LOBES), mask(*labels.CHAMBERS)
    left = mask("lung_upper_lobe_left", "lung_lower_lobe_left")
    body = (flags & labels.FLAGS["body"]) != 0
    center_z = float(scene.frame.to_world([[9.0, 24.0, 27.0]])[0, 2])
    return PhantomMeasures(
        lung_ml=lung.sum() * voxel,
        left_lung_fraction=left.sum() / max(lung.sum(), 1),
        heart_ml=heart.sum() * voxel,
        chambers_ml={name: mask(name).sum() * voxel for name in labels.CHAMBERS},
        cardiothoracic_ratio=_width(heart) / _width(lung),
        ascending_aorta_mm=_section_diameter(scene, center_z),
        body_width_mm=_width(body & (_heights(grid) < 60)) * spacing_mm,
        pleural_effusion_ml=((flags & labels.FLAGS["pleural_effusion"]) != 0).sum() * voxel,
    )


def _width(mask) -> int:
    """Extent of a mask [k, j, i] from left to right, in voxels."""
    columns = np.flatnonzero(mask.any(axis=(0, 1)))
    return int(columns[-1] - columns[0] + 1) if len(columns) else 0


def _heights(grid: Grid):
    return (grid.affine[2, 3] + grid.affine[2, 2] * np.arange(grid.shape[2]))[:, None, None]


def _section_diameter(scene: Scene, z: float) -> float:
    """Diameter of the aorta's section across its course, in the ascending part near height z."""
    tubes = scene.great_vessels.aorta
    middle = 0.5 * (tubes.start + tubes.end)
    ascending = np.arange(len(middle)) < len(middle) // 3
    nearest = np.argmin(np.abs(middle[:, 2] - z) + np.where(ascending, 0, 1e3))
    half = 30.0
    center, direction = middle[nearest], tubes.end[nearest] - tubes.start[nearest]
    direction = direction / np.linalg.norm(direction)
    across = np.cross(direction, [0.0, 1.0, 0.0])
    across /= np.linalg.norm(across)
    third = np.cross(direction, across)
    offsets = np.arange(-half, half, 0.5)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([across * 0.5, third * 0.5, direction * 0.5], axis=1)
    affine[:3, 3] = center - (across + third) * half
    block_grid = Grid((len(offsets), len(offsets), 3), affine)
    from .rasterise import Block

    block = Block(block_grid, scene.frame, 0, 1)
    inside = block.tube_distance(tubes, 2.0)[1] < 0
    return float(2 * np.sqrt(inside.sum() * 0.25 / np.pi))
