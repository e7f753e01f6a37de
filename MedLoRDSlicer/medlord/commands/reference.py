"""medlord reference: distributions of a population's volumes, to compare with."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .outputs import all_or_nothing, check_outputs
from .segmenter_options import SEGMENTER_HELP, add_segmenter_arguments, named_segmenter

if TYPE_CHECKING:
    from .console import Console

SUMMARY = "make a reference distribution from CT files, or compare two"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of the verb."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = actions.add_parser(
        "build", help="measure a population: sizes and HU of structures, noise, sharpness"
    )
    build.add_argument("--ct", required=True, metavar="GLOB", help="CT files, for example 'scans/*.nii.gz'")
    build.add_argument(
        "--segmenter",
        default="hu-rules",
        metavar="NAME",
        help=f"what finds the structures (hu-rules): {SEGMENTER_HELP}",
    )
    build.add_argument(
        "--found", metavar="GLOB",
        help="segmentations that exist already, one per CT in the order of the names; instead of --segmenter",
    )  # fmt: skip
    build.add_argument("--name", metavar="NAME", help="a short name (that of the output file)")
    build.add_argument(
        "--population", default="not described", metavar="TEXT", help="who these scans are of, in words"
    )
    build.add_argument(
        "--attributes", type=Path, metavar="FILE",
        help="CSV with the column 'file' and one per attribute, such as contrast_phase; the attributes are written "
        "into the reference, names of files are not",
    )  # fmt: skip
    build.add_argument(
        "--work", type=Path, metavar="DIR",
        help="folder of what is kept: the same command goes on where it was stopped (beside the output, NAME.work)",
    )  # fmt: skip
    _add_output(build, "reference to write (.json)")
    add_segmenter_arguments(build)
    compare = actions.add_parser(
        "compare", help="a set of volumes against a reference, both measured with build"
    )
    compare.add_argument(
        "--set", type=Path, required=True, metavar="FILE", help="the set, made with build (.json)"
    )
    compare.add_argument(
        "--reference", required=True, metavar="NAME|FILE", help="the reference: a shipped one or a file"
    )
    compare.add_argument("--html", type=Path, metavar="FILE", help="also a page with violin plots (.html)")
    _add_output(compare, "numbers to write (.json)")
    actions.add_parser("list", help="the shipped references")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Do the action; the last lines on stdout are the files."""
    {"build": _build, "compare": _compare, "list": _list}[arguments.action](arguments, console)


def _add_output(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=what)
    parser.add_argument("--overwrite", action="store_true", help="replace output files that exist")


def _build(arguments: argparse.Namespace, console: Console) -> None:
    from ..evaluation.reference import save_reference
    from ..evaluation.reference_build import build_reference, files_matching, read_attributes
    from ..evaluation.verdicts import SMALLEST_REFERENCE
    from ..evaluation.wording import counted

    _check_ending(arguments.out, ".json")
    check_outputs([arguments.out], arguments.overwrite)
    segmenter = None if arguments.found else named_segmenter(arguments.segmenter, arguments)
    files = files_matching(arguments.ct, "CT")
    found = files_matching(arguments.found, "segmentation") if arguments.found else []
    attributes = read_attributes(arguments.attributes, files) if arguments.attributes else None
    with console.interruptible():
        reference = build_reference(
            files,
            segmenter,
            name=arguments.name or arguments.out.name.split(".")[0],
            population=arguments.population,
            segmentations=found,
            attributes=attributes,
            work=arguments.work or arguments.out.with_suffix(".work"),
            progress=console.progress,
            cancel=console.cancel,
        )
    save_reference(reference, arguments.out)
    console.note(f"{counted(reference.count, 'volume')}, structures {', '.join(reference.structures)}.")
    if reference.count < SMALLEST_REFERENCE:
        console.note(
            f"Note: fewer than {SMALLEST_REFERENCE} volumes do not say what is unusual; a check will not judge by them."
        )
    console.result(arguments.out)


def _compare(arguments: argparse.Namespace, console: Console) -> None:
    from ..evaluation.reference import find_reference, load_reference
    from ..evaluation.reference_check import compare_sets, set_warnings
    from ..evaluation.set_page import render_set_page
    from ..volume_files import write_atomically

    _check_ending(arguments.out, ".json")
    if arguments.html:
        _check_ending(arguments.html, ".html")
    outputs = [path for path in (arguments.out, arguments.html) if path]
    check_outputs(outputs, arguments.overwrite)
    made = load_reference(arguments.set)
    reference = find_reference(arguments.reference, made.segmenter)
    rows, warnings = compare_sets(made, reference), set_warnings(made, reference)
    if not rows:
        raise InputError(
            f"{made.name} ({', '.join(made.structures)}) and {reference.name} ({', '.join(reference.structures)}) have "
            "no structure in common; measure both with the same segmenter and structures."
        )
    data = {
        "format": "medlord-set-comparison",
        "version": 1,
        "set": {"name": made.name, "population": made.population, "count": made.count},
        "reference": {"name": reference.name, "population": reference.population, "count": reference.count},
        "segmenter": {
            "name": made.segmenter,
            "version": made.segmenter_version,
            "version_of_reference": reference.segmenter_version,
        },
        "rows": [row.to_dict() for row in rows],
        "warnings": warnings,
    }
    text = json.dumps(data, indent=2) + "\n"
    with all_or_nothing(outputs):
        write_atomically(arguments.out, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        if arguments.html:
            page = render_set_page(made, reference, rows, warnings)
            write_atomically(arguments.html, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    for text in warnings:
        console.note(f"Note: {text}")
    for path in outputs:
        console.result(path)


def _list(arguments: argparse.Namespace, console: Console) -> None:
    from ..evaluation.reference import load_reference, shipped_references

    for (name, segmenter), path in shipped_references().items():
        reference = load_reference(path)
        console.result(f"{name}\t{segmenter}\tN = {reference.count}\t{reference.population}")


def _check_ending(path: Path, ending: str) -> None:
    if path.suffix.lower() != ending:
        raise InputError(f"{path.name} has the wrong ending; use {ending}.")
