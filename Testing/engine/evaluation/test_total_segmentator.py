"""The segmenter totalsegmentator: its process, progress, cancel and errors with a stand-in for the package."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import support

from medlord.errors import CancelledError, EngineError, InputError, InsufficientMemoryError, WeightsError
from medlord.evaluation.segmenters import find_segmenter
from medlord.evaluation.total_segmentator.segmenter import TotalSegmentator
from medlord.processes import process_exists, start_process
from medlord.volumes import Grid, Volume

STAND_IN = Path(support.__file__).parent / "totalsegmentator_stand_in"
GRID = Grid.centered((12, 10, 8), (5.0, 5.0, 6.0), (3.0, 4.0, 5.0), "LPS")


def chest() -> Volume:
    """Air, a block of lung and a block of heart."""
    array = np.full(GRID.shape, -1000, dtype=np.int16)
    array[2:6, 3:7, 2:6] = -850
    array[7:10, 3:7, 2:6] = 50
    return Volume(array, GRID)


class Runner:
    """Starts the process with the stand-in on its path; keeps what it started."""

    def __init__(self, **variables: str):
        self.variables, self.started = variables, []

    def __call__(self, arguments, environment, folder):
        path = os.pathsep.join((str(STAND_IN), environment["PYTHONPATH"]))
        process = start_process(arguments, {**environment, "PYTHONPATH": path, **self.variables}, folder)
        self.started.append((process, arguments, folder))
        return process


@pytest.fixture(autouse=True)
def no_settings_of_this_computer(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("TOTALSEG", "MEDLORD_TOTALSEGMENTATOR")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path / "home"))


@pytest.fixture
def weights(tmp_path):
    """A weights folder with what the stand-in looks for."""
    for number in (291, 297, 301):
        (tmp_path / "weights" / f"Dataset{number}_name").mkdir(parents=True)
    return tmp_path / "weights"


def test_masks_progress_and_log_come_back(weights, tmp_path, caplog):
    seen = tmp_path / "seen.json"
    runner = Runner(STAND_IN_SEEN=str(seen))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.json").write_text(
        '{"send_usage_stats": true, "license_number": "aca_users_own"}'
    )
    segmenter = find_segmenter("totalsegmentator:fast", weights=weights, device="cuda:1", runner=runner)
    events = []
    with caplog.at_level("INFO", "medlord.totalsegmentator"):
        found = segmenter.segment(chest(), ("heart", "lung_left", "lung_lower_lobe_left"), events.append)
    assert found.names == ["heart", "lung_left", "lung_lower_lobe_left"] and found.grid == GRID
    assert np.array_equal(found["heart"], chest().array == 50)
    assert np.array_equal(found["lung_left"], chest().array == -850), "the union of its lobes"
    assert not found["lung_lower_lobe_left"].any()
    bars = [(event.step, event.total, event.message) for event in events if event.total == 4]
    assert bars == [(step, 4, "Predicting part 1 of 2") for step in range(4)]
    assert {event.phase for event in events} == {"segment"}
    assert "Predicting part 1 of 2" in caplog.text and "%|" not in caplog.text
    told = json.loads(seen.read_text())
    assert (told["task"], told["fast"], told["device"], told["subset"]) == ("total", True, "gpu:1", None)
    assert told["settings"]["send_usage_stats"] is False, "nothing is sent"
    assert told["settings"]["license_number"] == "aca_users_own"
    assert json.loads((tmp_path / "home" / "config.json").read_text())["send_usage_stats"] is True
    assert told["home"].startswith(told["tmp"]) and not Path(told["tmp"]).exists(), (
        "all temporary files are gone"
    )


def test_structures_are_those_of_the_package_and_unions_of_them():
    segmenter = TotalSegmentator("total", runner=Runner())
    lobes = [name for name in segmenter.structures if "lobe" in name]
    assert (
        segmenter.structures == ("spleen", *lobes, "heart", "lung", "lung_left", "lung_right")
        and len(lobes) == 5
    )
    assert (segmenter.name, segmenter.version) == ("totalsegmentator", "2.99.0")
    with pytest.raises(
        InputError, match="task total of TotalSegmentator does not find 'liver'; it finds spleen"
    ):
        segmenter.segment(chest(), ["liver"])
    with pytest.raises(InputError, match="TotalSegmentator 2.99.0 has no task lung_vessels"):
        TotalSegmentator("lung_vessels", runner=Runner()).segment(chest(), ["lung_veins"])


def test_a_subset_is_passed_on_as_classes(weights, tmp_path):
    seen = tmp_path / "seen.json"
    segmenter = TotalSegmentator(
        subset=["lung", "heart"], weights=weights, runner=Runner(STAND_IN_SEEN=str(seen))
    )
    assert segmenter.structures == ("lung", "heart")
    assert segmenter.segment(chest(), segmenter.structures)["lung"].sum() == 64
    subset = json.loads(seen.read_text())["subset"]
    assert len(subset) == 6 and {"heart", "lung_middle_lobe_right"} < set(subset)


@pytest.mark.parametrize(
    ("what", "kind", "reason"),
    [
        (
            "crash",
            EngineError,
            "TotalSegmentator ended with exit code 3; the CT was not segmented. Its last line: about",
        ),
        ("killed", InsufficientMemoryError, "was ended by SIGKILL .*choose totalsegmentator:fast"),
        ("memory", InsufficientMemoryError, "ran out of memory .CUDA out of memory"),
        ("error", EngineError, "TotalSegmentator failed: ValueError: a strange value"),
    ],
)
def test_failures_are_one_line_with_the_log_beside_it(weights, what, kind, reason):
    runner = Runner(STAND_IN=what)
    with pytest.raises(kind, match=reason) as caught:
        TotalSegmentator(weights=weights, runner=runner).segment(chest(), ["heart"])
    assert len(str(caught.value).splitlines()) == 1 and "please cite" in caught.value.details
    assert not any(Path(folder).exists() for _, _, folder in runner.started)


def test_nothing_found_is_empty_masks(weights):
    found = TotalSegmentator(weights=weights, runner=Runner(STAND_IN="empty")).segment(
        chest(), ["heart", "spleen"]
    )
    assert found.names == ["heart", "spleen"] and not found["heart"].any() and not found["spleen"].any()


def test_weights_are_downloaded_only_with_consent(tmp_path):
    (tmp_path / "empty").mkdir()
    options = {"weights": tmp_path / "empty", "runner": Runner()}
    with pytest.raises(WeightsError, match="Dataset291. are not in .*empty.*--download-weights.*Apache-2.0"):
        TotalSegmentator(**options).segment(chest(), ["heart"])
    assert not list((tmp_path / "empty").iterdir())
    with pytest.raises(
        WeightsError, match="could not be downloaded .*Max retries exceeded. Check the network"
    ):
        TotalSegmentator(
            weights=tmp_path / "empty", download=True, runner=Runner(STAND_IN="offline")
        ).segment(chest(), ["heart"])
    assert TotalSegmentator(**options, download=True).segment(chest(), ["heart"])["heart"].any()
    assert (tmp_path / "empty" / "Dataset291_downloaded").is_dir()


def test_a_licence_key_is_explained_and_passed_on(weights, tmp_path):
    seen = tmp_path / "seen.json"
    options = {"task": "heartchambers_highres", "weights": weights}
    with pytest.raises(WeightsError, match="needs a licence key .*license-academic.*--license-key"):
        TotalSegmentator(**options, runner=Runner()).segment(chest(), ["heart_myocardium"])
    runner = Runner(STAND_IN_SEEN=str(seen))
    found = TotalSegmentator(**options, license_key="aca_secret", runner=runner).segment(
        chest(), ["heart_myocardium"]
    )
    assert found["heart_myocardium"].any() and json.loads(seen.read_text())["license"] == "aca_secret"
    assert not any("aca_secret" in " ".join(arguments) for _, arguments, _ in runner.started)
    logged = []
    with pytest.raises(WeightsError, match="refused the licence key") as caught:
        refusing = Runner(STAND_IN="licence")
        TotalSegmentator(**options, license_key="aca_wrong", runner=refusing).segment(
            chest(), ["heart_myocardium"], logged.append
        )
    said = [caught.value.details, *(event.message for event in logged)]
    assert any("license number ((licence key))" in words for words in said), "TotalSegmentator prints the key"
    assert not any("aca_wrong" in words for words in said)


def test_cancel_ends_the_process_and_removes_its_files(weights):
    runner, steps = Runner(STAND_IN="slow"), []
    with pytest.raises(CancelledError, match="Cancelled during the segmentation"):
        TotalSegmentator(weights=weights, runner=runner).segment(
            chest(), ["heart"], lambda event: steps.append(event.step), lambda: 1 in steps
        )
    process, _, folder = runner.started[-1]
    assert process.returncode is not None and not process_exists(process.pid) and not Path(folder).exists()


def test_what_cannot_run_is_said_before_anything_starts(tmp_path):
    runner = Runner()
    with pytest.raises(
        InputError, match="no segmenter 'totalsegmentator:brain'; choose one of hu-rules, totalseg"
    ):
        find_segmenter("totalsegmentator:brain")
    with pytest.raises(InputError, match="hu-rules has no options .subset"):
        find_segmenter("hu-rules", subset=["lung"])
    with pytest.raises(InputError, match="no task 'brain'"):
        TotalSegmentator("brain")
    with pytest.raises(InputError, match="subset can be chosen of the tasks total and fast, not of body"):
        TotalSegmentator("body", subset=["body"])
    with pytest.raises(InputError, match="no device 'tpu'"):
        TotalSegmentator(device="tpu")
    with pytest.raises(InputError, match="no folder .*nowhere"):
        TotalSegmentator(weights=tmp_path / "nowhere")
    scaled = Volume(np.clip(chest().array / 1000.0, 0, 1), GRID)
    with pytest.raises(InputError, match="volume to segment has values from 0 to 0"):
        TotalSegmentator(runner=runner).segment(scaled, ["heart"])
    assert not runner.started
