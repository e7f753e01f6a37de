"""Cases: from phantoms and from files, in every orientation, with the whole HU range."""

from __future__ import annotations

import numpy as np
import pytest

from medlord.conditions import Conditions
from medlord.errors import InputError
from medlord.training.cases import load_case, prepare_files, prepare_phantoms, save_case, to_network
from medlord.training.pipeline import TrainingPlan
from medlord.volume_files import save_volume
from medlord.volumes import Grid, Volume

SHAPE, SPACING = (16, 16, 8), (20.0, 20.0, 30.0)
NAMES = ["body", "lung", "bone"]


def test_cases_keep_voxels_masks_and_attributes(tmp_path, write_cases):
    write_cases(tmp_path / "cases")
    case = load_case(tmp_path / "cases" / "case_001.npz")
    assert case.image_hu.shape == SHAPE and case.conditions == ["body", "lung"]
    assert case.masks[1].sum() == 3 * 6 * 4 and abs(case.image_hu[case.masks[1]].mean() + 850) < 5
    assert case.attributes == {"contrast_phase": "arterial"}


def test_an_engineers_own_files_become_cases(tmp_path):
    grid = Grid.centered((32, 32, 16), (10.0, 10.0, 15.0))
    hu = np.full(grid.shape, -1000, np.int16)
    hu[8:24, 8:24, 4:12] = 50
    ct = save_volume(Volume(hu, grid), tmp_path / "ct.nii.gz")
    body = save_volume(Volume(hu > 0, grid), tmp_path / "body.nii.gz")
    entry = {"ct": str(ct), "conditions": {"body": str(body)}, "attributes": {"contrast_phase": "native"}}
    prepare_files(tmp_path / "cases", [entry], Grid.centered(SHAPE, SPACING), ["body", "lung"])
    case = load_case(tmp_path / "cases" / "case_000001.npz")
    assert case.masks[0].sum() == 8 * 8 * 4 and not case.masks[1].any()
    with pytest.raises(InputError, match="unknown conditions"):
        entry["conditions"] = {"liver": str(body)}
        prepare_files(tmp_path / "more", [entry], Grid.centered(SHAPE, SPACING), ["body"])


def test_cases_keep_hu_that_a_wide_window_shows(tmp_path):
    grid = Grid.centered((2, 1, 1), (1.0, 1.0, 1.0))
    volume = Volume(np.array([-2000.0, 8000.0], np.float32).reshape(grid.shape), grid)
    conditions = Conditions(grid, {"body": np.ones(grid.shape, bool)})
    save_case(tmp_path / "case.npz", volume, conditions, {})
    assert load_case(tmp_path / "case.npz").image_hu.ravel().tolist() == [-2000, 8000]


def test_network_sees_the_window_from_minus_one_to_one():
    hu = np.array([-3000, -1000, -200, 600, 1400, 3000], np.int16)
    assert to_network(hu, (-1000, 1400)).tolist() == pytest.approx([-1, -1, -1 / 3, 1 / 3, 1, 1])
    assert to_network(hu, (-1000, 1000)).tolist() == pytest.approx([-1, -1, -0.2, 0.6, 1, 1])


@pytest.mark.parametrize(("window", "value"), [([-1000, 1000], 1.0), ([-1000, 3000], 0.0)])
def test_the_autoencoder_trains_with_the_window_of_the_configuration(plan, monkeypatch, window, value):
    from medlord.training import autoencoder

    made = []
    original = autoencoder.CropSource.batch
    monkeypatch.setattr(
        autoencoder.CropSource, "batch", lambda *given: made.append(original(*given)) or made[-1]
    )
    for path in (plan.folder / "cases").glob("*.npz"):
        case = load_case(path)
        volume = Volume(np.full(SHAPE, 1000, np.int16), plan.grid)
        masks = dict(zip(case.conditions, case.masks, strict=True))
        save_case(path, volume, Conditions(plan.grid, masks), case.attributes)
    plan.config["window_hu"] = window
    plan.config["autoencoder"]["training"]["steps"] = 1
    TrainingPlan(plan.config, plan.folder).run("autoencoder")
    assert made[0].unique().tolist() == [value]


def test_phantom_cases_follow_the_orientation_of_the_grid(tmp_path):
    made = {}
    for orientation in ("RAS", "LPS"):
        grid = Grid.centered((24, 20, 16), (16.0, 16.0, 22.0), orientation=orientation)
        prepare_phantoms(tmp_path / orientation, [1], grid, NAMES)
        made[orientation] = load_case(tmp_path / orientation / "phantom_000001.npz")
    ras, lps = made["RAS"], made["LPS"]
    assert (ras.masks[:, ::-1, ::-1] == lps.masks).mean() > 0.999
    assert (ras.masks == lps.masks).mean() < 0.97
    assert np.abs(ras.image_hu[::-1, ::-1].astype(float) - lps.image_hu).mean() < 15


def test_cases_from_files_follow_the_orientation_of_the_grid(tmp_path):
    grid = Grid.centered((32, 32, 16), (10.0, 10.0, 15.0), (30.0, -20.0, 400.0))
    hu = np.full(grid.shape, -1000, np.int16)
    hu[4:16, 8:14, 2:8] = 50
    ct = save_volume(Volume(hu, grid), tmp_path / "ct.nii.gz")
    body = save_volume(Volume(hu > 0, grid), tmp_path / "body.nii.gz")
    entry = {"ct": str(ct), "conditions": {"body": str(body)}}
    for orientation in ("RAS", "LPS"):
        target = Grid.centered(SHAPE, SPACING, orientation=orientation)
        prepare_files(tmp_path / orientation, [entry], target, ["body"])
    ras, lps = (load_case(tmp_path / name / "case_000001.npz") for name in ("RAS", "LPS"))
    assert np.array_equal(ras.masks[:, ::-1, ::-1], lps.masks) and not np.array_equal(ras.masks, lps.masks)
    assert np.abs(ras.image_hu[::-1, ::-1].astype(int) - lps.image_hu).max() <= 1


@pytest.mark.parametrize("orientation", ["RAS", "SRA"])
def test_prepare_makes_truncated_cases_once_and_knows_them_again(tmp_path, config, orientation):
    shape, spacing, axis = ([24, 20, 16], [16, 16, 22], 2)
    if orientation == "SRA":
        shape, spacing, axis = ([16, 24, 20], [22, 16, 16], 0)
    config["grid"] = {"shape": shape, "spacing_mm": spacing, "orientation": orientation}
    config["data"] = {"first_seed": 5, "cases": 3, "truncated_share": 1}
    plan = TrainingPlan(config, tmp_path)
    plan.run("prepare")
    paths = sorted((tmp_path / "cases").glob("*.npz"))
    assert [path.stem for path in paths] == ["phantom_000005", "phantom_000006", "phantom_000007"]
    emptied = 0
    for case in map(load_case, paths):
        slices = np.moveaxis(case.image_hu, axis, 0).reshape(16, -1)
        empty = (slices == -1000).all(axis=1)
        assert not np.moveaxis(case.masks, axis + 1, 0)[:, 0][empty].any() and case.masks[0].any()
        assert not empty[4:12].any()
        emptied += int(empty.sum())
    assert emptied > 0
    times = [path.stat().st_mtime_ns for path in paths]
    plan.run("prepare")
    assert [path.stat().st_mtime_ns for path in paths] == times
    config["data"]["first_seed"] = 6
    with pytest.raises(InputError, match=r"data.first_seed: 5 before, 6 now\); choose a new working"):
        TrainingPlan(config, tmp_path).run("prepare")
    assert sorted((tmp_path / "cases").glob("*.npz")) == paths


@pytest.mark.parametrize("stage", ["prepare", "autoencoder"])
def test_cases_of_unknown_origin_are_not_mixed_with_new_ones(plan, stage):
    (plan.folder / "cases" / "made_from.json").unlink()
    with pytest.raises(InputError, match="grid: nothing before"):
        plan.run(stage)
    assert not list((plan.folder / "cases").glob("phantom*"))
