"""medlord check: how far a CT can be trusted, with and without the masks it was made from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .inputs import add_mask_arguments, check_mask_arguments, read_masks
from .outputs import all_or_nothing, check_outputs
from .segmenter_options import SEGMENTER_HELP, add_segmenter_arguments, named_segmenter

if TYPE_CHECKING:
    from ..conditions import Conditions
    from ..evaluation.reference import ReferenceDistribution
    from ..evaluation.scorecard import Scorecard
    from ..evaluation.segmenters import Segmenter
    from ..volumes import Volume
    from .console import Console

SUMMARY = "check a CT: does it hold the masks it was made from, are sizes, HU and image those of a CT"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.description = (
        "Measures how a CT follows its masks (Dice, 95 % Hausdorff distance, surface Dice, volume), sizes against a "
        "reference population, HU against published ranges, and the image itself; says green, amber or red and why. "
        "This is not clinical validity. Without masks, those in the recipe of a synthetic CT are taken."
    )
    parser.add_argument(
        "--ct", type=Path, required=True, metavar="FILE", help="CT to check (.nii.gz, .nii, .nrrd)"
    )
    add_mask_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="report to write (.json)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also a report with pictures (.html)")
    parser.add_argument(
        "--segmenter", metavar="NAME",
        help=f"what finds the structures (hu-rules): {SEGMENTER_HELP}; or labelmap with --found",
    )  # fmt: skip
    parser.add_argument(
        "--found", type=Path, metavar="FILE",
        help="segmentation of the CT that exists already (.seg.nrrd, or a labelmap)",
    )  # fmt: skip
    parser.add_argument(
        "--found-labels", type=Path, metavar="FILE",
        help="names of the label values of --found, as --labels has those of --labelmap (those in the file itself)",
    )  # fmt: skip
    parser.add_argument(
        "--reference", metavar="NAME|FILE",
        help="population to compare with: a shipped one (medlord reference list), a file made with medlord reference "
        "build, or none (that of the model in the CT's recipe)",
    )  # fmt: skip
    parser.add_argument(
        "--real", type=Path, metavar="FILE", help="real CT of the same masks: the segmenter's own ceiling"
    )
    parser.add_argument(
        "--phase",
        choices=("native", "arterial", "venous"),
        help="contrast phase (that of the recipe, or unknown)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace output files that exist")
    add_segmenter_arguments(parser)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Do it; the last lines on stdout are the reports."""
    from ..evaluation.adherence import masks_in_place
    from ..evaluation.scorecard import check_volume
    from ..recipe import Recipe
    from ..volume_files import load_volume
    from ..volumes import require_ct

    outputs = _check_arguments(arguments)
    segmenter = None if arguments.found else named_segmenter(arguments.segmenter or "hu-rules", arguments)
    volume = load_volume(arguments.ct)
    require_ct(volume, "The volume to check")
    if volume.recipe is not None:
        # What the check takes from it, model, phase and masks, must be there.
        Recipe.from_dict(volume.recipe)
    real = load_volume(arguments.real) if arguments.real else None
    conditions = _conditions(arguments, volume, segmenter, console)
    segmenter = segmenter or _existing_segmentation(arguments.found, arguments.found_labels, conditions.names)
    conditions = masks_in_place(conditions, volume.grid)
    reference = _reference(arguments.reference, volume, segmenter.name)
    with console.interruptible():
        card, found = check_volume(
            volume,
            conditions,
            segmenter,
            reference=reference,
            real_ct=real,
            contrast_phase=arguments.phase,
            progress=console.progress,
            cancel=console.cancel,
        )
    with all_or_nothing(outputs):
        _write(arguments, volume, conditions, card, found)
    _say(card, console)
    for path in outputs:
        console.result(path)


def _check_arguments(arguments: argparse.Namespace) -> list[Path]:
    """The output files, after all that can be said without reading a file has been said."""
    check_mask_arguments(arguments, needed=False)
    for path, ending in ((arguments.out, ".json"), (arguments.html, ".html")):
        if path and path.suffix.lower() != ending:
            raise InputError(f"{path.name} has the wrong ending for this report; use {ending}.")
    if arguments.reference and arguments.reference.lower().endswith((".nii", ".nii.gz", ".nrrd")):
        raise InputError(
            f"--reference {Path(arguments.reference).name} is a volume, not a reference distribution; a real CT of "
            "the same masks is given with --real."
        )
    if arguments.found and arguments.segmenter not in (None, "labelmap"):
        raise InputError(
            f"--found is a segmentation that exists already, so --segmenter {arguments.segmenter} has nothing to find; "
            "give one of both."
        )
    if arguments.found and arguments.real:
        raise InputError(
            "--found says nothing about the CT of --real, so there is no ceiling; give --segmenter NAME instead of "
            "--found, or leave --real away."
        )
    if arguments.found_labels and not arguments.found:
        raise InputError(
            "--found-labels names the values of a segmentation that exists already; add --found FILE, or leave "
            "--found-labels away."
        )
    if arguments.segmenter == "labelmap" and not arguments.found:
        raise InputError("The segmenter labelmap needs a segmentation of the CT; add --found FILE.")
    outputs = [path for path in (arguments.out, arguments.html) if path]
    check_outputs(outputs, arguments.overwrite)
    return outputs


def _existing_segmentation(path: Path, labels: Path | None, wanted: list[str]) -> Segmenter:
    """The segmentation in a file, with the wanted structures that it holds; `labels` names a labelmap's values."""
    from ..evaluation.segmenters import Labelmap
    from ..segmentation_files import read_labels, read_segmentation

    names = read_labels(labels) if labels else None
    segmentation = read_segmentation(path, names, labels_option="--found-labels")
    return Labelmap(segmentation.conditions(wanted).conditions)


def _reference(name: str | None, volume: Volume, segmenter: str) -> ReferenceDistribution | None:
    """What was asked for, else the shipped reference of the model that made the CT."""
    from ..evaluation.reference import find_reference
    from ..evaluation.scorecard import reference_for

    if name == "none":
        return None
    return find_reference(name, segmenter) if name else reference_for(volume, segmenter)


def _conditions(
    arguments: argparse.Namespace, volume: Volume, segmenter: Segmenter | None, console: Console
) -> Conditions:
    """The masks that were given, else those in the recipe of the CT."""
    if arguments.labelmap or arguments.condition:
        return read_masks(arguments, _wanted(volume, segmenter), console, taker="the check")
    if volume.recipe is None:
        raise InputError(
            f"No masks were given and {arguments.ct.name} holds no recipe with masks; add --labelmap FILE or "
            "--condition NAME=FILE."
        )
    from ..recipe import load_recipe

    conditions = load_recipe(arguments.ct).unpack_conditions()
    console.note("The masks are those of the recipe in the CT.")
    return conditions


def _wanted(volume: Volume, segmenter: Segmenter | None) -> list[str]:
    """The conditions to check: those of the recipe in the CT, else what the segmenter and the vocabulary know."""
    from ..evaluation.adherence import BLOOD_POOL_PARTS
    from ..vocabulary import load_vocabulary

    if segmenter is None:
        return list(load_vocabulary().structures)
    names = [*(volume.recipe or {}).get("conditions", {}), *segmenter.structures]
    if not volume.recipe:
        names += [*BLOOD_POOL_PARTS, "heart_myocardium", "lung_nodules"]
    return [name for name in dict.fromkeys(names) if name != "blood_pool"]


def _write(
    arguments: argparse.Namespace, volume: Volume, conditions: Conditions, card: Scorecard, found: Conditions
) -> None:
    import json

    from ..volume_files import write_atomically

    report = {
        "format": "medlord-check",
        "version": 3,
        **card.to_dict(),
        "recipe": _without_masks(volume.recipe),
    }
    text = json.dumps(report, indent=2) + "\n"
    write_atomically(arguments.out, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    if arguments.html:
        from ..evaluation.report import ReportContent, write_report

        content = ReportContent(
            volume,
            conditions,
            card.adherence,
            volume.recipe or {},
            {},
            0,
            found=found,
            scorecard=card,
            # Not the file's name: a page is passed on, and names of files tell of patients.
            title="Check of a CT against its masks",
        )
        write_report(arguments.html, content)


def _say(card: Scorecard, console: Console) -> None:
    """Verdict, reasons and overlap in a few lines."""
    from ..evaluation.wording import spoken

    for row in card.adherence.structures:
        if row.dice is not None:
            distance = "-" if row.hd95_mm is None else f"{row.hd95_mm:.1f}"
            numbers = f"Dice {row.dice:.3f}  95 % Hausdorff {distance:>5s} mm  {row.drawn_ml:9.1f} ml drawn"
            console.note(f"{spoken(row.name):24s} {numbers}")
    for finding in card.findings:
        console.note(f"{finding.level:6s} {finding.reason}")
    console.note(card.scope)
    console.note(f"Verdict: {card.level}. Adherence is not clinical validity.")


def _without_masks(recipe: dict | None) -> dict | None:
    """The recipe with the masks' hashes alone; the packed masks are in the volume."""
    if recipe is None:
        return None
    return {
        **recipe,
        "conditions": {name: {"sha256": c["sha256"]} for name, c in recipe["conditions"].items()},
    }
