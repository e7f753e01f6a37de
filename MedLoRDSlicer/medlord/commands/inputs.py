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

SAMPLER_HELP = "sde-dpm-solver++ (default), unipc, dpm-solver++, ddim or ddpm"
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
        help='names of the label values: JSON {"1": "lung", ...}, or {"body": [1, 2], "lung": [2]} where structures '
        "overlap, or CSV with the columns value, name",
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


def read_masks(
    arguments: argparse.Namespace, wanted: Sequence[str], console: Console, taker: str = "the model"
) -> Conditions:
    """The masks that serve one of the `wanted` conditions of `taker`; tells what is incomplete or not used, and why."""
    from ..unused_names import shortened, why_unused

    if arguments.labelmap:
        from ..segmentation_files import read_labels, read_segmentation

        labels = read_labels(arguments.labels) if arguments.labels else None
        segmentation = read_segmentation(arguments.labelmap, labels)
        assembled = segmentation.conditions(wanted)
        conditions, plan = assembled.conditions, assembled.plan
        used = {structure for sources in plan.sources.values() for structure in sources}
        named = [(segment.name, match and match.structure) for segment, match in assembled.matches.items()]
        unused = [(name, structure) for name, structure in named if structure not in used]
        unnamed = segmentation.unnamed_values()
        if unnamed:
            console.note(f"Label values without a name, not used: {shortened(unnamed)}.")
    else:
        from ..conditions import Conditions
        from ..vocabulary import load_vocabulary

        given = Conditions.load(dict(arguments.condition))
        vocabulary = load_vocabulary()
        plan = vocabulary.plan(given.names, wanted)
        conditions, names, _ = vocabulary.assemble(given, wanted)
        found = [vocabulary.match(name=name, wanted=wanted) for name in names]
        unused = [(name, match and match.structure) for name, match in zip(names, found)]
    conditions.require_content()
    for condition, sources in plan.sources.items():
        if sources != (condition,):
            console.note(f"'{condition}' is made of {shortened(sources)}.")
    for condition, absent in plan.incomplete.items():
        console.note(f"'{condition}' was put together without {shortened(absent)}.")
    for sentence in why_unused(unused, plan, wanted, taker):
        console.note(sentence)
    return conditions
