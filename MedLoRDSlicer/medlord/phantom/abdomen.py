"""Upper abdomen under the diaphragm: diaphragm muscle, fat, liver, spleen, stomach with its gas."""

from __future__ import annotations

import numpy as np

from . import tissues
from .rasterise import Block
from .shapes import ellipsoid, smooth_intersection


def paint_abdomen(block: Block, lungs, depth, dome, spine, p) -> None:
    """Everything below the domes; `spine` is (index box, distance to the vertebral column)."""
    height, factor = dome
    everything = (slice(None),) * 3
    # Clipped because the factor varies fast along the steep parts far above.
    below = np.clip((block.z - height) * factor, -40, 8)
    inner = np.maximum(depth + np.float32(0.6), below)
    block.paint(everything, inner, p.muscle_hu)
    block.paint(everything, inner + np.float32(3.0), p.fat_hu)
    shift = 0.75 * (0.5 * (lungs.dome_right + lungs.dome_left) + 70)
    keep_off = np.full(block.counts, -100, dtype=np.float32)
    if spine[0] is not None:
        keep_off[spine[0]] = 9 - spine[1]
    organs = (
        ("spleen", (-86, -48, -126 + shift), (33, 40, 50), p.spleen_hu, 4.5),
        ("stomach", (-50, 18, -140 + shift), (44, 42, 56), tissues.STOMACH_WALL, 5.5),
        ("liver", (52, 2, -168 + shift), (116, 98, 128), p.liver_hu, 3.2),
    )
    for name, center, radii, hu, gap in organs:
        box = block.box(np.subtract(center, radii) - 3, np.add(center, radii) + 3)
        if box is None:
            continue
        shape = ellipsoid(block.x[box], block.y[box], block.z[box], center, radii)
        shape = np.maximum(smooth_intersection(shape, inner[box] + np.float32(gap), 6), keep_off[box])
        block.paint(box, shape, hu, name)
        if name == "stomach":
            block.paint(box, shape + np.float32(3.5), tissues.STOMACH_CONTENT)
            level = center[1] + radii[1] * (1 - 2 * p.stomach_gas)
            gas = np.maximum(shape + np.float32(3.5), np.float32(level) - block.y[box])
            block.paint(box, gas, tissues.AIR)
