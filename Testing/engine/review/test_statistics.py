"""Shares, times and ROC areas against published examples, and intervals against simulated studies."""

from __future__ import annotations

import numpy as np
import pytest
from support.simulated_review import readings_of

from medlord.errors import InputError
from medlord.review.estimate import about
from medlord.review.resampling import mean_interval
from medlord.review.roc import area_under_curve, average_area, roc_curve, roc_estimates
from medlord.review.statistics import (
    artefact_estimates,
    distribution_estimates,
    time_estimates,
    verdict_estimates,
    wilson_interval,
)

# Hanley and McNeil 1982, Radiology 143:29-36, table I: ratings of 58 normal and 51 abnormal CT images, from
# definitely normal to definitely abnormal.
NORMAL = np.repeat([1, 2, 3, 4, 5], [33, 6, 6, 11, 2])
ABNORMAL = np.repeat([1, 2, 3, 4, 5], [3, 2, 2, 11, 33])


# Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3.
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_of_newcombe(successes, trials, low, high):
    assert wilson_interval(successes, trials) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_area_and_standard_error_of_hanley_and_mcneil():
    assert area_under_curve(NORMAL, ABNORMAL) == pytest.approx(0.893, abs=5e-4)
    scores = np.concatenate([NORMAL, ABNORMAL]).astype(float)[None, :]
    synthetic = np.arange(scores.shape[1]) >= len(NORMAL)
    interval = average_area(scores, synthetic, 2000, np.random.default_rng(1))
    assert interval.value == pytest.approx(0.893, abs=5e-4)
    # Their standard error is 0.032; the bootstrap's limits are not symmetric, their distance is that of 2 x 1.96.
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.032, rel=0.1)
    assert interval.method == "bootstrap over cases (2000 draws)"
    false_positive, true_positive = roc_curve(NORMAL, ABNORMAL)
    assert np.trapezoid(true_positive, false_positive) == pytest.approx(area_under_curve(NORMAL, ABNORMAL))


def test_readers_who_guess_have_an_area_of_one_half_that_95_percent_of_intervals_cover():
    """200 studies of 3 readers with 15 real and 45 synthetic cases; binomial 95 % range of 0.95: 0.915 to 0.98."""
    generator = np.random.default_rng(2024)
    synthetic = np.arange(60) >= 15
    areas, covered = [], 0
    for _ in range(200):
        scores = generator.choice([-5.0, -4, -3, -2, -1, 1, 2, 3, 4, 5], (3, 60))
        interval = average_area(scores, synthetic, 400, generator)
        areas.append(interval.value)
        covered += interval.low <= 0.5 <= interval.high
    assert np.mean(areas) == pytest.approx(0.5, abs=0.012)
    assert 0.915 <= covered / 200 <= 0.985


def test_interval_widens_with_readers_who_differ():
    """Skill that varies from reader to reader must show in the interval of their average, not only the cases."""
    generator = np.random.default_rng(5)
    synthetic = np.arange(200) >= 100
    case = generator.normal(size=200)
    alike = np.stack([case + synthetic * 1.0] * 4)
    apart = np.stack([case + synthetic * skill for skill in (0.0, 0.5, 1.5, 2.5)])
    narrow = average_area(alike, synthetic, 1000, np.random.default_rng(1))
    wide = average_area(apart, synthetic, 1000, np.random.default_rng(1))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    # Readers who say the same bring nothing new: four of them are as uncertain as one.
    one = average_area(alike[:1], synthetic, 1000, np.random.default_rng(1))
    assert narrow.high - narrow.low == pytest.approx(one.high - one.low, rel=0.1)


def test_mean_over_readers_with_missing_answers():
    values = np.array([[1, 1, 0, 0, np.nan, np.nan], [1, 0, 0, 0, 0, 1]], float)
    interval = mean_interval(values, np.zeros(6), 500, np.random.default_rng(0))
    assert interval.value == pytest.approx((0.5 + 1 / 3) / 2)
    assert 0 <= interval.low < interval.value < interval.high <= 1


SOURCES = ["scanner"] * 6 + ["model A"] * 6 + ["model B"] * 6


def verdicts(*rows: str) -> list[list[str | None]]:
    """R, S or - (no answer) per item."""
    return [[{"R": "real", "S": "synthetic", "-": None}[letter] for letter in row] for row in rows]


def numbers(*rows: str) -> list[list[int | None]]:
    return [[None if letter == "-" else int(letter) for letter in row] for row in rows]


def test_shares_accuracy_sensitivity_and_specificity_worked_out_by_hand():
    readings = readings_of(
        {"real_or_synthetic": verdicts("RRRRRS" "RRRSSS" "SSSSSS", "RRRR--" "RRRRRR" "SSSSSR")}, SOURCES
    )  # fmt: skip
    found = verdict_estimates(readings, 300, np.random.default_rng(0))
    share = {(e.source, e.reader): e for e in about(found, "judged_real")}
    assert share["scanner", "reader 1"].value == pytest.approx(5 / 6)
    assert share["scanner", "reader 1"].low == pytest.approx(wilson_interval(5, 6)[0])
    assert share["scanner", "reader 2"].value == 1.0 and share["scanner", "reader 2"].missing == 2
    assert share["scanner", "reader 2"].cases == 4
    assert share["model B", ""].value == pytest.approx((0 + 1 / 6) / 2)
    assert share["model B", ""].readings == 12 and share["model B", ""].cases == 6
    right = {(e.measure.split(":")[0], e.reader): e for e in about(found, "accuracy")}
    assert right["Accuracy", "reader 1"].value == pytest.approx(14 / 18)
    assert right["Sensitivity", "reader 1"].value == pytest.approx(9 / 12)
    assert right["Specificity", "reader 1"].value == pytest.approx(5 / 6)
    assert right["Accuracy", "reader 2"].value == pytest.approx(9 / 16)
    assert right["Sensitivity", ""].value == pytest.approx((9 / 12 + 5 / 12) / 2)
    for estimate in found:
        assert estimate.low <= estimate.value <= estimate.high and estimate.against and estimate.method


def test_all_alike_gets_wilson_with_every_case_once():
    readings = readings_of({"real_or_synthetic": verdicts("R" * 18, "R" * 18, "R" * 18)}, SOURCES)
    everyone = about(
        verdict_estimates(readings, 200, np.random.default_rng(0)), "judged_real", source="scanner"
    )
    assert everyone[0].reader == "" and everyone[0].value == 1.0
    assert everyone[0].low == pytest.approx(wilson_interval(6, 6)[0]), "6 cases, not 18 readings"


def test_areas_by_source_use_the_sign_of_the_verdict():
    readings = readings_of(
        {
            "real_or_synthetic": verdicts("RRRRRR" "RRRRRR" "SSSSSS"),
            "confidence": numbers("533333" "533333" "444444"),
        },
        SOURCES,
    )  # fmt: skip
    found = {(e.source, e.reader): e for e in roc_estimates(readings, 200, np.random.default_rng(0))}
    assert found["model A", "reader 1"].value == pytest.approx(0.5)
    assert found["model B", "reader 1"].value == 1.0
    assert found["model B", ""].low is None and "every draw gave the same" in found["model B", ""].note
    assert found["", "reader 1"].value == pytest.approx(0.75)
    assert "12 synthetic against 6 real" in found["", ""].against
    assert "One reader" in found["model A", ""].note


def test_few_cases_and_no_answers_say_so_instead_of_numbers():
    few = readings_of(
        {"real_or_synthetic": verdicts("RSRS", "----"), "confidence": numbers("3333", "----")},
        ["scanner"] * 2 + ["model A"] * 2,
    )
    areas = {e.reader: e for e in roc_estimates(few, 200, np.random.default_rng(0)) if not e.source}
    assert areas["reader 1"].value == 0.5 and areas["reader 1"].low is None
    assert "fewer than 5" in areas["reader 1"].note
    assert areas["reader 2"].value is None and "needs answers" in areas["reader 2"].note
    assert areas["reader 2"].missing == 4
    shares = about(verdict_estimates(few, 200, np.random.default_rng(0)), "judged_real", reader="reader 2")
    assert all(e.value is None and "no answer" in e.note for e in shares)


def test_distribution_time_and_artefacts():
    marks = [[[{"kind": "blur", "position_ras_mm": None}] if item < 3 else [] for item in range(18)]]
    readings = readings_of({"realism": numbers("444332" "11-112" "222222"), "artefacts": marks}, SOURCES)  # fmt: skip
    shares = about(distribution_estimates(readings), "distribution", question="realism", reader="reader 1")
    scanner = [estimate for estimate in shares if estimate.source == "scanner"]
    assert [estimate.value for estimate in scanner] == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6])
    assert [e.value for e in shares if e.source == "model A"] == pytest.approx([0.8, 0.2, 0, 0])
    assert all(e.missing == 1 for e in shares if e.source == "model A")

    marked = about(artefact_estimates(readings), "artefacts", reader="reader 1", source="scanner")
    assert {e.measure: e.value for e in marked} == {
        "Share of readings with an artefact": 0.5,
        "Share of readings with an artefact of the kind 'blur'": 0.5,
    }
    # Items are visible for 60, 61, ... 77 s.
    time = {(e.source, e.reader): e for e in time_estimates(readings)}
    assert time["scanner", "reader 1"].value == pytest.approx(62.5)
    assert (time["", ""].low, time["", ""].high) == pytest.approx((64.25, 72.75))


def test_a_value_outside_the_rubric_is_refused():
    readings = readings_of({"realism": [[7] * 18]}, SOURCES)
    with pytest.raises(InputError, match="answer 7 to 'realism'"):
        distribution_estimates(readings)
