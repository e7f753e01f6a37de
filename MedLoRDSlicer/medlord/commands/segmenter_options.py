"""The options of segmenters on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..evaluation.segmenters import Segmenter

SEGMENTER_HELP = (
    "hu-rules, totalsegmentator (task total), or totalsegmentator:TASK with the task fast, lung_vessels, body or "
    "heartchambers_highres"
)


def add_segmenter_arguments(parser: argparse.ArgumentParser, with_device: bool = True) -> None:
    """What only totalsegmentator takes; `with_device` where the command has no --device of its own."""
    group = parser.add_argument_group("totalsegmentator")
    group.add_argument(
        "--subset",
        metavar="NAMES",
        help="only these structures, with commas; quicker, and for large CT less memory",
    )
    group.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        help="folder with its weights (TOTALSEG_WEIGHTS_PATH, else its own)",
    )
    group.add_argument(
        "--download-weights", action="store_true",
        help="agree to the download of missing weights by TotalSegmentator: 100 to 250 MB per model, five for total",
    )  # fmt: skip
    group.add_argument(
        "--license-key", metavar="KEY",
        help="for heartchambers_highres; other users of this computer can see it, unlike the variable "
        "MEDLORD_TOTALSEGMENTATOR_LICENSE",
    )  # fmt: skip
    group.add_argument(
        "--segmenter-python", metavar="FILE",
        help="a Python that has the package TotalSegmentator (MEDLORD_TOTALSEGMENTATOR_PYTHON, else this one)",
    )  # fmt: skip
    if with_device:
        group.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N")


def named_segmenter(name: str, arguments: argparse.Namespace) -> Segmenter:
    """The segmenter with the options that were given; raises `InputError` for those that it does not take."""
    from ..evaluation.segmenters import find_segmenter

    subset = [part.strip() for part in (arguments.subset or "").split(",") if part.strip()]
    given = {
        "subset": subset,
        "weights": arguments.weights,
        "download": arguments.download_weights,
        "license_key": arguments.license_key,
        "python": arguments.segmenter_python,
    }
    if name.startswith("totalsegmentator") or "features" not in arguments:
        # The device of `evaluate` is also that of the extractor, which any segmenter can go with.
        given["device"] = arguments.device
    return find_segmenter(name, **{key: value for key, value in given.items() if value})
