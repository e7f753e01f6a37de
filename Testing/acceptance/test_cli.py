"""The command line as people use it: real files, a tiny real model, exit codes and the one line of an error."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support.tiny_bundle import write_tiny_bundle
from support.wide_range_bundle import write_wide_range_bundle

import medlord
from medlord import phantom
from medlord.cli import VERBS, main
from medlord.recipe import load_recipe
from medlord.resources import BUNDLED_MODEL
from medlord.sampling.registry import SAMPLERS
from medlord.segmentation_files import write_segmentation
from medlord.volume_files import load_volume, save_volume
from medlord.volumes import Grid, Volume

GRID = Grid.centered((40, 40, 30), (8.0, 8.0, 8.0), (10.0, 20.0, 30.0), "LPS")


def masks() -> dict[str, np.ndarray]:
    """Body and both lungs as boxes, and what the model does not take."""
    found = {name: np.zeros(GRID.shape, bool) for name in ("body", "lung_left", "lung_right", "spleen")}
    found["body"][6:34, 8:32, 3:27] = True
    found["lung_left"][10:18, 12:28, 8:20] = True
    found["lung_right"][22:30, 12:28, 8:20] = True
    found["spleen"][10:14, 12:16, 4:6] = True
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """Folder of a tiny model."""
    return str(write_tiny_bundle(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory) -> str:
    """A Slicer segmentation file."""
    return str(write_segmentation(tmp_path_factory.mktemp("input") / "input.seg.nrrd", GRID, masks()))


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory, model, segmentation) -> Path:
    """A synthetic volume, with its recipe beside it."""
    out = tmp_path_factory.mktemp("synthetic") / "ct.nii.gz"
    words = ["--labelmap", segmentation, "--model", model, "--steps", "3", "--seed", "5", "--quiet"]
    assert main(["synthesize", *words, "--out", str(out), "--recipe-out", str(out.parent / "r.json")]) == 0
    return out


def run(*words: object) -> int:
    """One command in this process."""
    return main([str(word) for word in words])


def environment() -> dict[str, str]:
    """For a process of its own: the engine on the path, one computing thread."""
    return {**os.environ, "PYTHONPATH": str(Path(medlord.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def start(*words: object, **options) -> subprocess.Popen:
    """One command in a process of its own."""
    command = [sys.executable, "-m", "medlord.cli", *(str(word) for word in words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True}
    return subprocess.Popen(command, env=environment(), **{**pipes, **options})


def one_line(capsys, code: int, expected_code: int, *parts: str, out: str = "") -> str:
    """Check the exit code, the beginning of stdout, and that stderr is one line with the `parts`; return the line."""
    said = capsys.readouterr()
    assert code == expected_code and said.out.startswith(out) and bool(said.out) == bool(out), said
    lines = said.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("medlord: "), said.err
    assert all(part in lines[0] for part in parts), lines[0]
    return lines[0]


def test_a_segmentation_becomes_a_ct_in_its_place(synthetic, model):
    volume = load_volume(synthetic)
    assert volume.array.dtype == np.int16 and volume.grid.shape == (16, 16, 8)
    low, high = np.argwhere(masks()["body"]).min(axis=0) - 0.5, np.argwhere(masks()["body"]).max(axis=0) + 0.5
    middle = GRID.affine @ [*((low + high) / 2), 1]
    assert np.allclose(volume.grid.center_ras_mm, middle[:3], atol=0.01)
    recipe = load_recipe(synthetic)
    assert recipe == load_recipe(synthetic.parent / "r.json")
    assert (recipe.seed, recipe.steps, recipe.sampler) == (5, 3, "sde-dpm-solver++")
    assert set(recipe.conditions) == {"body", "lung"} and recipe.attributes == {"contrast_phase": "native"}


def test_what_is_said_on_the_way(capsys, tmp_path, model, segmentation):
    out = tmp_path / "ct.nrrd"
    words = ["--labelmap", segmentation, "--model", model, "--steps", 2, "--out", out]
    assert run("synthesize", *words, "--attribute", "contrast_phase=arterial") == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    expected = (
        "'lung' is made of lung_left, lung_right.",
        "Not used, since the model takes no such structure: spleen.",
        "Contrast phase arterial.",
        "Denoising 2/2",
        "Decoding",
        "Seed 0",
    )
    assert [text for text in expected if text not in said.err] == []
    assert load_recipe(out).attributes == {"contrast_phase": "arterial"}
    assert run("synthesize", *words, "--quiet", "--overwrite") == 0
    assert capsys.readouterr() == (f"{out}\n", "")


def test_a_recipe_makes_the_same_volume_again(capsys, tmp_path, synthetic, model):
    for source, name in ((synthetic, "a.nii.gz"), (synthetic.parent / "r.json", "b.nrrd")):
        assert run("synthesize", "--recipe", source, "--model", model, "--out", tmp_path / name, "-q") == 0
        again = load_volume(tmp_path / name)
        assert np.array_equal(again.array, load_volume(synthetic).array)
        assert again.grid.matches(load_volume(synthetic).grid)
        assert load_recipe(tmp_path / name) == load_recipe(synthetic)
    capsys.readouterr()
    code = run("synthesize", "--recipe", synthetic, "--out", tmp_path / "c.nii.gz", "--seed", 3)
    one_line(capsys, code, 2, "fixes --seed")
    save_volume(Volume(load_volume(synthetic).array, GRID_OF_TINY), tmp_path / "plain.nii.gz")
    code = run("synthesize", "--recipe", tmp_path / "plain.nii.gz", "--out", tmp_path / "c.nii.gz")
    one_line(capsys, code, 2, "plain.nii.gz carries no recipe")


GRID_OF_TINY = Grid.centered((16, 16, 8), (20, 20, 30))


def test_several_seeds_are_siblings(capsys, tmp_path, model, segmentation, synthetic):
    words = ["--labelmap", segmentation, "--model", model, "--steps", 3, "--out", tmp_path / "ct.nii.gz"]
    words += ["--recipe-out", tmp_path / "r.json", "-q"]
    assert run("synthesize", *words, "--seed", 4, "--count", 2) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / f"ct_{seed}.nii.gz") for seed in (4, 5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ct_4.nii.gz",
        "ct_5.nii.gz",
        "r_4.json",
        "r_5.json",
    ]
    four, five = (load_volume(tmp_path / f"ct_{seed}.nii.gz").array for seed in (4, 5))
    assert not np.array_equal(four, five) and np.array_equal(five, load_volume(synthetic).array)


def test_masks_in_files_of_their_own(capsys, tmp_path, model):
    for name in ("body", "lung_left"):
        save_volume(Volume(masks()[name], GRID), tmp_path / f"{name}.nii.gz")
    words = ["--condition", f"BODY={tmp_path / 'body.nii.gz'}"]
    words += ["--condition", f"Left lung={tmp_path / 'lung_left.nii.gz'}"]
    words += ["--condition", f"arota={tmp_path / 'lung_left.nii.gz'}"]
    assert run("synthesize", *words, "--model", model, "--steps", 2, "--out", tmp_path / "ct.nii.gz") == 0
    said = capsys.readouterr().err
    assert "Contrast phase native (default; --attribute contrast_phase=arterial or venous)." in said
    assert "Not used, since no structure of that name is known: 'arota' (nearest: aorta" in said
    assert "'body' is made of BODY." in said and "'lung' was put together without lung_right." in said
    assert set(load_recipe(tmp_path / "ct.nii.gz").conditions) == {"body", "lung"}


def test_a_labelmap_with_a_table_and_a_reference(capsys, tmp_path, model):
    labelmap = np.zeros(GRID.shape, np.uint8)
    labelmap[masks()["body"]], labelmap[masks()["lung_left"]], labelmap[0, 0, 0] = 1, 2, 9
    save_volume(Volume(labelmap, GRID), tmp_path / "map.nii.gz")
    (tmp_path / "names.json").write_text('{"1": "body", "2": "aorta"}')
    reference = Volume(np.where(labelmap > 0, 40, -1000).astype(np.int16), GRID)
    save_volume(reference, tmp_path / "real.nii.gz")
    words = ["--labelmap", tmp_path / "map.nii.gz", "--labels", tmp_path / "names.json", "--model", model]
    words += ["--steps", 2, "--out", tmp_path / "ct.nii.gz", "--reference", tmp_path / "real.nii.gz"]
    assert run("synthesize", *words) == 0
    assert "Label values without a name, not used: 9." in capsys.readouterr().err
    assert np.allclose(load_volume(tmp_path / "ct.nii.gz").grid.center_ras_mm, GRID.center_ras_mm, atol=0.01)


def test_a_phantom_can_be_synthesized_and_checked(capsys, tmp_path, model):
    words = ["--seed", 3, "--shape", 40, 32, 20, "--spacing", 9, 10, 14, "--phase", "arterial"]
    assert run("phantom", *words, "--out", tmp_path / "p") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'p'}\n"
    assert json.loads((tmp_path / "p" / "parameters.json").read_text())["contrast_phase"] == "arterial"
    ct, drawn = tmp_path / "p" / "ct.nii.gz", tmp_path / "p" / "segmentation.seg.nrrd"
    assert load_volume(ct).grid.shape == (40, 32, 20)
    words = ["--labelmap", drawn, "--model", model, "--steps", 2, "-q"]
    assert run("synthesize", *words, "--out", tmp_path / "ct.nii.gz") == 0
    words = [
        "--ct",
        ct,
        "--labelmap",
        drawn,
        "--out",
        tmp_path / "check.json",
        "--html",
        tmp_path / "check.html",
    ]
    assert run("check", *words) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-2:] == [str(tmp_path / "check.json"), str(tmp_path / "check.html")]
    report = json.loads((tmp_path / "check.json").read_text())
    dice = {row["name"]: row["dice"] for row in report["structures"]}
    # The phantom's own CT against its own masks: only the coarse voxels stand between.
    assert dice["body"] > 0.9 and dice["lung"] > 0.85
    assert report["segmenter"] == "hu-rules" and "aorta" in dice
    assert "<svg" in (page := (tmp_path / "check.html").read_text()) or "data:image/png" in page
    words += ["--overwrite", "--found", drawn, "--real", ct]
    one_line(capsys, run("check", *words), 2, "there is no ceiling; give --segmenter NAME instead")


def test_checking_a_synthetic_volume_takes_the_conditions_of_its_recipe(
    capsys, tmp_path, synthetic, segmentation
):
    # Random networks make no CT, so a plain one takes the place of their voxels; the recipe stays.
    made = load_volume(synthetic)
    body, lung = (load_recipe(synthetic).unpack_conditions()[name] for name in ("body", "lung"))
    made.array = np.where(lung, -850, np.where(body, 40, -1000)).astype(np.int16)
    save_volume(made, tmp_path / "ct.nii.gz")
    words = ["--ct", tmp_path / "ct.nii.gz", "--labelmap", segmentation, "--out", tmp_path / "check.json"]
    assert run("check", *words) == 0
    report = json.loads((tmp_path / "check.json").read_text())
    assert [row["name"] for row in report["structures"]] == ["body", "lung"]
    assert report["recipe"]["seed"] == 5 and "packed" not in json.dumps(report)
    capsys.readouterr()
    words[1] = synthetic
    one_line(capsys, run("check", *words, "--overwrite", "-q"), 2, "no CT in HU")


def test_models_are_listed_described_and_verified(capsys, tmp_path, model, monkeypatch):
    resources = tmp_path / "resources"
    write_tiny_bundle(resources / "Models", model_id="small")
    (resources / "vocabulary.json").write_text("{}")
    (resources / "Models" / "broken" / "configs").mkdir(parents=True)
    (resources / "Models" / "broken" / "configs" / "metadata.json").write_text("{")
    monkeypatch.setenv("MEDLORD_RESOURCES", str(resources))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    assert run("models", "list") == 0
    listed = dict(line.split("\t", 1) for line in capsys.readouterr().out.splitlines())
    assert "16 x 16 x 8 voxels of 20 x 20 x 30 mm" in listed["small"] and listed["broken"].startswith(
        "unusable"
    )
    assert run("models", "info", model) == 0
    said = capsys.readouterr().out
    assert "body, lung, bone, aorta" in said and "native | arterial | venous" in said
    assert run("models", "verify", model) == 0
    assert capsys.readouterr().out == "tiny\t3 files are whole\n"
    weights = resources / "Models" / "small" / "models" / "denoiser.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert run("models", "verify") == 4
    said = capsys.readouterr()
    listed = dict(line.split("\t", 1) for line in said.out.splitlines())
    assert "denoiser.safetensors" in listed["small"] and "metadata.json" in listed["broken"]
    assert said.err == "medlord: 2 of 2 models are damaged: broken, small; install them again.\n"
    one_line(
        capsys, run("models", "verify", resources / "Models" / "broken"), 4, "metadata.json", out="broken\t"
    )


def test_help_is_there_for_every_verb_and_loads_nothing_heavy(capsys):
    for verb in VERBS:
        with pytest.raises(SystemExit) as stop:
            run(verb, *(["quality"] if verb == "bench" else []), "--help")
        assert stop.value.code == 0
        said = " ".join(capsys.readouterr().out.split())
        # Written out by hand in the help, since reading the registry loads numpy.
        assert verb not in ("synthesize", "bench") or all(f" {sampler}" in said for sampler in SAMPLERS)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "medlord.cli", "--help"],
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and all(f"    {verb}" in done.stdout for verb in VERBS)
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "argparse" in loaded and not loaded & {"numpy", "scipy", "torch", "monai", "nibabel", "SimpleITK"}


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Wait until the progress in `path` says that denoising has begun."""
    deadline = time.monotonic() + 500
    while "Denoising" not in path.read_text():
        assert process.poll() is None and time.monotonic() < deadline, path.read_text()
        time.sleep(0.05)


@pytest.mark.timeout(600)
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_cancels_and_writes_nothing(tmp_path, model, segmentation):
    words = ["--labelmap", segmentation, "--model", model, "--sampler", "ddpm", "--count", 500]
    (tmp_path / "out").mkdir()
    said = tmp_path / "said"
    with said.open("w") as stream:
        process = start("synthesize", *words, "--out", tmp_path / "out" / "ct.nii.gz", stderr=stream)
        wait_for(said, process)
        written = len(list((tmp_path / "out").iterdir()))
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=90)
    assert process.returncode == 130, said.read_text()
    assert said.read_text().splitlines()[-1].startswith("medlord: Cancelled during")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert sorted(Path(line).name for line in output.splitlines()) == files and len(files) <= written + 1
    assert all(name.endswith(".nii.gz") and name.startswith("ct_") for name in files)


def readme_commands(repository: Path) -> list[list[str]]:
    """The words of every `medlord ...` line of the README's shell blocks, continued lines joined."""
    text = (repository / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    medlord ")]
    return [shlex.split(line)[1:] for line in lines]


def test_the_commands_of_the_readme_run_as_written(tmp_path, repository, monkeypatch):
    """A tiny model stands in for the bundled one, and the phantom has larger voxels; the rest is as written."""
    resources = tmp_path / "resources"
    write_tiny_bundle(resources / "Models", model_id=BUNDLED_MODEL)
    shutil.copy(repository / "Resources" / "vocabulary.json", resources)
    monkeypatch.setenv("MEDLORD_RESOURCES", str(resources))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    commands = [words for words in readme_commands(repository) if "my-ct" not in words]
    assert [words[0] for words in commands] == ["phantom", "synthesize", "synthesize"]
    coarse = ["--shape", "32", "32", "16", "--spacing", "11.2", "11.2", "20"]
    for words in commands:
        assert main([*words, *(coarse if words[0] == "phantom" else []), "-q"]) == 0, words
    first, again = (Path(words[words.index("--out") + 1]) for words in commands[1:])
    assert np.array_equal(load_volume(first).array, load_volume(again).array)
    assert (
        load_recipe(first).attributes == {"contrast_phase": "arterial"}
        and len(load_recipe(first).conditions) == 4
    )


def test_the_readmes_import_is_understood_and_asks_for_its_files(capsys, repository, tmp_path, monkeypatch):
    """Its options exist; what the reader has to bring, checkpoints and masks, is what is missing."""
    monkeypatch.chdir(tmp_path)
    commands = [words for words in readme_commands(repository) if "my-ct" in words]
    wanted = ("vqgan/best_model.pth", "my-ct", "my-ct")
    for words, said in zip(commands, wanted, strict=True):
        one_line(capsys, main(words), 2, said)
    assert not any(tmp_path.iterdir())


def test_the_readmes_python_runs_as_written(tmp_path, repository, monkeypatch):
    """All but the engine process, which other tests start; tiny models stand in, and the phantom has larger voxels."""
    text = (repository / "README.md").read_text(encoding="utf-8").partition("**In plain Python,**")[2]
    blocks = re.findall(r"(?:^ {4}.*\n|^\n)+", text.partition("\n## ")[0], re.MULTILINE)
    blocks = [
        block for block in map(textwrap.dedent, blocks) if block.strip() and "EngineClient" not in block
    ]
    assert len(blocks) == 2
    for name in (BUNDLED_MODEL, "my-ct"):
        write_tiny_bundle(tmp_path / "resources" / "Models", model_id=name)
    shutil.copy(repository / "Resources" / "vocabulary.json", tmp_path / "resources")
    monkeypatch.setenv("MEDLORD_RESOURCES", str(tmp_path / "resources"))
    monkeypatch.chdir(tmp_path)
    coarse = Grid.centered((32, 32, 16), (11.2, 11.2, 20.0))
    monkeypatch.setattr(phantom, "make_phantom", partial(phantom.make_phantom, grid=coarse))
    names: dict = {}
    for block in blocks:
        exec(block, names)
    assert np.array_equal(names["again"].volume.array, load_volume("ct.nii.gz").array)
    assert names["result"].recipe.attributes == {"contrast_phase": "arterial"}
    assert names["steered"].recipe.model == "my-ct" and names["free"].recipe.conditions == {}


def test_the_bundled_model_is_measured(capsys, tmp_path):
    """With a model whose volumes pass for CT; one phantom, two steps."""
    model = write_wide_range_bundle(tmp_path)
    words = ["--model", model, "--seeds", 1, "--steps", 2, "--sampler", "ddim", "--device", "cpu"]
    assert run("bench", "quality", *words, "--out", tmp_path / "new" / "bench") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "new" / "bench" / "benchmark.md")
    report = json.loads((tmp_path / "new" / "bench" / "benchmark.json").read_text())
    assert report["settings"]["sampler"] == "ddim" and list(report["cases"]) == ["900100"]
    one_line(capsys, run("bench", "quality", "--start", 5, "--out", tmp_path / "a" / "b"), 2, "trained on")
    one_line(
        capsys,
        run("bench", "quality", "--model", "huge", "--out", tmp_path / "a" / "b"),
        2,
        "no model 'huge'",
    )
    assert not (tmp_path / "a").exists()


def test_the_worker_is_a_verb():
    process = start("worker", "--idle-seconds", "5", stdin=subprocess.PIPE)
    ready = json.loads(process.stdout.readline())
    output, _ = process.communicate("", timeout=120)
    assert "ready" in ready.values() and process.returncode == 0
    assert all(json.loads(line) for line in output.splitlines())
