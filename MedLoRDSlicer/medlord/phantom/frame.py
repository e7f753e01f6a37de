"""From scanner space to the anatomy of the reference man, and back.

The anatomy is written down once, in "canonical" millimetres: RAS axes, origin at the middle of T7 in the midline, a
man of 176 cm. A phantom's frame takes world points there: shift, rotation, three size factors, then a smooth warp
(three plane waves of a few millimetres) and an S-curve of the spine, so that no two phantoms share a cross-section.
"""

from __future__ import annotations

import numpy as np

from .parameters import PhantomParameters
from .shapes import rotation_matrix

SCOLIOSIS_WAVELENGTH_MM = 270.0


class BodyFrame:
    """The mapping between world (RAS mm) and canonical coordinates of one phantom."""

    def __init__(self, parameters: PhantomParameters):
        self.scale = np.array([parameters.chest_width, parameters.chest_depth, parameters.chest_length])
        rotation = rotation_matrix(parameters.rotation_deg)
        self.linear = np.diag(1.0 / self.scale) @ rotation.T
        self.offset = -self.linear @ np.asarray(parameters.position_mm, dtype=np.float64)
        waves = np.asarray(parameters.warp_waves, dtype=np.float64).reshape(-1, 9)
        self.wave_vectors, self.amplitudes, self.phases = waves[:, :3], waves[:, 3:6], waves[:, 6:]
        self.scoliosis_mm = parameters.scoliosis_mm
        self.scoliosis_phase = np.deg2rad(parameters.scoliosis_phase_deg)
        self.scoliosis_wave = np.array([0.0, 0.0, 2 * np.pi / SCOLIOSIS_WAVELENGTH_MM])
        self.warp_limit = np.abs(self.amplitudes).sum(axis=0) + [self.scoliosis_mm, 0, 0]

    def to_canonical(self, points_ras):
        """Canonical coordinates (N, 3) of world points (N, 3)."""
        affine = np.asarray(points_ras, dtype=np.float64) @ self.linear.T + self.offset
        return affine + self._warp(affine)

    def to_world(self, points_canonical):
        """World points (N, 3) whose canonical coordinates are given (fixed-point iteration, error below 1e-3 mm)."""
        wanted = np.asarray(points_canonical, dtype=np.float64)
        affine = wanted.copy()
        for _ in range(12):
            affine = wanted - self._warp(affine)
        return np.linalg.solve(self.linear, (affine - self.offset).T).T

    def _warp(self, affine):
        phase = affine @ self.wave_vectors.T
        warp = np.stack(
            [(np.sin(phase + self.phases[:, d]) * self.amplitudes[:, d]).sum(axis=1) for d in range(3)], 1
        )
        curve = np.sin(affine @ self.scoliosis_wave + self.scoliosis_phase)
        warp[:, 0] += self.scoliosis_mm * curve * scoliosis_weight(affine[:, 1])
        return warp

    def canonical_grid(self, matrix, counts, first_slice):
        """Canonical x, y, z on a block of voxels, each float32 [k, j, i].

        matrix: 4x4 index to world; counts: (nk, nj, ni); first_slice: k of the first slice (may be negative).
        A plane wave over a grid is a product of a function of (i, j) and one of k, so no sine is taken per voxel.
        """
        nk, nj, ni = counts
        linear = self.linear @ matrix[:3, :3]
        origin = self.linear @ matrix[:3, 3] + self.offset
        ijk = (np.arange(ni), np.arange(nj)[:, None], np.arange(nk) + first_slice)

        def terms(vector):
            """A linear function vector . p of the voxels, as a (j, i) plane and a k line."""
            row = vector @ linear
            return row[0] * ijk[0] + row[1] * ijk[1] + vector @ origin, row[2] * ijk[2]

        result = []
        scratch = np.empty(counts, dtype=np.float32)
        for axis in range(3):
            plane, line = terms(np.eye(3)[axis])
            result.append(plane.astype(np.float32)[None] + line.astype(np.float32)[:, None, None])
        weight = scoliosis_weight(result[1]) if self.scoliosis_mm else None
        for vector, amplitudes, phases in zip(self.wave_vectors, self.amplitudes, self.phases):
            plane, line = terms(vector)
            for axis in range(3):
                _add_wave(result[axis], plane + phases[axis], line, amplitudes[axis], scratch)
        if self.scoliosis_mm:
            plane, line = terms(self.scoliosis_wave)
            curve = np.zeros(counts, dtype=np.float32)
            _add_wave(curve, plane + self.scoliosis_phase, line, self.scoliosis_mm, scratch)
            curve *= weight
            result[0] += curve
        return result


def scoliosis_weight(y):
    """How far the S-curve moves a point: 1 at the spine (y = -70), 0.5 at the sternum."""
    return 0.77 - 0.0033 * y


def _add_wave(out, plane, line, amplitude, scratch):
    """out += amplitude * sin(plane + line), by the addition theorem."""
    sine, cosine = (
        (amplitude * np.sin(plane)).astype(np.float32),
        (amplitude * np.cos(plane)).astype(np.float32),
    )
    np.multiply(sine[None], np.cos(line).astype(np.float32)[:, None, None], out=scratch)
    out += scratch
    np.multiply(cosine[None], np.sin(line).astype(np.float32)[:, None, None], out=scratch)
    out += scratch
