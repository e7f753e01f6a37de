"""Export of the answers: long CSV, and the format of the iMRMC program."""

from __future__ import annotations

import csv
import hashlib

import pytest
from support.simulated_review import values, write_study

from medlord.errors import InputError
from medlord.review.answer_database import ReaderAnswers
from medlord.review.answers import lock_study
from medlord.review.export import export_csv, export_imrmc
from medlord.review.key import read_key


def test_csv_has_one_row_per_answer_and_sources_only_after_unblinding(tmp_path):
    study, key_path = write_study(tmp_path, per_source=2)
    key = read_key(key_path, study=study)
    out = tmp_path / "answers.csv"
    with pytest.raises(InputError, match="nothing to export"):
        export_csv(study, out)
    with ReaderAnswers(study, "Ann, a") as store:
        while reading := store.next_reading():
            entry = {**values(), "comment": 'with "quotes",\nand lines', "artefacts": []}
            store.record(reading, entry, 2.0, confirmed=True)
    export_csv(study, out)
    with out.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 6 * 10 and {row["reader"] for row in rows} == {"Ann, a"}
    assert {row["value"] for row in rows if row["question"] == "comment"} == {'with "quotes",\nand lines'}
    assert "scanner" not in out.read_text() and "sources" not in rows[0]
    for export in (export_csv, lambda *a, key: export_imrmc(*a, key)):
        with pytest.raises(InputError, match="still blinded"):
            export(study, tmp_path / "x.csv", key=key)
    lock_study(study)
    export_csv(study, out, key=key)
    with out.open(newline="", encoding="utf-8") as stream:
        sources = {row["cases"]: row["sources"] for row in csv.DictReader(stream)}
    assert sources == {case.case: case.source for case in key.cases}


def test_imrmc_gets_every_real_case_in_every_modality(tmp_path):
    study, key_path = write_study(tmp_path, per_source=2, repeats=3)
    key = read_key(key_path, study=study)
    said = {}
    for reader in ("-1", "Anna B, MD"):
        with ReaderAnswers(study, reader) as store:
            while reading := store.next_reading():
                number = int(hashlib.sha256(f"{reader}{reading}".encode()).hexdigest(), 16)
                entry = values("synthetic" if number % 2 else "real", 1 + number % 5)
                store.record(reading, entry, confirmed=True)
                if not reading.repeat:
                    said[reader, reading.item] = entry["confidence"] * (1 if number % 2 else -1)
    lock_study(study)
    lines = export_imrmc(study, tmp_path / "study.imrmc", key).read_text().splitlines()
    start = lines.index("BEGIN DATA:")
    assert {"NR: 2", "N0: 2", "N1: 4", "NM: 2"} <= set(lines[:start])
    rows = [line.split(",") for line in lines[start + 1 :]]
    assert all(len(row) == 4 for row in rows)
    truth = {row[1]: row[3] for row in rows if row[0] == "-1"}
    assert truth == {case.case: str(int(case.kind == "synthetic")) for case in key.cases}
    scores = {tuple(row[:3]): int(row[3]) for row in rows if row[0] != "-1"}
    assert len(scores) == 2 * (2 * 2 + 4) == len([row for row in rows if row[0] != "-1"])
    assert {reader for reader, _, _ in scores} == {"r-1", "Anna_B__MD"}
    names = {"r-1": "-1", "Anna_B__MD": "Anna B, MD"}
    items = {item.cases[0]: item.item for item in study.items}
    for (reader, case, modality), score in scores.items():
        assert score == said[names[reader], items[case]]
        assert truth[case] == "0" or modality == key.case(case).source.replace(" ", "_")
