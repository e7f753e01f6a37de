"""The verb `check` as the engine process does it: exchange files in, exchange files out."""

from __future__ import annotations

import numpy as np
import pytest

from medlord import exchange
from medlord.client_messages import check_result_of
from medlord.conditions import Conditions
from medlord.errors import CancelledError, InputError
from medlord.evaluation.reference import find_reference
from medlord.volumes import Grid, Volume
from medlord.worker_check import check


@pytest.fixture
def files(tmp_path):
    """A folder with a small chest and its masks; the right lung of the masks is not in the CT."""
    grid = Grid.centered((30, 26, 20), (12.0, 12.0, 16.0), (5.0, -10.0, 20.0))
    hu, masks = np.full(grid.shape, -1000.0), {name: np.zeros(grid.shape, bool) for name in ("body", "lung")}
    masks["body"][3:27, 4:22] = True
    masks["lung"][5:13, 7:18, 3:17] = masks["lung"][17:25, 7:18, 3:17] = True
    hu[masks["body"]] = 40
    hu[5:13, 7:18, 3:17] = -850
    hu += np.random.default_rng(0).normal(0, 15, grid.shape)
    exchange.write_volume(tmp_path / "volume.npz", Volume(hu.astype(np.int16), grid))
    exchange.write_conditions(tmp_path / "conditions.npz", Conditions(grid, masks))
    return tmp_path


def run(folder, **options):
    given = {"conditions": str(folder / "conditions.npz"), "cancel": lambda: False, **options}
    answer = check(
        folder=str(folder), volume=str(folder / "volume.npz"), progress=lambda event: None, **given
    )
    return check_result_of(answer)


def test_scorecard_masks_positions_and_distributions(files):
    result = run(files, reference="thorax-phantom", contrast_phase="native")
    lung = next(row for row in result.report["structures"] if row["name"] == "lung")
    drawn = exchange.read_conditions(files / "conditions.npz")["lung"]
    found = result.found["lung"]
    overlap = 2 * np.count_nonzero(found & drawn) / (np.count_nonzero(found) + np.count_nonzero(drawn))
    assert lung["dice"] == pytest.approx(overlap) and 0.5 < overlap < 0.8
    assert result.report["verdict"]["level"] == "red"
    # The missing lung is that with the higher index i; its middle is where to look.
    index = np.linalg.inv(result.found.grid.affine) @ (*result.positions_ras_mm["lung"], 1)
    assert 17 <= index[0] < 25
    whole = find_reference("thorax-phantom", "hu-rules").subgroup({"contrast_phase": "native"})
    value, percentile, reference = result.distributions["lung"]
    assert reference == whole.values("lung", result.measure).tolist()
    assert percentile == pytest.approx(100 * np.mean(np.asarray(reference) < value), abs=1)


def test_an_existing_segmentation_and_a_real_ct(files):
    existing = run(files, found=str(files / "conditions.npz"))
    assert [row["dice"] for row in existing.report["structures"]] == [1.0, 1.0]
    assert existing.report["segmenter"] == "labelmap" and not existing.distributions
    with_ceiling = run(files, real=str(files / "volume.npz"))
    assert all(row["ceiling_dice"] == row["dice"] for row in with_ceiling.report["structures"])


def test_without_masks_the_volume_is_judged_alone(files):
    result = run(files, conditions=None, reference="none")
    assert result.report["structures"] == [] and result.report["reference"] is None
    assert result.found["body"].any() and "body" in result.positions_ras_mm


def test_errors_come_before_any_file(files):
    before = sorted(files.iterdir())
    with pytest.raises(InputError, match="no segmenter 'guess'"):
        run(files, segmenter="guess")
    with pytest.raises(CancelledError):
        run(files, cancel=lambda: True)
    assert sorted(files.iterdir()) == before
