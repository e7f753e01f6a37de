"""Findings: where they are drawn, and how they are painted.

Positions are world millimetres and shapes are not warped, so a nodule of 10 mm measures 10 mm on every grid.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from . import tissues
from .labels import FLAGS
from .parameters import GroundGlass, Nodule, PhantomParameters, PleuralEffusion
from .rasterise import Block


def sample_findings(p: PhantomParameters, rng, overrides: dict) -> dict:
    """Values of the fields nodules, ground_glass, pleural_effusion and pericardial_effusion_mm."""
    chance, sides = rng.random(4), rng.random(4)
    wanted = int(1 + (sides[0] > 0.55) + (sides[0] > 0.85)) if chance[0] < 0.6 else 0
    given = overrides.get("nodules")
    if isinstance(given, int) and not isinstance(given, bool):
        if not 0 <= given <= 50:
            raise InputError(f"The number of nodules is {given}; it must lie between 0 and 50.")
        wanted, given = given, None
    effusion = overrides.get("pleural_effusion", bool(chance[2] < 0.15))
    glass = overrides.get("ground_glass", bool(chance[3] < 0.15))
    if isinstance(effusion, bool):
        volume = float(np.exp(rng.normal(np.log(260.0), 0.55)))
        effusion = (
            PleuralEffusion("left" if sides[2] < 0.5 else "right", float(np.clip(volume, 60, 800)))
            if (effusion)
            else None
        )
    pericardial = float(rng.uniform(4.0, 13.0)) if chance[1] < 0.10 else 0.0
    nodules = tuple(given) if given is not None else ()
    if (wanted and given is None) or glass is True:
        points, depths = _lung_points(p, effusion)
        if given is None:
            nodules = tuple(_draw_nodule(rng, points, depths) for _ in range(wanted))
        if glass is True:
            center = points[depths < -18][int(rng.integers(max((depths < -18).sum(), 1)))]
            glass = GroundGlass(
                tuple(float(v) for v in center),
                tuple(float(v) for v in rng.uniform(14, 36, 3)),
                float(rng.uniform(150, 330)),
            )
    return {
        "nodules": nodules,
        "ground_glass": glass or None,
        "pleural_effusion": effusion,
        "pericardial_effusion_mm": overrides.get("pericardial_effusion_mm", pericardial),
    }


def _lung_points(p, effusion):
    from dataclasses import replace

    from .scene import Scene

    scene = Scene(replace(p, pleural_effusion=effusion), grow_trees=False)
    return scene.lung_points, scene.lung_depths


def _draw_nodule(rng, points, depths) -> Nodule:
    """A nodule of 6 to 30 mm, small ones more often, one in three at the pleura."""
    diameter = float(np.clip(6 * np.exp(rng.exponential(0.55)), 6, 30))
    at_pleura = rng.random() < 0.33
    low, high = (-0.55 * diameter - 3, -0.2 * diameter) if at_pleura else (-200.0, -0.5 * diameter - 2)
    choice = np.flatnonzero((depths > low) & (depths < high))
    choice = choice if len(choice) else np.flatnonzero(depths < -0.2 * diameter)
    center = points[choice[int(rng.integers(len(choice)))]]
    return Nodule(
        tuple(float(v) for v in center),
        diameter,
        float(rng.normal(38.0, 12.0)),
        float(rng.uniform(0.0, 0.14)),
    )


def paint_ground_glass(block: Block, p, lung_fraction, lung) -> None:
    """Raises the density of the lung in a soft-edged ellipsoid; vessels are painted over it."""
    glass = p.ground_glass
    if glass is None:
        return
    box = _world_box(block, glass.center_ras_mm, max(glass.radii_mm) * 1.4)
    if box is None:
        return
    x, y, z = block.world_coordinates(box)
    c, r = glass.center_ras_mm, glass.radii_mm
    q = np.sqrt(((x - c[0]) / r[0]) ** 2 + ((y - c[1]) / r[1]) ** 2 + ((z - c[2]) / r[2]) ** 2)
    ripple = 0.12 * np.sin((x + y) / 6.0) * np.sin((z - y) / 7.0) * np.sin((x - z) / 8.0 + 1.0)
    soft = np.clip((1.2 - q + ripple) / 0.4, 0, 1).astype(np.float32)
    block.hu[box] += np.float32(glass.added_hu) * soft * lung_fraction[box]
    np.bitwise_or(
        block.flags[box],
        np.uint8(FLAGS["ground_glass"]),
        out=block.flags[box],
        where=(soft > 0.5) & (lung[box] < 0),
    )


def paint_nodules(block: Block, p, lung) -> None:
    """Solid nodules, cut off at the pleura."""
    for nodule in p.nodules:
        radius = nodule.diameter_mm / 2
        box = _world_box(block, nodule.center_ras_mm, radius * 1.3)
        if box is None:
            continue
        x, y, z = (v - np.float32(c) for v, c in zip(block.world_coordinates(box), nodule.center_ras_mm))
        wave = np.float32(2.2 / radius)
        bumps = np.sin(wave * x + 1) * np.sin(wave * y + 2) * np.sin(wave * z + 3)
        distance = np.sqrt(x * x + y * y + z * z) - np.float32(radius) * (
            1 + np.float32(nodule.lobulation) * bumps
        )
        block.paint(box, np.maximum(distance, lung[box]), nodule.hu, flag=FLAGS["lung_nodules"])


def paint_pleural_effusion(block: Block, fluid) -> None:
    """Fluid in the dependent pleural space; `fluid` is its signed distance on the whole block."""
    block.paint((slice(None),) * 3, fluid, tissues.EFFUSION, flag=FLAGS["pleural_effusion"])


def _world_box(block: Block, center, reach):
    mm = block.to_grid_mm(np.asarray(center, dtype=float)[None])[0]
    margin = reach + 2 * block.spacing
    return block._index_box(mm - margin, mm + margin)
