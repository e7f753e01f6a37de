"""medlord segment: find structures in a CT and write them as a segmentation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .outputs import all_or_nothing, check_outputs
from .segmenter_options import SEGMENTER_HELP, add_segmenter_arguments, named_segmenter

if TYPE_CHECKING:
    from ..conditions import Conditions
    from .console import Console

SUMMARY = "find structures in a CT and write them as a segmentation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.description = (
        "Finds structures in a CT with one of the segmenters and writes a segmentation that 3D Slicer opens "
        "(.seg.nrrd), or a labelmap (.nii.gz) with a table of its values; synthesize and check read both. In a "
        "labelmap every combination of structures that overlap has a value of its own, so nothing is lost."
    )
    parser.add_argument(
        "--ct", type=Path, required=True, metavar="FILE", help="CT in HU (.nii.gz, .nii, .nrrd)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE",
        help="segmentation to write (.seg.nrrd), or labelmap (.nii.gz, .nii)",
    )  # fmt: skip
    parser.add_argument(
        "--labels-out", type=Path, metavar="FILE",
        help="table of a labelmap's values to write, as --labels reads it (the labelmap's name with .json)",
    )  # fmt: skip
    parser.add_argument(
        "--segmenter",
        default="hu-rules",
        metavar="NAME",
        help=f"what finds them (hu-rules): {SEGMENTER_HELP}",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace output files that exist")
    add_segmenter_arguments(parser)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Do it; the last lines on stdout are the files."""
    labels = _labels_file(arguments.out, arguments.labels_out)
    outputs = [arguments.out, *([labels] if labels else [])]
    check_outputs(outputs, arguments.overwrite)
    from ..volume_files import load_volume
    from ..volumes import require_ct

    segmenter = named_segmenter(arguments.segmenter, arguments)
    volume = load_volume(arguments.ct)
    require_ct(volume, arguments.ct.name)
    with console.interruptible():
        found = segmenter.segment(volume, segmenter.structures, console.progress, console.cancel)
    with all_or_nothing(outputs):
        _write(found, arguments.out, labels, console)
    for name, millilitres in found.volumes_ml().items():
        console.note(f"{name:28s} {millilitres:9.1f} ml")
    for path in outputs:
        console.result(path)


def _labels_file(out: Path, labels: Path | None) -> Path | None:
    """Where the table of a labelmap's values goes, None for a .seg.nrrd; raises `InputError` for other endings."""
    name = out.name.lower()
    if name.endswith(".seg.nrrd"):
        if labels:
            raise InputError("--labels-out has no effect on .seg.nrrd, which holds its names; leave it away.")
        return None
    ending = next((ending for ending in (".nii.gz", ".nii") if name.endswith(ending)), None)
    if ending is None:
        raise InputError(
            f"{out.name} has the wrong ending for a segmentation; use .seg.nrrd, or .nii.gz for a labelmap."
        )
    labels = labels or out.with_name(out.name[: -len(ending)] + ".json")
    if labels.suffix.lower() != ".json":
        raise InputError(f"{labels.name} has the wrong ending for a table of label values; use .json.")
    return labels


def _write(found: Conditions, out: Path, labels: Path | None, console: Console) -> None:
    if labels is None:
        from ..segmentation_files import write_segmentation

        write_segmentation(out, found.grid, found.masks)
        return
    from ..labelmap_files import write_labelmap
    from ..unused_names import shortened

    table = write_labelmap(out, labels, found.grid, found.masks)
    shared = [name for name, values in table.items() if len(values) > 1]
    if shared:
        console.note(
            f"Structures overlap, so {labels.name} gives several values to {shortened(shared)}; read both with "
            f"--labelmap {out.name} --labels {labels.name}."
        )
