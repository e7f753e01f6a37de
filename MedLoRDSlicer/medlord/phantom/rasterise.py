"""A block of slices on which the anatomy is painted, and the painting of tubes.

Arrays of a block are float32 and indexed [k, j, i] (fastest along i), with one slice of margin on both sides so that
partial volume is the same whatever the block size. Painting goes from back to front: a shape covers what lies under
it by the fraction of the voxel that it fills, and takes the label of the voxels whose centre lies inside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..volumes import Grid
from . import labels
from .frame import BodyFrame
from .shapes import coverage

FAR = np.float32(1e3)  # "outside, further than anything here", mm


@dataclass
class Tubes:
    """Tapered capsules in world space: ends (N, 3) RAS mm and radii (N,) mm at both ends."""

    start: np.ndarray
    end: np.ndarray
    start_radius: np.ndarray
    end_radius: np.ndarray

    @classmethod
    def along(cls, points, radii) -> Tubes:
        """Capsules along a polyline (N, 3) with a radius (N,) at every point."""
        points, radii = np.asarray(points, dtype=np.float64), np.asarray(radii, dtype=np.float64)
        return cls(points[:-1], points[1:], radii[:-1], radii[1:])

    @classmethod
    def joined(cls, parts) -> Tubes:
        """All capsules of several."""
        parts = [part for part in parts if len(part.start)]
        if not parts:
            return cls(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros(0))
        return cls(
            *(
                np.concatenate([getattr(p, name) for p in parts])
                for name in ("start", "end", "start_radius", "end_radius")
            )
        )

    def widened(self, millimetres: float) -> Tubes:
        """The same tubes with larger radii."""
        return Tubes(self.start, self.end, self.start_radius + millimetres, self.end_radius + millimetres)


class Block:
    """Slices [k_start - 1, k_stop + 1) of a grid: coordinates, and what has been painted there."""

    def __init__(self, grid: Grid, frame: BodyFrame, k_start: int, k_stop: int):
        self.grid, self.frame, self.first = grid, frame, k_start - 1
        ni, nj, _ = grid.shape
        self.counts = (k_stop - k_start + 2, nj, ni)
        self.spacing = grid.spacing_mm
        self.axes = grid.affine[:3, :3] / self.spacing  # unit vectors of i, j, k in its columns
        self.line_i = (np.arange(ni) * self.spacing[0]).astype(np.float32)
        self.line_j = (np.arange(nj) * self.spacing[1]).astype(np.float32)
        self.line_k = ((np.arange(self.counts[0]) + self.first) * self.spacing[2]).astype(np.float32)
        self.x, self.y, self.z = frame.canonical_grid(grid.affine, self.counts, self.first)
        self.hu = np.full(self.counts, -1000.0, dtype=np.float32)
        self.label = np.zeros(self.counts, dtype=np.uint8)
        self.flags = np.zeros(self.counts, dtype=np.uint8)

    def to_grid_mm(self, points_ras):
        """World points (N, 3) in millimetres along the grid's axes (i, j, k), from the first voxel of the grid."""
        return (np.asarray(points_ras) - self.grid.affine[:3, 3]) @ self.axes

    def box(self, low, high):
        """Slices [k, j, i] of the voxels whose canonical coordinates can lie in a box; None when there are none."""
        low = np.asarray(low, dtype=np.float64) - self.frame.warp_limit
        high = np.asarray(high, dtype=np.float64) + self.frame.warp_limit
        corners = np.array(np.meshgrid(*zip(low, high))).reshape(3, -1).T
        world = np.linalg.solve(self.frame.linear, (corners - self.frame.offset).T).T
        mm = self.to_grid_mm(world)
        return self._index_box(mm.min(axis=0), mm.max(axis=0))

    def _index_box(self, low_mm, high_mm):
        start = np.floor(low_mm / self.spacing).astype(int) - [0, 0, self.first]
        stop = np.ceil(high_mm / self.spacing).astype(int) + 1 - [0, 0, self.first]
        start = np.maximum(start, 0)
        stop = np.minimum(stop, self.counts[::-1])
        if (start >= stop).any():
            return None
        return tuple(slice(int(a), int(b)) for a, b in zip(start[::-1], stop[::-1]))

    def world_coordinates(self, box):
        """World x, y, z of the voxels in `box`, each float32 [k, j, i]."""
        lines = (self.line_i[box[2]], self.line_j[box[1]][:, None], self.line_k[box[0]][:, None, None])
        rows = self.axes.astype(np.float32)
        origin = self.grid.affine[:3, 3].astype(np.float32)
        return [
            origin[r] + rows[r, 0] * lines[0] + rows[r, 1] * lines[1] + rows[r, 2] * lines[2]
            for r in range(3)
        ]

    def paint(self, box, distance, hu, name=None, flag=0):
        """Cover `box` by a shape given by its signed distance there; `hu` is a number or an array like it."""
        self.paint_fraction(box, coverage(distance), hu, distance < 0 if name or flag else None, name, flag)

    def paint_fraction(self, box, fraction, hu, inside=None, name=None, flag=0):
        """Cover `box` by given fractions; voxels in `inside` take the label `name` and the overlap bit `flag`."""
        target = self.hu[box]
        change = hu - target
        change *= fraction
        target += change
        if name is not None:
            np.copyto(self.label[box], np.uint8(labels.VALUES[name]), where=inside)
        if flag:
            np.bitwise_or(self.flags[box], np.uint8(flag), out=self.flags[box], where=inside)

    def tube_distance(self, tubes: Tubes, margin: float):
        """Signed distance [k, j, i] to the union of `tubes`, exact up to `margin` mm outside and `margin` beyond."""
        out = np.full(self.counts, margin, dtype=np.float32)
        for box, distance, radius, _, _ in self._capsules(tubes, margin):
            distance -= radius
            np.minimum(out[box], distance, out=out[box])
        return out

    def tube_fraction(self, tubes: Tubes, out=None, inside=None):
        """Fraction of every voxel filled by thin tubes (largest, not sum), and whether its centre is in one.

        The cross-section of a tube keeps its area: a tube thinner than a voxel fills it by its area over the
        voxel's, as its profile is a ramp of the voxel's projected width scaled by that factor.
        """
        out = np.zeros(self.counts, dtype=np.float32) if out is None else out
        inside = np.zeros(self.counts, dtype=bool) if inside is None else inside
        margin = 0.75 * float(self.spacing.max())
        for box, distance, radius, half, mean in self._capsules(tubes, margin):
            distance -= radius
            np.logical_or(inside[box], distance < 0, out=inside[box])
            area = 1.0 if mean >= half else 6 * mean**2 * half / (mean + half) ** 3
            distance *= np.float32(-0.5 / half)
            distance += np.float32(0.5)
            np.clip(distance, 0, 1, out=distance)
            if mean < half:
                distance *= np.float32(area)
            np.maximum(out[box], distance, out=out[box])
        return out, inside

    def _capsules(self, tubes: Tubes, margin: float):
        """For each capsule that meets the block: box, distance to its axis, radius, projected half voxel, mean radius.

        The mean is over the whole box of the capsule, beyond this block too, so that blocks fit together.
        """
        if not len(tubes.start):
            return
        whole_k = (np.arange(self.grid.shape[2] + 2) - 1) * self.spacing[2]
        whole_k = whole_k.astype(np.float32)
        start, end = self.to_grid_mm(tubes.start), self.to_grid_mm(tubes.end)
        reach = np.maximum(tubes.start_radius, tubes.end_radius)[:, None] + margin
        low = np.floor((np.minimum(start, end) - reach) / self.spacing).astype(int) + 1 + [0, 0, 1]
        high = np.ceil((np.maximum(start, end) + reach) / self.spacing).astype(int) + [0, 0, 1]
        low, high = np.maximum(low, 0), np.minimum(high, [*self.counts[:0:-1], len(whole_k)])
        block_low = np.maximum(low[:, 2], self.first + 1)
        block_high = np.minimum(high[:, 2], self.first + 1 + self.counts[0])
        span = end - start
        length = np.maximum(np.linalg.norm(span, axis=1), 1e-3)
        unit = span / length[:, None]
        half = (np.sqrt(np.maximum(1 - unit**2, 0)) @ self.spacing) / np.pi
        slope = (tubes.end_radius - tubes.start_radius) / length
        start, unit = start.astype(np.float32), unit.astype(np.float32)
        for n in np.flatnonzero((low < high).all(axis=1) & (block_low < block_high)):
            (i0, j0, k0), (i1, j1, k1) = low[n], high[n]
            di = self.line_i[i0:i1] - start[n, 0]
            dj = (self.line_j[j0:j1] - start[n, 1])[:, None]
            dk = (whole_k[k0:k1] - start[n, 2])[:, None, None]
            along = (di * unit[n, 0] + dj * unit[n, 1]) + dk * unit[n, 2]
            square = (di * di + dj * dj) + dk * dk
            t = np.clip(along, 0, np.float32(length[n]))
            along *= 2
            along -= t
            along *= t
            square -= along
            np.maximum(square, 0, out=square)
            np.sqrt(square, out=square)
            radius = mean = float(tubes.start_radius[n])
            if abs(slope[n]) > 1e-6:
                t *= np.float32(slope[n])
                t += np.float32(radius)
                radius, mean = t, float(np.mean(t))
            inside = slice(block_low[n] - k0, block_high[n] - k0)
            rows = slice(block_low[n] - self.first - 1, block_high[n] - self.first - 1)
            radius = radius[inside] if isinstance(radius, np.ndarray) else radius
            yield (rows, slice(j0, j1), slice(i0, i1)), square[inside], radius, float(half[n]), mean
