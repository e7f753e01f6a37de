"""Ribs, costal cartilage, sternum, scapulae, clavicles and vertebrae, each a cortical shell around marrow.

Ribs, sternum and scapulae are described on the chest wall (`depth` from the inner rib surface, `turn` from the
posterior midline), so they hug it on every phantom. Rib slopes follow Wilson et al., J Appl Physiol 62 (1987)
1872-1877; vertebral sizes Panjabi et al., Spine 16 (1991) 888-901.
"""

from __future__ import annotations

import numpy as np

from . import tissues
from .rasterise import Block, Tubes
from .shapes import catmull_rom, ellipse, ellipsoid

# Centres (z) and half heights of C7, T1..T12, L1, canonical mm.
VERTEBRA_NAMES = ("vertebrae_C7", *(f"vertebrae_T{n}" for n in range(1, 13)), "vertebrae_L1")
VERTEBRA_Z = np.array([151, 133.5, 114.5, 94, 72.5, 49.5, 25.5, 0.5, -25, -51, -78, -105.5, -134, -164])
RIB_DEPTH, RIB_HALF_THICKNESS, RIB_HALF_HEIGHT, CORTEX = 4.6, 3.6, 6.2, 1.1

# Per rib 1..12: drop (mm) from the vertebra to the bony end in front, turn (rad) of that end, height (mm) and turn at
# which its cartilage meets the sternum or the costal margin.
_DROP = (38, 62, 76, 84, 91, 97, 103, 101, 93, 80, 52, 26)
_END = (2.62, 2.66, 2.66, 2.64, 2.60, 2.52, 2.42, 2.26, 2.10, 1.92, 1.5, 0.95)
_CARTILAGE_Z = (84, 47, 26, 5, -17, -36, -50, -66, -90, -112)
_CARTILAGE_TURN = (2.86, 2.98, 3.0, 3.0, 3.0, 3.02, 3.02, 2.62, 2.42, 2.26)
_START = 0.30


class RibCage:
    """Heights of the ribs along the wall, for one phantom."""

    def __init__(self, p):
        slope = 0.82 + 0.22 * (1 - p.breathing)
        self.turns = np.linspace(0, np.pi, 181)
        self.bone_z, self.cartilage_z = [], []
        for n in range(12):
            t = np.clip((self.turns - _START) / (_END[n] - _START), 0, 1.2)
            # Down all the way, steepest at the side.
            height = (
                VERTEBRA_Z[n + 1]
                + 4
                - _DROP[n] * slope * (0.35 * t + 0.65 * t * t * (3 - 2 * np.minimum(t, 1)))
            )
            self.bone_z.append(height)
            if n < 10:
                end = np.interp(_END[n], self.turns, height)
                s = np.clip((self.turns - _END[n]) / (_CARTILAGE_TURN[n] - _END[n]), 0, 1.1)
                self.cartilage_z.append(end + (_CARTILAGE_Z[n] - end) * s)

    def paint(self, block: Block, wall, depth, column, radius, p) -> None:
        """Ribs and cartilages of both sides, on the voxels near the wall only."""
        voxels = np.flatnonzero((depth > -2.5) & (depth < 12.5) & (np.abs(block.z) < 200))
        if not len(voxels):
            return
        depth, column, radius = depth.ravel()[voxels], column.ravel()[voxels], radius.ravel()[voxels]
        z, right = block.z.ravel()[voxels], block.x.ravel()[voxels] > 0
        turn = wall.turn[column]
        hu, label = block.hu.reshape(-1), block.label.reshape(-1)
        for n in range(12):
            if n < 10:
                self._paint_one(
                    block,
                    p,
                    n,
                    self.cartilage_z[n],
                    (_END[n], _CARTILAGE_TURN[n] + 0.1),
                    False,
                    (hu, label, voxels, depth, turn, radius, z, right),
                )
            self._paint_one(
                block,
                p,
                n,
                self.bone_z[n],
                (_START, _END[n]),
                True,
                (hu, label, voxels, depth, turn, radius, z, right),
            )

    def _paint_one(self, block, p, n, heights, ends, bone, fields):
        from . import labels

        hu, label, voxels, depth, turn, radius, z, right = fields
        near = np.flatnonzero(
            (turn > ends[0] - 0.1)
            & (turn < ends[1] + 0.1)
            & (z < heights.max() + 12)
            & (z > heights.min() - 12)
        )
        if not len(near):
            return
        step = self.turns[1]
        position = turn[near] / np.float32(step)
        cell = np.minimum(position.astype(np.int32), len(heights) - 2)
        slopes = np.gradient(heights, step).astype(np.float32)
        up = z[near] - (
            heights.astype(np.float32)[cell] + (position - cell) * np.diff(heights).astype(np.float32)[cell]
        )
        keep = np.abs(up) < 22
        near, up, cell = near[keep], up[keep], cell[keep]
        r = np.maximum(radius[near], 20)
        cosine = 1 / np.sqrt(1 + (slopes[cell] / r) ** 2)
        half_height = RIB_HALF_HEIGHT * (1.0 if bone else 0.85)
        out = depth[near] - np.float32(RIB_DEPTH)
        across = up * cosine
        distance = ellipse(out, across, np.float32(RIB_HALF_THICKNESS), np.float32(half_height))
        end = np.maximum(turn[near] - np.float32(ends[1]), np.float32(ends[0]) - turn[near]) * r
        distance = np.maximum(distance, end)
        # Half the projected voxel width: the normal is in-plane on the broad faces, oblique on the edges.
        normal_out, normal_up = np.abs(out) / RIB_HALF_THICKNESS**2, np.abs(across) / half_height**2
        norm = np.sqrt(normal_out**2 + normal_up**2) + 1e-6
        sx, sz = float(block.spacing[:2].mean()), float(block.spacing[2])
        width = (1.27 * sx * normal_out + (sz * cosine + sx * np.sqrt(1 - cosine**2)) * normal_up) / norm
        width = np.maximum(width, 0.5 * sx).astype(np.float32)
        outer = np.clip(0.5 - distance / width, 0, 1)
        target = voxels[near]
        if not bone:
            hu[target] += outer * (tissues.CARTILAGE - hu[target])
            inside = target[distance < 0]
            label[inside] = labels.VALUES["costal_cartilages"]
            return
        inner = np.clip(0.5 - (distance + CORTEX) / width, 0, 1)
        hu[target] += outer * (tissues.CORTICAL_BONE - hu[target])
        hu[target] += inner * (p.marrow_hu - 40 - hu[target])
        inside = distance < 0
        label[target[inside & right[near]]] = labels.VALUES[f"rib_right_{n + 1}"]
        label[target[inside & ~right[near]]] = labels.VALUES[f"rib_left_{n + 1}"]


def paint_sternum(block: Block, depth, p) -> None:
    """Manubrium, body and xiphoid on the front of the cage."""
    box = block.box((-40, 10, -90), (40, 125, 108))
    if box is None:
        return
    x, z, d = np.abs(block.x[box]), block.z[box], depth[box]
    width = np.interp(z, (-85, -62, -52, 0, 38, 44, 50, 85, 98), (5, 7, 15, 17, 15, 14, 22, 30, 24)).astype(
        np.float32
    )
    flat = ellipse(x, d - np.float32(5.6), width * np.float32(1.12), np.float32(5.6))
    flat = np.maximum(flat, np.maximum(z - np.float32(96), np.float32(-84) - z))
    flat = np.maximum(flat, np.where(block.y[box] > 0, np.float32(-50), np.float32(50)))
    bone(block, box, flat, p.marrow_hu - 40, "sternum", 1.0)


def bone(block: Block, box, distance, marrow_hu, name, cortex_mm) -> None:
    """Paint a cortical shell and the marrow inside it."""
    block.paint(box, distance, tissues.CORTICAL_BONE, name)
    block.paint(box, distance + np.float32(cortex_mm), marrow_hu)


def paint_shoulder_girdle(block: Block, depth, turn, skin, p) -> None:
    """Scapulae (plate, spine, neck) outside the ribs, and the clavicles; none nearer to the skin than 4 mm."""
    for sign, side in ((1, "right"), (-1, "left")):
        name = f"scapula_{side}"
        box = block.box(*_corners((sign * 30, -150, -45), (sign * 175, 20, 150)))
        if box is not None:
            z, d, t = block.z[box], depth[box], turn[box]
            lift = np.clip((z + 30) / 130, 0, 1)
            middle = np.float32(17) + 7 * lift
            # The triangle: medial border, lateral border running up and out, upper border.
            border = np.maximum(np.float32(0.56) - t, t - (np.float32(0.80) + np.float32(0.72) * lift)) * 120
            outline = np.maximum(np.maximum(border, np.float32(-28) - z), z - np.float32(104))
            thick = np.float32(1.7) + 2.6 * np.clip(1 + outline / 14, 0, 1)
            plate = np.maximum(outline, np.abs(d - middle) - thick)
            ridge_z = np.float32(52) + 46 * (t - np.float32(0.56))
            ridge = np.maximum(
                np.abs(z - ridge_z) - np.float32(3.4), np.maximum(np.float32(0.62) - t, t - 1.42) * 120
            )
            ridge = np.maximum(ridge, np.maximum(middle - d, d - middle - 15))
            distance = np.minimum(plate, ridge)
            distance[np.sign(block.x[box]) != sign] = 50
            neck = ellipsoid(block.x[box], block.y[box], z, (sign * 127, -28, 112), (14, 15, 18))
            distance = np.maximum(np.minimum(distance, neck), skin[box] + np.float32(4))
            bone(block, box, distance, p.marrow_hu - 30, name, 1.1)
        points = np.array(
            [
                (sign * 24, 42, 96),
                (sign * 52, 40, 108),
                (sign * 90, 16, 128),
                (sign * 128, -8, 142),
                (sign * 150, -14, 150),
            ],
            dtype=float,
        )
        fine = block.frame.to_world(catmull_rom(points, 5))
        tubes = Tubes.along(
            fine, np.interp(np.linspace(0, 1, len(fine)), (0, 0.2, 0.6, 1), (8.5, 6.2, 5.6, 6.5))
        )
        from .mediastinum import tubes_box

        box = tubes_box(block, tubes, 1.0)
        if box is not None:
            distance = block.tube_distance(tubes, 2 * float(block.spacing.max()) + 1)[box]
            distance = np.maximum(distance, skin[box] + np.float32(4))
            bone(block, box, distance, p.marrow_hu - 20, f"clavicula_{side}", 1.5)


def _corners(first, second):
    return np.minimum(first, second), np.maximum(first, second)


class Spine:
    """The thoracic spine: heights of all vertebrae in one evaluation, through the height within the own vertebra."""

    BOX = ((-48, -150, -230), (48, -15, 190))

    def __init__(self, p):
        self.p = p
        z = np.linspace(-230, 190, 421)
        bow = np.interp(
            z,
            (-190, -164, -134, -78, 0, 72, 115, 133, 151, 190),
            (-48, -52, -58, -66, -69, -62, -51, -45, -40, -30),
        )
        self.z = z
        self.middle_y = (
            (-62 + (bow + 62) * p.kyphosis) if p.kyphosis < 1 else bow - 3 * (p.kyphosis - 1) * (bow > -60)
        )
        self.radius_x = np.interp(z, (-164, -78, 0, 72, 133, 151), (21, 18.5, 16.5, 14.5, 14, 13))
        self.radius_y = np.interp(z, (-164, -78, 0, 72, 133, 151), (16, 15.5, 14.5, 11.5, 9, 8.5))
        gaps = (VERTEBRA_Z[:-1] + VERTEBRA_Z[1:]) / 2
        self.bounds = np.concatenate([gaps, [VERTEBRA_Z[-1] - 14.5]])
        self.halves = np.gradient(-VERTEBRA_Z) / 2 - np.linspace(1.6, 2.9, len(VERTEBRA_Z))

    def sample(self, table, z):
        """Interpolate one of the tables over height."""
        position = np.clip(z - np.float32(self.z[0]), 0, len(self.z) - 2)
        return table.astype(np.float32)[(position + np.float32(0.5)).astype(np.int32)]

    def own_height(self, z):
        """(number of the vertebra, height above its centre, its half height)."""
        number = np.clip(np.searchsorted(-self.bounds, -z), 0, len(VERTEBRA_Z) - 1)
        return number, z - VERTEBRA_Z.astype(np.float32)[number], self.halves.astype(np.float32)[number]

    def locate(self, block: Block):
        """Index box, and the distance to the column of vertebral bodies and discs (for the mediastinum)."""
        self.box = block.box(*self.BOX)
        if self.box is None:
            return None, None
        self.x, z = block.x[self.box], block.z[self.box]
        self.y = block.y[self.box] - self.sample(self.middle_y, z)
        self.rx, self.ry = self.sample(self.radius_x, z), self.sample(self.radius_y, z)
        # A flat back towards the canal.
        self.column = np.maximum(
            ellipse(self.x, self.y, self.rx, self.ry), -self.y - self.ry * np.float32(0.82)
        )
        return self.box, self.column

    def paint(self, block: Block, skin) -> None:
        """Discs, vertebrae with arches and processes, canal and cord."""
        if self.box is None:
            return
        box, x, y, z = self.box, self.x, self.y, block.z[self.box]
        inside_height = np.maximum(z - np.float32(158 + 10), np.float32(-200) - z)
        block.paint(box, np.maximum(self.column, inside_height), tissues.DISC)
        number, up, half = self.own_height(z)
        waist = self.column + np.float32(1.4) * np.clip(1 - np.abs(up) / half, 0, 1)
        body = np.maximum(waist, np.abs(up) - half)
        canal_y = y + self.ry * np.float32(0.82) + np.float32(8.2)
        canal = ellipse(x, canal_y, np.float32(10.0), np.float32(8.4))
        arch = np.maximum(
            np.maximum(canal - np.float32(5.2), -canal),
            np.maximum(np.abs(up - 1) - half * np.float32(0.62), canal_y - 4),
        )
        pedicle = np.maximum(
            np.maximum(
                np.abs(np.abs(x) - np.float32(12.2)) - np.float32(3.2),
                np.abs(up - np.float32(3)) - half * np.float32(0.45),
            ),
            np.abs(canal_y - 2) - np.float32(11),
        )
        side = np.abs(x) - np.float32(10)
        transverse = np.maximum(
            np.sqrt((canal_y + 7 + np.float32(0.35) * side) ** 2 + (up - 3) ** 2) - np.float32(4.6),
            np.abs(side - 11) - np.float32(13),
        )
        # Spinous processes slope down: use the vertebra that the process belongs to.
        behind = np.maximum(-canal_y - np.float32(8), 0)
        process_number, process_up, process_half = self.own_height(z + np.float32(0.75) * behind)
        spinous = np.maximum(
            np.abs(x) - np.float32(2.8), np.abs(process_up - 0) - process_half * np.float32(0.5)
        )
        spinous = np.maximum(spinous, np.maximum(canal_y + np.float32(9), np.float32(-36) - canal_y))
        spinous = np.maximum(spinous, skin[box] + np.float32(5))
        front = np.minimum(np.minimum(body, arch), np.minimum(pedicle, transverse))
        front = np.maximum(front, -canal)
        self._bone(block, np.minimum(front, spinous), np.where(spinous < front, process_number, number))
        clear = np.maximum(canal, -y - self.ry * np.float32(0) - 200)
        block.paint(box, clear, tissues.CEREBROSPINAL_FLUID)
        block.paint(
            box, ellipse(x, canal_y, np.float32(5.6), np.float32(4.2)), tissues.SPINAL_CORD, "spinal_cord"
        )

    def _bone(self, block, distance, number):
        from . import labels

        values = np.array([labels.VALUES[name] for name in VERTEBRA_NAMES], dtype=np.uint8)
        block.paint(self.box, distance, tissues.CORTICAL_BONE)
        block.paint(self.box, distance + np.float32(1.2), self.p.marrow_hu)
        np.copyto(block.label[self.box], values[number], where=distance < 0)
