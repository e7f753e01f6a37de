"""Intervals for averages over readers, by bootstrap over cases and readers.

Readers and cases are crossed: every reader sees the same cases. Drawing both with replacement counts the chance in a
single reading up to three times (Owen 2007, The pigeonhole bootstrap, doi 10.1214/07-AOAS122; for reader studies
Gallas et al. 2009, A framework for random-effects ROC analysis, doi 10.1080/03610920802610084): readers who guess
would get an interval that holds the truth in 99.5 % of the studies instead of 95 %. So the draws give the shape and
their spread is brought to the variance of the crossed design (Obuchowski and Rockette 1995,
doi 10.1080/03610919508813243): what the cases alone make, plus what readers differ beyond their own chance. That
second part rests on few readers, hence Student's factor with its Satterthwaite degrees of freedom.

One less than the sample is drawn, because with replacement that makes the variance unbiased (McCarthy and Snowden
1985, The bootstrap and finite population sampling).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .estimate import CONFIDENCE


@dataclass(frozen=True)
class Interval:
    """An average over readers with its limits, and how far the interval speaks."""

    value: float
    low: float | None
    high: float | None
    method: str


def case_weights(cases: int, draws: int, generator: np.random.Generator) -> np.ndarray:
    """How often each of `cases` is drawn, scaled to sum to `cases`: float (draws, cases); a single one always is."""
    if cases < 2:
        return np.ones((draws, cases))
    counts = generator.multinomial(cases - 1, np.full(cases, 1 / cases), draws)
    return counts * (cases / (cases - 1))


def crossed_interval(
    per_reader: np.ndarray,
    resampled: np.ndarray,
    generator: np.random.Generator,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Average of `per_reader` (readers,) with its interval.

    `resampled` (draws, readers) are the same numbers on resampled cases, with the same cases for all readers; NaN where
    a draw has none. Readers whose own number is NaN are left out. Without any spread the limits are None: nothing
    varied, so nothing can be said by resampling.
    """
    known = np.isfinite(per_reader)
    per_reader, resampled = per_reader[known], resampled[:, known]
    resampled = resampled[np.isfinite(resampled).all(axis=1)]
    readers, draws = len(per_reader), len(resampled)
    if readers == 0:
        return Interval(float("nan"), None, None, "")
    value = float(per_reader.mean())
    method = f"bootstrap over cases ({draws} draws)"
    cases_alone = resampled.mean(axis=1) if draws else np.zeros(1)
    variance = float(cases_alone.var(ddof=1)) if draws > 1 else 0.0
    drawn, factor = cases_alone, 1.0
    if readers > 1 and draws > 1:
        method = f"bootstrap over cases and readers ({draws} draws)"
        drawn = (case_weights(readers, draws, generator) * resampled).mean(axis=1)
        variance, factor = _crossed_variance(per_reader, resampled, variance)
    spread = float(drawn.std(ddof=1)) if draws > 1 else 0.0
    if spread < 1e-12:
        return Interval(value, None, None, method)
    tails = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tails, 1 - tails]) - value
    stretch = factor * np.sqrt(variance) / spread
    return Interval(
        value,
        float(max(bounds[0], value + stretch * low)),
        float(min(bounds[1], value + stretch * high)),
        method,
    )


def _crossed_variance(
    per_reader: np.ndarray, resampled: np.ndarray, cases_alone: float
) -> tuple[float, float]:
    """Variance of the average over readers, and Student's factor over the normal one for its uncertainty."""
    from scipy import stats

    readers = len(per_reader)
    covariance = np.cov(resampled, rowvar=False)
    shared = (covariance.sum() - np.trace(covariance)) / (readers * (readers - 1))
    variance = per_reader.var(ddof=1) / readers + max(shared, 0.0)
    beyond_chance = variance - cases_alone
    # The readers cannot make the average surer than it is for these very readers.
    if beyond_chance <= 0:
        return cases_alone, 1.0
    freedom = (readers - 1) * (variance / beyond_chance) ** 2
    upper = 1 - (1 - CONFIDENCE) / 2
    return variance, float(stats.t.ppf(upper, freedom) / stats.norm.ppf(upper))


def mean_interval(
    values: np.ndarray, strata: np.ndarray, draws: int, generator: np.random.Generator
) -> Interval:
    """Mean over readers of each reader's mean of `values` (readers, cases; 0 to 1, NaN is no answer), and interval.

    Cases are drawn within each of the `strata` (cases,): as many of every kind as the study has.
    """
    weights = np.empty((draws, values.shape[1]))
    for stratum in np.unique(strata):
        inside = strata == stratum
        weights[:, inside] = case_weights(int(inside.sum()), draws, generator)
    given = np.isfinite(values)
    filled = np.where(given, values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_reader = filled.sum(axis=1) / given.sum(axis=1)
        resampled = (weights @ filled.T) / (weights @ given.T)
    return crossed_interval(per_reader, resampled, generator)
