"""The check of one CT: all measures, taken once, with a verdict and its reasons."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from ..conditions import Conditions
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ..volumes import Volume, require_ct
from .adherence import Adherence, adherence, drawn_structures, masks_in_place, phase_of
from .plausibility import TissueHu, tissue_plausibility
from .reference import ReferenceDistribution, find_reference, shipped_references
from .reference_check import Placed, RegionCheck, UnusualCount, check_regions, count_unusual, place
from .segmenters import HuRules, Segmenter, find_segmenter
from .sides import Sides, measure_sides
from .verdicts import (
    AMBER,
    SMALLEST_REFERENCE,
    Finding,
    judge_adherence,
    judge_image,
    judge_reference,
    judge_sides,
    judge_tissues,
    outside_the_chest,
    sorted_findings,
    worst_level,
)
from .volume_measures import VolumeMeasures, measure_volume
from .wording import spoken

NOT_CLINICAL = (
    "Adherence is not clinical validity: these numbers say how well the volume follows the drawn masks, not "
    "whether such a patient could exist. Not for diagnosis."
)
MEANINGS = {
    "green": "this check found nothing wrong",
    "amber": "unusual: look at it",
    "red": "not what was asked for, or no CT of a person: do not use it",
}


@dataclass(frozen=True)
class Scorecard:
    """What a check found.

    `level` is "green", "amber" or "red", `findings` the reasons, worst first. `adherence` and `sides` are None where no
    masks were given, `reference` and `unusual` where there is no reference; `regions` and `scan` then are empty. A
    reference that is too small (`reference_too_small`) leaves `unusual` None too: it tells only what is missing.
    """

    segmenter: str
    findings: tuple[Finding, ...]
    measures: VolumeMeasures
    tissues: tuple[TissueHu, ...]
    contrast_phase: str | None
    adherence: Adherence | None = None
    sides: Sides | None = None
    reference: ReferenceDistribution | None = None
    regions: tuple[RegionCheck, ...] = ()
    scan: dict[str, Placed | None] = field(default_factory=dict)
    unusual: UnusualCount | None = None

    @property
    def level(self) -> str:
        """The verdict: the level of the worst finding."""
        return worst_level(self.findings)

    @property
    def reference_too_small(self) -> bool:
        """Whether there is a reference, of so few volumes that percentiles among them say nothing."""
        return self.reference is not None and self.reference.count < SMALLEST_REFERENCE

    @property
    def scope(self) -> str:
        """What the verdict rests on, in words: a green one says nothing about what nobody looked for."""
        if self.adherence is None:
            return "No masks were given, so nothing says whether the volume holds what it should."
        rows = self.adherence.structures
        compared, others = (
            ", ".join(spoken(row.name) for row in rows if (row.dice is not None) == is_compared)
            for is_compared in (True, False)
        )
        words = f"Compared with what was drawn: {compared or 'nothing'}."
        return f"{words} Drawn, but judged by HU alone: {others}." if others else words

    def to_dict(self) -> dict:
        """JSON form; adherence at the top, as in a report without a verdict."""
        reference = self.reference
        return {
            **(
                self.adherence.to_dict()
                if self.adherence
                else {"segmenter": self.segmenter, "structures": []}
            ),
            "notice": NOT_CLINICAL,
            "contrast_phase": self.contrast_phase,
            "verdict": {
                "level": self.level,
                "meaning": MEANINGS[self.level],
                "scope": self.scope,
                "findings": [finding.to_dict() for finding in self.findings],
            },
            "regions": self._regions(),
            "hu": [row.to_dict() for row in self.tissues],
            "image": {
                **self.measures.quality.to_dict(),
                "reference": {name: self._place(placed) for name, placed in self.scan.items()},
            },
            "sides": self.sides.to_dict() if self.sides else None,
            "reference": reference
            and {
                "name": reference.name,
                "population": reference.population,
                "count": reference.count,
                "too_small": self.reference_too_small,
                "segmenter": reference.segmenter,
                "segmenter_version": reference.segmenter_version,
                "comparable_field_of_view": reference.comparable_field_of_view(self.measures.extent_mm),
                "unusual": self.unusual and asdict(self.unusual),
            },
        }

    def _regions(self) -> dict:
        """Sizes and HU of what was found, each with its place in the reference."""
        placed = {row.name: row for row in self.regions}
        regions = {}
        for name, values in self.measures.structures.items():
            row = placed.get(name)
            regions[name] = {
                **values,
                "missing": bool(row and row.missing),
                "reference": row and {measure: self._place(p) for measure, p in row.measures.items()},
            }
        return {"extent_mm": list(self.measures.extent_mm), "structures": regions}

    def _place(self, placed: Placed | None) -> dict | None:
        """JSON form of a place; among too few volumes nothing is said of it but value, median and count."""
        if placed is None:
            return None
        judged = ("percentile", "low", "high", "unusual", "far") if self.reference_too_small else ()
        return {**asdict(placed), **dict.fromkeys(judged)}


def check_volume(
    volume: Volume,
    conditions: Conditions | None = None,
    segmenter: str | Segmenter = "hu-rules",
    *,
    reference: ReferenceDistribution | None = None,
    real_ct: Volume | None = None,
    contrast_phase: str | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> tuple[Scorecard, Conditions]:
    """Check a CT in HU; returns the scorecard and the masks that the segmenter found, on the grid of `volume`.

    `conditions` are the masks it was made from (any grid), None to judge the volume alone. `reference` is a population
    to compare with, `real_ct` a CT to which the masks belong: the segmenter's ceiling. `contrast_phase` ("native",
    "arterial", "venous") defaults to what the recipe in `volume` asked for. Segmentation, by far the longest part, runs
    once per CT. Raises `InputError` for values that are no CT in HU (before any work), for masks that are empty or lie
    elsewhere, for a `real_ct` that does or that stands beside a segmentation that exists already, and for an unknown
    segmenter, `CancelledError` when `cancel` answers true.
    """
    require_ct(volume, "The volume to check")
    if conditions is not None:
        conditions = masks_in_place(conditions, volume.grid)
    segmenter = find_segmenter(segmenter)
    phase = contrast_phase or phase_of(volume)
    found = segmenter.segment(volume, segmenter.structures, progress, cancel)
    followed = sides = None
    if conditions is not None:
        followed = adherence(
            volume,
            conditions,
            segmenter,
            real_ct,
            found=found,
            contrast_phase=phase,
            progress=progress,
            cancel=cancel,
        )
        measured = {row.name for row in followed.structures if row.dice is not None}
        drawn = drawn_structures(conditions, segmenter.structures)
        sides = measure_sides(found, {name: drawn[name] for name in drawn if name in measured})
    raise_if_cancelled(cancel, "the measurement of HU and image")
    clock = PhaseClock("measure", 1, progress)
    measures = measure_volume(volume, found)
    clock.report(1)
    card = _judged(segmenter, measures, followed, sides, reference, phase)
    return card, found


def reference_for(volume: Volume, segmenter: str) -> ReferenceDistribution | None:
    """The shipped reference of the model that made `volume`, as its recipe says; None for other volumes."""
    model = (volume.recipe or {}).get("model")
    return find_reference(model, segmenter) if (model, segmenter) in shipped_references() else None


def _lung_ml(followed: Adherence, measures: VolumeMeasures) -> float:
    """The lung that was drawn or found, whichever is more."""
    drawn = [row.drawn_ml for row in followed.structures if row.name == "lung"]
    return max([*drawn, measures.structures["lung"]["ml"]])


def _judged(
    segmenter: Segmenter,
    measures: VolumeMeasures,
    followed: Adherence | None,
    sides: Sides | None,
    reference: ReferenceDistribution | None,
    phase: str | None,
) -> Scorecard:
    """All measures with what they mean."""
    tissues = tissue_plausibility(followed, measures, phase)
    findings = [*judge_image(measures.quality), *judge_tissues(tissues)]
    if followed is not None and sides is not None:
        on_masks = [*judge_adherence(followed), *judge_sides(sides)]
        if segmenter.name == HuRules.name:
            on_masks = outside_the_chest(on_masks, _lung_ml(followed, measures))
        findings += on_masks
    regions, scan, unusual = (), {}, None
    if reference is not None:
        reference = reference.subgroup({"contrast_phase": phase} if phase else {})
        regions = tuple(check_regions(measures.structures, measures.extent_mm, reference))
        scan = {name: place(value, reference.scan_values(name)) for name, value in measures.scan.items()}
        if reference.count >= SMALLEST_REFERENCE:
            unusual = count_unusual(regions, scan, reference)
        findings += judge_reference(regions, scan, reference, unusual)
        if reference.segmenter_version != segmenter.version:
            words = (
                f"The reference was made with version {reference.segmenter_version} of {segmenter.name}, this check "
                f"with {segmenter.version}; make the reference again."
            )
            findings.append(Finding(AMBER, "reference", None, words))
    return Scorecard(
        segmenter=segmenter.name,
        findings=tuple(sorted_findings(findings)),
        measures=measures,
        tissues=tuple(tissues),
        contrast_phase=phase,
        adherence=followed,
        sides=sides,
        reference=reference,
        regions=regions,
        scan=scan,
        unusual=unusual,
    )
