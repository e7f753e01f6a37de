"""The report of an unblinded study: an HTML page, the numbers as CSV and JSON, the answers with their sources."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

from ..commands.outputs import all_or_nothing, check_outputs
from ..errors import InputError
from ..progress import Cancel, Progress, raise_if_cancelled
from ..volume_files import write_atomically
from .analysis import Analysis, analyse, check_settings
from .answers import histories_sha256, read_answers, readers_of
from .estimate import COLUMNS
from .key import Key, read_key
from .provenance import cautions, real_in_words
from .readings import Readings, join_readings
from .report_page import render_page
from .study import DEFAULT_MARGIN, Study, load_study, lock_of

FORMAT = "medlord-review-report"
VERSION = 1
FILES = ("report.html", "report.json", "numbers.csv", "readings.csv")

_READING_COLUMNS = (
    "reader", "item", "cases", "source", "kind", "repeat", "block", "position", "question", "value", "visible_s",
    "answered_at", "changes",
)  # fmt: skip


def write_report(
    study: Study | str | Path,
    key_path: str | Path,
    out: str | Path,
    *,
    passphrase: str | None = None,
    answers: str | Path | None = None,
    margin: float | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> list[Path]:
    """Write report.html, report.json, numbers.csv and readings.csv into the folder `out`, all or none; their paths.

    `answers` is the folder of the readers' databases, by default the study's own. `margin` is the difference from real,
    in steps of a scale, that counts as none: by default the one that was fixed when the study was made, and no other is
    taken then; `bootstrap` the number of draws, `seed` theirs. Raises `InputError` while the study is blinded, for
    another margin, for a key that does not fit or open, for answers that are not those it was unblinded with, and when
    `out` cannot be written or has a report already and `overwrite` is not given.
    """
    study, out = study if isinstance(study, Study) else load_study(study), Path(out)
    check_settings(DEFAULT_MARGIN if margin is None else margin, bootstrap)
    lock = lock_of(study, answers)
    if lock is None:
        raise InputError(
            "The study is still blinded and a report names the sources; unblind it first: 'medlord review unblind'."
        )
    key = read_key(key_path, passphrase, study=study)
    margin = margin_for(key, margin)
    paths = [out / name for name in FILES]
    made = _make_folder(out)
    try:
        check_outputs(paths, overwrite)
        analysis = _analysis(study, key, answers, lock, margin, bootstrap, seed, progress, cancel)
        contents = {
            "report.html": render_page(analysis, facts_of(study, key, lock, analysis)),
            "report.json": _json(study, key, lock, analysis),
            "numbers.csv": _numbers_csv(analysis),
            "readings.csv": _readings_csv(analysis.readings),
        }
        raise_if_cancelled(cancel, "the report")
        with all_or_nothing(paths):
            for path in paths:
                _write(path, contents[path.name])
    except BaseException:
        if made:
            out.rmdir()
        raise
    return paths


def margin_for(key: Key, margin: float | None) -> float:
    """The margin of equivalence to report with; raises `InputError` for another than the study fixed."""
    if key.margin is None:
        return DEFAULT_MARGIN if margin is None else margin
    if margin not in (None, key.margin):
        raise InputError(
            f"The margin of equivalence was fixed at {key.margin:g} when the study was made, and {margin:g} would be "
            "chosen after the answers are known; leave --margin away."
        )
    return key.margin


def _make_folder(out: Path) -> bool:
    """Make the folder of the report; False when it is there already."""
    if out.is_dir():
        return False
    if not out.parent.is_dir():
        raise InputError(f"The folder {out.parent} does not exist; create it or choose another --out.")
    try:
        out.mkdir()
    except OSError as error:
        raise InputError(f"{out} cannot be created ({error.strerror}); choose another --out.") from error
    return True


def _analysis(study, key, answers, lock, margin, bootstrap, seed, progress, cancel) -> Analysis:
    given = read_answers(study, answers)
    _refuse_other_answers(histories_sha256(study, answers), lock)
    readings = join_readings(study, key, given, [*readers_of(study, answers), *study.readers])
    return analyse(
        readings,
        margin=margin,
        bootstrap=bootstrap,
        seed=seed,
        expected=dict.fromkeys(
            readings.readers, len(study.items) + min(study.order.repeats, len(study.items))
        ),
        leaks=key.leaks,
        cautions=[
            *cautions(key),
            *_on_silent_readers(study, readings),
            *_on_unnamed_readers(study, readings),
        ],
        progress=progress,
        cancel=cancel,
    )


def _on_silent_readers(study: Study, readings: Readings) -> list[str]:
    """A reader without an answer is no reader who disagrees; where any name is taken, it may be nobody at all."""
    hint = "" if study.readers else " A name that was mistyped once reads like this."
    return [
        f"{reader} confirmed no case beyond the training and is left out of every number and of the agreement.{hint}"
        for reader in readings.silent
    ]


def _on_unnamed_readers(study: Study, readings: Readings) -> list[str]:
    """An older installation does not know that a study names its readers, and takes any name."""
    named = {reader.casefold() for reader in study.readers}
    return [
        f"{reader} is none of the readers that the study names, and counts in every number: a name mistyped elsewhere?"
        for reader in readings.readers
        if named and reader.casefold() not in named
    ]


def _refuse_other_answers(present: Mapping[str, str], lock: Mapping) -> None:
    """Raise unless the answers are those of the unblinding.

    The lock names every reader with the SHA-256 of all they recorded; `present` gives the same for now.
    """
    locked = {name: entry.get("answers_sha256") for name, entry in lock.get("readers", {}).items()}
    for name in sorted(locked.keys() | present.keys()):
        if name not in locked:
            change = "were added"
        elif name not in present:
            change = "were removed"
        elif locked[name] != present[name]:
            change = "were changed"
        else:
            continue
        raise InputError(
            f"The answers of {name} {change} after the study was unblinded; give the folder that it was unblinded with "
            "by --answers."
        )


def facts_of(study: Study, key: Key, lock: Mapping, analysis: Analysis) -> dict[str, str]:
    """What the report says of the study itself, by name."""
    readings = analysis.readings
    counts = ", ".join(
        f"{source} ({readings.kinds[source]}): {int(readings.of_source(source).sum())}"
        for source in readings.sources
    )
    unit = "pairs" if readings.mode == "pair" else "cases"
    real, silent = real_in_words(key), ", ".join(readings.silent)
    return {
        "Study": study.study_id,
        "Mode": study.mode,
        unit.capitalize(): f"{len(readings.items)} ({counts})",
        **({"What is real": real} if real else {}),
        "Readers": ", ".join(readings.readers),
        **({"Readers without an answer": silent} if silent else {}),
        "Repeated readings": str(study.order.repeats),
        "Unblinded at": str(lock.get("unblinded_at", "")),
        "SHA-256 of the key": study.key_sha256,
        "Margin of equivalence": f"±{analysis.margin:g} steps of a scale, "
        + ("fixed before the reading" if key.margin is not None else "chosen after the reading"),
        "Bootstrap": f"{analysis.bootstrap} draws, seed {analysis.seed}",
        "Seed of the draw of cases": str(key.seed),
    }


def _json(study: Study, key: Key, lock: Mapping, analysis: Analysis) -> str:
    content = {
        "format": FORMAT,
        "version": VERSION,
        "study": facts_of(study, key, lock, analysis),
        "unblinding": dict(lock),
        "settings": {"margin": analysis.margin, "bootstrap": analysis.bootstrap, "seed": analysis.seed},
        "warnings": list(analysis.warnings),
        "estimates": [estimate.row() for estimate in analysis.estimates],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _numbers_csv(analysis: Analysis) -> str:
    return _csv(COLUMNS, [estimate.row() for estimate in analysis.estimates])


def _readings_csv(readings: Readings) -> str:
    """The answers in long format with the source of each, for a second analysis in another program."""
    source_of = dict(zip(readings.items, readings.item_sources, strict=True))
    rows = []
    for answer in readings.answers:
        row = {name: getattr(answer, name, None) for name in _READING_COLUMNS}
        row["cases"] = " ".join(answer.cases)
        row["source"] = source_of[answer.item]
        row["kind"] = readings.kinds[row["source"]]
        if isinstance(answer.value, (list, dict)):
            row["value"] = json.dumps(answer.value, ensure_ascii=False)
        rows.append(row)
    return _csv(_READING_COLUMNS, rows)


def _csv(columns: tuple[str, ...], rows: list[dict]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _harmless(row[name]) for name in columns})
    return buffer.getvalue()


def _harmless(value: object) -> object:
    """Text that a spreadsheet would run as a formula gets an apostrophe in front."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline=""))
