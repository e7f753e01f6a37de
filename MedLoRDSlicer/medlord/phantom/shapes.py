"""Implicit shapes: signed distances (negative inside, millimetres), their unions, and curves.

Functions work elementwise on float32 arrays that broadcast together, so one function serves a voxel grid and a list
of points. Ellipsoid distances use the first-order bound k0 (k0 - 1) / k1 (I. Quilez, "Distance functions"), which is
exact on the surface; smooth union is the polynomial one with finite support, so it needs only a margin around a shape.
"""

from __future__ import annotations

import numpy as np


def ellipsoid(x, y, z, center, radii):
    """Signed distance (mm, first order) to an axis-aligned ellipsoid with the given centre and radii (mm)."""
    px, py, pz = (x - np.float32(center[0])), (y - np.float32(center[1])), (z - np.float32(center[2]))
    rx, ry, rz = (np.float32(1.0 / r) for r in radii)
    px, py, pz = px * rx, py * ry, pz * rz
    k0 = np.sqrt(px * px + py * py + pz * pz)
    px, py, pz = px * rx, py * ry, pz * rz
    k1 = np.sqrt(px * px + py * py + pz * pz)
    return k0 * (k0 - np.float32(1)) / np.maximum(k1, np.float32(1e-6))


def ellipse(x, y, radius_x, radius_y):
    """Signed distance (mm, first order) to an ellipse about the origin; the radii may be arrays."""
    px, py = x / radius_x, y / radius_y
    k0 = np.sqrt(px * px + py * py)
    px, py = px / radius_x, py / radius_y
    k1 = np.sqrt(px * px + py * py)
    return k0 * (k0 - np.float32(1)) / np.maximum(k1, np.float32(1e-6))


def rounded_box(x, y, z, center, half_sizes, rounding):
    """Signed distance (mm) to a box with rounded edges of radius `rounding`."""
    qx = np.abs(x - np.float32(center[0])) - np.float32(half_sizes[0] - rounding)
    qy = np.abs(y - np.float32(center[1])) - np.float32(half_sizes[1] - rounding)
    qz = np.abs(z - np.float32(center[2])) - np.float32(half_sizes[2] - rounding)
    outside = np.sqrt(np.maximum(qx, 0) ** 2 + np.maximum(qy, 0) ** 2 + np.maximum(qz, 0) ** 2)
    return outside + np.minimum(np.maximum(np.maximum(qx, qy), qz), 0) - np.float32(rounding)


def smooth_union(first, second, width):
    """Union of two signed distances with a fillet of `width` mm; equal to the minimum where they differ by more."""
    h = np.maximum(np.float32(width) - np.abs(first - second), np.float32(0))
    return np.minimum(first, second) - h * h * np.float32(0.25 / width)


def smooth_intersection(first, second, width):
    """Intersection of two signed distances with a rounded edge of `width` mm."""
    return -smooth_union(-first, -second, width)


def coverage(distance):
    """Fraction of each voxel inside a shape, 0 to 1, from a signed distance sampled at the voxel centres [k, j, i].

    The shape's surface is taken as a plane through the voxel; the range of the distance over the voxel is the sum
    of its absolute differences along the three grid axes, so the distance needs no unit gradient and voxels may be
    anisotropic.
    """
    width = np.empty_like(distance)
    _absolute_difference(distance, width, 0, first=True)
    _absolute_difference(distance, width, 1)
    _absolute_difference(distance, width, 2)
    np.maximum(width, np.float32(1e-3), out=width)
    np.divide(distance, width, out=width)
    np.subtract(np.float32(0.5), width, out=width)
    return np.clip(width, 0, 1, out=width)


def _absolute_difference(values, out, axis, first=False):
    """Writes (or adds) |central difference| along an axis; one-sided at the ends."""
    n = values.shape[axis]
    if n == 1:
        if first:
            out[...] = 0
        return
    pick = lambda a, s: a[(slice(None),) * axis + (s,)]  # noqa: E731
    middle = np.abs(pick(values, slice(2, None)) - pick(values, slice(None, -2)))
    middle *= np.float32(0.5)
    head = np.abs(pick(values, slice(1, 2)) - pick(values, slice(0, 1)))
    tail = np.abs(pick(values, slice(-1, None)) - pick(values, slice(-2, -1)))
    parts = ((slice(1, -1), middle), (slice(0, 1), head), (slice(-1, None), tail))
    for where, part in parts:
        target = pick(out, where)
        if first:
            target[...] = part
        else:
            target += part


def catmull_rom(points, samples_per_span):
    """Points (N, 3) on a Catmull-Rom curve through `points`; both ends are kept."""
    points = np.asarray(points, dtype=np.float64)
    padded = np.concatenate([[2 * points[0] - points[1]], points, [2 * points[-1] - points[-2]]])
    t = np.arange(samples_per_span)[:, None] / samples_per_span
    pieces = []
    for n in range(len(points) - 1):
        p0, p1, p2, p3 = padded[n : n + 4]
        pieces.append(
            0.5
            * (
                2 * p1
                + (p2 - p0) * t
                + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
                + (3 * p1 - p0 - 3 * p2 + p3) * t**3
            )
        )
    return np.concatenate([*pieces, points[-1:]])


def rotation_matrix(degrees_xyz):
    """3x3 rotation: about x, then y, then z, angles in degrees."""
    ax, ay, az = np.deg2rad(np.asarray(degrees_xyz, dtype=np.float64))
    cx, sx, cy, sy, cz, sz = np.cos(ax), np.sin(ax), np.cos(ay), np.sin(ay), np.cos(az), np.sin(az)
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return rz @ ry @ rx
