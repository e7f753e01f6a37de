"""Comparisons between sources against published examples, and how they treat readers who left answers out."""

from __future__ import annotations

import numpy as np
import pytest
from support.simulated_review import readings_of

from medlord.review.comparison import (
    case_means,
    comparison_estimates,
    equivalence_estimates,
    equivalence_test,
    holm,
    rank_test,
)


def test_holm_step_by_step():
    """Holm 1979, Scandinavian Journal of Statistics 6:65-70: the smallest of n times n, the next times n - 1, ..."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # R: p.adjust(c(.042, .001, .031, .014, .007), "holm")
    assert holm([0.042, 0.001, 0.031, 0.014, 0.007]) == pytest.approx([0.062, 0.005, 0.062, 0.042, 0.028])
    assert holm([None, 0.02, None, 0.03]) == [None, pytest.approx(0.04), None, pytest.approx(0.04)]
    assert holm([None]) == [None]


def sample(mean: float, deviation: float, count: int) -> np.ndarray:
    """Numbers with exactly this mean and standard deviation."""
    values = np.linspace(-1, 1, count)
    return mean + deviation * (values - values.mean()) / values.std(ddof=1)


def test_equivalence_of_lakens():
    """Lakens 2017, Social Psychological and Personality Science 8:355-362, on Moery and Calin-Jageman 2016.

    Control 5.25 (0.95, n = 95) and organic food 5.22 (0.83, n = 89), bounds of d = 0.48, in points 0.428:
    Welch's t(182) = 3.03, p = 0.001.
    """
    control, organic = sample(5.25, 0.95, 95), sample(5.22, 0.83, 89)
    bound = 0.48 * np.sqrt((0.95**2 + 0.83**2) / 2)
    difference, low, high, p_value = equivalence_test(control, organic, bound)
    assert difference == pytest.approx(0.03) and p_value == pytest.approx(0.0014, abs=1e-4)
    assert -bound < low < difference < high < bound
    assert equivalence_test(control, organic, 0.1)[3] > 0.05, "not within a tenth of a point"


def test_equivalence_agrees_with_its_interval():
    generator = np.random.default_rng(0)
    for _ in range(20):
        first, second = generator.normal(0, 1, 12), generator.normal(0.3, 1.5, 9)
        _, low, high, p_value = equivalence_test(first, second, 1.0)
        assert (p_value < 0.05) == (-1.0 < low and high < 1.0)
    assert np.isnan(equivalence_test(np.full(6, 3.0), np.full(6, 3.0), 0.5)[3])


def test_rank_test_of_mann_and_whitney():
    """Complete separation of 3 from 4: two of 35 arrangements are as extreme (Mann and Whitney 1947, table I)."""
    value, p_value = rank_test(np.array([5.0, 6.0, 7.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert value == 1.0 and p_value == pytest.approx(2 / 35)
    assert rank_test(np.full(5, 2.0), np.full(7, 2.0)) == (0.5, 1.0)


def test_case_means_do_not_mix_the_strictness_of_a_reader_into_a_case():
    case = np.array([1.0, 2.0, 3.0, 4.0])
    values = np.stack([case, case + 1.0])
    assert case_means(values)[0] == pytest.approx(case + 0.5)
    values[0, 3] = np.nan
    means, how = case_means(values)
    assert means == pytest.approx(case + 0.5), "the lenient reader alone would lift the last case"
    assert "additive fit" in how
    apart = np.array([[1.0, 2.0, np.nan, np.nan], [np.nan, np.nan, 3.0, 4.0]])
    means, how = case_means(apart)
    assert means == pytest.approx(case) and "do not link" in how
    assert np.isnan(case_means(np.array([[1.0, np.nan]]))[0][1])


SOURCES = ["scanner"] * 10 + ["model A"] * 10 + ["model B"] * 10


def grades(means: tuple[float, float, float], readers: int = 3, spread: float = 0.4):
    generator = np.random.default_rng(11)
    table = np.repeat(means, 10) + generator.normal(0, spread, (readers, 30))
    return np.clip(np.round(table), 1, 4).astype(int).tolist()


def test_a_worse_source_is_told_apart_and_the_equal_one_is_equivalent():
    readings = readings_of({"realism": grades((3.5, 3.5, 1.8))}, SOURCES)
    found = {e.source: e for e in comparison_estimates(readings) if e.question == "realism"}
    assert set(found) == {"scanner − model A", "scanner − model B", "model A − model B"}
    worse, same = found["scanner − model B"], found["scanner − model A"]
    assert worse.value > 0.95 and worse.p_corrected < 0.001 and worse.p_corrected >= worse.p_value
    assert worse.note.startswith("A difference is shown") and "the first ahead in 3" in worse.note
    assert same.p_corrected > 0.05 and "does not show that there is none" in same.note
    assert worse.cases == 20 and worse.readers == 3 and worse.readings == 60

    against_real = {e.source: e for e in equivalence_estimates(readings, 0.5) if e.question == "realism"}
    assert against_real["model A"].note == "Equivalence within ±0.5 is shown."
    assert against_real["model B"].note == "Equivalence within ±0.5 is not shown."
    assert "10 real cases, margin ±0.5" in against_real["model A"].against
    tight = {e.source: e for e in equivalence_estimates(readings, 0.05) if e.question == "realism"}
    assert tight["model A"].note == "Equivalence within ±0.05 is not shown."


def test_no_difference_in_few_cases_is_not_equivalence():
    small = ["scanner"] * 5 + ["model A"] * 5
    readings = readings_of({"realism": [[1, 4, 2, 3, 4, 4, 1, 3, 2, 4]]}, small)
    assert next(e for e in comparison_estimates(readings) if e.question == "realism").p_corrected == 1.0
    estimate = next(e for e in equivalence_estimates(readings, 0.5) if e.question == "realism")
    assert estimate.value == pytest.approx(0.0) and "not shown" in estimate.note


def test_share_judged_real_has_a_margin_of_its_own_range():
    verdicts = [["real"] * 9 + ["synthetic"] + ["real"] * 8 + ["synthetic"] * 2 + ["synthetic"] * 10] * 2
    readings = readings_of({"real_or_synthetic": verdicts}, SOURCES)
    found = {e.source: e for e in equivalence_estimates(readings, 0.5) if e.question == "real_or_synthetic"}
    assert found["model A"].value == pytest.approx(-0.1) and found["model A"].unit == "share"
    assert "margin ±0.167" in found["model A"].against


def test_too_few_cases_are_not_tested():
    readings = readings_of({"realism": [[4, 3, 4, 1, 2, 1]]}, ["scanner"] * 3 + ["model A"] * 3)
    for estimate in (*comparison_estimates(readings), *equivalence_estimates(readings, 0.5)):
        assert estimate.p_value is None and "fewer than 5" in estimate.note
