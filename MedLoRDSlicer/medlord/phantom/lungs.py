"""Both lungs: what is left of the rib cage above the diaphragm beside the mediastinum, cut into five lobes.

Parenchyma at full inspiration lies near -860 HU and rises by some 70 to 100 HU towards the end of a quiet expiration
and by 25 to 70 HU from front to back in the supine patient (Verschakelen et al., AJR 161 (1993) 713-717).
Dome heights and their 40 to 60 mm of travel (less at the central tendon) follow Gauthier et al., J Appl Physiol 76
(1994) 495-506.
"""

from __future__ import annotations

import numpy as np

from .chestwall import FASCIA
from .labels import LOBES, VALUES
from .shapes import smooth_intersection, smooth_union

APEX_Z = 131.0
FISSURE_MM = 0.5


class LungShape:
    """Diaphragm, apices and fissures of one phantom, in canonical mm."""

    def __init__(self, p):
        self.p = p
        dome = -26.0 - 56.0 * p.breathing
        self.dome_right, self.dome_left = dome + p.dome_raise_right_mm, dome - 10.0 + p.dome_raise_left_mm
        raised = 0.3 * (p.dome_raise_right_mm + p.dome_raise_left_mm) / 2
        self.tendon = -62.0 - 22.0 * p.breathing + raised  # the central tendon, on which the heart rests
        self.fluid_level = None  # (side sign, level): set by the scene from the volume of the effusion

    def diaphragm(self, x, y, depth, turn):
        """(height of the diaphragm, its normal factor) above every point: domes that fall off steeply at the wall."""
        side = np.float32(0.5) + np.float32(0.5) * np.tanh(x * np.float32(1 / 22.0))
        top = np.float32(self.dome_left) + np.float32(self.dome_right - self.dome_left) * side
        aside, behind = (np.abs(x) - np.float32(66)) / 45, y / 65
        top = top - np.float32(9) * np.minimum(aside * aside + behind * behind, np.float32(2.5))
        under_heart = np.exp(
            ((x + np.float32(20)) / 44) ** 2 * np.float32(-0.5)
            + ((y - np.float32(24)) / 46) ** 2 * np.float32(-0.5)
        )
        top = top + (np.float32(self.tendon) - top) * under_heart
        fall = np.float32(70) + np.float32(18) * np.cos(turn)
        span = np.float32(66)
        q = np.clip(np.float32(1) + (depth + np.float32(FASCIA)) / span, 0, np.float32(0.998))
        root = np.sqrt(np.float32(1) - q * q)
        height = top - fall * (np.float32(1) - root)
        slope = fall * q / (root * span)
        return height, 1 / np.sqrt(1 + slope * slope)

    def cavity(self, x, y, z, depth, turn, dome):
        """Signed distance to the pleural cavities, the mediastinum not yet taken out."""
        height, factor = dome
        # The smooth edge closes the recess where it would be thinner than about 2 mm.
        result = smooth_intersection(depth + np.float32(FASCIA), (height - z) * factor, 4.5)
        ax, ay = np.abs(x) - np.float32(42), y + np.float32(40)
        apex = z - np.float32(APEX_Z) + ax * ax * np.float32(1 / 62.0) + ay * ay * np.float32(1 / 78.0)
        return np.maximum(result, apex * np.float32(0.7))

    def fluid_measure(self, x, y, z, depth):
        """Larger where free fluid collects first in the supine patient: behind, low, along the wall."""
        return -y + np.float32(0.55) * depth - np.float32(0.12) * z

    def fissures(self, x, y, z):
        """(below the oblique fissure, below the horizontal one), each positive for the lower side, mm."""
        right = x > 0
        bow = np.float32(0.0016) * (np.abs(x) - 60) ** 2
        steep = np.where(right, np.float32(0.92), np.float32(1.0))
        oblique = (np.where(right, np.float32(-22), np.float32(-16)) - steep * (y + np.float32(5)) + bow) - z
        horizontal = (np.float32(4) + np.float32(0.06) * y - np.float32(0.0011) * (np.abs(x) - 70) ** 2) - z
        return oblique, horizontal

    def paint_lobes(self, block, distance) -> None:
        """Labels of the five lobes."""
        inside = np.flatnonzero(distance < 0)
        x, y, z = (v.ravel()[inside] for v in (block.x, block.y, block.z))
        oblique, horizontal = self.fissures(x, y, z)
        values = np.array([VALUES[name] for name in LOBES], dtype=np.uint8)
        number = np.where(x > 0, np.where(oblique > 0, 4, np.where(horizontal > 0, 3, 2)), oblique > 0)
        block.label.reshape(-1)[inside] = values[number]

    def density(self, block):
        """HU of the parenchyma, with the fissures as faint lines of 0.5 mm pleura."""
        p = self.p
        hu = np.float32(p.lung_hu) - np.float32(p.lung_gradient_hu / 200.0) * block.y
        oblique, horizontal = self.fissures(block.x, block.y, block.z)
        spacing = block.spacing
        width = 0.72 * spacing[2] + 0.69 * spacing[1]
        line = np.clip(np.float32(1) - np.abs(oblique) * np.float32(0.72 / width), 0, 1)
        line *= np.float32(min(FISSURE_MM / width, 1.0))
        width = max(float(spacing[2]), 1.0)
        flat = np.clip(np.float32(1) - np.abs(horizontal) * np.float32(1 / width), 0, 1)
        flat *= (block.x > 0) & (oblique < 0)
        flat *= np.float32(min(FISSURE_MM / width, 1.0))
        np.maximum(line, flat, out=line)
        line *= -hu
        hu += line
        return hu


def lung_distance(cavity, outline, smoothing=4.0):
    """Signed distance to the lungs: the cavity less the mediastinum."""
    return -smooth_union(-cavity, outline, smoothing)
