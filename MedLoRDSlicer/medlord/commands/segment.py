"""medlord segment: find structures in a CT and write them as a segmentation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .outputs import check_outputs
from .segmenter_options import SEGMENTER_HELP, add_segmenter_arguments, named_segmenter

if TYPE_CHECKING:
    from .console import Console

SUMMARY = "find structures in a CT and write them as a segmentation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.description = (
        "Finds structures in a CT with one of the segmenters and writes a segmentation that 3D Slicer opens."
    )
    parser.add_argument(
        "--ct", type=Path, required=True, metavar="FILE", help="CT in HU (.nii.gz, .nii, .nrrd)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="segmentation to write (.seg.nrrd)"
    )
    parser.add_argument(
        "--segmenter",
        default="hu-rules",
        metavar="NAME",
        help=f"what finds them (hu-rules): {SEGMENTER_HELP}",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an output file that exists")
    add_segmenter_arguments(parser)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Do it; the last line on stdout is the file."""
    if not arguments.out.name.lower().endswith(".seg.nrrd"):
        raise InputError(f"{arguments.out.name} has the wrong ending for a segmentation; use .seg.nrrd.")
    check_outputs([arguments.out], arguments.overwrite)
    from ..segmentation_files import write_segmentation
    from ..volume_files import load_volume
    from ..volumes import require_ct

    segmenter = named_segmenter(arguments.segmenter, arguments)
    volume = load_volume(arguments.ct)
    require_ct(volume, arguments.ct.name)
    with console.interruptible():
        found = segmenter.segment(volume, segmenter.structures, console.progress, console.cancel)
    write_segmentation(arguments.out, found.grid, found.masks)
    for name, millilitres in found.volumes_ml().items():
        console.note(f"{name:28s} {millilitres:9.1f} ml")
    console.result(arguments.out)
