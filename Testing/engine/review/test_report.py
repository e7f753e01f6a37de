"""The report from files to files: a whole study, its page, what it says of missing answers, and what it refuses."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from support.simulated_review import read_study, readings_of, skilled_judge, write_study

from medlord.errors import CancelledError, InputError
from medlord.review.analysis import analyse
from medlord.review.plots import rating_bars
from medlord.review.report import write_report
from medlord.review.report_page import render_page
from medlord.review.rubric import Option, Question, Rubric, default_rubric
from medlord.review.study import load_study
from medlord.review.unblind import unblind_study

DRAWS = 200
LEAK = {"feature": "file size", "contrast": "real from synthetic", "accuracy": 0.9, "p_value": 0.01}
PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def unblinded(tmp_path_factory):
    """6 cases of each of 3 sources, two readers who finished with 3 repeats, one who stopped after 8."""
    study, key = write_study(tmp_path_factory.mktemp("review"), repeats=3, leaks=[LEAK])
    read_study(study, "Dr Ada", skilled_judge)
    read_study(study, "Dr Ben", skilled_judge)
    read_study(study, "Dr Cara", skilled_judge, stop=8)
    unblind_study(study, key, incomplete=True)
    return study, key


@pytest.fixture(scope="module")
def report(unblinded, tmp_path_factory):
    study, key = unblinded
    out = tmp_path_factory.mktemp("reports") / "new"
    return {path.name: path for path in write_report(study.folder, key, out, bootstrap=DRAWS)}


class Page(html.parser.HTMLParser):
    """Tags of a page, and everything that would make a browser fetch or run something."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.suspicious = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            links = name in ("src", "href") and not (value or "").startswith("data:image/png;base64,")
            if tag in ("script", "iframe", "link", "object") or name.startswith("on") or links:
                self.suspicious.append((tag, name, value))


def test_page_holds_all_parts_and_fetches_nothing(report):
    text = report["report.html"].read_text(encoding="utf-8")
    page = Page(text)
    assert not page.suspicious and "http://" not in text and "https://" not in text
    assert page.tags.count("img") >= 12
    for part in (
        "Distribution of the answers", "Share judged real", "Wilson", "Sensitivity", "Specificity", "ROC AUC",
        "Krippendorff", "Fleiss", "weighted kappa", "Time per case", "Holm", "Equivalence",
    ):  # fmt: skip
        assert part in text, part
    assert "not significant" not in text.lower()


def test_json_and_csv_say_the_same_and_each_number_says_what_it_is(report):
    content = json.loads(report["report.json"].read_text(encoding="utf-8"))
    rows = list(csv.DictReader(io.StringIO(report["numbers.csv"].read_text(encoding="utf-8"))))
    assert len(rows) == len(content["estimates"]) > 200
    for row, estimate in zip(rows, content["estimates"], strict=True):
        assert estimate["measure"] and estimate["against"]
        assert estimate["value"] is None or estimate["readings"] > 0
        assert estimate["value"] is not None or estimate["note"], estimate
        assert row["value"] == ("" if estimate["value"] is None else str(estimate["value"]))
    topics = {estimate["topic"] for estimate in content["estimates"]}
    assert topics == {
        "distribution", "judged_real", "accuracy", "roc", "agreement", "comparison", "equivalence", "artefacts",
        "time",
    }  # fmt: skip
    assert content["settings"] == {"margin": 0.5, "bootstrap": DRAWS, "seed": 0}
    assert content["unblinding"]["readers"]["Dr Cara"]["confirmed"] == 8


def test_who_stopped_early_is_named_and_counted(report):
    content = json.loads(report["report.json"].read_text(encoding="utf-8"))
    assert any("Dr Cara confirmed 8 of 21 readings" in text for text in content["warnings"])
    assert any("leak test" in text and "file size alone tells real" in text for text in content["warnings"])
    assert not any("Dr Ada" in text for text in content["warnings"])
    judged = [e for e in content["estimates"] if e["topic"] == "judged_real"]
    ada, cara = (sum(e["cases"] for e in judged if e["reader"] == name) for name in ("Dr Ada", "Dr Cara"))
    assert ada == 18 and cara <= 8
    assert sum(e["missing"] for e in judged if e["reader"] == "Dr Cara") == 18 - cara
    kappas = [
        e
        for e in content["estimates"]
        if e["topic"] == "agreement" and e["reader"] == "Dr Ada" and e["cases"]
    ]
    assert kappas and all(e["cases"] == 3 for e in kappas)


def test_readings_carry_the_source_of_the_key(report):
    rows = list(csv.DictReader(io.StringIO(report["readings.csv"].read_text(encoding="utf-8"))))
    sources = ["scanner", "model A", "model B"]
    assert {row["source"] for row in rows} == set(sources)
    for row in rows:
        assert row["source"] == sources[(int(row["cases"][-4:]) - 1) % 3]
        assert row["kind"] == ("real" if row["source"] == "scanner" else "synthetic")


def test_same_answers_give_the_same_report(unblinded, report, tmp_path):
    study, key = unblinded
    again = write_report(study, key, tmp_path, bootstrap=DRAWS)
    assert [path.read_bytes() for path in again] == [report[path.name].read_bytes() for path in again]
    with pytest.raises(InputError, match="exists already"):
        write_report(study, key, tmp_path, bootstrap=DRAWS)


def test_refusals_leave_nothing_behind(unblinded, tmp_path):
    study, key = unblinded
    blinded, its_key = write_study(tmp_path, per_source=1)
    out = tmp_path / "out"
    with pytest.raises(InputError, match="still blinded"):
        write_report(blinded, its_key, out)
    with pytest.raises(InputError, match="SHA-256 differs"):
        write_report(study, its_key, out)
    with pytest.raises(InputError, match="margin"):
        write_report(study, key, out, margin=0)
    with pytest.raises(InputError, match="at least 100"):
        write_report(study, key, out, bootstrap=10)
    with pytest.raises(CancelledError):
        write_report(study, key, out, cancel=lambda: True)
    assert not out.exists()


def test_the_margin_is_the_one_that_was_fixed_before_the_reading(tmp_path):
    study, key = write_study(tmp_path, per_source=1, margin=0.25)
    read_study(study, "Dr Ada", skilled_judge)
    unblind_study(study, key)
    with pytest.raises(InputError, match=r"fixed at 0.25 when the study was made, and 0.5 would be chosen"):
        write_report(study, key, tmp_path / "out", bootstrap=DRAWS, margin=0.5)
    write_report(study, key, tmp_path / "out", bootstrap=DRAWS)
    content = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert content["settings"]["margin"] == 0.25
    assert content["study"]["Margin of equivalence"] == "±0.25 steps of a scale, fixed before the reading"
    # Whoever changes it in study.json is told by the key, whose SHA-256 study.json carries.
    changed = study.folder / "study.json"
    changed.write_text(changed.read_text().replace('"equivalence_margin": 0.25', '"equivalence_margin": 1.0'))
    with pytest.raises(InputError, match="different cases or margins"):
        write_report(load_study(study.folder), key, tmp_path / "again", bootstrap=DRAWS)


def test_answers_that_changed_after_the_unblinding_are_refused(tmp_path):
    study, key = write_study(tmp_path, per_source=1)
    for reader in ("Dr Ada", "Dr Ben"):
        read_study(study, reader, skilled_judge)
    unblind_study(study, key)
    with closing(sqlite3.connect(next(study.answers_folder.glob("dr-ada*.sqlite")))) as database:
        before = [
            row[0] for row in database.execute("SELECT sql FROM sqlite_master WHERE name = 'answers_update'")
        ]
        database.execute("DROP TRIGGER answers_update")
        database.execute("UPDATE answers SET value = '1' WHERE question = 'realism'")
        database.execute(*before)
        database.commit()
    with pytest.raises(InputError, match="answers of Dr Ada were changed"):
        write_report(study, key, tmp_path / "out")
    next(study.answers_folder.glob("dr-ada*.sqlite")).unlink()
    with pytest.raises(InputError, match="answers of Dr Ada were removed"):
        write_report(study, key, tmp_path / "out")


def test_what_is_real_who_was_silent_and_what_was_not_tested_is_said(tmp_path):
    """Phantoms as real cases, one reader who reads and a mistyped name, and too few cases for the leak test."""
    study, key = write_study(tmp_path, per_source=2, phantoms=True)
    read_study(study, "Dr Ada", skilled_judge)
    read_study(study, "Dr Adda", skilled_judge, stop=0)
    unblind_study(study, key)
    write_report(study, key, tmp_path, bootstrap=DRAWS)
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    first, *others = content["warnings"]
    assert "Real does not mean patients here: 2 of the 2 real cases" in first and first in page
    assert content["study"]["What is real"].endswith(
        "2 of 2 cases are synthetic by their own headers, as phantoms are"
    )
    assert any("too few cases to be sure" in text and " needed" in text for text in others)
    assert any(text.startswith("Dr Adda confirmed no case") and "mistyped" in text for text in others)
    assert any(text.startswith("One reader:") for text in others)
    assert (content["study"]["Readers"], content["study"]["Readers without an answer"]) == (
        "Dr Ada",
        "Dr Adda",
    )
    estimates = content["estimates"]
    assert not any(e["reader"] == "Dr Adda" or e["missing"] for e in estimates)
    # One reader is neither several readers nor a mean over readers, and gets an interval of its own.
    assert not any("several readers" in e["note"] or "over readers" in e["method"] for e in estimates)
    marks = [e for e in estimates if e["topic"] == "artefacts" and not e["reader"]]
    assert marks and all(e["interval"] and e["note"].startswith("One reader:") for e in marks)


MARKUP = "</td><script>alert(1)</script><img src=x onerror=alert(2)>"


def test_markup_and_formulas_in_names_and_comments_are_only_text(tmp_path):
    kinds = {"scanner": "real", "<b>A & $x_{1}$": "synthetic"}
    study, key = write_study(tmp_path, per_source=5, kinds=kinds)

    def judge(reader, source, generator):
        values = skilled_judge(reader, "scanner", generator)
        return {**values, "comment": MARKUP if source == "scanner" else "=1+1"}

    read_study(study, "<i>Ada</i> $\\frac$", judge, kinds)
    unblind_study(study, key)
    write_report(study, key, tmp_path, bootstrap=DRAWS)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.suspicious and "b" not in page.tags and "i" not in page.tags
    assert "&lt;script&gt;alert(1)" in text and "&lt;b&gt;A &amp; $x_{1}$" in text
    comments = [
        row["value"]
        for row in csv.DictReader((tmp_path / "readings.csv").open(encoding="utf-8"))
        if row["question"] == "comment"
    ]
    assert set(comments) == {MARKUP, "'=1+1"}


def test_pairs_count_how_often_the_real_one_was_found(tmp_path):
    study, key = write_study(tmp_path, per_source=6, mode="pair", kinds={"scanner": "real", "A": "synthetic"})

    def judge(reader, source, generator):
        # read_study tells the source of the left case; the real one is found in 5 of 6.
        judge.count += 1
        real = "left" if source == "scanner" else "right"
        return {
            "preference": real if judge.count < 6 else {"left": "right", "right": "left"}[real],
            "confidence": 3,
        }

    judge.count = 0
    read_study(study, "Dr Ada", judge, {"scanner": "real", "A": "synthetic"})
    unblind_study(study, key)
    write_report(study, key, tmp_path, bootstrap=DRAWS)
    found = json.loads((tmp_path / "report.json").read_text())["estimates"]
    share = next(e for e in found if e["topic"] == "preference" and e["reader"] == "Dr Ada")
    assert share["value"] == pytest.approx(5 / 6) and share["readings"] == 6
    assert share["p_value"] == pytest.approx(2 * 7 / 64), "7 of 64 sequences have five or six right"
    assert "Which of the two is real?" in (tmp_path / "report.html").read_text(encoding="utf-8")

    write_report(study, key, tmp_path, bootstrap=DRAWS, margin=1, overwrite=True)
    assert json.loads((tmp_path / "report.json").read_text())["settings"]["margin"] == 1


def test_matches_are_ordered_from_not_to_match(tmp_path):
    study, key = write_study(tmp_path, per_source=5, mode="match")
    grade = {"scanner": "match", "model A": "partial", "model B": "not"}
    read_study(study, "Dr Ada", lambda reader, source, generator: {"match": grade[source]})
    unblind_study(study, key)
    write_report(study, key, tmp_path, bootstrap=DRAWS)
    found = json.loads((tmp_path / "report.json").read_text())["estimates"]
    best = next(e for e in found if e["topic"] == "comparison" and e["source"] == "scanner − model B")
    assert best["value"] == 1.0 and best["p_corrected"] < 0.05
    difference = next(e for e in found if e["topic"] == "equivalence" and e["source"] == "model B")
    assert difference["value"] == -2.0 and difference["p_value"] is None


def test_bars_are_as_long_as_the_shares():
    """The picture is read back: the colours of a source's bar have the lengths of its shares."""
    import matplotlib.image

    scale = Question("grade", "Grade?", "scale", tuple(Option(n, str(n)) for n in (1, 2)))
    readings = readings_of({"grade": [[1, 1, 1, 2]]}, ["scanner"] * 4, rubric=Rubric("test", (scale,)))
    analysis = analyse(readings, bootstrap=DRAWS)
    png = rating_bars(readings, analysis.estimates, scale)
    assert png.startswith(PNG)
    pixels = (matplotlib.image.imread(io.BytesIO(png))[..., :3] * 255).round().astype(int)
    worst, best = (
        (np.abs(pixels - np.array(colour)).max(axis=2) < 3).sum(axis=1).max()
        for colour in ((0xC2, 0x57, 0x1A), (0x1F, 0x5F, 0x99))
    )
    assert worst / best == pytest.approx(3.0, rel=0.03)


def test_a_study_that_nobody_finished_still_reports():
    """No answers to most questions: every number says why it is missing, the page is drawn all the same."""
    rubric = Rubric("first questions", default_rubric().questions[:3])
    readings = readings_of({"realism": [[3, None], [None, None]]}, ["scanner", "model A"], rubric=rubric)
    analysis = analyse(readings, bootstrap=DRAWS, expected={"reader 1": 2, "reader 2": 2})
    assert all(e.value is not None or e.note for e in analysis.estimates)
    assert any("reader 2 confirmed 0 of 2" in text for text in analysis.warnings)
    assert any("scanner has 1 cases" in text for text in analysis.warnings)
    assert "Before you read the numbers" in render_page(analysis, {})
