"""Do readers agree with one another, and with themselves when a case comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .estimate import FEWEST_CASES, Estimate
from .readings import Readings, coded_options, is_ordered

TOPIC = "agreement"
AGAINST = "1 is full agreement, 0 what chance gives"

# An interval of agreement needs no more draws; each takes a library call.
_MOST_DRAWS = 500


def krippendorff_alpha(values: np.ndarray, domain: list[float], ordered: bool = True) -> float:
    """Krippendorff's alpha of `values` (readers, items), NaN where a reader gave none; missing ones are allowed.

    `domain` lists every possible value in order; `ordered` takes the ordinal distance, else the nominal one
    (Krippendorff 2011, Computing Krippendorff's alpha-reliability). NaN where it is not defined: no item with two
    answers, or the same answer everywhere.
    """
    table = (values.T[:, :, None] == np.asarray(domain, float)).sum(axis=1)
    return _alpha_of_counts(table, domain, ordered)


def _alpha_of_counts(table: np.ndarray, domain: list[float], ordered: bool) -> float:
    import krippendorff

    table = table[table.sum(axis=1) > 1]
    if len(table) == 0 or (table.sum(axis=0) > 0).sum() < 2:
        return float("nan")
    # Values that nobody gave carry no weight, yet a scale's own order must stay.
    level = "ordinal" if ordered else "nominal"
    return float(
        krippendorff.alpha(
            value_counts=table, value_domain=np.asarray(domain, float), level_of_measurement=level
        )
    )


def fleiss_kappa(table: np.ndarray) -> float:
    """Fleiss' kappa of counts (items, categories), as many readers for every item (Fleiss 1971, doi 10.1037/h0031619).

    NaN where it is not defined: no item, one reader, or the same answer everywhere.
    """
    from statsmodels.stats.inter_rater import fleiss_kappa as kappa

    if len(table) == 0 or table.sum(axis=1).max() < 2 or (table.sum(axis=0) > 0).sum() < 2:
        return float("nan")
    return float(kappa(table, method="fleiss"))


def weighted_kappa(
    first: np.ndarray, second: np.ndarray, domain: list[float], weights: str | np.ndarray = "quadratic"
) -> tuple[float, float, float]:
    """Cohen's weighted kappa of two series of answers to the same items, with its 95 % interval (asymptotic).

    `weights` is "quadratic" or "linear" in the place on the scale, or a matrix of disagreement
    (Cohen 1968, doi 10.1037/h0026256). NaN where it is not defined, as when both series are one and the same value.
    """
    from statsmodels.stats.inter_rater import cohens_kappa

    table = np.zeros((len(domain), len(domain)))
    for one, two in zip(first, second, strict=True):
        table[domain.index(one), domain.index(two)] += 1
    used = (table.sum(axis=0) + table.sum(axis=1)) > 0
    if used.sum() < 2:
        return float("nan"), float("nan"), float("nan")
    # Full agreement has no variance; rounding may make it negative, and the interval is then NaN.
    with np.errstate(invalid="ignore", divide="ignore"):
        if isinstance(weights, str):
            result = cohens_kappa(table, wt=weights)
        else:
            result = cohens_kappa(table, weights=np.asarray(weights, float) / np.max(weights))
    return float(result.kappa), float(result.kappa_low), float(result.kappa_upp)


def agreement_estimates(readings: Readings, draws: int, generator: np.random.Generator) -> list[Estimate]:
    """Between readers alpha and Fleiss' kappa, within each reader weighted kappa on the repeats, for every question."""
    found = []
    for question in readings.questions:
        if question.role == "confidence":
            # Its value belongs to the verdict: 5 for "real" and 5 for "synthetic" are no agreement.
            continue
        first, second = readings.values(question), readings.values(question, repeat=1)
        domain = [code for code, _ in coded_options(question)]
        ordered = is_ordered(question)
        found.append(_alpha(question.id, first, domain, ordered, draws, generator))
        found.append(_fleiss(question.id, first, domain, draws, generator))
        for row, reader in enumerate(readings.readers):
            found.append(_within(question.id, reader, first[row], second[row], domain, ordered))
    return found


def _alpha(question, values, domain, ordered, draws, generator) -> Estimate:
    table = (values.T[:, :, None] == np.asarray(domain, float)).sum(axis=1)
    usable = table[table.sum(axis=1) > 1]
    level = "ordinal" if ordered else "nominal"
    common = _between(f"Krippendorff's alpha ({level}) between readers", question, values)
    common = replace(common, cases=len(usable), readings=int(usable.sum()))
    return _with_interval(
        common, usable, lambda rows: _alpha_of_counts(rows, domain, ordered), draws, generator
    )


def _fleiss(question, values, domain, draws, generator) -> Estimate:
    common = _between("Fleiss' kappa between readers", question, values)
    answering = values[np.isfinite(values).any(axis=1)]
    complete = answering[:, np.isfinite(answering).all(axis=0)] if len(answering) else answering
    table = (complete.T[:, :, None] == np.asarray(domain, float)).sum(axis=1)
    common = replace(common, cases=len(table), readings=int(table.sum()))
    estimate = _with_interval(common, table, fleiss_kappa, draws, generator, whose="every reader")
    left_out = int(np.isfinite(answering).any(axis=0).sum()) - len(table)
    if left_out:
        note = f"{left_out} cases left out: not every reader answered on them."
        estimate = replace(estimate, note=" ".join(part for part in (estimate.note, note) if part))
    return estimate


def _between(measure: str, question: str, values: np.ndarray) -> Estimate:
    given = np.isfinite(values)
    return Estimate(
        TOPIC,
        measure,
        AGAINST,
        question=question,
        readers=int(given.any(axis=1).sum()),
        missing=int((~given).sum()),
    )


def _with_interval(
    common: Estimate,
    table: np.ndarray,
    coefficient: Callable[[np.ndarray], float],
    draws: int,
    generator: np.random.Generator,
    whose: str = "two readers",
) -> Estimate:
    """The coefficient of `table` (items, categories) with its percentile interval over resampled items.

    `whose` answers an item needs to be in the table.
    """
    if common.readers < 2:
        return replace(common, note="No value: agreement needs two readers.")
    value = coefficient(table) if len(table) else float("nan")
    if not np.isfinite(value):
        same = "every answer was the same, so agreement cannot be told from chance"
        return replace(common, note=f"No value: {same if len(table) else f'no case has answers of {whose}'}.")
    if len(table) < FEWEST_CASES:
        return replace(common, value=value, note=f"No interval: fewer than {FEWEST_CASES} cases.")
    draws = min(draws, _MOST_DRAWS)
    picks = generator.integers(0, len(table), (draws, len(table)))
    drawn = np.array([coefficient(table[pick]) for pick in picks])
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < 0.9 * draws:
        return replace(
            common,
            value=value,
            note="No interval: almost every answer was the same, most draws had no other.",
        )
    low, high = np.quantile(drawn, [0.025, 0.975])
    return replace(
        common,
        value=value,
        low=float(low),
        high=float(high),
        interval="95 % confidence interval",
        method=f"bootstrap over cases ({len(drawn)} draws), these readers",
    )


def _within(question, reader, first, second, domain, ordered) -> Estimate:
    both = np.isfinite(first) & np.isfinite(second)
    kind = "weighted kappa (quadratic)" if ordered and len(domain) > 2 else "kappa"
    common = Estimate(
        TOPIC,
        f"Cohen's {kind} within the reader, first against second reading",
        AGAINST,
        question=question,
        reader=reader,
        cases=int(both.sum()),
        readers=1,
        readings=2 * int(both.sum()),
    )
    if not both.any():
        return replace(common, note="No value: the reader has no answered repeats.")
    weights = "quadratic" if ordered else 1.0 - np.eye(len(domain))
    value, low, high = weighted_kappa(first[both], second[both], domain, weights)
    if not np.isfinite(value):
        return replace(
            common, note="No value: every answer was the same, so agreement cannot be told from chance."
        )
    if common.cases < FEWEST_CASES or not np.isfinite(low) or high - low < 1e-9:
        few = f"fewer than {FEWEST_CASES} repeats" if common.cases < FEWEST_CASES else "all repeats agree"
        return replace(common, value=value, note=f"No interval: {few}.")
    return replace(
        common,
        value=value,
        low=max(-1.0, low),
        high=min(1.0, high),
        interval="95 % confidence interval",
        method="asymptotic (Fleiss, Cohen and Everitt 1969)",
    )
