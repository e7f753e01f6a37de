"""The demo as a user runs it: through a MRML scene and the engine process, and without a scene."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.wide_range_bundle import write_wide_range_bundle

from medlord.cli import main
from medlord.demo import DEMO_SEED, FILE_NAMES, DemoFiles, run_demo
from medlord.errors import CancelledError, InputError
from medlord.phantom import make_phantom
from medlord.recipe import Recipe
from medlord.segmentation_files import read_segmentation
from medlord.synthesis import repeat_recipe
from medlord.volume_files import load_volume

needs_mrml = pytest.mark.skipif(
    importlib.util.find_spec("slicer") is None,
    reason="needs slicer-core, which has no wheel for this platform",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(write_wide_range_bundle(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def without_scene(model, tmp_path_factory):
    """(files, progress events) of a demo that goes straight to the engine process."""
    events = []
    files = run_demo(
        tmp_path_factory.mktemp("out") / "new" / "demo", events.append, model=model, device="cpu"
    )
    return files, events


@needs_mrml
def test_through_the_scene(model, tmp_path, repository, without_scene):
    out = tmp_path / "demo"
    command = [sys.executable, str(repository / "scripts" / "demo.py")]
    options = ["--out", str(out), "--model", model, "--device", "cpu"]
    ended = subprocess.run([*command, *options], capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert sorted(path.name for path in out.iterdir()) == sorted(FILE_NAMES)
    ct = load_volume(out / "ct.nrrd")
    assert b"medlord_synthetic" in (out / "ct.nrrd").read_bytes().split(b"\n\n")[0].lower()
    assert ct.recipe == json.loads((out / "recipe.json").read_text())
    assert np.array_equal(ct.array, load_volume(without_scene[0].ct).array), (
        "the scene adds and loses nothing"
    )
    assert (
        str(out / "report.html") in ended.stdout and "slicer.util.loadVolume" in ended.stdout.splitlines()[-1]
    )
    assert "Denoising" in ended.stderr


def test_without_a_scene(model, without_scene):
    files, events = without_scene
    assert sorted(path.name for path in files.ct.parent.iterdir()) == sorted(FILE_NAMES)
    phases = list(dict.fromkeys(event.phase for event in events))
    assert [phase for phase in phases if phase in ("paint", "denoise", "decode", "report")] == [
        "paint", "denoise", "decode", "report"]  # fmt: skip
    ct = load_volume(files.ct)
    again = repeat_recipe(Recipe.from_dict(ct.recipe), model=model, device="cpu")
    assert np.array_equal(again.volume.array, ct.array)
    case = make_phantom(DEMO_SEED, contrast_phase="arterial")
    drawn = read_segmentation(files.segmentation).conditions(case.conditions.names).conditions
    assert all(np.array_equal(drawn[name], case.conditions[name]) for name in drawn.names)
    assert set(drawn.names) == {name for name, mask in case.conditions.masks.items() if mask.any()}
    page = files.report.read_text(encoding="utf-8")
    assert "SYNTHETIC" in page and "not clinical validity" in page


@pytest.fixture
def older(tmp_path) -> Path:
    """A folder with the files of an older demo and something of the user."""
    folder = tmp_path / "older"
    folder.mkdir()
    for name in (*FILE_NAMES, "notes.txt"):
        (folder / name).write_text(f"{name} of yesterday")
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every entry of a folder, hidden ones too, with its content."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_new_files_take_the_place_of_an_older_demo(older, model):
    before = snapshot(older)
    run_demo(older, model=model, device="cpu")
    after = snapshot(older)
    assert set(after) == set(before) and after["notes.txt"] == before["notes.txt"]
    assert all(after[name] != before[name] for name in FILE_NAMES)


@pytest.mark.parametrize("phase", ["paint", "decode"])
def test_cancel_leaves_the_folder_as_it_was(model, older, tmp_path, phase):
    before = snapshot(older)
    phases = []
    cancelled = {"cancel": lambda: phase in phases, "model": model, "device": "cpu"}
    for folder in (older, tmp_path / "new" / "demo")[: 2 if phase == "paint" else 1]:
        phases.clear()
        with pytest.raises(CancelledError):
            run_demo(folder, lambda event: phases.append(event.phase), **cancelled)
    assert snapshot(older) == before and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("--device cuda:9", 2),
        ("--seed -1", 2),
        ("--phantom-seed 3", 2),
        ("--model damaged", 4),
        ("--model nowhere", 2),
    ],
)
def test_faults_leave_the_folder_as_it_was(capsys, monkeypatch, model, older, tmp_path, options, code):
    shutil.copytree(model, tmp_path / "damaged")
    weights = tmp_path / "damaged" / "models" / "denoiser.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    monkeypatch.chdir(tmp_path)
    before = snapshot(older)
    choice = [] if "--model" in options else ["--model", model]
    for folder in (older, tmp_path / "new" / "demo"):
        assert main(["demo", *options.split(), *choice, "--out", str(folder)]) == code
        assert capsys.readouterr().err.count("\n") == 1, "it fails before anything is painted"
    assert snapshot(older) == before and not (tmp_path / "new").exists()


def test_bad_input_writes_nothing(model, tmp_path):
    file = tmp_path / "taken"
    file.write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        run_demo(file, model=model)
    with pytest.raises(InputError, match="trained on"):
        run_demo(tmp_path / "out", model=model, phantom_seed=1000)
    with pytest.raises(InputError):
        run_demo(tmp_path / "out", model="no-such-model")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"] and file.read_text() == "mine"


def test_how_to_open_names_every_file():
    lines = "\n".join(DemoFiles.within(Path("out/demo")).how_to_open())
    assert all(name in lines for name in FILE_NAMES)
