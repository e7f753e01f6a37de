"""The chest wall in polar form: inner surface of the rib cage, muscles, fat, skin; and painting the soft parts.

Around a centre line (0, y_c(z)) every horizontal section of the wall is a curve r(angle). Two tables over angle
(0.5 degrees) and height (0.5 mm) hold the inner surface of the ribs and the outer surface of the muscles. The distance
from the inner surface, `depth` (mm, positive outwards), and the angle from the posterior midline, `turn` (0 behind,
pi in front), are the coordinates in which ribs, sternum, scapulae and pleural fluid are described: they cannot cut
into the lung. Section sizes follow CT anthropometry of the thorax (Gayzik et al., J Biomech 41 (2008) 1545-1554).
"""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace

import numpy as np

from . import tissues
from .labels import FLAGS
from .rasterise import Block
from .shapes import coverage, ellipsoid, rounded_box, smooth_union

ANGLES = 720
Z_LOW, Z_STEP, Z_COUNT = -280.0, 0.5, 1120
FASCIA = 1.5  # mm between the ribs' inner surface and the lung

# Canonical millimetres at heights z: half-width, front and back of the inner rib surface, then of the muscles.
_Z = (-200, -160, -120, -60, -20, 20, 60, 100, 118, 132, 150, 170)
_CAGE_WIDTH = (128, 133, 138, 141, 138, 131, 117, 88, 67, 52, 46, 46)
_CAGE_FRONT = (80, 82, 85, 89, 86, 76, 57, 30, 16, 6, 2, 2)
_CAGE_BACK = (-84, -90, -97, -103, -103, -100, -93, -82, -74, -66, -60, -56)
_MUSCLE_WIDTH = (17, 17, 17, 19, 24, 31, 38, 36, 30, 24, 18, 18)
_MUSCLE_FRONT = (16, 15, 15, 15, 17, 20, 22, 20, 20, 22, 24, 24)
_MUSCLE_BACK = (30, 28, 25, 23, 23, 25, 28, 32, 36, 40, 40, 38)


def _smooth_profile(values) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    z = Z_LOW + Z_STEP * np.arange(Z_COUNT)
    return gaussian_filter1d(np.interp(z, _Z, values), 9.0 / Z_STEP, mode="nearest")


class ChestWall:
    """Tables of one chest wall."""

    # The parameters that the tables depend on.
    SHAPED_BY = ("breathing", "narrow_left", "narrow_right", "muscle", "fat_mm", "chest_width", "chest_depth")

    def __init__(self, p):
        swell = 0.95 + 0.05 * p.breathing
        width, front, back = (_smooth_profile(v) for v in (_CAGE_WIDTH, _CAGE_FRONT, _CAGE_BACK))
        self.z = Z_LOW + Z_STEP * np.arange(Z_COUNT)
        self.center_y = 0.5 * (front + back) - 2.0
        self.back_y = back
        self.theta = -np.pi + (np.arange(ANGLES) + 0.5) * 2 * np.pi / ANGLES
        self.turn = np.abs((self.theta + np.pi / 2 + np.pi) % (2 * np.pi) - np.pi).astype(np.float32)
        right = 0.5 + 0.5 * np.tanh(np.cos(self.theta) * 6)
        side = p.narrow_left + (p.narrow_right - p.narrow_left) * right
        width = width[:, None] * side * (0.5 + 0.5 * swell)
        front = (front - self.center_y) * swell
        back = self.center_y - back
        cage = self._section(width, front, back, 2.15, 2.5)
        # The spine pushes into the cage behind; the gutters lie on both sides of it.
        notch = np.exp(-0.5 * (self.turn / 0.26) ** 2)
        cage *= 1 - 0.2 * notch
        thick = [
            _smooth_profile(v) * (0.55 + 0.45 * p.muscle)
            for v in (_MUSCLE_WIDTH, _MUSCLE_FRONT, _MUSCLE_BACK)
        ]
        muscle = self._section(
            width / side * (0.5 + 0.5 * side) + thick[0][:, None],
            front + thick[1],
            back + thick[2],
            2.3,
            2.35,
        )
        self.cage, self.cage_slope = self._table(cage)
        self.muscle, self.muscle_slope = self._table(muscle)
        self.fat = self._fat_thickness(p)

    def _section(self, width, front, back, power_front, power_back):
        cosine, sine = np.abs(np.cos(self.theta)), np.sin(self.theta)
        ahead = sine > 0
        reach = np.where(ahead, front[:, None], back[:, None])
        power = np.where(ahead, power_front, power_back)
        return ((cosine / width) ** power + (np.abs(sine) / reach) ** power) ** (-1 / power)

    def _table(self, radius):
        """Flattened radius table, and the factor from radial to normal distance."""
        by_z = np.gradient(radius, Z_STEP, axis=0)
        by_angle = (np.roll(radius, -1, 1) - np.roll(radius, 1, 1)) / (4 * np.pi / ANGLES)
        slope = 1 / np.sqrt(1 + by_z**2 + (by_angle / radius) ** 2)
        return radius.astype(np.float32).ravel(), slope.astype(np.float32).ravel()

    def _fat_thickness(self, p):
        """Canonical mm of subcutaneous fat by height and angle: thick over flanks and belly, thin over the back."""
        mean = p.fat_mm / (0.5 * (p.chest_width + p.chest_depth))
        low = 1 / (1 + np.exp((self.z + 60) / 35))[:, None]
        side = np.sin(self.turn) ** 2
        ahead = (1 - np.cos(self.turn)) / 2
        thickness = mean * (0.55 + 0.35 * side + 0.25 * ahead * (0.4 + low) + 0.35 * low * side)
        return np.broadcast_to(thickness, (Z_COUNT, ANGLES)).astype(np.float32).ravel()

    def locate(self, x, y, z):
        """(table index, angle index, radius) of canonical points."""
        row = np.clip((z - np.float32(Z_LOW)) * np.float32(1 / Z_STEP) + np.float32(0.5), 0, Z_COUNT - 1)
        row = row.astype(np.int32)
        dy = y - self.center_y.astype(np.float32)[row]
        angle = np.arctan2(dy, x)
        angle += np.float32(np.pi)
        angle *= np.float32(ANGLES / (2 * np.pi))
        column = np.minimum(angle.astype(np.int32), ANGLES - 1)
        return row * np.int32(ANGLES) + column, column, np.sqrt(x * x + dy * dy)

    def depth(self, index, radius):
        """Distance (mm) outwards from the inner surface of the ribs."""
        return (radius - self.cage[index]) * self.cage_slope[index]

    def muscle_depth(self, index, radius):
        """Distance (mm) outwards from the surface of the muscles."""
        return (radius - self.muscle[index]) * self.muscle_slope[index]


def chest_wall(parameters) -> ChestWall:
    """The chest wall of a phantom. The last few are kept: findings are drawn on the wall that is painted afterwards."""
    return _chest_wall(tuple(getattr(parameters, name) for name in ChestWall.SHAPED_BY))


@lru_cache(maxsize=4)
def _chest_wall(values) -> ChestWall:
    return ChestWall(SimpleNamespace(**dict(zip(ChestWall.SHAPED_BY, values))))


def paint_soft_wall(block: Block, wall: ChestWall, index, radius, p):
    """Skin, fat, muscles, breasts and shoulders: everything outside the rib cage that is not bone.

    Returns the signed distances to the surface of the muscles and to the skin.
    """
    everything = (slice(None),) * 3
    muscle = wall.muscle_depth(index, radius)
    skin = muscle - wall.fat[index]
    _add_shoulders(block, muscle, skin, p)
    glands = _breasts(block, skin, muscle, p) if p.breast_mm > 0 else []
    fraction = coverage(skin)
    block.paint_fraction(everything, fraction, tissues.SKIN, skin < 0, None, FLAGS["body"])
    block.paint(everything, skin + np.float32(2.0), p.fat_hu)
    block.paint(everything, muscle, p.muscle_hu)
    for box, gland in glands:
        block.paint(box, np.maximum(gland, 3.0 - muscle[box]), tissues.BREAST_GLAND)
    return muscle, skin


def _add_shoulders(block, muscle, skin, p) -> None:
    """Raised shoulders, as with arms above the head: lobes beside the neck."""
    thickness = np.float32(0.6 * p.fat_mm)
    for side in (-1, 1):
        box = block.box(*sorted_box((side * 40, -110, 20), (side * 190, 60, 330)))
        if box is None:
            continue
        x, y, z = block.x[box], block.y[box], block.z[box]
        lobe = ellipsoid(x, y, z, (side * 106, -28, 150), (62, 50, 88))
        trapezius = ellipsoid(x, y, z, (side * 55, -50, 140), (50, 42, 62))
        lobe = smooth_union(lobe, trapezius, 20)
        muscle[box] = smooth_union(muscle[box], lobe, 22)
        skin[box] = smooth_union(skin[box], lobe - thickness, 22)


def _breasts(block, skin, muscle, p):
    glands = []
    for side in (-1, 1):
        center = (side * 78.0, 76.0, 2.0)
        radii = (64.0, 16.0 + 0.85 * p.breast_mm, 60.0)
        low, high = np.subtract(center, radii) - 14, np.add(center, radii) + 14
        box = block.box(low, high)
        if box is None:
            continue
        x, y, z = block.x[box], block.y[box], block.z[box]
        breast = ellipsoid(x, y, z, center, radii)
        skin[box] = smooth_union(skin[box], breast, 14)
        size = p.breast_gland_fraction
        glands.append(
            (
                box,
                ellipsoid(
                    x,
                    y,
                    z,
                    (center[0], center[1] + 8 + 0.2 * p.breast_mm, center[2]),
                    [r * size for r in radii],
                ),
            )
        )
    return glands


def paint_wall_fat_planes(block: Block, depth, turn, muscle) -> None:
    """Fat between the ribs and the outer muscles, between the layers of the back, and in the armpits."""
    height = np.exp(((block.z - 20) / 75) ** 2 * np.float32(-1))
    half = np.float32(1.5) * height * np.clip((turn - 0.5) * 4, 0, 1) * np.clip((2.75 - turn) * 4, 0, 1)
    _paint_layer(block, depth - np.float32(10.5), half)
    half = np.float32(0.8) * np.clip((1.25 - turn) * 4, 0, 1) * np.clip(turn * 8, 0, 1) * (depth > 12)
    _paint_layer(block, muscle + np.float32(8), half)
    for side in (-1, 1):
        center, radii = (side * 131.0, 8.0, 66.0), (17.0, 20.0, 44.0)
        box = block.box(np.subtract(center, radii) - 4, np.add(center, radii) + 4)
        if box is not None:
            armpit = ellipsoid(block.x[box], block.y[box], block.z[box], center, radii)
            block.paint(box, np.maximum(armpit, 9.0 - depth[box]), tissues.FAT)


def _paint_layer(block: Block, distance, half_thickness) -> None:
    """A thin layer of fat: what lies between its two faces, right for layers thinner than a voxel."""
    fraction = coverage(distance - half_thickness)
    fraction -= coverage(distance + half_thickness)
    block.paint_fraction((slice(None),) * 3, np.maximum(fraction, 0), tissues.FAT)


def paint_table(block: Block, p) -> None:
    """The patient table: a curved carbon shell filled with foam, below the back; fixed to the scanner, not the body."""
    if not p.table:
        return
    everything = (slice(None),) * 3
    x, y, z = block.world_coordinates(everything)
    back = p.position_mm[1] - p.chest_depth * 128.0 - 0.75 * p.fat_mm - 14.0
    sag = y - np.float32(back) - x * x * np.float32(1 / 1500.0)
    shell = rounded_box(x, sag, np.float32(0), (0, -14, 0), (200, 14, 1e4), 8)
    shell = np.broadcast_to(shell, block.counts).astype(np.float32)
    block.paint(everything, shell, tissues.TABLE_SHELL)
    block.paint(everything, shell + np.float32(2.5), tissues.TABLE_FOAM)


def sorted_box(first, second):
    """Lower and upper corner of the box between two corners."""
    return np.minimum(first, second), np.maximum(first, second)
