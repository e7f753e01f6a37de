"""Branching arteries, veins and bronchi that fill the lobes.

Each tree grows from the hilum by dividing the points it must reach: a branch runs part of the way towards the middle
of its points, which are then split in two across their widest direction, in the manner of Kitaoka et al., J Appl
Physiol 87 (1999) 2207-2217. Radii follow Murray's law, r^3 = sum of the daughters' r^3 (Murray, Proc Natl Acad Sci 12
(1926) 207-214). Bronchi accompany the arteries.
"""

from __future__ import annotations

import numpy as np

from .rasterise import Tubes

TERMINAL_RADIUS_MM = 1.15
POINTS_PER_LITRE = 100.0


class Trees:
    """Lung vessels (arteries and veins together) and bronchi of one phantom, in world space."""

    def __init__(self, rng, points_by_lobe, roots, size, airway_radius):
        """points_by_lobe: lobe name -> (points (N, 3) RAS mm, volume in litres); roots: side -> RAS mm."""
        vessels, lumen, wall = [], [], []
        for name, (points, litres) in points_by_lobe.items():
            side = "left" if name.endswith("left") else "right"
            root = roots[side]
            for kind in ("artery", "vein"):
                count = int(np.clip(POINTS_PER_LITRE * litres * (1.0 if kind == "artery" else 0.75), 8, 220))
                if len(points) < 2 * count:
                    continue
                targets = points[rng.choice(len(points), count, replace=False)]
                start = root + ([0.0, 0.0, 5.0] if kind == "artery" else [0.0, 6.0, -8.0])
                nodes = grow(rng, start, targets, TERMINAL_RADIUS_MM * size)
                vessels.append(nodes)
                if kind == "artery":
                    shift = np.array([-4.0 if side == "left" else 4.0, -5.0, -3.0]) / 7.1
                    tubes, thickness = _bronchi(nodes, shift, airway_radius)
                    lumen.append(tubes)
                    wall.append(
                        tubes.widened(0).__class__(
                            tubes.start,
                            tubes.end,
                            tubes.start_radius + thickness[0],
                            tubes.end_radius + thickness[1],
                        )
                    )
        self.vessels = Tubes.joined(vessels)
        self.bronchi, self.bronchial_walls = Tubes.joined(lumen), Tubes.joined(wall)


def grow(rng, root, targets, terminal_radius) -> Tubes:
    """A tree of tubes from `root` to every one of `targets` (N, 3), ordered from the root outwards."""
    start, end, radius_start, radius_end = [], [], [], []

    def add(a, b, ra, rb):
        start.append(a)
        end.append(b)
        radius_start.append(ra)
        radius_end.append(rb)

    stack = [(np.asarray(root, dtype=np.float64), targets)]
    while stack:
        origin, rest = stack.pop()
        count = len(rest)
        radius = terminal_radius * count ** (1 / 3)
        if count == 1:
            bend = 0.5 * (origin + rest[0]) + rng.normal(0, 0.05, 3) * np.linalg.norm(rest[0] - origin)
            add(origin, bend, radius, 0.85 * radius)
            add(bend, rest[0], 0.85 * radius, 0.6 * radius)
            continue
        middle = rest.mean(axis=0)
        reach = rng.uniform(0.32, 0.5)
        fork = origin + reach * (middle - origin)
        fork = fork + rng.normal(0, 0.07, 3) * np.linalg.norm(fork - origin)
        larger = terminal_radius * max(1.0, 0.7 * count) ** (1 / 3)
        add(origin, fork, radius, larger)
        direction = (middle - origin) / max(np.linalg.norm(middle - origin), 1e-6)
        spread = rest - middle
        spread = spread - np.outer(spread @ direction, direction)
        _, _, axes = np.linalg.svd(spread, full_matrices=False)
        order = np.argsort(spread @ axes[0], kind="stable")
        cut = int(np.clip(round(count * rng.uniform(0.35, 0.65)), 1, count - 1))
        stack.append((fork, rest[order[:cut]]))
        stack.append((fork, rest[order[cut:]]))
    if not start:
        return Tubes.joined([])
    return Tubes(np.array(start), np.array(end), np.array(radius_start), np.array(radius_end))


def _bronchi(artery: Tubes, shift, airway_radius):
    """Lumen of the bronchi beside the larger arteries, and the wall thickness at both ends (mm)."""
    keep = artery.start_radius > 1.75
    lumen = [
        np.clip(0.82 * r, 0.5, airway_radius) for r in (artery.start_radius[keep], artery.end_radius[keep])
    ]
    thickness = [0.35 + 0.16 * r for r in lumen]
    ends = [
        points[keep] + shift * (r + b + t)[:, None] * 1.15
        for points, r, b, t in zip(
            (artery.start, artery.end),
            (artery.start_radius[keep], artery.end_radius[keep]),
            lumen,
            thickness,
        )
    ]
    return Tubes(ends[0], ends[1], *lumen), thickness
