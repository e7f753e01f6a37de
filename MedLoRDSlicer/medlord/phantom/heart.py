"""The heart in its own coordinates, placed, turned and scaled in the chest.

The left ventricle is a half ellipsoid of revolution along the long axis (apex to the left, front and below), the right
one an ellipsoid wrapped around its right anterior side, the atria ellipsoids behind and to the right. Sizes lead to
chamber volumes within adult reference intervals (Kawel-Boehm et al., J Cardiovasc Magn Reson 22:87 (2020)): LV cavity
51 mm wide and 76 mm long, its wall 9 mm; the atria are what their ellipsoids leave to the ventricles.
"""

from __future__ import annotations

import numpy as np

from . import tissues
from .labels import FLAGS
from .rasterise import Block
from .shapes import ellipsoid, rotation_matrix, smooth_union

CENTER = np.array([-12.0, 20.0, -34.0])
_AXIS = np.array([-0.66, 0.54, -0.52]) / np.linalg.norm([-0.66, 0.54, -0.52])  # base to apex
_ACROSS = np.array([0.60, 0.78, 0.15])
_ACROSS = (_ACROSS - _AXIS * (_ACROSS @ _AXIS)) / np.linalg.norm(_ACROSS - _AXIS * (_ACROSS @ _AXIS))
_THIRD = np.cross(_AXIS, _ACROSS)
LV_CENTER = np.array([-40.0, 19.0, -41.0])
LA_CENTER, LA_RADII = np.array([-2.0, -14.0, -15.0]), np.array([37.0, 23.0, 29.0])
RA_CENTER, RA_RADII = np.array([29.0, 20.0, -30.0]), np.array([25.0, 28.0, 35.0])


class HeartPose:
    """Takes canonical points into the heart's own coordinates, and points of the heart into canonical ones."""

    def __init__(self, p, tendon_z):
        """tendon_z: height of the central tendon of the diaphragm, on which the heart rests."""
        self.rotation = rotation_matrix(p.heart_rotation_deg)
        self.scale = p.heart_scale
        height = tendon_z + 45.0 * p.heart_scale
        self.center = np.array([CENTER[0], CENTER[1], height]) + p.heart_shift_mm

    def place(self, points):
        """Canonical coordinates of points (N, 3) or (3,) given in the heart's own coordinates."""
        return (np.asarray(points, dtype=np.float64) - CENTER) * self.scale @ self.rotation.T + self.center

    def local(self, x, y, z):
        """The heart's own coordinates of canonical coordinates."""
        rows = (self.rotation.T / self.scale).astype(np.float32)
        dx, dy, dz = (v - np.float32(c) for v, c in zip((x, y, z), self.center))
        return [np.float32(CENTER[n]) + rows[n, 0] * dx + rows[n, 1] * dy + rows[n, 2] * dz for n in range(3)]

    @property
    def bounds(self):
        """Canonical box around heart, pericardial fat and fluid."""
        reach = 92.0 * self.scale + 26.0
        return self.center - reach, self.center + reach


class Heart:
    """Signed distances (mm) to the parts of the heart on one block, computed once."""

    def __init__(self, block: Block, pose: HeartPose, p):
        self.block, self.p = block, p
        self.box = block.box(*pose.bounds)
        if self.box is None:
            return
        scale = np.float32(pose.scale)
        x, y, z = pose.local(block.x[self.box], block.y[self.box], block.z[self.box])
        left_atrium, right_atrium, left_ventricle, right_ventricle = p.chamber_scale
        along, across, third = (
            sum(np.float32(v[n]) * (c - np.float32(LV_CENTER[n])) for n, c in enumerate((x, y, z)))
            for v in (_AXIS, _ACROSS, _THIRD)
        )
        wall = 9.0 * p.wall_thickness
        radius = 25.3 * left_ventricle
        base = np.float32(-30) - along
        cavity = ellipsoid(along, across, third, (0, 0, 0), (46 * left_ventricle, radius, radius))
        self.left_ventricle = np.maximum(cavity, base) * scale
        outer = ellipsoid(
            along, across, third, (0, 0, 0), (46 * left_ventricle + wall, radius + wall, radius + wall)
        )
        self.muscle = np.maximum(outer, base) * scale
        r = right_ventricle
        right = ellipsoid(along, across, third, (-6, 32, 4), (48 * r, 26.5 * r, 38 * r))
        outflow = ellipsoid(x, y, z, (-16, 46, -18), (17, 16, 22))
        right = smooth_union(right, outflow, 14)
        # Two millimetres of septum stay between the left epicardium and the right cavity.
        self.right_ventricle = np.maximum(right, 1.0 - outer) * scale
        atrium = ellipsoid(x, y, z, LA_CENTER, LA_RADII * left_atrium)
        # Behind the mitral plane the rest of the ventricle's ellipsoid is atrium, not a gap.
        inflow = np.maximum(cavity + 1.5, -base)
        self.left_atrium = np.maximum(np.minimum(atrium, inflow), 1.0 - np.maximum(outer, base)) * scale
        atrium = ellipsoid(x, y, z, RA_CENTER, RA_RADII * right_atrium)
        atrium = np.maximum(atrium, 1.5 - np.maximum(right, 1.0 - outer))
        self.right_atrium = np.maximum(atrium, 2.0 - self.left_atrium / scale) * scale
        whole = smooth_union(self.muscle, self.right_ventricle - 3.5, 14)
        whole = smooth_union(whole, self.left_atrium - 2.0, 10)
        self.epicardium = smooth_union(whole, self.right_atrium - 2.0, 14)
        # Fat in the grooves and in front of the heart, inside the pericardium.
        self.pericardium = (
            self.epicardium - np.float32(2.5) - np.float32(3.0) * np.clip((block.y[self.box] - 20) / 40, 0, 1)
        )

    def outline(self):
        """Distance to all that the pericardium holds, fluid included."""
        return self.pericardium - np.float32(self.p.pericardial_effusion_mm)

    def paint(self) -> None:
        """Pericardial fluid, fat, walls and blood."""
        if self.box is None:
            return
        p, paint = self.p, self.block.paint
        paint(self.box, self.outline() - np.float32(1.2), p.muscle_hu)
        if p.pericardial_effusion_mm > 0:
            paint(self.box, self.outline(), tissues.PERICARDIAL_FLUID, flag=FLAGS["pericardial_effusion"])
            clear = self.pericardium < 0
            np.bitwise_and(
                self.block.flags[self.box],
                np.uint8(255 - FLAGS["pericardial_effusion"]),
                out=self.block.flags[self.box],
                where=clear,
            )
        paint(self.box, self.pericardium, tissues.MEDIASTINAL_FAT)
        paint(self.box, self.right_ventricle - np.float32(3.0), p.myocardium_hu)
        paint(self.box, self.right_atrium - np.float32(1.8), tissues.VESSEL_WALL)
        paint(self.box, self.left_atrium - np.float32(1.8), tissues.VESSEL_WALL)
        paint(self.box, self.right_atrium, p.blood_right_hu, "heart_atrium_right")
        paint(self.box, self.left_atrium, p.blood_left_hu, "heart_atrium_left")
        paint(self.box, self.right_ventricle, p.blood_right_hu, "heart_ventricle_right")
        paint(self.box, self.muscle, p.myocardium_hu, "heart_myocardium")
        paint(self.box, self.left_ventricle, p.blood_left_hu, "heart_ventricle_left")
