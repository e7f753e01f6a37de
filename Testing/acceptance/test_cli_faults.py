"""Bad input on the command line: one clear line, the right exit code, nothing written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from support.tiny_bundle import write_tiny_bundle

import medlord
from medlord.cli import main
from medlord.segmentation_files import write_segmentation
from medlord.volume_files import save_volume
from medlord.volumes import Grid, Volume

GRID = Grid.centered((20, 20, 16), (16.0, 16.0, 16.0))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A folder with one file per fault, good ones too, and a tiny model."""
    folder = tmp_path_factory.mktemp("inputs")
    write_tiny_bundle(folder)
    body = np.zeros(GRID.shape, bool)
    body[3:17, 4:16, 2:14] = True
    write_segmentation(folder / "good.seg.nrrd", GRID, {"body": body})
    write_segmentation(folder / "empty.seg.nrrd", GRID, {"body": ~body & body, "lung": ~body & body})
    write_segmentation(folder / "strangers.seg.nrrd", GRID, {"Left": body, "Segment_2": body})
    save_volume(Volume(body, GRID), folder / "mask.nii.gz")
    save_volume(Volume(body[:10], Grid.centered((10, 20, 16), (16, 16, 16))), folder / "other.nii.gz")
    save_volume(Volume(np.where(body, 0.7, 0.0) * 1000, GRID), folder / "mr.nii.gz")
    save_volume(Volume(np.full(GRID.shape, 40, np.int16), GRID), folder / "unnamed.nii.gz")
    for name, row, column, value in (("nan", 0, 0, np.nan), ("singular", 1, 1, 0.0), ("sheared", 0, 1, 5.0)):
        image = nibabel.Nifti1Image(body.astype(np.uint8), GRID.affine)
        image.header["sform_code"], image.header["qform_code"] = 1, 0
        image.header["srow_x" if row == 0 else "srow_y"][column] = value
        data = image.header.binaryblock[:108] + np.float32(352).tobytes() + image.header.binaryblock[112:]
        (folder / f"{name}.nii").write_bytes(data + bytes(4) + body.astype(np.uint8).tobytes(order="F"))
    image = nibabel.Nifti1Image(body.astype(np.uint8), None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nibabel.save(image, folder / "placeless.nii")
    (folder / "names.json").write_text('{"1": "body"}')
    (folder / "recipe.json").write_text('{"seed": 1}')
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


SYNTHESIZE = "synthesize --model tiny --steps 2 --out out/ct.nii.gz "
GOOD = SYNTHESIZE + "--labelmap good.seg.nrrd "
FAULTS = {
    "empty segmentation": (SYNTHESIZE + "--labelmap empty.seg.nrrd", 2, "All masks are empty"),
    "no segment matches": (SYNTHESIZE + "--labelmap strangers.seg.nrrd", 2, "No segment matches"),
    "no condition matches": (SYNTHESIZE + "--condition thing=mask.nii.gz", 2, "No segment matches"),
    "no geometry": (SYNTHESIZE + "--labelmap placeless.nii --labels names.json", 2, "no geometry"),
    "other shape": (SYNTHESIZE + "--condition body=mask.nii.gz --condition lung=other.nii.gz", 2, "another grid"),
    "nan": (SYNTHESIZE + "--condition body=nan.nii", 2, "not finite"),
    "singular": (SYNTHESIZE + "--condition body=singular.nii", 2, "singular"),
    "sheared": (SYNTHESIZE + "--labelmap sheared.nii --labels names.json", 2, "sheared"),
    "no ct": (GOOD + "--reference mr.nii.gz", 2, "The reference mr.nii.gz has values from"),
    "model": (GOOD.replace("tiny", "huge"), 2, "There is no model 'huge'; installed are"),
    "sampler": (GOOD + "--sampler fast", 2, "Unknown sampler 'fast'; known are ddpm, ddim, unipc"),
    "device": (GOOD + "--device cuda:77", 2, "There is no device 'cuda:77' on this machine; available are auto, cpu"),
    "precision": (GOOD + "--precision int4", 2, "precision 'int4' is unknown; use auto, float32"),
    "attribute": (GOOD + "--attribute contrast_phase=late", 2, "choose one of native, arterial, venous"),
    "attribute name": (GOOD + "--attribute age=40", 2, "no attribute 'age'"),
    "attribute form": (GOOD + "--attribute age", 2, "not of the form NAME=VALUE"),
    "steps": (GOOD.replace("--steps 2", "--steps 0"), 2, "steps"),
    "seed": (GOOD + "--seed -1", 2, "The seed -1"),
    "control scale": (GOOD + "--control-scale 9", 2, "control scale is 9"),
    "count": (GOOD + "--count 0", 2, "--count is 0"),
    "number": (GOOD + "--seed x", 2, "argument --seed"),
    "no masks": (SYNTHESIZE, 2, "No masks were given"),
    "two ways": (GOOD + "--condition body=mask.nii.gz", 2, "in one way"),
    "labels alone": (SYNTHESIZE + "--condition body=mask.nii.gz --labels names.json", 2, "add --labelmap"),
    "twice": (SYNTHESIZE + "--condition body=mask.nii.gz --condition body=mask.nii.gz", 2, "given twice"),
    "no names": (SYNTHESIZE + "--labelmap unnamed.nii.gz", 2, "give them with --labels"),
    "no file": (SYNTHESIZE + "--condition body=none.nii.gz", 2, "There is no file none.nii.gz"),
    "ending": (GOOD.replace("ct.nii.gz", "ct.mha"), 2, "unknown ending"),
    "recipe ending": (GOOD + "--recipe-out out/r.txt", 2, "wrong ending for a recipe"),
    "bench phase": ("bench quality --phase late --out out/b", 2, "Unknown contrast phase"),
    "bench folder": ("bench quality --out mask.nii.gz", 2, "is a file"),
    "bench action": ("bench", 2, "ACTION"),
    "bench size": ("bench speed --size huge --out out/b", 2, "invalid choice: 'huge'"),
    "bench memory": ("bench speed --memory-limit 8 --out out/b", 2, "no amount of memory"),
    "bench compare": ("bench compare --first a b --second c d --out out/b", 2, "no measurement a"),
    "folder": (GOOD.replace("out/", "nowhere/"), 2, "does not exist"),
    "folder is file": (GOOD.replace("out/", "mask.nii.gz/"), 2, "does not exist"),
    "out is folder": (GOOD.replace("out/ct.nii.gz", "out.nii"), 2, "is a folder"),
    "exists": (GOOD.replace("out/ct.nii.gz", "mask.nii.gz"), 2, "exists already; choose another name or give"),
    "recipe": ("synthesize --recipe recipe.json --out out/ct.nii.gz", 2, "The recipe lacks"),
    "recipe and masks": (GOOD.replace("--steps 2 ", "") + "--recipe recipe.json", 2, "The recipe fixes --labelmap"),
    "verb": ("conjure", 2, "invalid choice: 'conjure'"),
    "nothing": ("", 2, "VERB"),
    "option": (GOOD + "--colour red", 2, "unrecognized arguments"),
    "phantom phase": ("phantom --seed 1 --phase late --out out/p", 2, "contrast_phase"),
    "phantom seed": ("phantom --seed -1 --out out/p", 2, "seed"),
    "phantom shape": ("phantom --seed 1 --shape 0 4 4 --out out/p", 2, "--shape is (0, 4, 4)"),
    "phantom spacing": ("phantom --seed 1 --spacing 0 4 4 --out out/p", 2, "singular"),
    "phantom folder": ("phantom --seed 1 --out mask.nii.gz", 2, "is a file"),
    "phantom parent": ("phantom --seed 1 --out nowhere/p", 2, "does not exist"),
    "model info": ("models info huge", 2, "There is no model 'huge'"),
    "check segmenter": (
        "check --ct mr.nii.gz --labelmap good.seg.nrrd --segmenter eye --out out/c.json", 2, "no segmenter 'eye'"
    ),
    "check no ct": ("check --ct mr.nii.gz --labelmap good.seg.nrrd --out out/c.json", 2, "no CT in HU"),
    "check ending": ("check --ct mr.nii.gz --labelmap good.seg.nrrd --out out/c.txt", 2, "use .json"),
    "config": ("train diffusion --config none.yaml --folder out/t", 2, "no configuration none.yaml"),
    "stage": ("train everything", 2, "invalid choice: 'everything'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", list(FAULTS))
def test_bad_input_is_one_line_and_changes_nothing(capsys, inputs, monkeypatch, fault):
    command, expected, reason = FAULTS[fault]
    monkeypatch.chdir(inputs)
    (inputs / "out").mkdir(exist_ok=True)
    (inputs / "out.nii").mkdir(exist_ok=True)
    before = snapshot(inputs)
    code = main([*command.split(), *(["-q"] if "synthesize" in command else [])])
    said = capsys.readouterr()
    assert code == expected and said.out == "", said.err
    lines = said.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("medlord: ") and reason in lines[0], said.err
    assert "Traceback" not in said.err and len(lines[0]) < 500
    assert snapshot(inputs) == before


def test_damaged_weights_are_exit_4(capsys, inputs, tmp_path):
    shutil.copytree(inputs / "tiny", tmp_path / "tiny")
    weights = tmp_path / "tiny" / "models" / "control.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    words = ["-q", "--labelmap", inputs / "good.seg.nrrd"]
    words += ["--model", tmp_path / "tiny", "--out", tmp_path / "ct.nii.gz"]
    assert main(["synthesize", *map(str, words)]) == 4
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1 and "control.safetensors" in said.err and "SHA-256" in said.err
    weights.unlink()
    assert main(["synthesize", *map(str, words)]) == 4
    assert "is missing" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]


def test_debug_shows_the_traceback_before_the_line(capsys, inputs):
    assert main(["models", "info", "huge", "--debug"]) == main(["--debug", "models", "info", "huge"]) == 2
    said = capsys.readouterr().err
    assert said.count("Traceback (most recent call last)") == 2
    assert said.splitlines()[-1].startswith("medlord: There is no model 'huge'")


def test_a_fault_of_ours_is_one_line_too(capsys, inputs, tmp_path):
    """Labels that no code expects: a damaged configuration of a model whose hash nobody checks."""
    shutil.copytree(inputs / "tiny", tmp_path / "tiny")
    metadata = tmp_path / "tiny" / "configs" / "metadata.json"
    content = json.loads(metadata.read_text())
    content["medlord"]["schedule"] = {"kind": "cosine", "training_steps": "many"}
    metadata.write_text(json.dumps(content))
    words = ["-q", "--labelmap", inputs / "good.seg.nrrd"]
    words += ["--model", tmp_path / "tiny", "--out", tmp_path / "ct.nii.gz"]
    code = main(["synthesize", *map(str, words)])
    said = capsys.readouterr().err
    assert code in (1, 2, 4) and len(said.splitlines()) == 1 and "Traceback" not in said
    assert not (tmp_path / "ct.nii.gz").exists()


@pytest.mark.skipif(
    shutil.which("unshare") is None, reason="needs unshare to make a small disk without being root"
)
def test_a_full_disk_is_one_line_and_leaves_nothing(inputs, tmp_path):
    script = 'mount -t tmpfs -o size=20k small "$0" && "$@"; code=$?; ls -A "$0" >&2; exit $code'
    small_disk = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, str(tmp_path)]
    if subprocess.run([*small_disk, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a test make a small disk (user namespaces)")
    environment = {**os.environ, "PYTHONPATH": str(Path(medlord.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    words = ["phantom", "--seed", "1", "--shape", "32", "32", "16", "--spacing", "11", "11", "20", "-q"]
    done = subprocess.run(
        [*small_disk, sys.executable, "-m", "medlord.cli", *words, "--out", str(tmp_path / "p")],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("medlord: The disk is full") and done.stderr.count("\n") == 1
