"""A whole study from the command line: four sources, three readers who look at the cases, unblinding, report, refusals.

20 cases in every run; 60 of full size, synthesized for it, in the long one (make test-long).
"""

from __future__ import annotations

import csv
import io
import json
from functools import cache
from pathlib import Path

import pytest
from support.image_reader import SCALES, ImageReader, texture
from support.model_volumes import BEST, POOR, REAL, SYNTHETIC, encode_volumes, patterns_of

from medlord.cli import main
from medlord.review.case_files import read_case
from medlord.review.order import reading_order
from medlord.review.sitting import Sitting
from medlord.review.study import Study, load_study

SOURCES = 4
FEW, MANY = 5, 15
TRAINING = 2
REPEATS = 6
# How much each wavers about what the picture tells.
READERS = {"Dr Ada": 0.3, "Dr Ben": 0.5, "Dr Cara": 0.7}
PASSPHRASE = "correct horse"
# The one honest difference of range: the model's bone is less dense than a phantom's.
DENSE_BONE = {"Warning: highest value", "Warning: share of the highest value"}


def run(*words: object) -> int:
    """One command in this process."""
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def encoded_volumes(tmp_path_factory) -> Path:
    """Small phantoms, and the same ones through the autoencoder of the bundled model, undisturbed and disturbed."""
    return encode_volumes(tmp_path_factory.mktemp("hospital-archive"), FEW + TRAINING)


def made(folder: Path, volumes: Path, per_source: int, capsys) -> tuple[Study, list[str]]:
    """A study of the volumes and its key in `folder`; and the words that name the key."""
    (folder / "passphrase").write_text(f"{PASSPHRASE}\n")
    sources = [
        word for name, files in patterns_of(volumes).items() for word in ("--source", f"{name}={files}")
    ]
    options = [
        "--per-source",
        per_source,
        "--training",
        TRAINING,
        "--repeats",
        REPEATS,
        "--blocks",
        3,
        "--seed",
        11,
    ]
    key = ["--key", folder / "away.key", "--passphrase-file", folder / "passphrase"]
    assert run("review", "create", *sources, *options, "--out", folder / "study", *key) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"{SOURCES * per_source} cases.")
    warnings = {line.split(" tells ")[0] for line in said if line.startswith("Warning")}
    assert warnings <= DENSE_BONE and not any("left as it was" in line for line in said), said
    return load_study(folder / "study"), [str(word) for word in key]


class Readers:
    """Three readers of a study. Each sees the files of the cases and, after a training case, what it was."""

    def __init__(self, study: Study, capsys, monkeypatch):
        self._study, self._capsys, self._monkeypatch = study, capsys, monkeypatch
        self._look = cache(lambda case: texture(read_case(study, case).array))
        # (reader, position) -> values
        self.said: dict[tuple[str, int], dict] = {}
        self.told = ""

    def read(self) -> None:
        """Each in another way, all through the interface that the panel uses, too."""
        ways = (self._by_single_commands, self._by_a_batch, self._by_sitting)
        for (name, wavering), read in zip(READERS.items(), ways, strict=True):
            read(ImageReader(name, wavering))

    def _values(self, reader: ImageReader, position: int, case: str) -> dict[str, object]:
        values = reader.values(self._look(case))
        self.said[reader.name, position] = values
        return values

    def _answer(self, reader: ImageReader, *words: object, lines: str = "") -> list[dict]:
        """`medlord review answer` of a reader: what it prints."""
        self._monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        assert run("review", "answer", self._study.folder, "--reader", reader.name, *words) == 0
        out = self._capsys.readouterr().out
        self.told += out
        return [json.loads(line) for line in out.splitlines()]

    def _by_single_commands(self, reader: ImageReader, stop: int | None = None) -> None:
        """One command asks for the next case, one stores the answers to it."""
        for position in range(1, (stop or len(reading_order(self._study, reader.name))) + 1):
            (following,) = self._answer(reader)
            assert following["position"] == position
            (case,) = following["cases"]
            values = self._values(reader, position, case)
            given = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
            (stored,) = self._answer(reader, *given, "--visible", 20 + position)
            assert stored["position"] == position and ("truth" in stored) == following["training"]
            if "truth" in stored:
                reader.learn(self._look(case), stored["truth"])
        if stop is None:
            assert self._answer(reader) == [{"finished": True}]

    def _by_a_batch(self, reader: ImageReader) -> None:
        """After the training, all in two sittings, the second of which sends the last answer of the first again."""
        first = SOURCES * TRAINING
        self._by_single_commands(reader, stop=first)
        order = reading_order(self._study, reader.name)[first:]
        lines = [
            json.dumps(
                {"values": self._values(reader, r.position, r.cases[0]), "visible_s": 30, "token": f"{r}"}
            )
            for r in order
        ]
        for begin, end in ((0, 10), (9, len(lines))):
            stored = self._answer(reader, "--batch", lines="\n".join(lines[begin:end]))
            assert [entry["position"] for entry in stored] == [
                reading.position for reading in order[begin:end]
            ]

    def _by_sitting(self, reader: ImageReader) -> None:
        """As the panel does: every value is stored when it is given, the case is confirmed at the end."""
        with Sitting(self._study, reader.name) as sitting:
            while (reading := sitting.current) is not None:
                look = self._look(reading.cases[0])
                sitting.show()
                for question, value in self._values(reader, reading.position, reading.cases[0]).items():
                    sitting.set(question, value)
                sitting.confirm()
                if truth := sitting.feedback(reading):
                    reader.learn(look, truth)


def refusal(capsys, code: int, *parts: str) -> None:
    """Check that the command said one line with the parts and exited as bad input."""
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert code == 2 and len(lines) == 1 and all(part in lines[0] for part in parts), said


def nothing_names_a_source(study: Study, volumes: Path, told: str) -> None:
    """No name of a synthetic source and no path of an original in what a reader gets: files, their names, messages."""
    secrets = [*SYNTHETIC, "patient_", str(volumes), PASSPHRASE]
    reached = {"what the commands printed": told.encode()}
    for path in study.folder.rglob("*"):
        reached[str(path.relative_to(study.folder))] = path.read_bytes() if path.is_file() else b""
    assert f"{study.cases[-1].case}.nrrd" in reached and any(name.endswith(".sqlite") for name in reached)
    for name, content in reached.items():
        found = [secret for secret in secrets if secret.encode() in content or secret in name]
        assert not found, (name, found)


def refusals_before_unblinding(capsys, study: Study, folder: Path, key: list[str], tmp_path: Path) -> None:
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


def refusals_after_unblinding(capsys, study: Study, key: list[str]) -> None:
    """No second unblinding, and no more answers: neither of a new reader nor of one who has read."""
    refusal(capsys, run("review", "unblind", study.folder, *key), "second unblinding")
    for reader in ("Dr Late", "Dr Ada"):
        late = ["--reader", reader, "--set", "real_or_synthetic=real"]
        refusal(capsys, run("review", "answer", study.folder, *late), "unblinded")


def exported(study: Study, key: list[str], out: Path) -> dict[tuple[str, int], dict[str, str]]:
    """The values of the CSV export, as text, by reader and position."""
    assert run("review", "export", study.folder, *key, "--out", out, "--quiet") == 0
    found: dict[tuple[str, int], dict[str, str]] = {}
    with out.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            assert row["sources"] in (REAL, *SYNTHETIC) and float(row["visible_s"]) >= 0
            found.setdefault((row["reader"], int(row["position"])), {})[row["question"]] = row["value"]
    return found


def shown_by(estimates: list[dict], measure: str) -> dict[str, float]:
    """The numbers of a measure by source, over all readers."""
    return {
        entry["source"]: entry["value"]
        for entry in estimates
        if entry["measure"].startswith(measure) and entry["source"] and not entry["reader"]
    }


def rounded(numbers: dict[str, float]) -> dict[str, float]:
    """With two digits, to be read."""
    return {name: round(number, 2) for name, number in numbers.items()}


@pytest.mark.parametrize(
    ("volumes", "per_source"),
    [
        ("encoded_volumes", FEW),
        pytest.param("synthesized_volumes", MANY, marks=[pytest.mark.long, pytest.mark.timeout(4 * 3600)]),
    ],
)
def test_a_study_from_its_creation_to_its_report(volumes, per_source, request, capsys, monkeypatch, tmp_path):
    volumes, cases = request.getfixturevalue(volumes), SOURCES * per_source
    study, key = made(tmp_path, volumes, per_source, capsys)
    assert len(study.cases) == cases and not list(study.folder.glob("*key*"))

    readers = Readers(study, capsys, monkeypatch)
    readers.read()
    assert run("review", "status", study.folder) == 0
    said, readings = capsys.readouterr(), SOURCES * TRAINING + cases + REPEATS
    assert [line.split("\t")[:2] for line in said.out.splitlines()] == [
        [reader, f"{readings}/{readings}"] for reader in READERS
    ]
    assert said.err == "Blinded.\n"
    nothing_names_a_source(study, volumes, readers.told + said.out)

    refusals_before_unblinding(capsys, study, tmp_path, key, tmp_path)
    assert run("review", "unblind", study.folder, *key, "--quiet") == 0
    capsys.readouterr()
    refusals_after_unblinding(capsys, study, key)

    assert exported(study, key, tmp_path / "all.csv") == {
        place: {question: str(value) for question, value in values.items()}
        for place, values in readers.said.items()
        if place[1] > SOURCES * TRAINING
    }
    assert run("review", "export", study.folder, *key, "--out", tmp_path / "study.imrmc", "--quiet") == 0
    scores = (tmp_path / "study.imrmc").read_text().split("BEGIN DATA:\n")[1].splitlines()
    assert len(scores) == cases + 3 * (3 * per_source + 3 * per_source)

    out = tmp_path / "report"
    assert run("review", "report", study.folder, *key, "--out", out, "--bootstrap", 100, "--quiet") == 0
    estimates = json.loads((out / "report.json").read_text(encoding="utf-8"))["estimates"]
    judged_real, area = shown_by(estimates, "Share judged real"), shown_by(estimates, "ROC AUC")
    with capsys.disabled():
        print(f"\njudged real {rounded(judged_real)}, ROC AUC {rounded(area)}")
    assert judged_real[REAL] > 0.6 and judged_real[POOR] < min(judged_real[BEST], 0.3)
    assert area[POOR] > area[BEST] and area[POOR] > 0.85
    assert (out / "report.html").stat().st_size > 10_000


def test_answers_by_single_commands(capsys, tmp_path, encoded_volumes):
    files = patterns_of(encoded_volumes)
    pair = [word for name in (REAL, POOR) for word in ("--source", f"{name}={files[name]}")]
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
    unblind = ["review", "unblind", study, "--key", tmp_path / "study.key"]
    for _reading in range(2):
        assert run(*reader, *grades, "--set", "real_or_synthetic=real", "--set", "confidence=5") == 0
    capsys.readouterr()
    refusal(capsys, run(*unblind), "Anna 3 of 6", "--incomplete")
    for _time in range(2):
        assert run("review", "answer", study, "--reader", "Ana") == 0
        assert "Nothing is answered yet by Ana; 1 under other names" in capsys.readouterr().err
    assert run(*reader) == 0
    assert "Nothing is answered" not in capsys.readouterr().err
    assert run(*unblind, "--incomplete", "--quiet") == 0
