"""The answers of all readers: what counts, the whole history, and the lock that unblinding puts on them."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .answer_database import (
    SUFFIX,
    ReaderAnswers,
    connect_to_read,
    facts_of,
    sqlite_errors,
    transaction,
    utc_now,
)
from .study import LOCK_FILE, Study, answers_of, lock_of

_HISTORY = """
SELECT submissions.id, position, block, item, cases, repeat, training, answered_at, question, value,
       (SELECT TOTAL(visible_s) FROM submissions AS other WHERE other.position = submissions.position),
       (SELECT MAX(id) FROM submissions AS other WHERE other.position = submissions.position AND other.confirmed)
FROM answers JOIN submissions ON answers.submission = submissions.id ORDER BY answers.id
"""


@dataclass(frozen=True)
class Answer:
    """One value that one reader gave to one question.

    `cases` are those of the item as shown (pair: left, right); `repeat` is 0 for the first reading of an item;
    `position` counts from 1 in the reader's order, `block` from 1 (0 in the training); `visible_s` are the seconds
    for which the whole reading was visible; `answered_at` is UTC in ISO 8601; `changes` counts the earlier values
    that differed from the one after them.
    """

    reader: str
    item: str
    cases: tuple[str, ...]
    repeat: int
    training: bool
    position: int
    block: int
    question: str
    value: object
    visible_s: float
    answered_at: str
    changes: int


def read_answers(study: Study, answers: str | Path | None = None, training: bool = False) -> list[Answer]:
    """What counts: the last confirmed value per reader, item, repeat and question.

    Sorted by reader, position and the rubric's order. Drafts of readings that were never confirmed, and changes
    after the last confirmation, do not count. Training cases are left out unless `training`. Raises `InputError`
    for a database that is damaged or belongs to another study.
    """
    rank = {question.id: number for number, question in enumerate(study.rubric.questions)}
    result = []
    for path in _databases(study, answers):
        counted: dict[tuple[int, str], Answer] = {}
        for answer, confirmed in _history(study, path):
            if confirmed and (training or not answer.training):
                counted[answer.position, answer.question] = answer
        result += counted.values()
    return sorted(result, key=lambda a: (a.reader, a.position, rank.get(a.question, len(rank))))


def read_history(study: Study, answers: str | Path | None = None) -> list[Answer]:
    """Every value that was ever recorded, drafts and training too, in the order each reader gave them."""
    return [answer for path in _databases(study, answers) for answer, _ in _history(study, path)]


def readers_of(study: Study, answers: str | Path | None = None) -> list[str]:
    """Names of the readers who have started."""
    return sorted(_reader(study, path) for path in _databases(study, answers))


def others_begun(store: ReaderAnswers, answers: str | Path | None = None) -> int:
    """How many others have begun, where nothing of the reader of `store` counts yet and any name is taken; otherwise 0.

    A mistyped name begins such a study anew, so the reader is told, but not who the others are. Nothing of theirs is
    opened: a damaged file of another reader must not keep this one from reading.
    """
    if store.study.readers or store.confirmed():
        return 0
    files = answers_of(store.study, answers).glob(f"*{SUFFIX}")
    return sum(not path.name.startswith(".") and path.name != store.path.name for path in files)


@dataclass(frozen=True)
class ReaderStatus:
    """How far a reader is: confirmed readings of all, the last answer (UTC), visible minutes in all."""

    reader: str
    confirmed: int
    readings: int
    last_answer: str
    visible_minutes: float


def status(study: Study, answers: str | Path | None = None) -> list[ReaderStatus]:
    """How far every reader is: who has started, and whom the study names though they have not."""
    readings = len(study.training) + len(study.items) + min(study.order.repeats, len(study.items))
    started = readers_of(study, answers)
    result = [ReaderStatus(name, 0, readings, "", 0.0) for name in study.readers if name not in started]
    for path in _databases(study, answers):
        with _reading(study, path) as (database, reader):
            confirmed, minutes, last = database.execute(
                "SELECT (SELECT COUNT(DISTINCT position) FROM submissions WHERE confirmed), "
                "TOTAL(visible_s) / 60, MAX(answered_at) FROM submissions"
            ).fetchone()
        result.append(ReaderStatus(reader, confirmed, readings, last or "", minutes))
    return sorted(result, key=lambda entry: entry.reader)


def lock_study(study: Study, answers: str | Path | None = None) -> dict:
    """Lock a study against further answers: in every reader's database, then by `unblinded.json`.

    A lock that died half way is finished by the next call. Returns the content of `unblinded.json`: who had
    confirmed how much, with a SHA-256 of each reader's history. Raises `InputError` when the study is locked
    already or the folder of the answers cannot be written.
    """
    from ..volume_files import check_writable_folder, write_atomically

    earlier = lock_of(study, answers)
    if earlier is not None:
        raise InputError(
            f"The study was unblinded already, on {str(earlier.get('unblinded_at'))[:16]}; its answers are locked. "
            "Go on with the report."
        )
    folder = answers_of(study, answers)
    check_writable_folder(folder)
    moment = utc_now()
    _lock_databases(study, answers, moment)
    histories = histories_sha256(study, answers)
    readers = {
        entry.reader: {"confirmed": entry.confirmed, "answers_sha256": histories[entry.reader]}
        for entry in status(study, answers)
        if entry.reader in histories
    }
    lock = {
        "study_id": study.study_id, "unblinded_at": moment, "key_sha256": study.key_sha256, "readers": readers,
    }  # fmt: skip
    text = json.dumps(lock, indent=1, ensure_ascii=False) + "\n"
    write_atomically(folder / LOCK_FILE, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    _lock_databases(study, answers, moment)  # of readers who started in between
    try:
        check_writable_folder(study.folder)
    except InputError:
        return lock  # a study on read-only media: the lock beside the answers holds
    write_atomically(study.folder / LOCK_FILE, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return lock


def _lock_databases(study: Study, answers: str | Path | None, moment: str) -> None:
    for path in _databases(study, answers):
        with _reading(study, path) as (database, _), transaction(database):
            if "locked_at" not in facts_of(database):
                database.execute("INSERT INTO facts (name, value) VALUES ('locked_at', ?)", (moment,))


def _databases(study: Study, answers: str | Path | None) -> list[Path]:
    """The readers' files, one for each reader.

    Left out are hidden files, which macOS puts beside others on shared folders, and a file that holds nothing yet since
    its reader was stopped while it was made. Raises `InputError` for two files of one reader, as backups and shared
    folders make by copying: the answers would count twice, or old ones instead of the last.
    """
    paths: dict[str, Path] = {}
    for path in sorted(answers_of(study, answers).glob(f"*{SUFFIX}")):
        if path.name.startswith("."):
            continue
        with sqlite_errors(path), closing(connect_to_read(path)) as database:
            reader = facts_of(database).get("reader")
        if reader in paths:
            raise InputError(
                f"{paths[reader].name} and {path.name} both hold answers of {reader}, so one is a copy; take out of "
                f"{path.parent} the one that does not count."
            )
        if reader is not None:
            paths[reader] = path
    return list(paths.values())


@contextmanager
def _reading(study: Study, path: Path) -> Iterator[tuple[sqlite3.Connection, str]]:
    """A reader's database and the reader's name; raises `InputError` when it belongs to another study."""
    with sqlite_errors(path), closing(connect_to_read(path)) as database:
        facts = facts_of(database)
        if facts.get("study_id") != study.study_id:
            raise InputError(f"{path} holds answers to another study; take it out of this folder.")
        yield database, facts["reader"]


def _reader(study: Study, path: Path) -> str:
    with _reading(study, path) as (_, reader):
        return reader


def _history(study: Study, path: Path) -> list[tuple[Answer, bool]]:
    """All values of a reader in the order they were given, each with whether a confirmation came with or after it."""
    with _reading(study, path) as (database, reader):
        rows = database.execute(_HISTORY).fetchall()
    result, last, changes = [], {}, {}
    for (
        submission,
        position,
        block,
        item,
        cases,
        repeat,
        training,
        at,
        question,
        value,
        seconds,
        final,
    ) in rows:
        place = (position, question)
        changes[place] = changes.get(place, 0) + (place in last and last[place] != value)
        last[place] = value
        answer = Answer(
            reader, item, tuple(json.loads(cases)), repeat, bool(training), position, block, question,
            json.loads(value), seconds, at, changes[place],
        )  # fmt: skip
        result.append((answer, final is not None and submission <= final))
    return result


def histories_sha256(study: Study, answers: str | Path | None = None) -> dict[str, str]:
    """Of every reader the SHA-256 that `lock_study` writes into the lock, as their database gives it now."""
    return {_reader(study, path): _history_sha256(study, path) for path in _databases(study, answers)}


def _history_sha256(study: Study, path: Path) -> str:
    """SHA-256 of all that a reader ever recorded, to tell later whether a database was exchanged."""
    digest = hashlib.sha256()
    with _reading(study, path) as (database, _):
        for table in ("submissions", "answers"):
            for row in database.execute(f"SELECT * FROM {table} ORDER BY id"):
                digest.update(json.dumps([table, *row], ensure_ascii=False).encode("utf-8"))
    return digest.hexdigest()
