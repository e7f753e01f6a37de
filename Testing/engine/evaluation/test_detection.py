"""It tells good from bad: two phantoms, good and spoiled in ten ways (`support.detection_table` runs thirty)."""

from __future__ import annotations

import pytest
from support.detection_table import GOOD, is_flagged, markdown, verdicts_of
from support.spoiled_phantoms import SPOILERS

from medlord.phantom import make_phantom
from medlord.volumes import Grid

SEEDS = (910_000, 910_001)


@pytest.fixture(scope="module")
def results():
    """Seed -> name -> verdict; voxels of 4 x 4 x 6 mm, a fifth as many as the model's."""
    grid = Grid.centered((88, 88, 52), (4.0, 4.0, 6.2))
    cases = [make_phantom(seed, grid) for seed in (*SEEDS, SEEDS[-1] + 1)]
    return {str(seed): dict(verdicts_of(cases[n], cases[n + 1], seed, None)) for n, seed in enumerate(SEEDS)}


@pytest.mark.parametrize("fault", list(SPOILERS))
def test_spoiled_volumes_are_flagged(results, fault):
    for verdicts in results.values():
        assert is_flagged(verdicts[fault]), verdicts[fault]


def test_good_volumes_are_not(results):
    for verdicts in results.values():
        assert not is_flagged(verdicts[GOOD]), verdicts[GOOD]


def test_the_reasons_name_what_was_done(results):
    words = {
        "left and right swapped": ("Left and right seem swapped",),
        "shifted by 20 mm": ("lies off the drawn mask",),
        "HU scaled to [0, 1]": ("no CT in HU",),
        "HU offset of 200": ("HU are offset or scaled", "HU were clipped"),
        "slices shuffled": ("out of order",),
        "seams": ("a seam of tiles",),
        "blur": ("blurred",),
        "constant volume": ("no CT in HU",),
    }
    for verdicts in results.values():
        for fault, texts in words.items():
            reasons = " ".join(verdicts[fault]["reasons"])
            assert any(text in reasons for text in texts), verdicts[fault]


def test_the_table(results):
    table = markdown(results)
    assert "| good | 0 of 2 |" in table and "| blur | 2 of 2 |" in table
    assert len(table.splitlines()) == 2 + 1 + len(SPOILERS)
