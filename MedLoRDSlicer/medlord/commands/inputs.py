"""Masks from the command line: a labelmap with names, or one file per structure."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from ..conditions import Conditions
    from .console import Console

SAMPLER_HELP = "unipc (default), ddpm, ddim, dpm-solver++ or sde-dpm-solver++"
"""Written out, since reading the registry loads numpy; a test compares."""


def name_and_value(text: str) -> tuple[str, str]:
    """Split NAME=VALUE (argparse type)."""
    name, equals, value = text.partition("=")
    if not (equals and name.strip() and value.strip()):
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form NAME=VALUE")
    return name.strip(), value.strip()


def add_mask_arguments(parser: argparse.ArgumentParser) -> None:
    """--labelmap with --labels, or --condition."""
    masks = parser.add_argument_group("masks")
    masks.add_argument(
        "--labelmap", type=Path, metavar="FILE",
        help="segmentation: Slicer's .seg.nrrd, or a labelmap (.nii, .nii.gz, .nrrd); names of TotalSegmentator's "
        "files are read from the file itself",
    )  # fmt: skip
    masks.add_argument(
        "--labels", type=Path, metavar="FILE",
        help='names of the label values: JSON {"1": "lung", ...} or CSV with the columns value, name',
    )  # fmt: skip
    masks.add_argument(
        "--condition", type=name_and_value, action="append", metavar="NAME=FILE",
        help="one binary mask of a structure, for example lung=lung.nii.gz; give it once per structure",
    )  # fmt: skip


def check_mask_arguments(arguments: argparse.Namespace, needed: bool = True) -> None:
    """Raise `InputError` unless masks are given in exactly one way, or in none where they are not `needed`."""
    if arguments.labelmap and arguments.condition:
        raise InputError("--labelmap and --condition were both given; give the masks in one way.")
    if needed and not arguments.labelmap and not arguments.condition:
        raise InputError("No masks were given; add --labelmap FILE or --condition NAME=FILE.")
    if arguments.labels and not arguments.labelmap:
        raise InputError("--labels names the values of a labelmap; add --labelmap FILE.")
    names = [name for name, _ in arguments.condition or ()]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError(f"--condition {doubled[0]}=... was given twice; give one file per structure.")


def read_masks(arguments: argparse.Namespace, wanted: Sequence[str], console: Console) -> Conditions:
    """The masks that serve one of the `wanted` conditions; tells what was not used and what is incomplete."""
    if arguments.labelmap:
        from ..segmentation_files import read_labels, read_segmentation

        labels = read_labels(arguments.labels) if arguments.labels else None
        segmentation = read_segmentation(arguments.labelmap, labels)
        assembled = segmentation.conditions(wanted)
        conditions, unused, plan = assembled.conditions, assembled.unused, assembled.plan
        unnamed = segmentation.unnamed_values()
        if unnamed:
            console.note(f"Label values without a name, not used: {shortened(unnamed)}.")
    else:
        from ..conditions import Conditions
        from ..vocabulary import load_vocabulary

        given = Conditions.load(dict(arguments.condition))
        plan = load_vocabulary().plan(given.names, wanted)
        conditions, unused, _ = load_vocabulary().assemble(given, wanted)
    conditions.require_content()
    for condition, sources in plan.sources.items():
        if sources != (condition,):
            console.note(f"'{condition}' is made of {shortened(sources)}.")
    for condition, absent in plan.incomplete.items():
        console.note(f"'{condition}' was put together without {shortened(absent)}.")
    if unused:
        console.note(
            f"Not used, because no such condition is wanted or the name is unknown: {shortened(unused)}."
        )
    return conditions


def shortened(items: Sequence[object], limit: int = 8) -> str:
    """The first items in words, and how many more there are."""
    text = ", ".join(str(item) for item in items[:limit])
    return f"{text} and {len(items) - limit} more" if len(items) > limit else text
