"""How well readers tell synthetic from real: the area under the ROC curve of their confidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .estimate import FEWEST_CASES, Estimate, reach
from .readings import Readings
from .resampling import Interval, case_weights, crossed_interval

TOPIC = "roc"
MEASURE = "ROC AUC: chance that a reader gives a synthetic case the surer 'synthetic' than a real one"
CHANCE = "0.5, what guessing gives"


def signed_confidence(readings: Readings) -> np.ndarray:
    """Confidence that a case is synthetic: float (readers, items), negative for the verdict "real", NaN unanswered.

    Without a confidence question the verdict alone counts, as -1 or 1.
    """
    sign = 1.0 - 2.0 * readings.values(readings.rubric.with_role("verdict"))
    confidence = readings.rubric.with_role("confidence")
    return sign if confidence is None else sign * readings.values(confidence)


def area_under_curve(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Area under the empirical ROC curve of scores (1-D each, larger is "synthetic"), ties half; NaN without a case.

    The Mann-Whitney statistic over the number of pairs (Hanley and McNeil 1982, doi 10.1148/radiology.143.1.7063747).
    """
    from scipy import stats

    if len(real) == 0 or len(synthetic) == 0:
        return float("nan")
    statistic = stats.mannwhitneyu(synthetic, real, method="asymptotic").statistic
    return float(statistic / (len(real) * len(synthetic)))


def average_area(
    scores: np.ndarray, is_synthetic: np.ndarray, draws: int, generator: np.random.Generator
) -> Interval:
    """Mean over readers of the area under each reader's curve, with its interval over cases and readers.

    `scores` is (readers, cases) with NaN where a reader gave none, `is_synthetic` bool (cases,). Real and synthetic
    cases are drawn apart, the same ones for all readers.
    """
    real, synthetic = scores[:, ~is_synthetic], scores[:, is_synthetic]
    weights_real = case_weights(real.shape[1], draws, generator)
    weights_synthetic = case_weights(synthetic.shape[1], draws, generator)
    per_reader = np.empty(len(scores))
    resampled = np.empty((draws, len(scores)))
    for reader in range(len(scores)):
        seen_real, seen_synthetic = np.isfinite(real[reader]), np.isfinite(synthetic[reader])
        per_reader[reader] = area_under_curve(real[reader, seen_real], synthetic[reader, seen_synthetic])
        difference = synthetic[reader, seen_synthetic][None, :] - real[reader, seen_real][:, None]
        wins = (difference > 0) + 0.5 * (difference == 0)
        first, second = weights_real[:, seen_real], weights_synthetic[:, seen_synthetic]
        with np.errstate(invalid="ignore", divide="ignore"):
            resampled[:, reader] = ((first @ wins) * second).sum(axis=1) / (
                first.sum(axis=1) * second.sum(axis=1)
            )
    return crossed_interval(per_reader, resampled, generator)


def roc_curve(real: np.ndarray, synthetic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(false positive rate, true positive rate) at every threshold, from (0, 0) to (1, 1)."""
    thresholds = np.unique(np.concatenate([real, synthetic]))[::-1]
    false_positive = [(real >= threshold).mean() for threshold in thresholds]
    true_positive = [(synthetic >= threshold).mean() for threshold in thresholds]
    return np.array([0.0, *false_positive]), np.array([0.0, *true_positive])


def roc_estimates(readings: Readings, draws: int, generator: np.random.Generator) -> list[Estimate]:
    """The area of every reader and of all readers, for all synthetic sources together and for each."""
    scores = signed_confidence(readings)
    real = ~readings.is_synthetic
    found = []
    for source in ("", *readings.synthetic_sources):
        chosen = readings.is_synthetic if not source else readings.of_source(source)
        columns = real | chosen
        for reader in ("", *readings.readers):
            rows = np.array([reader in ("", name) for name in readings.readers])
            table, truth = scores[np.ix_(rows, columns)], chosen[columns]
            found.append(_estimate(table, truth, source, reader, draws, generator))
    return found


def _estimate(table, truth, source, reader, draws, generator) -> Estimate:
    given = np.isfinite(table)
    answering = table[given.any(axis=1)]
    read = given.any(axis=0)
    cases = (int((read & ~truth).sum()), int((read & truth).sum()))
    common = Estimate(
        topic=TOPIC,
        measure=MEASURE,
        against=f"{CHANCE}; {cases[1]} synthetic against {cases[0]} real cases",
        source=source,
        reader=reader,
        cases=sum(cases),
        readers=len(answering),
        readings=int(given.sum()),
        missing=int((~given).sum()),
    )
    if min(cases) == 0:
        return replace(common, note="No area: it needs answers on real and on synthetic cases.")
    interval = average_area(answering[:, read], truth[read], draws, generator)
    if min(cases) < FEWEST_CASES:
        note = f"No interval: fewer than {FEWEST_CASES} real or synthetic cases were read."
        return replace(common, value=interval.value, note=note)
    if interval.low is None:
        note = "No interval: every draw gave the same area, as when readers tell all cases apart."
        return replace(common, value=interval.value, note=note)
    return replace(
        common,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        interval="95 % confidence interval",
        method=interval.method,
        note=reach(reader, len(answering)),
    )
