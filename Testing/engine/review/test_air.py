"""What lies around the body is the same air in every case, and nothing of the body goes with it."""

from __future__ import annotations

import numpy as np
import pytest
from support.review_volumes import thorax

from medlord.review.air import replace_surroundings
from medlord.review.cases import oriented
from medlord.volume_files import load_volume

SPACING_MM = np.array([8.0, 8.0, 8.0])
REPLACED, LEFT = "replaced", "the body could not be told from its surroundings; left as it was"


def replaced(values: np.ndarray) -> str:
    """What is said of `values`, which are changed."""
    return replace_surroundings(values, SPACING_MM, -1000.0, 10.0, np.random.default_rng(0))


def test_a_thick_table_goes_though_its_foam_is_as_dense_as_lung():
    values = thorax(1)
    values[:, -6:] = -750.0
    before = values.copy()
    assert np.mean(before == -750) > 0.1
    assert replaced(values) == REPLACED
    assert not np.any(values == -750) and values[:, -6:].std() == pytest.approx(10, abs=1)
    tissue = before > -200
    assert np.array_equal(values[tissue], before[tissue]), "nothing of the body is lost"


def test_a_lung_that_was_taken_for_the_air_of_the_room_is_not_erased():
    """Lungs nearly as thin as air, open to the room on both sides, as in a field of view that cuts the ribs off."""
    values = thorax(1)
    values[:12] = values[-12:] = -905.0
    values[(values > -900) & (values < -800)] = -905.0
    values[:, :8] = values[:, -8:] = -1000.0
    before = values.copy()
    assert replaced(values) == LEFT
    assert np.array_equal(values, before)


def test_a_body_beside_something_larger_is_not_erased(monkeypatch):
    values = thorax(1)
    small = np.zeros(values.shape, bool)
    small[22:26, 30:34] = True
    monkeypatch.setattr("medlord.review.air._body", lambda *_given: (small, small))
    assert replaced(values) == LEFT


def test_the_table_of_a_real_scan_goes(shared):
    path = shared / "data" / "ct" / "chest_lidc0314_tiny.nii.gz"
    if not path.is_file():
        pytest.skip(f"reference data not here: {path.name}")
    volume = oriented(load_volume(path))
    values = volume.array.astype(np.float32)
    spacing_mm, generator = volume.grid.spacing_mm, np.random.default_rng(0)
    assert replace_surroundings(values, spacing_mm, -1000.0, 10.0, generator) == REPLACED
    assert (values[:, -3:] > -900).mean() < 0.01 < (volume.array[:, -3:] > -900).mean()
