"""medlord check: how well a CT follows masks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .inputs import add_mask_arguments, check_mask_arguments, read_masks
from .outputs import all_or_nothing, check_outputs

if TYPE_CHECKING:
    from ..conditions import Conditions
    from ..evaluation.adherence import Adherence
    from ..volumes import Volume
    from .console import Console

SUMMARY = "measure how well a CT follows the masks it was made from"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.description = (
        "Measures condition adherence (Dice, volume, HU per structure), not clinical validity."
    )
    parser.add_argument(
        "--ct", type=Path, required=True, metavar="FILE", help="CT to check (.nii.gz, .nii, .nrrd)"
    )
    add_mask_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="report to write (.json)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also a report with pictures (.html)")
    parser.add_argument(
        "--segmenter", default="hu-rules", metavar="NAME", help="what finds the structures (hu-rules)"
    )
    parser.add_argument(
        "--reference", type=Path, metavar="FILE", help="real CT of the same masks: the ceiling"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace output files that exist")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Do it; the last line on stdout is the report."""
    from ..evaluation.adherence import adherence
    from ..evaluation.segmenters import find_segmenter
    from ..volume_files import load_volume

    check_mask_arguments(arguments)
    for path, ending in ((arguments.out, ".json"), (arguments.html, ".html")):
        if path and path.suffix.lower() != ending:
            raise InputError(f"{path.name} has the wrong ending for this report; use {ending}.")
    outputs = [path for path in (arguments.out, arguments.html) if path]
    check_outputs(outputs, arguments.overwrite)
    segmenter = find_segmenter(arguments.segmenter)
    volume = load_volume(arguments.ct)
    reference = load_volume(arguments.reference) if arguments.reference else None
    conditions = read_masks(arguments, _wanted(volume, segmenter.structures), console)
    with console.interruptible():
        options = {"progress": console.progress, "cancel": console.cancel}
        measured = adherence(volume, conditions, segmenter, reference, **options)
        found = segmenter.segment(volume, segmenter.structures, **options) if arguments.html else None
    with all_or_nothing(outputs):
        _write(arguments, volume, conditions, measured, found)
    for row in measured.structures:
        dice = "-" if row.dice is None else f"{row.dice:.3f}"
        console.note(f"{row.name:24s} Dice {dice:>6s}  {row.drawn_ml:9.1f} ml drawn")
    for path in outputs:
        console.result(path)


def _wanted(volume: Volume, found_names: tuple[str, ...]) -> list[str]:
    """The conditions to check: those of the recipe in the CT, else what the segmenter and the vocabulary know."""
    from ..evaluation.adherence import BLOOD_POOL_PARTS

    names = [*(volume.recipe or {}).get("conditions", {}), *found_names]
    if not volume.recipe:
        names += [*BLOOD_POOL_PARTS, "heart_myocardium", "lung_nodules"]
    return [name for name in dict.fromkeys(names) if name != "blood_pool"]


def _write(
    arguments: argparse.Namespace,
    volume: Volume,
    conditions: Conditions,
    measured: Adherence,
    found: Conditions | None,
) -> None:
    import json

    from ..volume_files import write_atomically

    report = {
        "format": "medlord-check",
        "version": 1,
        **measured.to_dict(),
        "recipe": _without_masks(volume.recipe),
    }
    text = json.dumps(report, indent=2) + "\n"
    write_atomically(arguments.out, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    if arguments.html:
        from ..evaluation.report import ReportContent, write_report

        if not conditions.grid.matches(volume.grid):
            conditions = conditions.resampled(volume.grid)
        content = ReportContent(
            volume,
            conditions,
            measured,
            volume.recipe or {},
            {},
            0,
            found=found,
            # Not the file's name: a page is passed on, and names of files tell of patients.
            title="Check of a CT against its masks",
        )
        write_report(arguments.html, content)


def _without_masks(recipe: dict | None) -> dict | None:
    """The recipe with the masks' hashes alone; the packed masks are in the volume."""
    if recipe is None:
        return None
    return {
        **recipe,
        "conditions": {name: {"sha256": c["sha256"]} for name, c in recipe["conditions"].items()},
    }
