"""Answers of one reader: SQLite, one transaction per answer, nothing is ever changed or deleted.

Every reader has a database of their own, so two readers on one shared folder never wait for each other. The journal
is SQLite's rollback journal, since write-ahead logging needs shared memory that network folders do not have
(https://www.sqlite.org/wal.html), with synchronous=EXTRA: what was confirmed is on the disk, its folder entry too
(https://www.sqlite.org/pragma.html#pragma_synchronous). Triggers refuse to change or delete a row, and to add one
once the study is unblinded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path, PurePath

from ..errors import EngineError, InputError
from .order import Reading, known_reader, reading_order
from .study import Study, answers_of, lock_of

SCHEMA_VERSION = "1"
SUFFIX = ".sqlite"
_BUSY_S = 20.0
EVENTS = ("started", "resumed", "paused", "finished")

TABLES = {
    "facts": "name TEXT PRIMARY KEY, value TEXT NOT NULL",
    "submissions": (
        "id INTEGER PRIMARY KEY AUTOINCREMENT, token TEXT NOT NULL UNIQUE, position INTEGER NOT NULL, block INTEGER "
        "NOT NULL, item TEXT NOT NULL, cases TEXT NOT NULL, repeat INTEGER NOT NULL, training INTEGER NOT NULL, "
        "confirmed INTEGER NOT NULL, visible_s REAL NOT NULL, answered_at TEXT NOT NULL"
    ),
    "answers": (
        "id INTEGER PRIMARY KEY AUTOINCREMENT, submission INTEGER NOT NULL REFERENCES submissions(id), question TEXT "
        "NOT NULL, value TEXT NOT NULL, UNIQUE(submission, question)"
    ),
    "events": "id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, at TEXT NOT NULL",
}


def database_of(folder: Path, reader: str) -> Path:
    """The file of a reader; the hash keeps names apart that file systems would take for one."""
    slug = re.sub(r"[^a-z0-9]+", "-", reader.lower()).strip("-") or "reader"
    return folder / f"{slug[:40]}-{hashlib.sha256(reader.encode('utf-8')).hexdigest()[:8]}{SUFFIX}"


class ReaderAnswers:
    """The answers of one reader to a study, open for writing; use it as a context manager.

    `is_new` tells that the reader had not begun before. Raises `InputError` when the study is unblinded or names its
    readers and this is none of them, the folder cannot be written, the database belongs to another study, or the same
    reader has it open in another program.
    """

    def __init__(self, study: Study, reader: str, answers: str | Path | None = None):
        self.study, self.reader = study, known_reader(study, reader)
        self.order = reading_order(study, self.reader)
        self._answers = answers
        _refuse_when_unblinded(study, answers)
        self.path = database_of(_writable(answers_of(study, answers)), self.reader)
        self._alone = _hold(self.path.with_suffix(".open"), self.reader)
        try:
            with sqlite_errors(self.path):
                self._database = _connect(self.path)
                self.is_new = _create(self._database, study, self.reader)
                _check_owner(self._database, study, self.reader, self.path)
        except BaseException:
            self._alone.close()
            raise
        self.event("started" if self.is_new else "resumed")

    def __enter__(self) -> ReaderAnswers:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; what was recorded is on the disk already."""
        self._database.close()
        self._alone.close()

    def confirmed(self) -> set[int]:
        """Positions whose reading the reader confirmed."""
        with sqlite_errors(self.path):
            rows = self._database.execute("SELECT DISTINCT position FROM submissions WHERE confirmed")
            return {position for (position,) in rows}

    def next_reading(self) -> Reading | None:
        """The first reading that is not confirmed: where the reader goes on. None when all are."""
        done = self.confirmed()
        return next((reading for reading in self.order if reading.position not in done), None)

    def values(self, reading: Reading) -> dict[str, object]:
        """The last value of each question of a reading, drafts included."""
        with sqlite_errors(self.path):
            rows = self._database.execute(
                "SELECT question, value FROM answers JOIN submissions ON submission = submissions.id "
                "WHERE position = ? ORDER BY answers.id", (reading.position,),
            )  # fmt: skip
            return {question: json.loads(value) for question, value in rows}

    def visible_s(self, reading: Reading) -> float:
        """Seconds that a reading was visible until its last record."""
        with sqlite_errors(self.path):
            total = "SELECT TOTAL(visible_s) FROM submissions WHERE position = ?"
            return float(self._database.execute(total, (reading.position,)).fetchone()[0])

    def record(
        self,
        reading: Reading,
        values: Mapping[str, object],
        visible_s: float = 0.0,
        *,
        confirmed: bool = False,
        token: str | None = None,
    ) -> int:
        """Store `values` of a reading in one transaction; when this returns they are on the disk.

        `visible_s` are the seconds for which the reading was visible since its last record. `confirmed` ends the
        reading; all required questions must then have a value. A `token` names the submission: recording it again
        changes nothing and gives the same number. Returns the number of the submission. Raises `InputError` for
        values outside the rubric, a reading out of its turn, and an unblinded study.
        """
        self._check(reading, values, visible_s, confirmed, token)
        stored = [
            (question, json.dumps(value, ensure_ascii=False, allow_nan=False))
            for question, value in values.items()
        ]
        row = (
            token or uuid.uuid4().hex, reading.position, reading.block, reading.item, json.dumps(reading.cases),
            reading.repeat, int(reading.training), int(confirmed), float(visible_s), utc_now(),
        )  # fmt: skip
        with sqlite_errors(self.path), transaction(self._database) as database:
            known = database.execute("SELECT id FROM submissions WHERE token = ?", row[:1]).fetchone()
            if known:
                return known[0]
            marks = ", ".join("?" * len(row))
            columns = (
                "token, position, block, item, cases, repeat, training, confirmed, visible_s, answered_at"
            )
            number = database.execute(f"INSERT INTO submissions ({columns}) VALUES ({marks})", row).lastrowid
            database.executemany(
                "INSERT INTO answers (submission, question, value) VALUES (?, ?, ?)",
                [(number, *entry) for entry in stored],
            )
        return number

    def recorded(self, token: str | None) -> Reading | None:
        """The reading that was recorded under a token; None for a new one."""
        with sqlite_errors(self.path):
            known = "SELECT position FROM submissions WHERE token = ?"
            row = self._database.execute(known, (token,)).fetchone()
        return self.order[row[0] - 1] if row else None

    def event(self, kind: str) -> None:
        """Note that the reader started, resumed, paused or finished."""
        with sqlite_errors(self.path), transaction(self._database) as database:
            database.execute("INSERT INTO events (kind, at) VALUES (?, ?)", (kind, utc_now()))

    def feedback(self, reading: Reading) -> str | None:
        """The truth of a training case that was confirmed; None for every other reading."""
        if reading.training and reading.position in self.confirmed():
            return self.study.truth_of_training(reading.item)
        return None

    def _check(
        self, reading: Reading, values: Mapping, visible_s: float, confirmed: bool, token: str | None
    ) -> None:
        _refuse_when_unblinded(self.study, self._answers)
        if reading not in self.order:
            raise InputError(f"{reading.item} at position {reading.position} is not in this reader's order.")
        self.study.rubric.check(values)
        if not 0 <= visible_s < 7 * 24 * 3600:
            raise InputError(f"A reading was visible for {visible_s} s; give seconds from 0 to a week.")
        if self.recorded(token) is not None:
            return
        following = self.next_reading()
        if following is not None and reading.position > following.position:
            raise InputError(
                f"Position {reading.position} is not yet due; {self.reader} goes on at position {following.position}."
            )
        if not self.study.order.going_back and reading != following:
            raise InputError(
                f"Position {reading.position} is confirmed, and this study does not allow going back."
            )
        missing = self.study.rubric.missing({**self.values(reading), **values}) if confirmed else []
        if missing:
            raise InputError(f"Unanswered: {', '.join(missing)}. Answer them before going on.")


def _refuse_when_unblinded(study: Study, answers: str | Path | None) -> None:
    lock = lock_of(study, answers)
    if lock is not None:
        raise InputError(
            f"The study was unblinded on {str(lock.get('unblinded_at', 'an unknown day'))[:10]} and takes no more "
            "answers."
        )


def _writable(folder: Path) -> Path:
    """The folder of the answers, made when it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Answers cannot be stored in {folder} ({error.strerror}); name a folder for them with --answers DIR."
        ) from error
    return folder


def _hold(path: Path, reader: str) -> sqlite3.Connection:
    """Keep a second program from opening the same reader's answers.

    An exclusive transaction on an empty database is a lock that every system has and that ends with the process.
    """
    alone = None
    try:
        alone = sqlite3.connect(path, timeout=0.5, isolation_level=None, check_same_thread=False)
        alone.execute("PRAGMA journal_mode = MEMORY")  # no journal's file beside it
        alone.execute("BEGIN EXCLUSIVE")
    except sqlite3.DatabaseError as error:
        if alone is not None:
            alone.close()
        if "locked" in str(error):
            raise InputError(
                f"{reader} has this study open in another program; close it there, or take another reader's name."
            ) from error
        raise InputError(
            f"Answers cannot be stored in {path.parent} ({error}); name a folder for them with --answers DIR."
        ) from error
    return alone


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode = DELETE")
    database.execute("PRAGMA synchronous = EXTRA")
    # macOS brings to the disk what is synchronised by this alone; elsewhere it changes nothing.
    database.execute("PRAGMA fullfsync = ON")
    database.execute("PRAGMA foreign_keys = ON")
    return database


def connect_to_read(path: Path) -> sqlite3.Connection:
    """An existing database; what a killed process left unfinished is rolled back, where the folder can be written."""
    uri = f"{uri_of(path.absolute())}?mode=rw"
    return sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None)


def uri_of(path: PurePath) -> str:
    """The URI of an absolute path for SQLite, which takes no host: that of a Windows share is a part of the path there
    (https://www.sqlite.org/uri.html)."""
    uri = path.as_uri()
    return uri if uri.startswith("file:///") else uri.replace("file://", "file:////", 1)


def facts_of(database: sqlite3.Connection) -> dict[str, str]:
    """Schema, study and reader of a database; empty while it is being made."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone():
        return {}
    return dict(database.execute("SELECT name, value FROM facts"))


def _create(database: sqlite3.Connection, study: Study, reader: str) -> bool:
    """Make the tables and triggers in one transaction; True when they were not there."""
    with transaction(database):
        if facts_of(database):
            return False
        for name, columns in TABLES.items():
            database.execute(f"CREATE TABLE {name} ({columns})")
            for change in ("UPDATE", "DELETE"):
                database.execute(
                    f"CREATE TRIGGER {name}_{change.lower()} BEFORE {change} ON {name} "
                    "BEGIN SELECT RAISE(ABORT, 'append-only'); END"
                )
            database.execute(
                f"CREATE TRIGGER {name}_insert BEFORE INSERT ON {name} "
                "WHEN EXISTS (SELECT 1 FROM facts WHERE name = 'locked_at') "
                "BEGIN SELECT RAISE(ABORT, 'unblinded'); END"
            )
        facts = {"schema": SCHEMA_VERSION, "study_id": study.study_id, "reader": reader}
        database.executemany("INSERT INTO facts (name, value) VALUES (?, ?)", facts.items())
    return True


def _check_owner(database: sqlite3.Connection, study: Study, reader: str, path: Path) -> None:
    facts = facts_of(database)
    if facts.get("schema") != SCHEMA_VERSION:
        raise InputError(f"{path.name} was written by another version of the program; use that version.")
    if facts.get("study_id") != study.study_id or facts.get("reader") != reader:
        raise InputError(
            f"{path.name} holds the answers to another study; choose another folder with --answers."
        )


@contextlib.contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One transaction: all that happens within it is on the disk when it ends, or nothing is."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Errors of SQLite in one line for the reader."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        if "unblinded" in str(error):
            raise InputError("The study was unblinded and takes no more answers.") from error
        raise EngineError(f"{path.name} refused the answer ({error}); nothing was stored.") from error
    except sqlite3.OperationalError as error:
        raise EngineError(
            f"{path} could not be read or written ({error}); what was confirmed before is kept, nothing of this answer "
            "is. Make room or check the folder, then try again."
        ) from error
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path.name} is damaged ({error}); restore it from a copy.") from error


def utc_now() -> str:
    """UTC in ISO 8601 with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
