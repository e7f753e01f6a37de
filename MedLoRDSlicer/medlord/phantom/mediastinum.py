"""Great vessels, trachea and oesophagus as swept tubes, and the shape of the mediastinum between the lungs.

Curves are Catmull-Rom splines through points in canonical millimetres, some of which move with the heart. Radii are
inner radii in true millimetres: ascending aorta 24 to 41 mm wide (Rogers et al., Am J Cardiol 111 (2013) 1510-1516),
descending 0.75 of it, pulmonary trunk 20 to 32 mm (Truong et al., Circ Cardiovasc Imaging 5 (2012) 147-154).
"""

from __future__ import annotations

import numpy as np

from . import tissues
from .rasterise import FAR, Block, Tubes
from .shapes import catmull_rom, ellipse, smooth_union

HILUM = {"right": np.array([42.0, -18.0, 12.0]), "left": np.array([-47.0, -22.0, 10.0])}

# name: (points; a leading "heart" marks those that move with the heart, radii relative to the structure's own)
_AORTA = (
    [
        ("heart", -4, 12, -10),
        ("heart", 1, 19, 8),
        (9, 24, 27),
        (13, 20, 46),
        (6, 10, 62),
        (-13, -5, 70),
        (-26, -24, 69),
        (-30, -42, 58),
        (-28, -53, 40),
        (-26, -55, 10),
        (-22, -56, -40),
        (-14, -55, -90),
        (-6, -49, -130),
        (-3, -42, -190),
    ],
    (0.98, 1.0, 1.0, 0.97, 0.92, 0.88, 0.84, 0.8, 0.77, 0.76, 0.74, 0.72, 0.7, 0.66),
)
_TRUNK = ([("heart", -18, 45, -4), (-21, 31, 14), (-22, 12, 25)], (1.0, 1.0, 0.92))
_RIGHT_PULMONARY = (
    [(-22, 12, 25), (-8, -2, 27), (14, -8, 24), (34, -14, 18), (44, -18, 13)],
    (0.84, 0.8, 0.78, 0.72, 0.6),
)
_LEFT_PULMONARY = ([(-22, 12, 25), (-34, -8, 31), (-44, -26, 26), (-48, -32, 12)], (0.84, 0.76, 0.7, 0.56))
_SVC = ([(22, 14, 80), (28, 12, 50), (31, 11, 20), ("heart", 31, 14, -6)], (0.9, 1.0, 1.0, 1.05))
_IVC = ([("heart", 27, 8, -52), (25, 0, -90), (22, -16, -140), (20, -24, -190)], (1.0, 1.0, 1.0, 0.95))
_VEINS = (
    ([("heart", 18, -16, -6), (36, -12, 0), (50, -9, 2)], (7.0, 6.3, 5.0)),
    ([("heart", 18, -24, -20), (36, -33, -24), (48, -40, -30)], (7.0, 6.3, 5.0)),
    ([("heart", -22, -14, -4), (-38, -10, 4), (-52, -8, 8)], (6.5, 6.0, 5.0)),
    ([("heart", -22, -22, -18), (-38, -32, -20), (-52, -40, -26)], (6.5, 6.0, 5.0)),
)
_BRANCHES = {
    "brachiocephalic_trunk": ([(2, 8, 66), (8, 4, 95), (17, -2, 125), (22, -2, 185)], (6.2, 5.8, 4.6, 3.5)),
    "common_carotid_artery_left": ([(-13, -5, 72), (-15, -8, 110), (-22, -4, 185)], (3.6, 3.4, 3.2)),
    "subclavian_artery_left": (
        [(-26, -24, 70), (-27, -27, 100), (-36, -20, 126), (-66, -8, 142)],
        (5.2, 4.8, 4.5, 4.0),
    ),
    "brachiocephalic_vein_left": (
        [(-52, 8, 124), (-36, 18, 108), (-16, 25, 92), (6, 24, 84), (22, 14, 80)],
        (5.2, 5.8, 6.4, 6.8, 7.5),
    ),
    "brachiocephalic_vein_right": (
        [(22, 14, 80), (29, 8, 100), (46, 4, 122), (60, 4, 130)],
        (7.5, 7.0, 6.0, 5.0),
    ),
}
_TRACHEA = ([(0, 14, 185), (0, 0, 132), (4, -13, 95), (7, -21, 66), (5, -28, 42)], (1.0, 1.0, 1.0, 1.0, 1.05))
_RIGHT_BRONCHUS = ([(5, -28, 42), (17, -30, 29), (33, -29, 15), (43, -28, 8)], (0.85, 0.78, 0.68, 0.5))
_LEFT_BRONCHUS = ([(5, -28, 42), (-13, -30, 29), (-34, -28, 13), (-48, -27, 4)], (0.8, 0.7, 0.66, 0.5))
_OESOPHAGUS = (
    [
        (0, -24, 185),
        (-2, -30, 130),
        (-5, -37, 80),
        (-4, -43, 40),
        (-9, -45, 0),
        (-12, -46, -45),
        (-17, -40, -80),
        (-26, -24, -108),
    ],
    (5.5, 6, 6.5, 6, 6.5, 7, 7.5, 8.5),
)


class GreatVessels:
    """Tubes in world space of one phantom's central vessels and airways."""

    def __init__(self, frame, pose, p):
        aorta, trunk = p.aorta_diameter_mm / 2, p.pulmonary_trunk_diameter_mm / 2
        size = float(frame.scale.mean())
        tracheal = 9.2 if p.sex == "male" else 8.0

        def tube(curve, radius):
            points = [pose.place(q[1:]) if q[0] == "heart" else np.asarray(q, dtype=float) for q in curve[0]]
            fine = frame.to_world(catmull_rom(points, 5))
            at = np.linspace(0, len(points) - 1, len(fine))
            return Tubes.along(fine, np.interp(at, np.arange(len(points)), curve[1]) * radius)

        self.aorta = tube(_AORTA, aorta)
        self.pulmonary = Tubes.joined(
            [tube(_TRUNK, trunk), tube(_RIGHT_PULMONARY, trunk), tube(_LEFT_PULMONARY, trunk)]
        )
        self.svc, self.ivc = tube(_SVC, 9.6 * size), tube(_IVC, 11.0 * size)
        self.veins = Tubes.joined([tube(curve, size) for curve in _VEINS])
        self.branches = {name: tube(curve, size) for name, curve in _BRANCHES.items()}
        self.airway = Tubes.joined(
            [tube(_TRACHEA, tracheal), tube(_RIGHT_BRONCHUS, tracheal), tube(_LEFT_BRONCHUS, tracheal)]
        )
        self.oesophagus = tube(_OESOPHAGUS, size)

    def outline(self) -> Tubes:
        """All that keeps the lungs apart."""
        return Tubes.joined(
            [
                self.aorta.widened(2.5),
                self.pulmonary.widened(1.5),
                self.svc.widened(1.5),
                self.ivc.widened(1.5),
                self.veins.widened(1.0),
                self.airway.widened(2.0),
                self.oesophagus.widened(1.5),
                *(branch.widened(1.5) for branch in self.branches.values()),
            ]
        )

    def paint(self, block: Block, p) -> None:
        """Oesophagus, vessels with their walls, airways with theirs."""
        everything = (slice(None),) * 3
        self._paint_tube(block, everything, self.oesophagus, 0.0, tissues.OESOPHAGUS, "esophagus")
        self._paint_tube(block, everything, self.ivc, 0.0, p.blood_lower_caval_hu, "inferior_vena_cava")
        self._paint_tube(block, everything, self.veins, 0.6, p.blood_left_hu, "pulmonary_vein")
        self._paint_tube(block, everything, self.pulmonary, 0.8, p.blood_right_hu, "pulmonary_artery")
        for name, tubes in self.branches.items():
            hu = p.blood_caval_hu if "vein" in name else p.blood_left_hu
            self._paint_tube(block, everything, tubes, 0.7, hu, name)
        self._paint_tube(block, everything, self.svc, 0.7, p.blood_caval_hu, "superior_vena_cava")
        self._paint_tube(block, everything, self.aorta, 1.6, p.blood_left_hu, "aorta")
        self._paint_tube(block, everything, self.airway, 1.7, tissues.AIR, "trachea", tissues.AIRWAY_WALL)

    @staticmethod
    def _paint_tube(block, box, tubes, wall_mm, hu, name, wall_hu=tissues.VESSEL_WALL):
        bounds = tubes_box(block, tubes, wall_mm)
        if bounds is None:
            return
        distance = block.tube_distance(tubes, wall_mm + 2 * float(block.spacing.max()) + 1)[bounds]
        if wall_mm:
            block.paint(bounds, distance - np.float32(wall_mm), wall_hu)
        block.paint(bounds, distance, hu, name)


def tubes_box(block: Block, tubes: Tubes, margin: float):
    """Index box of some tubes in the block, with two voxels around; None when they do not meet."""
    if not len(tubes.start):
        return None
    reach = np.maximum(tubes.start_radius, tubes.end_radius)[:, None] + margin
    ends = np.stack([block.to_grid_mm(tubes.start), block.to_grid_mm(tubes.end)])
    low, high = (ends.min(axis=0) - reach).min(axis=0), (ends.max(axis=0) + reach).max(axis=0)
    return block._index_box(low - 2 * block.spacing, high + 2 * block.spacing)


def outline_distance(block: Block, vessels: GreatVessels, heart, spine_distance, spine_box):
    """(box, signed distance) of the mediastinum: organs rounded off against each other, and the tissue between."""
    box = block.box((-112, -112, -200), (92, 110, 175))
    if box is None:
        return None, None
    x, y, z = block.x[box], block.y[box], block.z[box]
    # Heights change little along a slice, so one column serves all where the i axis lies in the slice.
    level = z[:, :, :1] if abs(block.axes[2, 0]) < 0.3 else z
    width = np.interp(level, (-120, -60, 0, 40, 80, 110, 140), (26, 20, 25, 22, 23, 22, 22)).astype(
        np.float32
    )
    middle = np.interp(level, (-120, 0, 60, 110, 150), (-12, -8, -4, -10, -12)).astype(np.float32)
    depth = np.interp(level, (-120, 0, 60, 110, 150), (46, 44, 40, 34, 38)).astype(np.float32)
    result = ellipse(x, y - middle, width, depth)
    # The anterior junction: both lungs nearly meet behind the sternum.
    gap = np.interp(level, (-125, -85, -50), (30, 10, 2.2)).astype(np.float32)
    front = np.maximum(np.abs(x) - gap, -y - np.float32(5))
    result = smooth_union(result, front, 12)
    whole = np.full(block.counts, FAR, dtype=np.float32)
    whole[box] = result
    tubes = block.tube_distance(vessels.outline(), 12.0)
    near = tubes[box] < 12
    merged = smooth_union(result, tubes[box], 9)
    np.copyto(whole[box], merged, where=near)
    if heart.box is not None:
        whole[heart.box] = smooth_union(whole[heart.box], heart.outline() - np.float32(1.2), 9)
    if spine_box is not None:
        whole[spine_box] = smooth_union(whole[spine_box], spine_distance - np.float32(2.5), 8)
    return box, whole
