"""medlord review: a blinded reader study, from the draw of the cases to its report."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .inputs import name_and_value
from .outputs import check_outputs

if TYPE_CHECKING:
    from ..review.answer_database import ReaderAnswers
    from ..review.order import Reading
    from .console import Console

SUMMARY = "blinded reading of real and synthetic volumes: create, answer, status, export, unblind, report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of the verb."""
    from ..cli import add_common_arguments

    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_create(actions.add_parser("create", help="draw the cases and write a study and its key"))
    _add_answer(
        actions.add_parser("answer", help="show the next case of a reader, or store the answers to it")
    )
    status = actions.add_parser("status", help="how far every reader is")
    _add_study(status)
    export = actions.add_parser("export", help="write the answers as CSV or for iMRMC")
    _add_study(export)
    export.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="file to write: .csv or .imrmc"
    )
    _add_key(export, required=False)
    export.add_argument("--history", action="store_true", help="CSV of every value ever given, drafts too")
    export.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    unblind = actions.add_parser("unblind", help="check the key and lock the study against further answers")
    _add_study(unblind)
    _add_key(unblind)
    unblind.add_argument(
        "--incomplete", action="store_true", help="unblind though a reader has not read everything"
    )
    report = actions.add_parser("report", help="statistics of an unblinded study")
    _add_study(report)
    _add_key(report)
    report.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the report")
    report.add_argument(
        "--margin",
        type=float,
        metavar="X",
        help="margin of equivalence in steps of a scale, for a study that fixed none (0.5)",
    )
    report.add_argument("--bootstrap", type=int, default=2000, metavar="N", help="resamplings (2000)")
    report.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the resampling (0)")
    report.add_argument("--overwrite", action="store_true", help="replace a report that exists")
    for action in actions.choices.values():
        add_common_arguments(action, default=argparse.SUPPRESS)


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", type=Path, metavar="STUDY", help="folder of the study")
    parser.add_argument(
        "--answers",
        type=Path,
        metavar="DIR",
        help="folder of the answers (STUDY/answers); for read-only media",
    )


def _add_key(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument("--key", type=Path, required=required, metavar="FILE", help="key of the study")
    _add_passphrase(parser)


def _add_passphrase(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="its first line encrypts and opens the key"
    )


def _add_create(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Draws volumes of several sources, makes them look alike, and writes a folder that names no source; the key "
        "that does is written outside of it. Warns of whatever still tells the sources apart."
    )
    parser.add_argument(
        "--source", type=name_and_value, action="append", required=True, metavar="NAME=GLOB",
        help="a source and its volumes (a pattern in quotes, or a folder); give it once per source",
    )  # fmt: skip
    parser.add_argument(
        "--real", action="append", metavar="NAME", help="a source of real volumes (the source named real)"
    )
    parser.add_argument("--per-source", type=int, default=10, metavar="N", help="cases of each source (10)")
    parser.add_argument("--seed", type=int, required=True, metavar="N", help="seed of the draw (from 0)")
    parser.add_argument("--out", type=Path, required=True, metavar="STUDY", help="new folder of the study")
    parser.add_argument("--key", type=Path, metavar="FILE", help="key to write (STUDY.key beside the study)")
    _add_passphrase(parser)
    parser.add_argument(
        "--mode", default="rating", help="rating (default), pair (which of two is real) or match"
    )
    parser.add_argument("--rubric", type=Path, metavar="FILE", help="questions (.json); default by the mode")
    parser.add_argument(
        "--masks", type=name_and_value, action="append", default=[], metavar="NAME=PATH",
        help="mode match: masks of a source; {stem} stands for the volume's name without its ending",
    )  # fmt: skip
    _add_reading(parser)
    parser.add_argument(
        "--margin", type=float, default=0.5, metavar="X",
        help="margin of equivalence in steps of a scale, fixed from now on (0.5)",
    )  # fmt: skip
    parser.add_argument(
        "--window", default="lung", help="window of every case: lung, mediastinum, bone or ccta"
    )
    parser.add_argument("--layout", default="three-planes", help="axial, two-planes or three-planes")
    parser.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        metavar=("L", "P", "S"),
        help="mm of all cases (the coarsest of each axis)",
    )
    parser.add_argument(
        "--shape",
        type=int,
        nargs=3,
        metavar=("L", "P", "S"),
        help="voxels of all cases (what all volumes cover)",
    )
    parser.add_argument(
        "--keep-surroundings", action="store_true", help="leave the air and the table as they are"
    )
    parser.add_argument(
        "--compress", action="store_true", help="smaller files, if their sizes do not tell the sources apart"
    )


def _add_reading(parser: argparse.ArgumentParser) -> None:
    """Options of create that say who reads, and in which order."""
    parser.add_argument("--training", type=int, default=0, metavar="N", help="training cases per source (0)")
    parser.add_argument(
        "--repeats", type=int, default=0, metavar="N", help="cases that each reader sees twice (0)"
    )
    parser.add_argument("--blocks", type=int, default=1, metavar="N", help="blocks with a break between (1)")
    parser.add_argument("--no-going-back", action="store_true", help="a confirmed case stays as it is")
    parser.add_argument(
        "--reader", action="append", default=[], metavar="NAME",
        help="a reader's name, once per reader; final, every reader can see it, and no other is taken then (any name)",
    )  # fmt: skip


def _add_answer(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Without --set or --batch, prints the next reading as JSON. With them, stores answers to it; every line of "
        "stdout confirms what is on the disk."
    )
    _add_study(parser)
    parser.add_argument("--reader", required=True, metavar="NAME", help="who reads")
    parser.add_argument(
        "--set", type=name_and_value, action="append", default=[], metavar="QUESTION=VALUE", help="an answer"
    )
    parser.add_argument(
        "--visible", type=float, default=0.0, metavar="S", help="seconds the case was visible (0)"
    )
    parser.add_argument(
        "--draft", action="store_true", help="store without confirming; the case stays the next one"
    )
    parser.add_argument(
        "--batch", action="store_true",
        help='answers as JSON lines on stdin: {"values": {...}, "visible_s": 12.5, "token": "..."}',
    )  # fmt: skip


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Do the action."""
    actions = {
        "create": _create, "answer": _answer, "status": _status, "export": _export, "unblind": _unblind,
        "report": _report,
    }  # fmt: skip
    actions[arguments.action](arguments, console)


def _passphrase(arguments: argparse.Namespace) -> str | None:
    from ..review.key import read_passphrase

    return read_passphrase(arguments.passphrase_file) if arguments.passphrase_file else None


def _create(arguments: argparse.Namespace, console: Console) -> None:
    from ..review.create import create_study
    from ..review.draw import Source, StudyPlan
    from ..review.rubric import load_rubric

    names = [name for name, _ in arguments.source]
    real = arguments.real if arguments.real is not None else ["real"]
    masks = dict(arguments.masks)
    for option, given in (("--real", arguments.real or []), ("--masks", masks)):
        if unknown := next((name for name in given if name not in names), None):
            raise InputError(
                f"{option} names '{unknown}', which is no --source; sources are {', '.join(names)}."
            )
    sources = [
        Source(name, pattern, "real" if name in real else "synthetic", masks.get(name))
        for name, pattern in arguments.source
    ]
    plan = StudyPlan(
        per_source=arguments.per_source,
        seed=arguments.seed,
        mode=arguments.mode,
        rubric=load_rubric(arguments.rubric, arguments.mode) if arguments.rubric else None,
        training=arguments.training,
        repeats=arguments.repeats,
        blocks=arguments.blocks,
        going_back=not arguments.no_going_back,
        window=arguments.window,
        layout=arguments.layout,
        spacing_mm=tuple(arguments.spacing) if arguments.spacing else None,
        shape=tuple(arguments.shape) if arguments.shape else None,
        equal_air=not arguments.keep_surroundings,
        compress=arguments.compress,
        margin=arguments.margin,
        readers=tuple(arguments.reader),
    )
    with console.interruptible():
        created = create_study(
            arguments.out, sources, plan, key=arguments.key, passphrase=_passphrase(arguments),
            progress=console.progress, cancel=console.cancel,
        )  # fmt: skip
    for note in created.notes:
        console.note(note)
    for leak in created.leaks:
        console.note(f"Warning: {leak}.")
    console.note(f"{len(created.study.cases)} cases. Keep the key away from the readers: {created.key_path}")
    console.result(arguments.out)


def _answer(arguments: argparse.Namespace, console: Console) -> None:
    from ..review.answer_database import ReaderAnswers
    from ..review.answers import others_begun
    from ..review.study import load_study

    if arguments.batch and arguments.set:
        raise InputError("--batch and --set were both given; give the answers in one way.")
    study = load_study(arguments.study)
    with ReaderAnswers(study, arguments.reader, arguments.answers) as store:
        if others := others_begun(store, arguments.answers):
            console.note(f"Nothing is answered yet by {store.reader}; {others} under other names have begun.")
        if arguments.batch:
            for number, line in enumerate(sys.stdin, 1):
                if line.strip():
                    _store(store, **_batch_entry(line, number), console=console)
            return
        if not arguments.set:
            console.result(json.dumps(_described(store.next_reading()), ensure_ascii=False))
            return
        values = {name: study.rubric.question(name).parse(text) for name, text in arguments.set}
        _store(store, values, arguments.visible, None, not arguments.draft, console)


def _batch_entry(line: str, number: int) -> dict:
    """One line of stdin as the arguments of `_store`."""
    try:
        entry = json.loads(line)
        return {
            "values": dict(entry["values"]), "visible_s": float(entry.get("visible_s", 0.0)),
            "token": entry.get("token"), "confirmed": bool(entry.get("confirmed", True)),
        }  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"Line {number} of the batch is no answer ({type(error).__name__}: {error}); the lines before it are "
            "stored. Correct it and give it and those after it."
        ) from error


def _store(
    store: ReaderAnswers, values: dict, visible_s: float, token: str | None, confirmed: bool, console: Console
) -> None:
    """Answer the next reading and confirm on stdout that it is on the disk."""
    reading = store.recorded(token) or store.next_reading()
    if reading is None:
        raise InputError(f"{store.reader} has answered everything; there is no next case.")
    number = store.record(reading, values, visible_s, confirmed=confirmed, token=token)
    told = {"submission": number, **_described(reading)}
    if feedback := store.feedback(reading):
        told["truth"] = feedback
    console.result(json.dumps(told, ensure_ascii=False))
    if confirmed and store.next_reading() is None:
        store.event("finished")


def _described(reading: Reading | None) -> dict:
    if reading is None:
        return {"finished": True}
    return {
        "position": reading.position, "item": reading.item, "cases": list(reading.cases), "repeat": reading.repeat,
        "training": reading.training, "block": reading.block,
    }  # fmt: skip


def _status(arguments: argparse.Namespace, console: Console) -> None:
    from ..review.answers import status
    from ..review.study import load_study, lock_of

    study = load_study(arguments.study)
    entries = status(study, arguments.answers)
    if not entries:
        console.note("No reader has started.")
    for entry in entries:
        console.result(
            f"{entry.reader}\t{entry.confirmed}/{entry.readings}\t{entry.visible_minutes:.1f} min\t{entry.last_answer}"
        )
    lock = lock_of(study, arguments.answers)
    console.note(f"Unblinded on {lock['unblinded_at'][:10]}; no more answers." if lock else "Blinded.")


def _export(arguments: argparse.Namespace, console: Console) -> None:
    from ..review.export import export_csv, export_imrmc
    from ..review.key import read_key
    from ..review.study import load_study

    ending = arguments.out.suffix.lower()
    if ending not in (".csv", ".imrmc"):
        raise InputError(f"{arguments.out.name} has the wrong ending for an export; use .csv or .imrmc.")
    check_outputs([arguments.out], arguments.overwrite)
    study = load_study(arguments.study)
    key = read_key(arguments.key, _passphrase(arguments), study) if arguments.key else None
    if ending == ".csv":
        export_csv(study, arguments.out, key=key, answers=arguments.answers, history=arguments.history)
    elif key is None or arguments.history:
        raise InputError(
            "An export for iMRMC needs the truth and no history: give --key, leave --history away."
        )
    else:
        export_imrmc(study, arguments.out, key, arguments.answers)
    console.result(arguments.out)


def _unblind(arguments: argparse.Namespace, console: Console) -> None:
    from ..review.study import load_study
    from ..review.unblind import unblind_study

    study = load_study(arguments.study)
    unblind_study(
        study, arguments.key, _passphrase(arguments), arguments.answers, incomplete=arguments.incomplete
    )
    console.note("The study is unblinded and takes no more answers; medlord review report makes its report.")
    console.result(arguments.study)


def _report(arguments: argparse.Namespace, console: Console) -> None:
    from ..review.report import write_report
    from ..review.study import load_study

    with console.interruptible():
        paths = write_report(
            load_study(arguments.study), arguments.key, arguments.out, passphrase=_passphrase(arguments),
            answers=arguments.answers, margin=arguments.margin, bootstrap=arguments.bootstrap, seed=arguments.seed,
            overwrite=arguments.overwrite, progress=console.progress, cancel=console.cancel,
        )  # fmt: skip
    for path in paths:
        console.result(path)
