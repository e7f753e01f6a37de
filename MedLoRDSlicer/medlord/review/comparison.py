"""Sources against one another, and each synthetic source against real within a stated margin.

The unit is the case: its mean over readers, so that several readers of one case do not count as several cases. What
holds is said of cases like these, read by these readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from .estimate import FEWEST_CASES, Estimate
from .readings import REAL, Readings, is_ordered
from .rubric import Question

# The share judged real has the range 1, a four-point scale the range 3: the same part of the range for both.
_STEPS_OF_FOUR_POINTS = 3
_SIGNIFICANCE = 0.05

_TOO_FEW = f"No test: fewer than {FEWEST_CASES} cases of a source were read."


def case_means(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Mean over readers of every case in `values` (readers, cases; NaN unanswered), and how it was made.

    With answers missing a strict reader's absence must not lift a case: reader and case effects are then fitted
    together (additive, least squares), and the mean is that of the case as if every reader had seen it. Where the
    answers do not link all cases through readers the plain means are taken. NaN for a case that nobody answered on.
    """
    values = values[np.isfinite(values).any(axis=1)]
    given = np.isfinite(values)
    read = given.any(axis=0)
    means = np.full(values.shape[1], np.nan)
    counted = given[:, read].sum(axis=0)
    means[read] = np.where(given, values, 0.0)[:, read].sum(axis=0) / counted
    if given[:, read].all():
        return means, "mean over readers" if len(values) > 1 else "answers of one reader"
    rows, columns = np.nonzero(given[:, read])
    readers, cases = len(values), int(read.sum())
    design = np.zeros((len(rows), readers + cases))
    design[np.arange(len(rows)), rows] = 1.0
    design[np.arange(len(rows)), readers + columns] = 1.0
    # Readers' effects sum to nothing.
    constraint = np.concatenate([np.ones(readers), np.zeros(cases)])[None, :]
    answers = np.concatenate([values[:, read][rows, columns], [0.0]])
    solution, _, rank, _ = np.linalg.lstsq(np.vstack([design, constraint]), answers, rcond=None)
    if rank < readers + cases:
        return means, "mean over the readers who answered (answers do not link all cases)"
    means[read] = solution[readers:]
    return means, "mean over readers, missing answers adjusted for by an additive fit"


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected by Holm's step-down method (Holm 1979); a test that could not be done (None) stays out."""
    from statsmodels.stats.multitest import multipletests

    done = [place for place, p_value in enumerate(p_values) if p_value is not None]
    corrected: list[float | None] = [None] * len(p_values)
    if done:
        found = multipletests([p_values[place] for place in done], method="holm")[1]
        for place, p_value in zip(done, found, strict=True):
            corrected[place] = float(p_value)
    return corrected


def rank_test(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """(chance that a case of `first` is above one of `second`, ties half; two-sided p-value of Mann and Whitney)."""
    from scipy import stats

    if np.ptp(np.concatenate([first, second])) == 0:
        return 0.5, 1.0
    test = stats.mannwhitneyu(first, second, alternative="two-sided")
    return float(test.statistic / (len(first) * len(second))), float(test.pvalue)


def equivalence_test(
    first: np.ndarray, second: np.ndarray, margin: float
) -> tuple[float, float, float, float]:
    """(difference of means, its 90 % limits, p-value): two one-sided Welch tests that |difference| < `margin`.

    Schuirmann 1987, doi 10.1007/BF01068419. The p-value is below 0.05 exactly when the 90 % interval lies within the
    margin. Samples without any spread give the difference as its own limits and NaN as p-value.
    """
    from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

    difference = float(first.mean() - second.mean())
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        return difference, difference, difference, float("nan")
    compared = CompareMeans(DescrStatsW(first), DescrStatsW(second))
    p_value = compared.ttost_ind(-margin, margin, usevar="unequal")[0]
    low, high = compared.tconfint_diff(alpha=2 * _SIGNIFICANCE, usevar="unequal")
    return difference, float(low), float(high), float(p_value)


def margin_of(question: Question, margin: float) -> float:
    """The margin in the question's own numbers: `margin` steps of a scale, the same part of the range of a share."""
    if question.role == "verdict":
        return margin / _STEPS_OF_FOUR_POINTS
    return margin


def compared_questions(readings: Readings) -> list[Question]:
    """The questions on which sources are compared: those whose larger answer is the better one, but not confidence.

    In a pair the real case stands beside the synthetic one, so an answer is about neither alone.
    """
    if readings.mode == "pair":
        return []
    return [
        question
        for question in readings.questions
        if is_ordered(question) and question.role not in ("confidence", "preference")
    ]


def comparison_estimates(readings: Readings) -> list[Estimate]:
    """Every pair of sources on every question, Holm's correction over the pairs of one question."""
    found = []
    for question in compared_questions(readings):
        values = readings.values(question)
        means, how = case_means(values)
        pairs = [
            _compare(readings, question, values, means, how, one, two)
            for one, two in combinations(readings.sources, 2)
        ]
        corrected = holm([pair.p_value for pair in pairs])
        found += [
            replace(pair, p_corrected=p_value, note=" ".join(filter(None, (_spoken(p_value), pair.note))))
            for pair, p_value in zip(pairs, corrected, strict=True)
        ]
    return found


def _compare(readings, question, values, means, how, one, two) -> Estimate:
    first_columns, second_columns = readings.of_source(one), readings.of_source(two)
    first, second = _known(means[first_columns]), _known(means[second_columns])
    both = first_columns | second_columns
    common = _numbers(
        Estimate(
            "comparison",
            f"Chance that a case of {one} is rated above one of {two}",
            "0.5, no difference",
            "share",
            question.id,
            f"{one} − {two}",
        ),
        values[:, both],
    )
    if min(len(first), len(second)) < FEWEST_CASES:
        return replace(common, note=_TOO_FEW)
    value, p_value = rank_test(first, second)
    return replace(
        common,
        value=value,
        p_value=p_value,
        method=f"Mann-Whitney test on cases ({how}; {len(first)} and {len(second)}), "
        "Holm's correction over the pairs of sources of this question",
        note=_direction(values[:, first_columns], values[:, second_columns]),
    )


def _direction(first: np.ndarray, second: np.ndarray) -> str:
    """In how many of the readers each source is ahead: the pairing by reader."""
    both = np.isfinite(first).any(axis=1) & np.isfinite(second).any(axis=1)
    difference = np.nanmean(first[both], axis=1) - np.nanmean(second[both], axis=1)
    return (
        f"By reader: the first ahead in {int((difference > 0).sum())}, the second in "
        f"{int((difference < 0).sum())}, level in {int((difference == 0).sum())}."
    )


def _spoken(p_corrected: float | None) -> str:
    if p_corrected is None:
        return ""
    if p_corrected < _SIGNIFICANCE:
        return "A difference is shown."
    return "No difference is shown, which does not show that there is none: see the test of equivalence."


def equivalence_estimates(readings: Readings, margin: float) -> list[Estimate]:
    """Each synthetic source against all real cases on every question, Holm's correction over the sources."""
    real = np.array([readings.kinds[source] == REAL for source in readings.item_sources], bool)
    found = []
    for question in compared_questions(readings):
        values = readings.values(question)
        means, how = case_means(values)
        rows = [
            _equivalence(readings, question, values, means, how, source, real, margin_of(question, margin))
            for source in readings.synthetic_sources
        ]
        corrected = holm([row.p_value for row in rows])
        for row, p_value in zip(rows, corrected, strict=True):
            if p_value is None:
                found.append(replace(row, p_corrected=None))
                continue
            shown = "shown" if p_value < _SIGNIFICANCE else "not shown"
            limit = margin_of(question, margin)
            found.append(
                replace(row, p_corrected=p_value, note=f"Equivalence within ±{limit:.3g} is {shown}.")
            )
    return found


def _equivalence(readings, question, values, means, how, source, real, limit) -> Estimate:
    columns = readings.of_source(source)
    first, second = _known(means[columns]), _known(means[real])
    common = _numbers(
        Estimate(
            "equivalence",
            f"Mean difference {source} − real",
            f"all {len(second)} real cases, margin ±{limit:.3g}",
            "share" if question.role == "verdict" else "steps",
            question.id,
            source,
        ),
        values[:, columns | real],
    )
    if min(len(first), len(second)) < FEWEST_CASES:
        return replace(common, note=_TOO_FEW)
    difference, low, high, p_value = equivalence_test(first, second, limit)
    if not np.isfinite(p_value):
        return replace(
            common, value=difference, note="No test: all cases of both sources got the same answer."
        )
    return replace(
        common,
        value=difference,
        low=low,
        high=high,
        interval="90 % confidence interval",
        p_value=p_value,
        method=f"two one-sided Welch tests on cases ({how}; {len(first)} and {len(second)}), "
        "Holm's correction over the synthetic sources of this question",
    )


def _numbers(common: Estimate, values: np.ndarray) -> Estimate:
    """`common` with how many cases, readers and readings `values` (readers, cases) holds."""
    given = np.isfinite(values)
    return replace(
        common,
        cases=int(given.any(axis=0).sum()),
        readers=int(given.any(axis=1).sum()),
        readings=int(given.sum()),
        missing=int((~given).sum()),
    )


def _known(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]
