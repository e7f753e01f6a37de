"""The segmenter `hu-rules`: body, lung, airways, bone and contrast-filled blood by HU and morphology.

No weights and no training: thresholds that lie halfway between two tissues (so that a partial volume voxel falls
to the side that fills most of it) and morphology in millimetres. It sees the voxels only, never a condition
mask, so it can tell whether a synthetic CT holds what was drawn. It is a first look, not a substitute for a
trained segmenter: disease that fills the lung, metal and unusual fields of view mislead it.

What each structure means here:

* `body`: everything inside the skin, air of lungs, trachea and bowel included, table and clothes not;
* `lung`: both lungs with the vessels, bronchi and nodules that air surrounds, without trachea and main bronchi;
* `airways`: the air of trachea and main bronchi;
* `bone`: bones with their marrow (see `bright_tissue`);
* `blood_pool`: heart chambers and great vessels above 180 HU, so nothing in a native scan or the venous phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..conditions import Conditions
from ..errors import InputError
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ..volumes import Volume, require_ct
from . import morphology
from .orientation import AnatomicalFrame

STRUCTURES = ("body", "lung", "airways", "bone", "blood_pool")

SKIN_HU = -500.0
"""Halfway between air (-1000) and skin with the fat below it (about 0)."""

LUNG_EDGE_HU = -400.0
"""Halfway between lung (about -850) and soft tissue (about 50)."""

ROOM_AIR_HU = -960.0
"""Lung holds tissue and blood and lies above this, air in the room, the trachea and the bowel below."""

LUNG_AT_BORDER_HU = -900.0
"""Air that reaches the side of the scan must be this dense to be lung: foam of tables lies at -980 to -920."""

AIRWAY_HU = -920.0
"""Upper limit of air in the trachea after smoothing; lung tissue lies above, except in severe emphysema."""


@dataclass(frozen=True)
class Scan:
    """A CT in the anatomical frame: `hu` float32 [right, anterior, superior] and the spacing along these axes."""

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml."""
        return float(np.prod(self.spacing_mm)) / 1000.0

    def smoothed(self, sigma_mm: float) -> np.ndarray:
        """HU after a Gaussian of `sigma_mm`; axes whose voxels are longer than the blur are left as they are."""
        from scipy import ndimage

        sigma = [sigma_mm / spacing if sigma_mm > 0.4 * spacing else 0.0 for spacing in self.spacing_mm]
        return ndimage.gaussian_filter(self.hu, sigma, mode="nearest", truncate=3.0)


def segment_by_rules(
    volume: Volume,
    structures: Sequence[str] = STRUCTURES,
    *,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Conditions:
    """Find `structures` (of `STRUCTURES`) in a chest CT in HU; masks on the volume's own grid, in the order asked.

    A structure that is not in the volume gets an empty mask. Raises `InputError` for an unknown structure and for
    values that are no CT in HU, `CancelledError` when `cancel` answers true between two structures.
    """
    unknown = [name for name in structures if name not in STRUCTURES]
    if unknown:
        raise InputError(
            f"The segmenter hu-rules does not know {', '.join(map(repr, unknown))}; it finds {', '.join(STRUCTURES)}."
        )
    volume.grid.validate("The volume to segment")
    require_ct(volume, "The volume to segment")
    from .bright_tissue import find_bone_and_blood

    frame = AnatomicalFrame.of(volume.grid)
    scan = Scan(np.ascontiguousarray(frame.to_anatomy(volume.array), dtype=np.float32), frame.spacing_mm)
    needed = (
        3 if {"bone", "blood_pool"} & set(structures) else 2 if {"lung", "airways"} & set(structures) else 1
    )
    clock, found = PhaseClock("segment", needed, progress), {}
    clock.report(0)
    found["body"] = find_body(scan)
    clock.report(1, message="body")
    if needed > 1:
        raise_if_cancelled(cancel, "the segmentation, after the body")
        found["lung"], found["airways"] = find_lung_and_airways(scan, found["body"])
        clock.report(2, message="lung")
    if needed > 2:
        raise_if_cancelled(cancel, "the segmentation, after the lungs")
        found["bone"], found["blood_pool"] = find_bone_and_blood(scan, found["body"], found["lung"])
        clock.report(3, message="bone and blood")
    return Conditions(volume.grid, {name: frame.to_voxels(found[name]) for name in structures})


def find_body(scan: Scan) -> np.ndarray:
    """Mask [right, anterior, superior] of all that lies inside the skin.

    Tissue and enclosed lung together form a solid from which an opening of 9 mm takes away table, blanket and
    cables; the largest part that remains is the body, grown back to its own skin, with its holes filled.
    """
    spacing, solid = scan.spacing_mm, scan.hu > SKIN_HU
    solid |= _enclosed_lung(scan, ~solid)
    core = morphology.largest_part(morphology.open_mm(solid, 9.0, spacing))
    if not core.any():
        core = morphology.largest_part(solid)
    body = solid & morphology.dilate_mm(core, 3.0 + max(spacing), spacing)
    body = morphology.largest_part(body)
    return morphology.fill_holes_in_slices(body, axis=2)


def _enclosed_lung(scan: Scan, air: np.ndarray) -> np.ndarray:
    """The parts of `air` that are lung: large, and with the density of lung where they reach the border of the scan."""
    lung = np.zeros_like(air)
    last_right, last_anterior = air.shape[0] - 1, air.shape[1] - 1
    for box, part in morphology.each_part(air, 20.0 / scan.voxel_ml):
        borders = (
            box[0].start == 0,
            box[0].stop > last_right,
            box[1].start == 0,
            box[1].stop > last_anterior,
        )
        if np.median(scan.hu[box][part]) > (LUNG_AT_BORDER_HU if any(borders) else ROOM_AIR_HU):
            lung[box] |= part
    return lung


def find_lung_and_airways(scan: Scan, body: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks of both lungs and of the air in trachea and main bronchi.

    Vessels come into the lung by a closing of 8 mm, and what it encloses on all sides, such as a nodule. The dome of
    the liver is enclosed in some slices but not from below, so it stays out.
    """
    from scipy import ndimage

    spacing = scan.spacing_mm
    air = body & (scan.hu < LUNG_EDGE_HU)
    airways = find_airways(scan, body, air)
    lung = np.zeros_like(body)
    candidates = air & ~morphology.dilate_mm(airways, 1.5, spacing)
    for box, part in morphology.each_part(morphology.open_mm(candidates, 2.0, spacing), 15.0 / scan.voxel_ml):
        if np.median(scan.hu[box][part]) > ROOM_AIR_HU:
            lung[box] |= part
    lung = candidates & morphology.dilate_mm(lung, 2.0 + max(spacing), spacing)
    lung = morphology.parts_above(lung, 5.0 / scan.voxel_ml)
    closed = morphology.close_mm(lung, 8.0, spacing) & body & ~morphology.dilate_mm(airways, 1.5, spacing)
    return ndimage.binary_fill_holes(closed) & body & ~airways, airways


def find_airways(scan: Scan, body: np.ndarray, air: np.ndarray) -> np.ndarray:
    """The air of trachea and main bronchi: a long, narrow, upright part of very low HU near the midline.

    Its middle lies above that of all air in the body, unlike the gas of the stomach. Empty when there is none, for
    example where emphysema cannot be told from the trachea by HU.
    """
    spacing = scan.spacing_mm
    dark = morphology.erode_mm(body, 15.0, spacing) & (scan.smoothed(1.5) < AIRWAY_HU)
    middle = 0.5 * np.flatnonzero(body.any(axis=(1, 2)))[[0, -1]].sum() * spacing[0] if body.any() else 0.0
    airways = np.zeros_like(body)
    air_by_level = np.cumsum(air.sum(axis=(0, 1)))
    middle_level = int(np.searchsorted(air_by_level, air_by_level[-1] / 2))
    for box, part in morphology.each_part(dark, 1.5 / scan.voxel_ml):
        height = (box[2].stop - box[2].start) * spacing[2]
        area_cm2 = part.sum(axis=(0, 1)) * spacing[0] * spacing[1] / 100
        upper = np.flatnonzero(part[:, :, part.shape[2] // 2 :].any(axis=(1, 2)))
        across = (box[0].start + upper.mean()) * spacing[0] if len(upper) else np.inf
        above = box[2].start + box[2].stop > 2 * middle_level
        if above and height >= 25.0 and np.median(area_cm2) < 8.0 and abs(across - middle) < 50.0:
            airways[box] |= part
    return air & morphology.dilate_mm(airways, 3.0, spacing)
