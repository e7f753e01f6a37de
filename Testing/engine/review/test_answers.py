"""Answers: what is recorded is on the disk, nothing is changed, readers go on where they stopped, the lock holds."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path, PureWindowsPath

import pytest
from support.simulated_review import values, write_study

import medlord
from medlord.errors import InputError
from medlord.review.answer_database import ReaderAnswers, database_of, uri_of
from medlord.review.answers import lock_study, read_answers, read_history, readers_of, status
from medlord.review.sitting import Sitting
from medlord.review.study import LOCK_FILE, Study, TrainingCase, load_study, lock_of, verify_cases


@pytest.fixture
def study(tmp_path) -> Study:
    """A study of 6 cases of three sources."""
    return write_study(tmp_path, per_source=2)[0]


def test_a_reader_goes_on_where_they_stopped(study):
    with ReaderAnswers(study, "Anna") as store:
        for number in range(4):
            reading = store.next_reading()
            store.record(reading, values(grade=number + 1 if number < 4 else 1), 10.0, confirmed=True)
        store.record(store.next_reading(), {"realism": 2}, 3.0)
    with ReaderAnswers(study, "Anna") as store:
        reading = store.next_reading()
        assert reading.position == 5 and store.values(reading) == {"realism": 2}
        assert store.visible_s(reading) == 3.0
        with pytest.raises(InputError, match="Unanswered: real_or_synthetic, confidence, anatomy"):
            store.record(reading, {}, confirmed=True)
        store.record(reading, {**values(), "realism": 1}, 4.5, confirmed=True)
        store.record(store.next_reading(), values(), 1.0, confirmed=True)
        assert store.next_reading() is None
    found = read_answers(study)
    assert len(found) == 6 * 8 and {answer.reader for answer in found} == {"Anna"}
    fifth = {answer.question: answer for answer in found if answer.position == 5}
    assert (fifth["realism"].value, fifth["realism"].changes, fifth["realism"].visible_s) == (1, 1, 7.5)
    assert fifth["anatomy"].changes == 0
    assert [answer.question for answer in found[:3]] == ["real_or_synthetic", "confidence", "realism"]


def test_nothing_is_ever_changed_or_deleted(study):
    with ReaderAnswers(study, "Anna") as store:
        first = store.next_reading()
        store.record(first, values("real"), confirmed=True)
        store.record(store.next_reading(), {"comment": "unfinished"})
        store.record(first, values("synthetic"), confirmed=True)
        store.record(first, {"realism": 1})  # a draft after the confirmation does not count
        path = store.path
    verdicts = [a.value for a in read_history(study) if a.question == "real_or_synthetic"]
    assert verdicts == ["real", "synthetic"]
    counted = {answer.question: answer for answer in read_answers(study)}
    assert counted["real_or_synthetic"].value == "synthetic" and counted["real_or_synthetic"].changes == 1
    assert counted["realism"].value == 3 and "comment" not in counted
    database = sqlite3.connect(path)
    for change in (
        "UPDATE answers SET value = '1'",
        "DELETE FROM submissions",
        "UPDATE facts SET value = 'x'",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(change)
    database.close()


def test_what_is_confirmed_is_synchronous_and_one_transaction(study):
    with ReaderAnswers(study, "Anna") as store:
        pragma = {
            name: store._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode")
        }
        assert pragma == {"synchronous": 3, "journal_mode": "delete"}
        statements: list[str] = []
        store._database.set_trace_callback(statements.append)
        store.record(store.next_reading(), values(), confirmed=True)
        begun = [word for word in statements if word.startswith(("BEGIN", "COMMIT"))]
        inserts = [number for number, word in enumerate(statements) if word.startswith("INSERT")]
        assert begun == ["BEGIN IMMEDIATE", "COMMIT"]
        assert statements.index("BEGIN IMMEDIATE") < min(inserts)
        assert max(inserts) < statements.index("COMMIT") and len(inserts) >= 9


def test_a_submission_that_is_sent_again_is_stored_once(study):
    with ReaderAnswers(study, "Anna") as store:
        reading = store.next_reading()
        number = store.record(reading, values(), 5.0, confirmed=True, token="abc")
        assert store.record(reading, values(), 5.0, confirmed=True, token="abc") == number
        assert store.visible_s(reading) == 5.0
    assert len(read_history(study)) == 8


def test_readings_have_their_turn_and_going_back_is_as_the_study_says(study):
    with ReaderAnswers(study, "Anna") as store:
        with pytest.raises(InputError, match="not yet due"):
            store.record(store.order[2], values(), confirmed=True)
        store.record(store.order[0], values(), confirmed=True)
        with pytest.raises(InputError, match="confidence"):
            store.record(store.order[1], {"confidence": 9})
        with pytest.raises(InputError, match="not in this reader's order"):
            store.record(replace(store.order[1], item="case_0099"), values())
        with pytest.raises(InputError, match="visible"):
            store.record(store.order[1], values(), -1.0)
    strict = replace(study, order=replace(study.order, going_back=False))
    with ReaderAnswers(strict, "Anna") as store:
        with pytest.raises(InputError, match="does not allow going back"):
            store.record(store.order[0], values(), confirmed=True)
    assert len(read_history(study)) == 8


def test_training_gives_feedback_and_does_not_count(study, tmp_path):
    trained = replace(study, training=(TrainingCase("training_0001", "0" * 64, "synthetic"),))
    with ReaderAnswers(trained, "Anna") as store:
        reading = store.next_reading()
        assert reading.item == "training_0001" and store.feedback(reading) is None
        store.record(reading, values(), confirmed=True)
        assert store.feedback(reading) == "synthetic"
        store.record(following := store.next_reading(), values(), confirmed=True)
        assert store.feedback(following) is None
    assert {answer.item for answer in read_answers(trained)} == {following.item}
    assert len(read_answers(trained, training=True)) == 16


def test_two_readers_write_at_once_in_two_processes(study):
    script = (
        "import sys\n"
        "from medlord.review.answer_database import ReaderAnswers\n"
        "from medlord.review.study import load_study\n"
        f"values = {values()!r}\n"
        "store = ReaderAnswers(load_study(sys.argv[1]), sys.argv[2])\n"
        "print('open', flush=True); sys.stdin.readline()\n"
        "while reading := store.next_reading(): store.record(reading, values, 1.0, confirmed=True)\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "sys.stdin.readline()\n"
    )
    folder = str(Path(medlord.__file__).parents[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(study.folder), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": folder},
        )
        for name in ("Anna", "anna")
    ]  # fmt: skip
    try:
        assert [process.stdout.readline() for process in processes] == ["open\n"] * 2
        with pytest.raises(InputError, match="open in another program"):
            ReaderAnswers(study, "Anna")
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            process.communicate("end\n", timeout=60)
            assert process.returncode == 0
    finally:
        for process in processes:
            process.kill()
    assert readers_of(study) == ["Anna", "anna"]
    assert [(entry.confirmed, entry.readings) for entry in status(study)] == [(6, 6), (6, 6)]
    ReaderAnswers(study, "Anna").close()  # the lock went with its process


def test_answers_lie_elsewhere_when_the_study_cannot_be_written(study, tmp_path):
    study.answers_folder.write_text("a file where the folder would be")
    with pytest.raises(InputError, match="--answers DIR"):
        ReaderAnswers(study, "Anna")
    elsewhere = tmp_path / "elsewhere"
    with ReaderAnswers(study, "Anna", elsewhere) as store:
        store.record(store.next_reading(), values(), confirmed=True)
    assert len(read_answers(study, elsewhere)) == 8
    lock_study(study, elsewhere)
    assert lock_of(study, elsewhere)["readers"]["Anna"]["confirmed"] == 1
    assert sorted(file.name for file in elsewhere.iterdir() if file.suffix == ".json") == [LOCK_FILE]


def test_a_copy_of_a_readers_file_does_not_count_twice(study):
    with ReaderAnswers(study, "Anna") as store:
        store.record(store.next_reading(), values(), 1.0, confirmed=True)
    # what macOS puts beside files on a shared folder
    store.path.with_name(f"._{store.path.name}").write_bytes(b"\0\5\x16\7")
    assert readers_of(study) == ["Anna"]
    copy = shutil.copy(store.path, store.path.with_name("anna (conflicted copy).sqlite"))
    for reading in (read_answers, status, lock_study):
        with pytest.raises(
            InputError, match=r"anna \(conflicted copy\).* hold answers of Anna, so one is a copy"
        ):
            reading(study)
    Path(copy).unlink()
    assert len(read_answers(study)) == len(values()) and lock_of(study) is None
    store.path.with_suffix(".open").write_bytes(b"no database" * 99)
    with pytest.raises(InputError, match="cannot be stored in"):
        ReaderAnswers(study, "Anna")


def test_a_windows_share_is_no_host_to_sqlite():
    assert uri_of(PureWindowsPath(r"\\nas\reads\a b.sqlite")) == "file:////nas/reads/a%20b.sqlite"
    assert uri_of(PureWindowsPath(r"C:\reads\a.sqlite")) == "file:///C:/reads/a.sqlite"
    with pytest.raises(sqlite3.OperationalError, match="authority"):  # why it matters
        sqlite3.connect("file://nas/reads/a.sqlite?mode=rw", uri=True)


def test_what_is_changed_after_going_back_counts_without_another_confirmation(study):
    with Sitting(study, "Anna") as sitting:
        for name, value in values(grade=3).items():
            sitting.set(name, value)
        sitting.confirm()
        sitting.back()
        sitting.set("realism", 1)  # and the program dies, or the reader leaves
    with Sitting(study, "Anna") as sitting:
        assert sitting.current.position == 2 and sitting.progress == (1, 6)
    counted = {answer.question: answer for answer in read_answers(study)}
    assert (counted["realism"].value, counted["realism"].changes, counted["anatomy"].value) == (1, 1, 3)


def test_answers_to_another_study_and_damage_are_noticed(study, tmp_path):
    with ReaderAnswers(study, "Anna") as store:
        store.record(store.next_reading(), values(), confirmed=True)
    other = replace(study, study_id="9" * 32)
    with pytest.raises(InputError, match="another study"):
        ReaderAnswers(other, "Anna")
    with pytest.raises(InputError, match="another study"):
        read_answers(other)
    path = database_of(study.answers_folder, "Bert")
    path.write_bytes(b"")  # killed while the file was made
    assert len(read_answers(study)) == 8 and readers_of(study) == ["Anna"]
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match="damaged"):
        read_answers(study)


def test_after_unblinding_no_answer_is_taken(study):
    store = ReaderAnswers(study, "Anna")
    store.record(store.next_reading(), values(), confirmed=True)
    lock = lock_study(study)
    assert lock == lock_of(study) == lock_of(load_study(study.folder))
    assert lock["readers"]["Anna"]["confirmed"] == 1 and len(lock["readers"]["Anna"]["answers_sha256"]) == 64
    with pytest.raises(InputError, match="unblinded"):
        store.record(store.next_reading(), values(), confirmed=True)
    with pytest.raises(InputError, match="unblinded"):
        ReaderAnswers(study, "Bert")
    with pytest.raises(InputError, match="unblinded already"):
        lock_study(study)
    # Who deletes the lock's file still meets the lock in the database.
    for folder in (study.folder, study.answers_folder):
        (folder / LOCK_FILE).unlink()
    with pytest.raises(InputError, match="takes no more answers"):
        store.record(store.next_reading(), values(), confirmed=True)
    store.close()
    assert len(read_answers(study)) == 8


def test_a_lock_that_died_half_way_is_finished(study, monkeypatch):
    with ReaderAnswers(study, "Anna") as store:
        store.record(store.next_reading(), values(), confirmed=True)
    import medlord.volume_files

    with monkeypatch.context() as patched:
        patched.setattr(
            medlord.volume_files, "write_atomically", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt())
        )
        with pytest.raises(KeyboardInterrupt):
            lock_study(study)
    assert lock_of(study) is None
    assert lock_study(study)["readers"]["Anna"]["confirmed"] == 1


def test_a_changed_or_missing_case_is_named(study):
    verify_cases(study)
    path = study.file("case_0003")
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InputError, match="case_0003.nrrd was changed"):
        verify_cases(study)
    verify_cases(study, ["case_0001"])
    path.unlink()
    with pytest.raises(InputError, match="case_0003.nrrd is missing"):
        verify_cases(study)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(format="x"), "no study of MedLoRD"),
        (lambda c: c.update(version=9), "version 9"),
        (lambda c: c.update(mode="x"), "damaged"),
        (lambda c: c.pop("items"), "damaged"),
        (lambda c: c["items"][0].update(cases=["case_9999"]), "damaged"),
        (lambda c: c["cases"][0].update(case="../key"), "damaged"),
    ],
)
def test_a_damaged_study_is_refused(study, change, says):
    content = json.loads((study.folder / "study.json").read_text())
    change(content)
    (study.folder / "study.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=says):
        load_study(study.folder)


def test_a_sitting_stores_every_value_and_the_visible_time(study):
    now = [100.0]
    with Sitting(
        replace(study, order=replace(study.order, blocks=2)), "Anna", clock=lambda: now[0]
    ) as sitting:
        first = sitting.current
        assert sitting.upcoming.position == 2 and not sitting.break_due
        with pytest.raises(InputError, match="none before it"):
            sitting.back()
        sitting.show()
        now[0] += 5
        for name, value in values().items():
            sitting.set(name, value)
        sitting.hide()
        now[0] += 1000  # another window lies over it
        sitting.show()
        now[0] += 2
        second = sitting.confirm()
        assert second.position == 2 and sitting.store.visible_s(first) == 7.0
        with pytest.raises(InputError, match="Unanswered"):
            sitting.confirm()
        assert sitting.back() == first and sitting.values() == values()
        sitting.set("comment", "again")
        assert sitting.confirm() == second
        for _ in range(2):
            for name, value in values().items():
                sitting.set(name, value)
            sitting.confirm()
        assert sitting.current.position == 4 and sitting.break_due
        assert sitting.progress == (3, 6)
    with Sitting(study, "Anna") as sitting:
        assert sitting.current.position == 4
        while sitting.current:
            for name, value in values().items():
                sitting.set(name, value)
            sitting.confirm()
        assert sitting.upcoming is None
        with pytest.raises(InputError, match="finished"):
            sitting.set("realism", 1)
