"""How far a synthetic CT holds what was drawn: overlap, surfaces, volume and HU, per condition.

Adherence compares the drawn masks with what a segmenter finds in the synthetic CT. It is no measure of clinical
validity: a volume can follow its mask well and still show anatomy that no patient has. Dice, 95 % Hausdorff distance
and surface Dice are defined in `surfaces`, the HU inside a mask in `hu_samples`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ..conditions import Conditions
from ..errors import InputError
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ..volumes import Grid, Volume, require_ct, resample_volume
from .bright_tissue import BRIGHT_HU
from .hu_samples import inner_part, mean_hu, psnr_db, summarize_hu
from .segmenters import Labelmap, Segmenter, find_segmenter
from .surfaces import SURFACE_TOLERANCE_MM, compare_masks, dice
from .worst_slices import WorstSlice, centre_ras_mm, worst_axial_slice

__all__ = [
    "BLOOD_POOL_PARTS",
    "LUNG_LOBES",
    "Adherence",
    "StructureAdherence",
    "adherence",
    "dice",
    "drawn_structures",
    "inner_part",
    "mean_hu",
    "phase_of",
    "psnr_db",
]

BLOOD_POOL_PARTS = (
    "heart_atrium_left",
    "heart_atrium_right",
    "heart_ventricle_left",
    "heart_ventricle_right",
    "aorta",
    "pulmonary_artery",
    "superior_vena_cava",
)
"""The conditions whose union is compared with the contrast-filled blood that a segmenter finds."""

LUNG_LOBES = (
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
)


NOT_FOUND_ALONE = "The segmenter does not find this structure on its own; only HU is measured."
NOT_IN_SEGMENTATION = "The segmentation of the CT has no such structure; only HU is measured."
_WHAT_IT_IS = {
    "blood_pool": "All drawn chambers and great vessels together, against contrast-filled blood.",
}


@dataclass(frozen=True)
class StructureAdherence:
    """One row: a drawn structure against what was found of it.

    `drawn_ml` and `found_ml` are volumes in ml on the grid of the result; `dice` is 2|A and B| / (|A| + |B|) of
    both masks (0 to 1), None where the segmenter has no such structure. `ceiling_dice` is the same segmenter on
    the reference CT against the same drawn mask: what a perfect synthesis would reach. `mean_hu` and `sd_hu` are
    taken inside the drawn mask, `eroded_mm` away from its surface, `reference_mean_hu` at the same voxels of the
    reference CT. `note` says in words why a number is missing.

    `hd95_mm`, `surface_dice` and `difference_ml` (found minus drawn) are those of `surfaces.MaskComparison`, with
    their own ceilings. `median_hu` and `spread_hu` are robust forms of `mean_hu` and `sd_hu` (see `hu_samples`).
    `offset_mm` says how far the middle of what was found lies from the middle of what was drawn, towards (right,
    anterior, superior). `worst_slice` is where both differ most.
    """

    name: str
    drawn_ml: float
    found_ml: float | None = None
    dice: float | None = None
    ceiling_dice: float | None = None
    mean_hu: float | None = None
    sd_hu: float | None = None
    reference_mean_hu: float | None = None
    eroded_mm: float = 0.0
    note: str = ""
    hd95_mm: float | None = None
    surface_dice: float | None = None
    difference_ml: float | None = None
    ceiling_hd95_mm: float | None = None
    ceiling_surface_dice: float | None = None
    median_hu: float | None = None
    spread_hu: float | None = None
    offset_mm: tuple[float, float, float] | None = None
    worst_slice: WorstSlice | None = None


@dataclass(frozen=True)
class Adherence:
    """All rows of one result, with the segmenter that measured them.

    `has_ceiling` says that a CT to which the masks belong was there too, so that the rows have ceilings (a reference
    population is another thing). `tolerance_mm` is that of the surface Dice.
    """

    segmenter: str
    structures: tuple[StructureAdherence, ...]
    has_ceiling: bool = False
    tolerance_mm: float = SURFACE_TOLERANCE_MM

    def __getitem__(self, name: str) -> StructureAdherence:
        for row in self.structures:
            if row.name == name:
                return row
        raise KeyError(name)

    def explanations(self) -> dict[str, str]:
        """What each number measures and against what, in words: column name to sentence."""
        texts = {
            "dice": f"Overlap (0 to 1) of the drawn mask with what the segmenter {self.segmenter} finds in the "
            "CT. 1 means the same voxels. Errors of the segmenter lower it too.",
            "hd95_mm": "95 % Hausdorff distance: 95 of 100 surface voxels of either mask lie at most this far from "
            "the surface of the other one (the larger of the two directions). Where the border of the volume cuts a "
            "structure, it has a surface too.",
            "surface_dice": f"Share (0 to 1) of both surfaces that lies within {self.tolerance_mm:g} mm of the other.",
            "drawn_ml": "Volume of the mask that was drawn, on the grid of the CT.",
            "found_ml": f"Volume of the structure that {self.segmenter} finds in the CT.",
            "mean_hu": "Mean and standard deviation of the CT inside the drawn mask, a few millimetres "
            "away from its surface so that partial volume does not count.",
        }
        if self.has_ceiling:
            texts["ceiling_dice"] = (
                f"The segmenter's own ceiling: {self.segmenter} on the CT that the masks belong to, against the same "
                "drawn mask. It stands behind the Dice, the distance and the surface Dice."
            )
            texts["reference_mean_hu"] = "Mean of the CT that the masks belong to, at the same voxels."
        return texts

    def to_dict(self) -> dict:
        """JSON form: segmenter, explanations and one entry per structure."""
        return {
            "segmenter": self.segmenter,
            "has_ceiling": self.has_ceiling,
            "surface_tolerance_mm": self.tolerance_mm,
            "explanations": self.explanations(),
            "structures": [asdict(row) for row in self.structures],
        }


def adherence(
    result_volume: Volume,
    conditions: Conditions,
    segmenter: str | Segmenter = "hu-rules",
    reference: Volume | None = None,
    *,
    found: Conditions | None = None,
    tolerance_mm: float = SURFACE_TOLERANCE_MM,
    contrast_phase: str | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Adherence:
    """Compare the CT `result_volume` (HU) with the masks in `conditions` that it was made from.

    Masks on another grid are resampled to that of the result. `reference` is a CT, in HU, to which the masks
    belong; it adds the segmenter's ceiling and the HU to compare with. `found` takes masks that the segmenter
    has already found in `result_volume`. `tolerance_mm` is that of the surface Dice. Where the conditions hold the
    chambers and great vessels, a row `blood_pool` compares their union with the contrast-filled blood; a result of the
    `contrast_phase` (default: what its recipe says) `native` or `venous` has too little contrast for that, and so has
    one of an unknown phase whose blood is too dark.
    Raises `InputError` for an unknown segmenter, empty conditions, values that are no CT, a `reference` that lies
    elsewhere, and one beside a segmentation that exists already, which has no ceiling.
    """
    segmenter = find_segmenter(segmenter)
    is_given = isinstance(segmenter, Labelmap)
    if is_given and reference is not None:
        raise InputError(
            "A segmentation of the CT that exists already says nothing about a real CT, so it has no ceiling; give a "
            "segmenter that can look at both, or no real CT."
        )
    require_ct(result_volume, "The synthetic volume")
    conditions = masks_in_place(conditions, result_volume.grid)
    drawn = drawn_structures(conditions, segmenter.structures)
    wanted = [name for name in segmenter.structures if name in drawn]
    found = found or segmenter.segment(result_volume, wanted, progress, cancel)
    ceiling = None
    if reference is not None:
        reference = _in_place(reference, result_volume.grid)
        ceiling = segmenter.segment(reference, wanted, progress, cancel)
    phase = contrast_phase or phase_of(result_volume)
    clock, rows = PhaseClock("compare", len(drawn), progress), []
    for name, mask in drawn.items():
        raise_if_cancelled(cancel, "the comparison of the masks")
        row = _with_hu(name, mask, result_volume, reference)
        hindrance = "" if name in found else NOT_IN_SEGMENTATION if is_given else NOT_FOUND_ALONE
        if name == "blood_pool":
            hindrance = hindrance or _lack_of_contrast(phase, row["median_hu"])
        if not hindrance:
            best = ceiling[name] if ceiling is not None else None
            row |= _with_masks(mask, found[name], best, result_volume, tolerance_mm)
        rows.append(StructureAdherence(note=hindrance or _WHAT_IT_IS.get(name, ""), **row))
        clock.report(len(rows), message=name)
    return Adherence(segmenter.name, tuple(rows), reference is not None, tolerance_mm)


def masks_in_place(conditions: Conditions, grid: Grid) -> Conditions:
    """The masks on the grid of a CT; raises `InputError` for empty masks and for masks that lie elsewhere."""
    conditions.require_content()
    if conditions.grid.matches(grid):
        return conditions
    placed = conditions.resampled(grid)
    if not any(mask.any() for mask in placed.masks.values()):
        raise InputError(
            "No voxel of the masks lies within the CT: they belong to another one, or either was moved; give the masks "
            "that were drawn for this CT."
        )
    return placed


def _in_place(reference: Volume, grid: Grid) -> Volume:
    """The real CT on the grid of the result; raises `InputError` where nothing of it lies there."""
    require_ct(reference, "The reference CT")
    placed = resample_volume(reference, grid)
    if float(placed.array.max()) < -200:
        raise InputError(
            "The reference CT shows only air where the synthetic volume lies, so both are not of one place; give the "
            "CT that belongs to the masks."
        )
    return placed


def drawn_structures(conditions: Conditions, found_names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The masks to compare: every condition that is not empty, and the unions that a segmenter's names stand for.

    `lung` is the union of the five lobes where no whole lung was drawn. `blood_pool` is that of the chambers and
    vessels in `BLOOD_POOL_PARTS`; all but the superior vena cava must be there, since what was not drawn may still
    hold blood and would count as an error.
    """
    masks = {name: mask for name, mask in conditions.masks.items() if mask.any()}
    unions = {"lung": (LUNG_LOBES, LUNG_LOBES), "blood_pool": (BLOOD_POOL_PARTS, BLOOD_POOL_PARTS[:-1])}
    for name, (parts, needed) in unions.items():
        if name in found_names and name not in masks and all(part in masks for part in needed):
            masks[name] = np.logical_or.reduce([masks[part] for part in parts if part in masks])
    return masks


def phase_of(volume: Volume) -> str | None:
    """The contrast phase ("native", "arterial", "venous") that the recipe in `volume` asked for; None if unknown."""
    return ((volume.recipe or {}).get("attributes") or {}).get("contrast_phase")


def _lack_of_contrast(phase: str | None, median_hu: float) -> str:
    """Why the blood pool cannot be told from other tissue by HU, in words; empty where it can."""
    if phase not in (None, "arterial"):
        return f"Made as {phase}: blood without arterial contrast cannot be told from other tissue by HU."
    if phase is None and median_hu <= BRIGHT_HU:
        return (
            f"Of unknown phase, with {median_hu:.0f} HU where blood was drawn: not above {BRIGHT_HU:.0f} HU, so it "
            "cannot be told from other tissue by HU."
        )
    return ""


def _with_hu(name: str, mask: np.ndarray, result: Volume, reference: Volume | None) -> dict:
    """The fields of a row that need no segmenter."""
    inner, eroded = inner_part(mask, result.grid)
    sample = summarize_hu(result.array[inner], eroded)
    return {
        "name": name,
        "drawn_ml": float(np.count_nonzero(mask)) * result.grid.voxel_volume_ml,
        **asdict(sample),
        "reference_mean_hu": float(reference.array[inner].mean()) if reference is not None else None,
    }


def _with_masks(
    drawn: np.ndarray, found: np.ndarray, ceiling: np.ndarray | None, result: Volume, tolerance_mm: float
) -> dict:
    """The fields of a row that compare masks, all boolean [i, j, k] on the grid of `result`."""
    grid = result.grid
    measured = compare_masks(found, drawn, grid, tolerance_mm)
    fields = {
        "found_ml": float(np.count_nonzero(found)) * grid.voxel_volume_ml,
        "dice": measured.dice,
        "hd95_mm": measured.hd95_mm,
        "surface_dice": measured.surface_dice,
        "difference_ml": measured.difference_ml,
        "worst_slice": worst_axial_slice(found, drawn, grid),
    }
    if found.any():
        offset = centre_ras_mm(found, grid) - centre_ras_mm(drawn, grid)
        fields["offset_mm"] = tuple(float(x) for x in offset)
    if ceiling is not None:
        best = compare_masks(ceiling, drawn, grid, tolerance_mm)
        fields["ceiling_dice"] = best.dice
        fields["ceiling_hd95_mm"], fields["ceiling_surface_dice"] = best.hd95_mm, best.surface_dice
    return fields
