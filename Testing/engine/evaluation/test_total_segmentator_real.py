"""The real package TotalSegmentator and the real nnU-Net predictor, on a tiny model in TotalSegmentator's layout.

Runs where the package is installed in this Python, or in the one that MEDLORD_TOTALSEGMENTATOR_PYTHON names.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import support

from medlord.conditions import Conditions
from medlord.errors import CancelledError, WeightsError
from medlord.evaluation.adherence import dice
from medlord.evaluation.scorecard import check_volume
from medlord.evaluation.total_segmentator.segmenter import PYTHON_VARIABLE, TotalSegmentator, is_installed
from medlord.phantom import make_phantom
from medlord.volumes import Grid, Volume, resample_mask, resample_volume

pytestmark = pytest.mark.skipif(
    not is_installed(),
    reason=f"the package TotalSegmentator is not installed, and {PYTHON_VARIABLE} names no Python that has it",
)

LUNG_VALUE = 10
"""That of lung_upper_lobe_left in the task total; here all of both lungs."""


@pytest.fixture(scope="module")
def case():
    """A phantom at 4 mm: small, and not the model's own 3 mm."""
    phantom = make_phantom(900_000, contrast_phase="arterial")
    grid = Grid.centered((88, 72, 72), (4.0, 4.0, 4.0), tuple(phantom.volume.grid.center_ras_mm))
    return Volume(resample_volume(phantom.volume, grid).array, grid), phantom.conditions.resampled(grid)


@pytest.fixture(scope="module")
def weights(case, tmp_path_factory):
    """The folder of a model that was trained on the phantom's lungs."""
    volume, conditions = case
    folder = tmp_path_factory.mktemp("weights")
    grid = Grid.centered((116, 96, 96), (3.0, 3.0, 3.0), tuple(volume.grid.center_ras_mm))
    labels = np.zeros(grid.shape, np.uint8)
    labels[resample_mask(conditions["lung"], volume.grid, grid)] = LUNG_VALUE
    np.savez(folder / "case.npz", hu=resample_volume(volume, grid).array.T, labels=labels.T)
    program = os.environ.get(PYTHON_VARIABLE) or sys.executable
    script = Path(support.__file__).parent / "tiny_nnunet.py"
    done = subprocess.run(
        [program, script, folder / "case.npz", folder / "models"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "models"


@pytest.mark.timeout(1800)
def test_the_whole_path_with_progress(case, weights):
    volume, conditions = case
    segmenter = TotalSegmentator("fast", weights=weights, device="cpu")
    assert len(segmenter.structures) > 117 and "lung" in segmenter.structures
    assert segmenter.version.startswith("2.")
    events = []
    found = segmenter.segment(volume, ("lung_upper_lobe_left", "heart"), events.append)
    assert found.grid == volume.grid and not found["heart"].any()
    assert dice(found["lung_upper_lobe_left"], conditions["lung"]) > 0.9
    assert any(event.total > 1 and event.step == event.total for event in events), (
        "bars of the sliding window"
    )
    assert any("Predicting" in event.message for event in events)


@pytest.mark.timeout(1800)
def test_a_check_by_the_model(case, weights):
    volume, conditions = case
    segmenter = TotalSegmentator("fast", weights=weights, device="cpu")
    lungs = Conditions(conditions.grid, {"lung_upper_lobe_left": conditions["lung"]})
    card, _ = check_volume(volume, lungs, segmenter)
    (row,) = (row for row in card.adherence.structures if row.name == "lung_upper_lobe_left")
    assert row.dice > 0.9 and card.segmenter == "totalsegmentator:fast"


@pytest.mark.timeout(600)
def test_cancel_and_missing_weights(case, weights, tmp_path):
    volume, _ = case
    events = []
    with pytest.raises(CancelledError):
        TotalSegmentator("fast", weights=weights, device="cpu").segment(
            volume, ["heart"], events.append, lambda: len(events) > 2
        )
    with pytest.raises(WeightsError, match="Dataset299. are not in"):
        TotalSegmentator("body", weights=tmp_path, device="cpu").segment(volume, ["body"])
