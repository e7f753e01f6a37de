"""How far a synthetic CT holds what was drawn: overlap, volume and HU, per condition.

Adherence compares the drawn masks with what a segmenter finds in the synthetic CT. It is no measure of clinical
validity: a volume can follow its mask well and still show anatomy that no patient has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ..conditions import Conditions
from ..errors import InputError
from ..progress import Cancel, Progress
from ..volumes import Grid, Volume, require_ct, resample_volume
from .morphology import erode_mm
from .segmenters import Segmenter, find_segmenter

CT_RANGE_HU = 2000.0
"""Width of the range -1000...1000 HU that the networks see; the peak of the PSNR."""

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

_SMALLEST_SAMPLE_VOXELS = 10


@dataclass(frozen=True)
class StructureAdherence:
    """One row: a drawn structure against what was found of it.

    `drawn_ml` and `found_ml` are volumes in ml on the grid of the result; `dice` is 2|A and B| / (|A| + |B|) of
    both masks (0 to 1), None where the segmenter has no such structure. `ceiling_dice` is the same segmenter on
    the reference CT against the same drawn mask: what a perfect synthesis would reach. `mean_hu` and `sd_hu` are
    taken inside the drawn mask, `eroded_mm` away from its surface, `reference_mean_hu` at the same voxels of the
    reference CT. `note` says in words why a number is missing.
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


@dataclass(frozen=True)
class Adherence:
    """All rows of one result, with the segmenter that measured them and whether a reference CT was there."""

    segmenter: str
    structures: tuple[StructureAdherence, ...]
    has_reference: bool = False

    def __getitem__(self, name: str) -> StructureAdherence:
        for row in self.structures:
            if row.name == name:
                return row
        raise KeyError(name)

    def explanations(self) -> dict[str, str]:
        """What each number measures and against what, in words: column name to sentence."""
        texts = {
            "dice": f"Overlap (0 to 1) of the drawn mask with what the segmenter {self.segmenter} finds in the "
            "synthetic CT. 1 means the same voxels. Errors of the segmenter lower it too.",
            "drawn_ml": "Volume of the mask that was drawn, on the grid of the synthetic CT.",
            "found_ml": f"Volume of the structure that {self.segmenter} finds in the synthetic CT.",
            "mean_hu": "Mean and standard deviation of the synthetic CT inside the drawn mask, a few millimetres "
            "away from its surface so that partial volume does not count.",
        }
        if self.has_reference:
            texts["ceiling_dice"] = (
                f"The segmenter's own ceiling: {self.segmenter} on the reference CT, against the same drawn mask."
            )
            texts["reference_mean_hu"] = "Mean of the reference CT at the same voxels."
        return texts

    def to_dict(self) -> dict:
        """JSON form: segmenter, explanations and one entry per structure."""
        return {
            "segmenter": self.segmenter,
            "has_reference": self.has_reference,
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
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Adherence:
    """Compare the CT `result_volume` (HU) with the masks in `conditions` that it was made from.

    Masks on another grid are resampled to that of the result. `reference` is a CT, in HU, to which the masks
    belong; it adds the segmenter's ceiling and the HU to compare with. `found` takes masks that the segmenter
    has already found in `result_volume`. Where the conditions hold the chambers and great vessels, a row
    `blood_pool` compares their union with the contrast-filled blood; a result whose recipe says `native` or `venous`
    has too little contrast for that.
    Raises `InputError` for an unknown segmenter, empty conditions or values that are no CT.
    """
    conditions.require_content()
    segmenter = find_segmenter(segmenter)
    require_ct(result_volume, "The synthetic volume")
    if not conditions.grid.matches(result_volume.grid):
        conditions = conditions.resampled(result_volume.grid)
        conditions.require_content()
    drawn = drawn_structures(conditions, segmenter.structures)
    wanted = [name for name in segmenter.structures if name in drawn]
    found = found or segmenter.segment(result_volume, wanted, progress, cancel)
    ceiling = None
    if reference is not None:
        require_ct(reference, "The reference CT")
        reference = resample_volume(reference, result_volume.grid)
        ceiling = segmenter.segment(reference, wanted, progress, cancel)
    phase = ((result_volume.recipe or {}).get("attributes") or {}).get("contrast_phase")
    rows = [_row(name, mask, result_volume, found, reference, ceiling, phase) for name, mask in drawn.items()]
    return Adherence(segmenter.name, tuple(rows), reference is not None)


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


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice coefficient 2|A and B| / (|A| + |B|) of two boolean masks of one shape; 1.0 when both are empty."""
    if first.shape != second.shape:
        raise InputError(
            f"Masks of shape {first.shape} and {second.shape} cannot be compared; resample one of them."
        )
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2.0 * int(np.count_nonzero(first & second)) / total if total else 1.0


def psnr_db(volume: np.ndarray, reference: np.ndarray, data_range_hu: float = CT_RANGE_HU) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(range^2 / mean squared error), over all voxels.

    Both arrays are HU and are clipped to -1000...1000 first, the range that the networks see; `data_range_hu` is
    2000 HU accordingly. Infinite for equal arrays. A field of view with much air makes the number higher, so it
    compares only volumes of one kind.
    """
    if volume.shape != reference.shape:
        raise InputError(
            f"Volumes of shape {volume.shape} and {reference.shape} cannot be compared; resample one."
        )
    difference = np.clip(volume, -1000, 1000).astype(np.float64) - np.clip(reference, -1000, 1000)
    error = float(np.mean(difference**2))
    return float("inf") if error == 0 else float(10 * np.log10(data_range_hu**2 / error))


def mean_hu(array: np.ndarray, masks: Mapping[str, np.ndarray], grid: Grid) -> dict[str, float]:
    """Mean HU of `array` [i, j, k] inside every mask that is not empty, away from its surface (see `inner_part`)."""
    return {
        name: float(array[inner_part(mask, grid)[0]].mean()) for name, mask in masks.items() if mask.any()
    }


def inner_part(mask: np.ndarray, grid: Grid) -> tuple[np.ndarray, float]:
    """The voxels of `mask` that partial volume does not reach, and how many mm the mask was eroded for that.

    One voxel (at least 3 mm) is taken off; where too little would remain, 3 mm, else nothing.
    """
    for radius in sorted({max(3.0, float(grid.spacing_mm.max())), 3.0}, reverse=True):
        inner = erode_mm(mask, radius, grid.spacing_mm)
        if np.count_nonzero(inner) >= _SMALLEST_SAMPLE_VOXELS:
            return inner, radius
    return mask, 0.0


def _row(
    name: str,
    mask: np.ndarray,
    result: Volume,
    found: Conditions,
    reference: Volume | None,
    ceiling: Conditions | None,
    phase: str | None,
) -> StructureAdherence:
    inner, eroded = inner_part(mask, result.grid)
    values = result.array[inner].astype(np.float64)
    measured = name in found and (name != "blood_pool" or phase in (None, "arterial"))
    note = ""
    if name not in found:
        note = "The segmenter does not find this structure on its own; only HU is measured."
    elif not measured:
        note = f"Made as {phase}: blood without arterial contrast cannot be told from other tissue by HU."
    elif name == "blood_pool":
        note = "All drawn chambers and great vessels together, against contrast-filled blood."
    voxel_ml = result.grid.voxel_volume_ml
    return StructureAdherence(
        name=name,
        drawn_ml=float(np.count_nonzero(mask)) * voxel_ml,
        found_ml=float(np.count_nonzero(found[name])) * voxel_ml if measured else None,
        dice=dice(mask, found[name]) if measured else None,
        ceiling_dice=dice(mask, ceiling[name]) if measured and ceiling is not None else None,
        mean_hu=float(values.mean()),
        sd_hu=float(values.std()),
        reference_mean_hu=float(reference.array[inner].mean()) if reference is not None else None,
        eroded_mm=eroded,
        note=note,
    )
