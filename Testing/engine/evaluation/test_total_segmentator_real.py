"""The real package TotalSegmentator and the real nnU-Net predictor, on a tiny model in TotalSegmentator's layout.

The Python that has the package is the one that MEDLORD_TOTALSEGMENTATOR_PYTHON names, else the running one, else that
of `make setup-checks`. Nothing is asked of the network.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import support

from medlord.cli import main
from medlord.errors import CancelledError
from medlord.evaluation.total_segmentator.segmenter import PYTHON_VARIABLE, TotalSegmentator
from medlord.phantom import make_phantom
from medlord.processes import start_process
from medlord.segmentation_files import write_segmentation
from medlord.volume_files import save_volume
from medlord.volumes import Grid

LUNG_VALUE = 10
"""That of lung_upper_lobe_left in the task total; here all of both lungs."""


@pytest.fixture(scope="module")
def python(repository) -> str:
    """A Python that has the package; skips where there is none."""
    own = repository / ".venv" / "totalsegmentator" / "bin" / "python"
    if os.environ.get(PYTHON_VARIABLE):
        return os.environ[PYTHON_VARIABLE]
    if importlib.util.find_spec("totalsegmentator"):
        return sys.executable
    if own.exists():
        return str(own)
    pytest.skip(
        f"no Python has the package TotalSegmentator: neither {PYTHON_VARIABLE} nor `make setup-checks`"
    )


@pytest.fixture(autouse=True)
def no_settings_of_this_computer(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("TOTALSEG", "MEDLORD_TOTALSEGMENTATOR")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def weights(python, tmp_path_factory) -> Path:
    """The folder of a model that was trained on the lungs of one phantom."""
    folder = tmp_path_factory.mktemp("weights")
    phantom = make_phantom(900_000, Grid.centered((80, 64, 64), (3.0, 3.0, 3.0)), contrast_phase="arterial")
    labels = np.where(phantom.conditions["lung"], LUNG_VALUE, 0).astype(np.uint8)
    np.savez(folder / "case.npz", hu=phantom.volume.array.T, labels=labels.T)
    script = Path(support.__file__).parent / "tiny_nnunet.py"
    done = subprocess.run(
        [python, script, folder / "case.npz", folder / "models"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "models"


@pytest.fixture(scope="module")
def case():
    """Another phantom, not at the model's own 3 mm."""
    return make_phantom(900_001, Grid.centered((60, 48, 48), (4.0, 4.0, 4.0), orientation="LPS"))


@pytest.mark.timeout(1200)
def test_a_check_on_the_command_line(case, weights, python, tmp_path, capsys, caplog):
    save_volume(case.volume, tmp_path / "ct.nii.gz")
    drawn = {"lung": case.conditions["lung"]}
    write_segmentation(tmp_path / "drawn.seg.nrrd", case.volume.grid, drawn)
    words = [
        "check", "--ct", tmp_path / "ct.nii.gz", "--labelmap", tmp_path / "drawn.seg.nrrd",
        "--out", tmp_path / "check.json", "--segmenter", "totalsegmentator:fast",
        "--segmenter-python", python, "--weights", weights, "--device", "cpu",
    ]  # fmt: skip
    with caplog.at_level("INFO", "medlord.totalsegmentator"):
        code = main([str(word) for word in words])
    said = capsys.readouterr()
    assert code == 0, said.err
    report = json.loads((tmp_path / "check.json").read_text())
    (row,) = (row for row in report["structures"] if row["name"] == "lung")
    # The union of five lobes, of which this model knows one. A flipped mask has at most 0.69.
    assert row["dice"] > 0.8 and report["segmenter"] == "totalsegmentator:fast"
    assert "Segment 64/64" in said.err, "the bars of the sliding window"
    assert "Predicted in" in caplog.text and "%|" not in caplog.text
    assert said.out.strip() == str(tmp_path / "check.json")


@pytest.mark.timeout(600)
def test_progress_and_cancel_within_the_prediction(case, weights, python):
    started, events = [], []

    def runner(*arguments):
        started.append((start_process(*arguments), arguments[2]))
        return started[-1][0]

    segmenter = TotalSegmentator("fast", weights=weights, device="cpu", python=python, runner=runner)
    assert {"lung_upper_lobe_left", "heart", "lung"} < set(segmenter.structures)
    assert segmenter.version.startswith("2.")
    with pytest.raises(CancelledError, match="during the segmentation by TotalSegmentator"):
        segmenter.segment(case.volume, ["heart"], events.append, lambda: any(e.total > 1 for e in events))
    assert (events[-1].step, events[-1].total) == (0, 64) and "Predicting" in events[-1].message
    process, folder = started[-1]
    left = [other for other in psutil.process_iter() if _works_in_group(other, process.pid)]
    psutil.wait_procs(left, timeout=30)
    assert not any(_works_in_group(other, process.pid) for other in left), "nnU-Net's own processes ended too"
    assert not Path(folder).exists()


def _works_in_group(process: psutil.Process, group: int) -> bool:
    try:
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


@pytest.mark.timeout(600)
def test_what_is_missing_is_one_line(case, python, tmp_path, capsys):
    save_volume(case.volume, tmp_path / "ct.nii.gz")
    (tmp_path / "empty").mkdir()
    words = ["segment", "--ct", tmp_path / "ct.nii.gz", "--out", tmp_path / "found.seg.nrrd"]
    words += ["--segmenter-python", python, "--weights", tmp_path / "empty", "--segmenter"]
    for task, reason in {
        "body": "weights for the task body (Dataset299) are not in ",
        "heartchambers_highres": "task heartchambers_highres cannot run: it needs a licence key from TotalSegmentator",
    }.items():
        assert main([*map(str, words), f"totalsegmentator:{task}"]) == 4
        said = capsys.readouterr().err.strip().splitlines()
        assert reason in said[-1] and not any("Traceback" in line for line in said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.nii.gz", "empty"]
