"""medlord demo: the whole chain once, from a phantom's segmentation to a CT and a report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..resources import BUNDLED_MODEL

if TYPE_CHECKING:
    from ..demo import Journey
    from .console import Console

SUMMARY = "make a CT from a phantom's segmentation, with a report"
_OUT = Path("out") / "demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb; `scripts/demo.py` has the same."""
    parser.description = (
        "Writes input.seg.nrrd, ct.nrrd, recipe.json and report.html for a phantom that the model never saw; "
        "replaces those of an older demo."
    )
    parser.add_argument(
        "--out", type=Path, default=_OUT, metavar="DIR", help=f"folder to write to, created ({_OUT})"
    )
    parser.add_argument(
        "--model", default=BUNDLED_MODEL, metavar="ID|DIR",
        help=f"installed model or folder of one ({BUNDLED_MODEL})",
    )  # fmt: skip
    parser.add_argument("--phantom-seed", type=int, metavar="N", help="seed of the anatomy (a held-out one)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the noise (1)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N (auto)")


def run(arguments: argparse.Namespace, console: Console, journey: Journey | None = None) -> None:
    """Do it, by `journey` if one is given; the last lines on stdout say where the files are and how to open them."""
    from ..demo import DEMO_SEED, run_demo

    phantom_seed = DEMO_SEED if arguments.phantom_seed is None else arguments.phantom_seed
    with console.interruptible():
        files = run_demo(
            arguments.out, console.progress, cancel=console.cancel, journey=journey, model=arguments.model,
            phantom_seed=phantom_seed, seed=arguments.seed, device=arguments.device,
        )  # fmt: skip
    for line in files.how_to_open():
        console.result(line)
