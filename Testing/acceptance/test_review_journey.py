"""A whole study from the command line: 60 cases of four sources, three readers, unblinding, report, refusals."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from medlord.cli import main
from medlord.phantom import make_phantom
from medlord.resources import BUNDLED_MODEL
from medlord.review.key import read_key
from medlord.review.order import reading_order
from medlord.review.study import Study, load_study
from medlord.volume_files import save_volume
from medlord.volumes import Grid, Volume

GRID = Grid.centered((40, 40, 24), (8.5, 8.5, 12.0))
# Noise on the latents of the bundled model's autoencoder, in standard deviations of the latents: its best, and worse.
SYNTHETIC = {"model-best": 0.0, "model-fair": 0.3, "model-poor": 1.0}
PER_SOURCE = 15
REPEATS = 6
READERS = {"Dr Ada": 0.95, "Dr Ben": 0.8, "Dr Cara": 0.65}
SCALES = ("realism", "anatomy", "consistency", "image_quality", "diagnostic_quality", "interest")


def run(*words: object) -> int:
    """One command in this process."""
    return main([str(word) for word in words])


def through_the_model(
    hu: np.ndarray, network, window: tuple[float, float], blur: float, seed: int
) -> np.ndarray:
    """A volume encoded by the bundled model, its latents disturbed, decoded to HU."""
    import torch

    from medlord.generation import to_hu
    from medlord.training.cases import to_network

    with torch.inference_mode():
        latents = network.encode_to_latent(torch.from_numpy(to_network(hu, window))[None, None])
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
        image = network.decode_latent(latents + blur * latents.std() * noise)
    return to_hu(image[0, 0].numpy(), window)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> Path:
    """Folders of 15 phantoms ("real"), and of the same ones three times through the bundled model."""
    from medlord.bundles.bundle import load_bundle

    folder = tmp_path_factory.mktemp("volumes")
    for name in ("real", *SYNTHETIC):
        (folder / name).mkdir()
    bundle = load_bundle(BUNDLED_MODEL)
    for seed in range(PER_SOURCE):
        phantom = make_phantom(seed, GRID).volume
        save_volume(phantom, folder / "real" / f"patient_{seed}.nii.gz")
        for name, blur in SYNTHETIC.items():
            hu = through_the_model(
                phantom.array, bundle.autoencoder, bundle.description.window_hu, blur, seed
            )
            save_volume(Volume(hu, GRID), folder / name / f"{name}_{seed}.nrrd", synthetic=True)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, volumes) -> tuple[Path, list[str]]:
    """The folder with the study, its key and its passphrase; and the words that name the key."""
    folder = tmp_path_factory.mktemp("review")
    (folder / "passphrase").write_text("correct horse\n")
    sources = [
        word for name in ("real", *SYNTHETIC) for word in ("--source", f"{name}={volumes / name / '*'}")
    ]
    options = ["--per-source", PER_SOURCE, "--repeats", REPEATS, "--blocks", 3, "--seed", 11, "--quiet"]
    key = ["--key", folder / "away.key", "--passphrase-file", folder / "passphrase"]
    assert run("review", "create", *sources, *options, "--out", folder / "study", *key) == 0
    return folder, key


def answers_of(study: Study, reader: str, sources: dict[str, str]) -> list[dict]:
    """What a reader says of each case in turn: the better the eye, the more often a disturbed volume is found out."""
    generator = np.random.default_rng(len(reader) + ord(reader[-1]))
    disturbed = {"real": 0.0, "model-best": 0.15, "model-fair": 0.6, "model-poor": 1.0}
    answers = []
    for reading in reading_order(study, reader):
        sign = disturbed[sources[reading.cases[0]]] * READERS[reader]
        found = generator.random() < 0.1 + 0.85 * sign
        grade = int(np.clip(np.rint(generator.normal(3.7 - 2.2 * sign, 0.5)), 1, 4))
        values = {
            "real_or_synthetic": "synthetic" if found else "real",
            "confidence": int(generator.integers(2, 6)),
            **dict.fromkeys(SCALES, grade),
            "comment": f"seen at {reading.position}",
        }
        answers.append(
            {"values": values, "visible_s": float(generator.uniform(10, 60)), "token": f"{reader}{reading}"}
        )
    return answers


def refusal(capsys, code: int, *parts: str) -> None:
    """Check that the command said one line with the parts and exited as bad input."""
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert code == 2 and len(lines) == 1 and all(part in lines[0] for part in parts), said


def refusals_before_unblinding(capsys, study, folder, key, tmp_path):
    """Everything that a blinded study, a wrong passphrase, another key or a changed case must be refused."""
    refusal(capsys, run("review", "report", study.folder, *key, "--out", tmp_path / "report"), "unblind")
    refusal(
        capsys, run("review", "export", study.folder, *key, "--out", tmp_path / "x.imrmc"), "still blinded"
    )
    (tmp_path / "wrong").write_text("wrong horse")
    wrong = ["--key", folder / "away.key", "--passphrase-file", tmp_path / "wrong"]
    refusal(capsys, run("review", "unblind", study.folder, *wrong), "passphrase does not open")
    changed = tmp_path / "changed.key"
    changed.write_bytes((folder / "away.key").read_bytes() + b"\n")
    refusal(capsys, run("review", "unblind", study.folder, "--key", changed), "changed")
    case = study.file("case_0007")
    content = case.read_bytes()
    case.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refusal(capsys, run("review", "unblind", study.folder, *key), "case_0007.nrrd was changed")
    case.write_bytes(content)


def test_a_study_from_its_creation_to_its_report(made, capsys, monkeypatch, tmp_path):
    folder, key = made
    study, readings = load_study(folder / "study"), 4 * PER_SOURCE + REPEATS
    sources = {case.case: case.source for case in read_key(folder / "away.key", "correct horse", study).cases}
    assert len(study.cases) == 4 * PER_SOURCE and not list(study.folder.glob("*key*"))

    for reader in READERS:
        entries = answers_of(study, reader, sources)
        lines = [json.dumps(entry) for entry in entries]
        # In two sittings, the second of which sends the last answer of the first again.
        for part in (lines[:10], lines[9:]):
            monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(part)))
            assert run("review", "answer", study.folder, "--reader", reader, "--batch") == 0
        told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [entry["position"] for entry in told] == [*range(1, 11), 10, *range(11, readings + 1)]
    assert run("review", "answer", study.folder, "--reader", "Dr Ada") == 0
    assert json.loads(capsys.readouterr().out) == {"finished": True}
    assert run("review", "status", study.folder) == 0
    said = capsys.readouterr()
    assert [line.split("\t")[:2] for line in said.out.splitlines()] == [
        [reader, f"{readings}/{readings}"] for reader in READERS
    ]
    assert said.err == "Blinded.\n"
    for path in study.folder.rglob("*"):
        assert not path.is_file() or not any(name.encode() in path.read_bytes() for name in SYNTHETIC), (
            path.name
        )

    out = tmp_path / "report"
    refusals_before_unblinding(capsys, study, folder, key, tmp_path)
    assert run("review", "unblind", study.folder, *key, "--quiet") == 0
    capsys.readouterr()
    refusal(capsys, run("review", "unblind", study.folder, *key), "second unblinding")
    late = ["--set", "real_or_synthetic=real"]
    refusal(capsys, run("review", "answer", study.folder, "--reader", "Dr Late", *late), "unblinded")

    assert run("review", "report", study.folder, *key, "--out", out, "--bootstrap", 100, "--quiet") == 0
    estimates = json.loads((out / "report.json").read_text(encoding="utf-8"))["estimates"]
    real = {
        entry["source"]: entry["value"]
        for entry in estimates
        if entry["measure"] == "Share judged real" and entry["source"] and not entry["reader"]
    }
    assert (
        real["real"] > 0.8
        and real["real"] > real["model-fair"] > real["model-poor"]
        and real["model-poor"] < 0.4
    )
    assert (out / "report.html").stat().st_size > 10_000

    assert run("review", "export", study.folder, *key, "--out", tmp_path / "all.csv", "--quiet") == 0
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * readings * 9 and {row["sources"] for row in rows} == {"real", *SYNTHETIC}
    assert run("review", "export", study.folder, *key, "--out", tmp_path / "study.imrmc", "--quiet") == 0
    scores = (tmp_path / "study.imrmc").read_text().split("BEGIN DATA:\n")[1].splitlines()
    assert len(scores) == 4 * PER_SOURCE + 3 * (3 * PER_SOURCE + 3 * PER_SOURCE)


def test_answers_by_single_commands(made, capsys, tmp_path, volumes):
    pair = [word for name in ("real", "model-poor") for word in ("--source", f"{name}={volumes / name}")]
    study = tmp_path / "study"
    assert (
        run("review", "create", *pair, "--per-source", 2, "--seed", 3, "--training", 1, "--out", study) == 0
    )
    said = capsys.readouterr()
    assert said.out == f"{study}\n" and "Keep the key away from the readers" in said.err
    reader = ["review", "answer", study, "--reader", "Anna"]
    assert run(*reader) == 0
    assert json.loads(capsys.readouterr().out)["training"] is True
    grades = [word for name in SCALES for word in ("--set", f"{name}=3")]
    refusal(capsys, run(*reader, "--set", "realism=9"), "'realism' is '9'")
    refusal(capsys, run(*reader, *grades), "Unanswered: real_or_synthetic, confidence")
    assert run(*reader, *grades, "--draft", "--visible", 4) == 0
    capsys.readouterr()
    assert run(*reader, "--set", "real_or_synthetic=real", "--set", "confidence=5") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["truth"] in ("real", "synthetic") and told["position"] == 1
    assert run("review", "status", study, "--quiet") == 0
    assert capsys.readouterr().out.startswith("Anna\t1/6\t0.1 min\t")
    refusal(capsys, run("review", "create", *pair, "--seed", 3, "--out", study), "exists already")
    refusal(
        capsys, run("review", "create", *pair, "--real", "none", "--seed", 3, "--out", tmp_path / "x"), "none"
    )
    refusal(capsys, run("review", "status", tmp_path), "is no study")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study", "study.key"]
