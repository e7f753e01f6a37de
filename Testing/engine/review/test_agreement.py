"""Agreement against the worked examples of the papers that introduced each measure."""

from __future__ import annotations

import numpy as np
import pytest
from support.simulated_review import readings_of

from medlord.review.agreement import agreement_estimates, fleiss_kappa, krippendorff_alpha, weighted_kappa

# Fleiss 1971, Psychological Bulletin 76:378-382, table 1: six psychiatrists sort 30 patients into depression (1),
# personality disorder (2), schizophrenia (3), neurosis (4), other (5). One group of six digits per patient.
FLEISS = (
    "444444 222555 233335 555555 222444 113333 333355 113334 114444 555555 144444 124444 222333 144444 224445 "
    "333335 111455 111112 224444 133555 555555 244444 224555 114444 144445 222224 111155 224444 133333 555555"
).split()

# Krippendorff 2011, Computing Krippendorff's alpha-reliability, section C: four observers, twelve units, "." missing.
KRIPPENDORFF = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def krippendorff_table() -> np.ndarray:
    return np.array([[np.nan if value == "." else float(value) for value in row] for row in KRIPPENDORFF])


def test_fleiss_kappa_of_fleiss():
    table = np.array([[group.count(str(category)) for category in range(1, 6)] for group in FLEISS])
    assert table.shape == (30, 5) and table.sum(axis=0).tolist() == [26, 26, 30, 55, 43]
    assert fleiss_kappa(table) == pytest.approx(0.430, abs=5e-4)


def test_alpha_of_krippendorff():
    table = krippendorff_table()
    domain = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert krippendorff_alpha(table, domain) == pytest.approx(0.815, abs=5e-4)
    assert krippendorff_alpha(table, domain, ordered=False) == pytest.approx(0.743, abs=5e-4)
    # A step of the scale that nobody chose changes nothing.
    assert krippendorff_alpha(table, [*domain, 6.0]) == pytest.approx(0.815, abs=5e-4)


def test_weighted_kappa_of_cohen():
    """Cohen 1968, Psychological Bulletin 70:213-220, table 1: 200 patients, disagreement weights 0, 1, 3 and 6."""
    counts = np.array([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
    first, second = (np.repeat(index.ravel(), counts.ravel()).astype(float) for index in np.indices((3, 3)))
    domain = [0.0, 1.0, 2.0]
    weights = np.array([[0, 1, 3], [1, 0, 6], [3, 6, 0]])
    value, low, high = weighted_kappa(first, second, domain, weights)
    assert value == pytest.approx(0.348, abs=5e-4) and low < value < high
    assert weighted_kappa(first, second, domain, 1 - np.eye(3))[0] == pytest.approx(0.492, abs=5e-4)


def test_undefined_agreement_is_no_number():
    alike = np.full((3, 4), 2.0)
    assert np.isnan(krippendorff_alpha(alike, [1.0, 2.0]))
    assert np.isnan(fleiss_kappa(np.array([[0, 3], [0, 3]])))
    assert np.isnan(weighted_kappa(alike[0], alike[1], [1.0, 2.0])[0])
    assert np.isnan(krippendorff_alpha(np.array([[1.0, np.nan], [np.nan, 2.0]]), [1.0, 2.0]))


SOURCES = ["scanner"] * 6 + ["model A"] * 6


def by_measure(readings, question):
    found = agreement_estimates(readings, 200, np.random.default_rng(0))
    return {
        (e.measure.split("(")[0].split(",")[0].strip(), e.reader): e for e in found if e.question == question
    }


def test_estimates_count_cases_and_leave_incomplete_ones_out_of_fleiss():
    first = [[1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, None], [1, 2, 3, 4, 2, 2, 3, 4, 1, 2, 3, 4]]
    again = [[1, 2, 3, 4, 1, 2, None, None, None, None, None, None], [None] * 12]
    found = by_measure(readings_of({"realism": first}, SOURCES, repeats={"realism": again}), "realism")
    alpha, fleiss = found["Krippendorff's alpha", ""], found["Fleiss' kappa between readers", ""]
    assert alpha.cases == 11 and alpha.readings == 22 and alpha.missing == 1
    assert 0.9 < alpha.value < 1 and alpha.low <= alpha.value <= alpha.high
    assert fleiss.cases == 11 and "1 cases left out" in fleiss.note
    within = found["Cohen's weighted kappa", "reader 1"]
    assert within.value == 1.0 and within.cases == 6 and "No interval" in within.note
    assert found["Cohen's weighted kappa", "reader 2"].value is None
    assert "no answered repeats" in found["Cohen's weighted kappa", "reader 2"].note


def test_one_reader_and_equal_answers_say_why_there_is_no_number():
    one = by_measure(readings_of({"realism": [[1, 2, 3, 4] * 3]}, SOURCES), "realism")
    assert all(e.value is None for e in one.values())
    assert "two readers" in one["Krippendorff's alpha", ""].note
    same = by_measure(readings_of({"realism": [[3] * 12, [3] * 12]}, SOURCES), "realism")
    assert same["Krippendorff's alpha", ""].value is None
    assert "every answer was the same" in same["Fleiss' kappa between readers", ""].note


def test_readers_who_guess_do_not_agree():
    generator = np.random.default_rng(3)
    values = generator.integers(1, 5, (3, 200)).tolist()
    found = by_measure(readings_of({"realism": values}, ["scanner"] * 100 + ["model A"] * 100), "realism")
    for name in ("Krippendorff's alpha", "Fleiss' kappa between readers"):
        assert found[name, ""].low < 0 < found[name, ""].high and abs(found[name, ""].value) < 0.1
