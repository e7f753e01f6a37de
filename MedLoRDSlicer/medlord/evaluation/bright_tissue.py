"""Bone and contrast-filled blood in a CT: both are bright, so place and shape must tell them apart.

Both lie above 180 HU. Bone is what lies outside the hull of the lungs (ribs, sternum, shoulder girdle) and the
spine, which is found by its canal: a dark disc in a bright ring near the midline. Blood is what is bright and thick
between the lungs and is no spine. Where the two touch, a watershed on the HU divides them along the darkest path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import morphology

if TYPE_CHECKING:
    from .rules import Scan

BRIGHT_HU = 180.0
"""Above muscle, liver and myocardium in every phase, below trabecular bone with its cortex and below arterial blood."""

MARROW_HU = 90.0
"""Marrow that bright bone encloses lies above this, the spinal canal (water, cord) below."""

# What is as bright as this outside the lungs' hull is the cortex of bone; the blood of the right ventricle, which may
# lie in front of the hull, hardly gets there.
_CORTEX_HU = 400.0
_BRIGHTEST_HU = 1000.0
_BONE, _BLOOD = 1, 2

# Gaussian widths (right, anterior, superior) in mm of the canal, about 16 mm wide, of the bone around it and of the
# vertebral body and the arch, whose middles lie so far ahead of and behind the canal's.
_CANAL_CORE_MM, _CANAL_RING_MM, _BODY_MM = (3.5, 3.5, 8.0), (14.0, 14.0, 8.0), (4.0, 4.0, 15.0)
_BODY_AHEAD_MM, _ARCH_BEHIND_MM = 22.0, 13.0
_LEAST_CANAL_SCORE, _IMPOSSIBLE = 60.0, -100.0


def find_bone_and_blood(scan: Scan, body: np.ndarray, lung: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks [right, anterior, superior] of bone with its marrow and of contrast-filled blood.

    `body` and `lung` are the masks found before in the same `scan`.
    """
    spacing = scan.spacing_mm
    bright = body & ~lung & (scan.hu > BRIGHT_HU)
    if not bright.any():
        return np.zeros_like(body), np.zeros_like(body)
    chest = lung_hull(lung, spacing)
    spine, around_spine = find_spine(scan, body, chest)
    blood_seed = _blood_seeds(scan, bright, chest) & ~around_spine
    bone_seed = (_bone_seeds(scan, bright, chest) | (bright & spine)) & ~blood_seed
    bone, blood = _divide(scan, bright, bone_seed, blood_seed)
    return _bone_to_its_surface(scan, bone, blood, body & ~lung), blood


def _blood_seeds(scan: Scan, bright: np.ndarray, chest: np.ndarray) -> np.ndarray:
    """The middle of what is bright, thick and between the lungs."""
    seeds = bright & morphology.erode_mm(chest, 3.0, scan.spacing_mm)
    return morphology.parts_above(morphology.erode_mm(seeds, 4.0, scan.spacing_mm), 0.5 / scan.voxel_ml)


def _bone_seeds(scan: Scan, bright: np.ndarray, chest: np.ndarray) -> np.ndarray:
    """What is bright outside the lungs' hull; near it, where the right ventricle may lie, only the brightest."""
    distance = morphology.signed_distance_mm(chest, scan.spacing_mm)
    outer = bright & (distance < -2.0)
    if not outer.any():
        return outer
    cortex = min(_CORTEX_HU, float(np.percentile(scan.hu[outer], 75)))
    return outer & ((scan.hu >= cortex) | (distance < -25.0))


def lung_hull(lung: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """The convex hull of both lungs in every axial slice; beyond the lungs the hull of the nearest slice goes on."""
    from scipy.spatial import ConvexHull

    hull = np.zeros_like(lung)
    right, anterior = np.ogrid[tuple(slice(0, n) for n in lung.shape[:2])]
    minimum_voxels = max(8.0, 500.0 / (spacing_mm[0] * spacing_mm[1]))
    filled = []
    for level in range(lung.shape[2]):
        points = np.argwhere(lung[:, :, level])
        if len(points) < minimum_voxels or np.ptp(points, axis=0).min() < 2:
            continue
        inside = np.ones(lung.shape[:2], dtype=bool)
        for across, along, offset in ConvexHull(points).equations:
            inside &= across * right + along * anterior + offset <= 1e-6
        hull[:, :, level] = inside
        filled.append(level)
    if filled:
        nearest = np.abs(np.arange(lung.shape[2])[:, None] - np.asarray(filled)[None]).argmin(axis=1)
        hull = hull[:, :, np.asarray(filled)[nearest]]
    return hull


def find_spine(scan: Scan, body: np.ndarray, chest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cores of the vertebral bodies, and the surroundings of the spine where no vessel has its middle.

    The spinal canal is tracked from slice to slice; a vertebral body has its centre about 22 mm in front of it. Cores
    are discs of 9 mm radius. The surroundings are discs of 19 mm and all within 45 mm to either side that lies
    behind the centre: the aorta runs beside or in front of that. Slices whose best candidate does not look like a
    canal, as in a field of view without a spine, get nothing.
    """
    from scipy import ndimage

    core, around = np.zeros_like(body), np.zeros_like(body)
    if not chest.any():
        return core, around
    path, scores = _track(_canal_score(scan, body, chest), scan.spacing_mm)
    right, anterior = np.ogrid[tuple(slice(0, n) for n in body.shape[:2])]
    for level in np.flatnonzero(ndimage.uniform_filter1d(scores, 5) > _LEAST_CANAL_SCORE):
        across = (right - path[level, 0]) * scan.spacing_mm[0]
        ahead = (anterior - path[level, 1]) * scan.spacing_mm[1] - _BODY_AHEAD_MM
        core[:, :, level] = across**2 + ahead**2 <= 9.0**2
        around[:, :, level] = (across**2 + ahead**2 <= 19.0**2) | ((np.abs(across) < 45.0) & (ahead < -3.0))
    return core, around


def _canal_score(scan: Scan, body: np.ndarray, chest: np.ndarray) -> np.ndarray:
    """How much every voxel looks like the middle of the spinal canal.

    It is darker than a ring around it, with the bright vertebral body ahead and the bright arch behind; muscle beside
    a spinous process has bone around it too, but none behind.
    """
    capped = np.clip(scan.hu, 0, 400)
    inner, ring = (_blur_mm(capped, width, scan.spacing_mm) for width in (_CANAL_CORE_MM, _CANAL_RING_MM))
    bone = _blur_mm(capped, _BODY_MM, scan.spacing_mm)
    shifts = (round(length / scan.spacing_mm[1]) for length in (_BODY_AHEAD_MM, -_ARCH_BEHIND_MM))
    enclosed = np.minimum.reduce([np.roll(bone, -shift, axis=1) for shift in shifts])
    soft = _blur_mm(scan.hu, _CANAL_CORE_MM, scan.spacing_mm)
    likely = _canal_zone(body, chest, scan.spacing_mm) & (soft > -30) & (soft < 250)
    return np.where(likely, ring - inner + 0.5 * enclosed, _IMPOSSIBLE)


def _canal_zone(body: np.ndarray, chest: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Where the spinal canal may lie: near the middle of the chest, at the back of the lungs.

    That is up to 45 mm to either side, 40 mm behind and 25 mm in front of the lungs' back. Arches, muscle and skin
    lie behind a canal, so it is at least 25 mm away from the edge of the scan.
    """
    zone = np.zeros_like(body)
    for level in range(body.shape[2]):
        across = np.flatnonzero(chest[:, :, level].any(axis=1))
        along = np.flatnonzero(chest[:, :, level].any(axis=0))
        middle, half = (across[0] + across[-1]) / 2, 45.0 / spacing_mm[0]
        first = max(int(along[0] - 40.0 / spacing_mm[1]), round(25.0 / spacing_mm[1]))
        last = int(along[0] + 25.0 / spacing_mm[1]) + 1
        zone[max(int(middle - half), 0) : int(middle + half) + 1, first:last, level] = True
    return zone & body


def _track(score: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The path through the slices with the largest sum of scores: (right, anterior) index and score per slice.

    From one slice to the next the canal may move by about its own height (45 degrees), at least by one voxel.
    """
    from scipy import ndimage

    reach = [2 * max(1, round(spacing_mm[2] / spacing)) + 1 for spacing in spacing_mm[:2]]
    total, levels = score[:, :, 0], score.shape[2]
    totals = [total]
    for level in range(1, levels):
        total = score[:, :, level] + ndimage.maximum_filter(total, reach)
        totals.append(total)
    path = np.zeros((levels, 2), dtype=int)
    path[-1] = np.unravel_index(int(totals[-1].argmax()), total.shape)
    for level in range(levels - 2, -1, -1):
        low = np.maximum(path[level + 1] - [n // 2 for n in reach], 0)
        high = path[level + 1] + [n // 2 + 1 for n in reach]
        window = totals[level][low[0] : high[0], low[1] : high[1]]
        path[level] = low + np.unravel_index(int(window.argmax()), window.shape)
    return path, score[path[:, 0], path[:, 1], np.arange(levels)]


def _divide(
    scan: Scan, bright: np.ndarray, bone_seed: np.ndarray, blood_seed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give every bright voxel to bone or to blood: flooding from the seeds, brightest voxels first."""
    from scipy import ndimage

    markers = np.zeros(bright.shape, dtype=np.int8)
    markers[bone_seed], markers[blood_seed] = _BONE, _BLOOD
    depth = (_BRIGHTEST_HU - scan.smoothed(1.0)) / (_BRIGHTEST_HU - BRIGHT_HU)
    relief = np.where(bright, np.clip(254 * depth, 0, 254), 255).astype(np.uint8)
    basins = ndimage.watershed_ift(relief, markers)
    bone, blood = (
        morphology.touching(bright & (basins == name), markers == name) for name in (_BONE, _BLOOD)
    )
    return bone, blood


def _bone_to_its_surface(
    scan: Scan, bright_bone: np.ndarray, blood: np.ndarray, tissue: np.ndarray
) -> np.ndarray:
    """From the bright voxels of bone to bone with its marrow.

    A cortex of about 1 mm makes voxels bright that bone fills by much less than half, so the surface lies at a
    share of the brightness of whole bone voxels nearby. With cortex at 950 HU, marrow at 200 and muscle at 50 that
    share is 0.53 for voxels up to 1 mm and 0.85 from 2 mm on; more than 400 HU is never asked. Marrow within is what
    gaps of up to 7 mm and holes in slices enclose, without the spinal canal.
    """
    from scipy import ndimage

    if not bright_bone.any():
        return bright_bone
    spacing = scan.spacing_mm
    share = np.interp(np.sqrt(spacing[0] * spacing[1]), (1.0, 2.0), (0.53, 0.85))
    usual = 1.08 * np.percentile(scan.hu[bright_bone], 75)
    nearby = ndimage.maximum_filter(scan.hu, [2 * round(6.0 / length) + 1 for length in spacing])
    surface = np.minimum(share * np.minimum(usual, nearby), _CORTEX_HU)
    bone = bright_bone & (scan.hu > surface)
    marrow = morphology.close_mm(bone, 7.0, spacing) | morphology.fill_holes_in_slices(bone, axis=2)
    filled = (bone | (marrow & (scan.hu > MARROW_HU))) & tissue & ~blood
    return morphology.parts_above(filled, 0.3 / scan.voxel_ml)


def _blur_mm(array: np.ndarray, sigma_mm: tuple[float, ...], spacing_mm: tuple[float, ...]) -> np.ndarray:
    from scipy import ndimage

    sigma = [width / spacing for width, spacing in zip(sigma_mm, spacing_mm)]
    return ndimage.gaussian_filter(array, sigma, mode="nearest", truncate=3.0)
