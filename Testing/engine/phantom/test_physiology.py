"""Fifty patients are built as people are."""

from __future__ import annotations

import numpy as np
import pytest

from medlord.phantom import measure_phantom, sample_parameters

SEEDS = range(5000, 5050)
pytestmark = pytest.mark.timeout(600)  # fifty phantoms are made before the first test


@pytest.fixture(scope="module")
def population():
    """Parameters and measures of fifty seeds."""
    parameters = [sample_parameters(seed) for seed in SEEDS]
    return [(p, measure_phantom(p, spacing_mm=6.5)) for p in parameters]


def test_lung_volumes(population):
    """Between a quiet expiration and full inspiration of a person of that sex and height.

    Functional residual capacity (here at 50 years) and total lung capacity by the equations in Stocks and Quanjer,
    Eur Respir J 8 (1995) 492-506; lying on the back takes up to a third of the former (Ibanez and Raurich,
    Intensive Care Med 8 (1982) 173-177).
    """
    for p, m in population:
        fluid = 0.0 if p.pleural_effusion is None else p.pleural_effusion.volume_ml
        height = p.height_cm / 100
        if p.sex == "female":
            capacity, residual = 6.60 * height - 5.79, 2.24 * height - 0.95
        else:
            capacity, residual = 7.99 * height - 7.08, 2.34 * height - 0.59
        assert 0.67 * residual <= (m.lung_ml + fluid) / 1000 <= 1.05 * capacity, p.seed
        # The left lung is the smaller one, unless the right was made small.
        if p.pleural_effusion is None and min(p.narrow_left, p.narrow_right) > 0.95:
            assert 0.36 <= m.left_lung_fraction <= 0.53, p.seed
    men = [m.lung_ml for p, m in population if p.sex == "male" and p.breathing > 0.6]
    women = [m.lung_ml for p, m in population if p.sex == "female" and p.breathing > 0.6]
    assert np.median(men) > 1.1 * np.median(women)


def test_more_breath_is_more_lung():
    volumes = [
        measure_phantom(sample_parameters(5001, breathing=b, pleural_effusion=False), 8.0).lung_ml
        for b in (0.1, 0.5, 1.0)
    ]
    assert volumes[0] < 0.85 * volumes[1] < 0.85 * volumes[2]


def test_heart_volumes(population):
    """Chambers with left-ventricular muscle: 250 to 950 ml, and each chamber of a human size.

    The limits are adult MR reference intervals (Kawel-Boehm et al., J Cardiovasc Magn Reson 22:87 (2020)), widened to
    hold any part of the heart cycle and people of 150 to 195 cm.
    """
    limits = {
        "heart_ventricle_left": (27, 260),
        "heart_ventricle_right": (26, 306),
        "heart_atrium_left": (16, 164),
        "heart_atrium_right": (18, 198),
        "heart_myocardium": (50, 220),
    }
    for p, m in population:
        assert 250 <= m.heart_ml <= 950, p.seed
        for name, (low, high) in limits.items():
            assert low <= m.chambers_ml[name] <= high, (p.seed, name)


def test_cardiothoracic_ratio(population):
    """0.5 is the upper limit on an upright film (Danzer, Am J Med Sci 157 (1919) 513); hearts lie wider in
    the supine patient and the less the breath."""
    ratios = [m.cardiothoracic_ratio for _, m in population]
    assert 0.44 <= np.median(ratios) <= 0.54
    assert min(ratios) >= 0.36 and max(ratios) <= 0.64


def test_aortic_diameter(population):
    """Ascending aorta 24 to 41 mm (Rogers et al. 2013), and as wide as the parameter says."""
    for p, m in population:
        assert 23 <= m.ascending_aorta_mm <= 42, p.seed
        assert m.ascending_aorta_mm == pytest.approx(p.aorta_diameter_mm, rel=0.06), p.seed


def test_most_bodies_fit_the_native_field_of_view(population):
    widths = np.array([m.body_width_mm for _, m in population])
    assert 270 <= widths.min() and widths.max() <= 430
    assert np.mean(widths <= 358) >= 0.7


def test_population_has_every_kind_of_case():
    many = [sample_parameters(seed, nodules=0, ground_glass=False) for seed in range(9000, 9060)]
    share = {
        phase: np.mean([p.contrast_phase == phase for p in many])
        for phase in ("native", "arterial", "venous")
    }
    assert share["native"] > 0.2 and share["arterial"] > 0.25 and share["venous"] > 0.12
    assert 0.3 < np.mean([p.sex == "female" for p in many]) < 0.65
    assert {p.kernel for p in many} == {"soft", "lung"}
    assert 0 < np.mean([p.pleural_effusion is not None for p in many]) < 0.35
