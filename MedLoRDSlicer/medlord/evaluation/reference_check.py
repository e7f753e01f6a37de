"""One volume, or a set of volumes, against a reference distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .reference import ReferenceDistribution
from .volume_measures import STRUCTURE_MEASURES

CENTRAL_SHARE = 0.95
"""What lies outside the central 95 % of the reference is unusual: 1 in 20 of the reference's own volumes does too."""

NEAR_ZERO = 0.05
"""A structure is missing when it has less than this share of the reference's median volume and none there has."""

FIELD_OF_VIEW_RATIO = 1.1
"""Fields of view differ when one is longer than the other by more than this factor along an axis."""

SMALLEST_SET = 20
"""Sets of fewer volumes say little about a population."""

FAR_OUT = 3.0
"""Far outside: beyond the quartiles by more than so many interquartile ranges (Tukey's far out values, 1977) and beyond
every value of the reference: what is there itself is no reason for red, however narrow its quartiles are."""


@dataclass(frozen=True)
class Placed:
    """One value among those of a reference.

    `percentile` is the share of the reference (0 to 100) that lies below, ties counted half; `low` and `high` are the
    limits of its central 95 %, `count` the number of its values. `unusual` is outside of these limits, `far` beyond all
    values and beyond the quartiles by more than three interquartile ranges.
    """

    value: float
    percentile: float
    low: float
    high: float
    median: float
    count: int
    unusual: bool
    far: bool


@dataclass(frozen=True)
class RegionCheck:
    """A structure's size and HU among those of a reference: measure -> place (None: not comparable).

    `missing` says that it is near zero where it never is in the reference.
    """

    name: str
    measures: dict[str, Placed | None]
    missing: bool


@dataclass(frozen=True)
class UnusualCount:
    """How many of `measures` of a volume are unusual, and how many of the reference's own volumes.

    Of many measures some lie outside the central 95 % by chance: `own_share` (0 to 1) of the reference's own volumes
    have at least one, and 95 of 100 have at most `own_limit`.
    """

    here: int
    measures: int
    own_share: float
    own_limit: int


@dataclass(frozen=True)
class SetComparison:
    """A measure of one structure over a set of volumes against a reference.

    `wasserstein` is the Wasserstein-1 distance in the unit of the measure; `ks_statistic` and `ks_p_value` are those of
    the two-sample Kolmogorov-Smirnov test with `count` and `reference_count` values; `variance_ratio` is the variance
    of the set over that of the reference (below 1: less diverse; None where the reference does not vary).
    `missing_share` is the share (0 to 1) of volumes in which the structure is near zero (see `near_zero`),
    `reference_missing_share` that of the reference. Numbers are None where one side has no values.
    """

    structure: str
    measure: str
    count: int
    reference_count: int
    median: float | None
    reference_median: float | None
    wasserstein: float | None
    ks_statistic: float | None
    ks_p_value: float | None
    variance_ratio: float | None
    missing_share: float
    reference_missing_share: float

    def to_dict(self) -> dict:
        """JSON form."""
        return asdict(self)


def place(value: float | None, values: np.ndarray) -> Placed | None:
    """Where `value` lies among the `values` of a reference; None without a value or without a reference."""
    if value is None or not len(values):
        return None
    below = np.count_nonzero(values < value) + 0.5 * np.count_nonzero(values == value)
    tail = 50 * (1 - CENTRAL_SHARE)
    low, q1, median, q3, high = np.percentile(values, (tail, 25, 50, 75, 100 - tail))
    reach = FAR_OUT * (q3 - q1)
    lowest, highest = min(values.min(), q1 - reach), max(values.max(), q3 + reach)
    return Placed(
        value=float(value),
        percentile=float(100 * below / len(values)),
        low=float(low),
        high=float(high),
        median=float(median),
        count=len(values),
        unusual=bool(value < low or value > high),
        far=bool(value < lowest or value > highest),
    )


def check_regions(
    structures: Mapping[str, Mapping[str, float | None]],
    extent_mm: tuple[float, float, float],
    reference: ReferenceDistribution,
) -> list[RegionCheck]:
    """Place the measures of one volume (structure -> measure -> value) among those of the reference.

    The RVR is left out where the field of view is not comparable. Structures that the reference lacks are left out.
    """
    comparable = reference.comparable_field_of_view(extent_mm)
    rows = []
    for name, measures in structures.items():
        if name not in reference.structures:
            continue
        placed = {
            measure: place(measures[measure], reference.values(name, measure))
            for measure in STRUCTURE_MEASURES
            if comparable or measure != "rvr"
        }
        rows.append(RegionCheck(name, placed, is_missing(measures["ml"], reference.values(name, "ml"))))
    return rows


def count_unusual(
    regions: Sequence[RegionCheck], scan: Mapping[str, Placed | None], reference: ReferenceDistribution
) -> UnusualCount:
    """Count what is unusual in a volume and, by the same limits, in each volume of the reference.

    Of RVR and ml, which say the same, one is counted.
    """
    here, own, measures = 0, np.zeros(reference.count, dtype=int), 0
    pairs = [(scan[name], reference.scan.get(name, ())) for name in scan]
    for row in regions:
        names = [name for name in row.measures if name != "ml" or "rvr" not in row.measures]
        pairs += [(row.measures[name], reference.structures[row.name].get(name, ())) for name in names]
    for placed, values in pairs:
        if placed is not None:
            here, measures = here + placed.unusual, measures + 1
            numbers = np.array(values, dtype=np.float64)  # None becomes NaN, which lies on no side
            own += (numbers < placed.low) | (numbers > placed.high)
    limit = int(np.percentile(own, 100 * CENTRAL_SHARE, method="higher"))
    return UnusualCount(int(here), measures, float((own > 0).mean()), limit)


def near_zero(ml: float | np.ndarray, reference_ml: np.ndarray) -> np.ndarray:
    """Which volumes in ml are at most `NEAR_ZERO` of the reference's median; none where there is no reference."""
    if not len(reference_ml):
        return np.zeros(np.shape(ml), dtype=bool)
    return np.asarray(ml) <= NEAR_ZERO * np.median(reference_ml)


def is_missing(ml: float, reference_ml: np.ndarray) -> bool:
    """Whether a structure of so many ml is near zero where the reference never is."""
    return bool(near_zero(ml, reference_ml)) and not near_zero(reference_ml, reference_ml).any()


def compare_sets(made: ReferenceDistribution, reference: ReferenceDistribution) -> list[SetComparison]:
    """Compare a set of volumes, measured as a distribution of its own, with a reference: one row per measure."""
    rows = []
    for structure in made.structures:
        if structure not in reference.structures:
            continue
        ours_ml, theirs_ml = made.values(structure, "ml"), reference.values(structure, "ml")
        shares = tuple(float(near_zero(values, theirs_ml).mean()) for values in (ours_ml, theirs_ml))
        for measure in STRUCTURE_MEASURES:
            ours, theirs = made.values(structure, measure), reference.values(structure, measure)
            rows.append(_compare(structure, measure, ours, theirs, shares))
    return rows


def set_warnings(made: ReferenceDistribution, reference: ReferenceDistribution) -> list[str]:
    """What makes a comparison of two sets say less, in words: fields of view, versions, small numbers."""
    found = []
    ours, theirs = (np.median(np.asarray(one.extents_mm, dtype=float), axis=0) for one in (made, reference))
    if float(np.max(np.maximum(ours / theirs, theirs / ours))) > FIELD_OF_VIEW_RATIO:
        sizes = [" x ".join(f"{length:.0f}" for length in size) for size in (ours, theirs)]
        found.append(
            f"The fields of view differ ({sizes[0]} mm in {made.name}, {sizes[1]} mm in {reference.name}): RVR differ "
            "with them, and so do ml of what they cut off."
        )
    if made.segmenter_version != reference.segmenter_version:
        found.append(
            f"{made.name} was measured with version {made.segmenter_version} of {made.segmenter}, {reference.name} "
            f"with {reference.segmenter_version}: part of the distances is that."
        )
    fewest = min(made.count, reference.count)
    if fewest < SMALLEST_SET:
        found.append(
            f"With {fewest} volumes in a set, distances, p values and ratios of variances are mostly chance; give "
            f"{SMALLEST_SET} or more."
        )
    return found


def _compare(
    structure: str, measure: str, ours: np.ndarray, theirs: np.ndarray, missing: tuple[float, float]
) -> SetComparison:
    from scipy.stats import ks_2samp, wasserstein_distance

    both = len(ours) > 0 and len(theirs) > 0
    test = ks_2samp(ours, theirs) if both else None
    variance = float(theirs.var(ddof=1)) if len(theirs) > 1 else 0.0
    return SetComparison(
        structure=structure,
        measure=measure,
        count=len(ours),
        reference_count=len(theirs),
        median=float(np.median(ours)) if len(ours) else None,
        reference_median=float(np.median(theirs)) if len(theirs) else None,
        wasserstein=float(wasserstein_distance(ours, theirs)) if both else None,
        ks_statistic=float(test.statistic) if both else None,
        ks_p_value=float(test.pvalue) if both else None,
        variance_ratio=float(ours.var(ddof=1)) / variance if variance > 0 and len(ours) > 1 else None,
        missing_share=missing[0],
        reference_missing_share=missing[1],
    )
