"""Answers as files for other programs: CSV in long format, and the input format of iMRMC.

iMRMC (FDA, https://github.com/DIDSR/iMRMC) estimates reader-averaged ROC areas with their multi-reader multi-case
variance. Its format is described in its user manual, section 4.1.1 "Study Raw Data".
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..volume_files import write_atomically
from .answers import Answer, read_answers, read_history
from .key import Key
from .study import Study, lock_of

COLUMNS = (
    "reader", "position", "block", "item", "cases", "repeat", "training", "question", "value", "visible_s",
    "answered_at", "changes",
)  # fmt: skip
KEY_COLUMNS = ("sources", "kinds")


def export_csv(
    study: Study,
    path: str | Path,
    *,
    key: Key | None = None,
    answers: str | Path | None = None,
    history: bool = False,
) -> Path:
    """Write one row per reader, reading and question; with `history`, one per value that was ever given.

    With `key`, the sources and kinds of the cases come with them, once the study is unblinded (`InputError` before).
    """
    if key is not None:
        _require_unblinded(study, answers)
    found = read_history(study, answers) if history else read_answers(study, answers)
    _require_answers(found)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS + (KEY_COLUMNS if key else ()))
    for answer in found:
        row = [
            _cell(answer.reader), answer.position, answer.block, answer.item, " ".join(answer.cases), answer.repeat,
            int(answer.training), answer.question, _cell(answer.value), f"{answer.visible_s:.3f}",
            answer.answered_at, answer.changes,
        ]  # fmt: skip
        if key:
            entries = [key.case(case) for case in answer.cases]
            row += [" ".join(entry.source for entry in entries), " ".join(entry.kind for entry in entries)]
        writer.writerow(row)
    return _write(path, text.getvalue())


def export_imrmc(study: Study, path: str | Path, key: Key, answers: str | Path | None = None) -> Path:
    """Write the verdicts of an unblinded study for iMRMC: one modality per synthetic source.

    Real cases are the ones without the signal (truth 0) and are read in every modality, synthetic ones have it
    (truth 1); the score is the confidence, negative for the verdict "real". Second readings are left out, since
    iMRMC takes one score per reader, case and modality. Raises `InputError` for a blinded study, a rubric without
    the verdict real or synthetic, and when there are no verdicts.
    """
    _require_unblinded(study, answers)
    scores = _scores(study, read_answers(study, answers))
    sources = [source.name for source in key.sources if source.kind == "synthetic"]
    kinds = {entry.case: entry for entry in key.cases if not entry.training}
    truth = {case: int(entry.kind == "synthetic") for case, entry in kinds.items()}
    modalities = _plain_names(sources)
    readers = _plain_names(sorted({reader for reader, _ in scores}))
    lines = [
        "Real or synthetic: truth 1 is synthetic, a modality is a synthetic source with all real cases.",
        "",
        f"NR: {len(readers)}",
        f"N0: {sum(value == 0 for value in truth.values())}",
        f"N1: {sum(value == 1 for value in truth.values())}",
        f"NM: {len(sources)}",
        "",
        "BEGIN DATA:",
        *(f"-1,{case},0,{value}" for case, value in sorted(truth.items())),
    ]
    for (reader, case), score in sorted(scores.items()):
        read_in = [kinds[case].source] if truth[case] else sources
        lines += [f"{readers[reader]},{case},{modalities[source]},{score}" for source in read_in]
    return _write(path, "\n".join(lines) + "\n")


def _scores(study: Study, answers: Sequence[Answer]) -> dict[tuple[str, str], int]:
    """Signed confidence per reader and case: positive for "synthetic"; 1 where the rubric asks for no confidence."""
    verdict, confidence = study.rubric.with_role("verdict"), study.rubric.with_role("confidence")
    if verdict is None:
        raise InputError(
            "iMRMC needs the verdict real or synthetic, which this study's rubric does not ask; export CSV instead."
        )
    first = {(a.reader, a.cases[0], a.question): a.value for a in answers if a.repeat == 0 and not a.training}
    _require_answers([value for (_, _, question), value in first.items() if question == verdict.id])
    return {
        (reader, case): (1 if value == "synthetic" else -1)
        * int(first.get((reader, case, confidence.id), 1) if confidence else 1)
        for (reader, case, question), value in first.items()
        if question == verdict.id
    }


def _plain_names(names: Sequence[str]) -> dict[str, str]:
    """Names without what separates fields; a number keeps those apart that become the same."""
    result: dict[str, str] = {}
    for name in names:
        plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name) or "_"
        plain = f"r{plain}" if plain.startswith("-") else plain  # -1 marks the rows of the truth
        while plain in result.values():
            plain += f"_{len(result)}"
        result[name] = plain
    return result


def _cell(value: object) -> str:
    """A value as text: lists of artefacts as JSON, and what a spreadsheet would run as a formula with an apostrophe."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def _require_unblinded(study: Study, answers: str | Path | None) -> None:
    if lock_of(study, answers) is None:
        raise InputError(
            "The study is still blinded, and its sources may not be written out; run 'medlord review unblind' first."
        )


def _require_answers(found: Sequence[object]) -> None:
    if not found:
        raise InputError("No reader has confirmed an answer yet, so there is nothing to export.")


def _write(path: str | Path, text: str) -> Path:
    path = Path(path)
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path
