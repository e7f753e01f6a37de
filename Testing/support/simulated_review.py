"""Reviews with readers whose answers are made up: in memory for the statistics, on disk for the whole way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from medlord.review.answer_database import ReaderAnswers
from medlord.review.answers import Answer
from medlord.review.key import Key, KeyCase, KeySource, key_bytes, write_key
from medlord.review.readings import Readings
from medlord.review.rubric import Rubric, default_rubric
from medlord.review.study import Study, load_study

SOURCES = {"scanner": "real", "model A": "synthetic", "model B": "synthetic"}

# (reader, source, draw) -> values by question
Judge = Callable[[str, str, np.random.Generator], Mapping[str, object]]


def readings_of(
    tables: Mapping[str, Sequence[Sequence[float | None]]],
    item_sources: Sequence[str],
    kinds: Mapping[str, str] = SOURCES,
    rubric: Rubric | None = None,
    repeats: Mapping[str, Sequence[Sequence[float | None]]] | None = None,
    seconds: float = 60.0,
) -> Readings:
    """Readings whose answers to a question are a table (readers, items) of values; None is no answer."""
    rubric = rubric or default_rubric()
    items = tuple(f"item_{number:04d}" for number in range(1, len(item_sources) + 1))
    readers = tuple(f"reader {row + 1}" for row in range(len(next(iter(tables.values())))))
    answers = [
        Answer(
            reader, item, (item.replace("item", "case"),), repeat, False, position + 1, 1, question,
            rows[row][position], seconds + position, "2025-01-01T00:00:00+00:00", 0,
        )
        for repeat, named in enumerate((tables, repeats or {}))
        for question, rows in named.items()
        for row, reader in enumerate(readers)
        for position, item in enumerate(items)
        if rows[row][position] is not None
    ]  # fmt: skip
    sources = tuple(source for source in kinds if source in item_sources)
    return Readings(
        mode="rating",
        rubric=rubric,
        readers=readers,
        items=items,
        item_sources=tuple(item_sources),
        sources=sources,
        kinds={source: kinds[source] for source in sources},
        real_cases={},
        answers=tuple(answers),
    )


def write_study(
    folder: Path,
    per_source: int = 6,
    mode: str = "rating",
    kinds: Mapping[str, str] = SOURCES,
    repeats: int = 0,
    passphrase: str | None = None,
    leaks: Sequence[dict] = (),
    margin: float | None = None,
    readers: Sequence[str] = (),
    phantoms: bool = False,
) -> tuple[Study, Path]:
    """A study of tiny files with its key beside it, as the format says; no volume is in the files.

    `margin` is the margin of equivalence that the study fixes, None for none; `readers` are those whom it names;
    `phantoms` stand for the real cases and say that they are synthetic.
    """
    study_folder = folder / "study"
    study_folder.mkdir()
    # Taken in turn, so that the number of a case does not follow its source.
    drawn = [source for _ in range(per_source) for source in kinds]
    cases, entries = [], []
    for number, source in enumerate(drawn, 1):
        case = f"case_{number:04d}"
        content = f"voxels of {case}".encode()
        (study_folder / f"{case}.nrrd").write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        cases.append({"case": case, "sha256": sha256})
        entries.append(KeyCase(case, source, kinds[source], f"{source}/{number}.nii.gz", "0" * 64, sha256))
    groups = [[case["case"]] for case in cases]
    if mode == "pair":
        real = [entry.case for entry in entries if entry.kind == "real"]
        other = [entry.case for entry in entries if entry.kind == "synthetic"]
        groups = [list(pair) for pair in zip(real, other, strict=False)]
    key = Key(
        study_id="5" * 32,
        sources=tuple(KeySource(name, kind, f"{name}/*.nii.gz") for name, kind in kinds.items()),
        cases=tuple(entries),
        seed=7,
        leaks=tuple(leaks),
        margin=margin,
        marked_synthetic=tuple(entry.case for entry in entries if phantoms and entry.kind == "real"),
    )
    content = key_bytes(key, passphrase)
    write_key(folder / "study.key", content)
    study = {
        "format": "medlord-review-study", "version": 1, "study_id": key.study_id, "mode": mode,
        "rubric": default_rubric(mode).to_dict(),
        "order": {"seed": "ab" * 16, "repeats": repeats, "blocks": 1, "going_back": True},
        "display": {"window": "lung", "layout": "three-planes"},
        "cases": cases, "training": [],
        "items": [{"item": f"item_{n:04d}", "cases": group} for n, group in enumerate(groups, 1)],
        "key_sha256": hashlib.sha256(content).hexdigest(), "equivalence_margin": margin,
        "readers": list(readers),
    }  # fmt: skip
    (study_folder / "study.json").write_text(json.dumps(study), encoding="utf-8")
    return load_study(study_folder), folder / "study.key"


def read_study(
    study: Study, reader: str, judge: Judge, kinds: Mapping[str, str] = SOURCES, stop: int = 10_000
) -> None:
    """Answer the first `stop` readings of `reader` as `judge` says."""
    names = list(kinds)
    generator = np.random.default_rng(abs(hash_of(reader)))
    with ReaderAnswers(study, reader) as database:
        for reading in database.order[:stop]:
            source = names[(int(reading.cases[0][-4:]) - 1) % len(names)]
            values = judge(reader, source, generator)
            database.record(reading, values, float(generator.uniform(20, 90)), confirmed=True)


def skilled_judge(reader: str, source: str, generator: np.random.Generator) -> dict[str, object]:
    """A reader who finds model B out most of the time and takes model A for real."""
    looks_real = {"scanner": 0.85, "model A": 0.8, "model B": 0.25}[source]
    real = bool(generator.random() < looks_real)
    best = {"scanner": 3.6, "model A": 3.5, "model B": 2.2}[source]

    def grade() -> int:
        return int(np.clip(round(generator.normal(best, 0.6)), 1, 4))

    values = {name: grade() for name in ("realism", "anatomy", "consistency", "image_quality")}
    marks = [] if real else [{"kind": "texture", "position_ras_mm": [1.0, 2.0, 3.0]}]
    return {
        **values,
        "diagnostic_quality": grade(),
        "interest": grade(),
        "real_or_synthetic": "real" if real else "synthetic",
        "confidence": int(generator.integers(1, 6)),
        "artefacts": marks,
    }


def hash_of(text: str) -> int:
    """The same number for a text in every run."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:4], "big")


SCALES = ("realism", "anatomy", "consistency", "image_quality", "diagnostic_quality", "interest")


def values(verdict: str = "real", confidence: int = 4, grade: int = 3) -> dict[str, object]:
    """An answer to every required question."""
    return {"real_or_synthetic": verdict, "confidence": confidence, **dict.fromkeys(SCALES, grade)}
