"""medlord bench: how well the bundled model follows masks, measured on phantoms that it never saw."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..resources import BUNDLED_MODEL
from .inputs import SAMPLER_HELP

if TYPE_CHECKING:
    from .console import Console

SUMMARY = "measure the bundled model on held-out phantoms; takes minutes to hours"
_OUT = Path("out") / "benchmark"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb; those without a value take the defaults of the measurement."""
    parser.description = (
        "Writes benchmark.json (every number of every phantom) and benchmark.md (medians). An interrupted measurement "
        "goes on where it stopped when it is started again with the same options."
    )
    parser.add_argument(
        "--out", type=Path, default=_OUT, metavar="DIR", help=f"folder to write to, created ({_OUT})"
    )
    settings = parser.add_argument_group("what is measured").add_argument
    unset = {"default": argparse.SUPPRESS}
    settings("--seeds", type=int, metavar="N", help="how many phantoms (16)", **unset)
    settings(
        "--start", type=int, metavar="N", help="seed of the first phantom, a held-out one (900100)", **unset
    )
    settings("--phase", metavar="NAME", help="native, arterial or venous (arterial)", **unset)
    settings("--sampler", metavar="NAME", help=SAMPLER_HELP, **unset)
    settings("--steps", type=int, metavar="N", help="denoising steps (the sampler's default)", **unset)
    settings("--model", metavar="ID|DIR", help=f"installed model or folder of one ({BUNDLED_MODEL})", **unset)
    settings("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (auto)", **unset)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Do it; the last line on stdout is the table."""
    from ..evaluation.benchmark_bundled import Settings, run_benchmark
    from ..output_folders import new_folder

    names = ("seeds", "start", "phase", "sampler", "steps", "model", "device")
    settings = Settings(**{name: getattr(arguments, name) for name in names if hasattr(arguments, name)})
    settings.validate()
    with new_folder(arguments.out) as folder:
        run_benchmark(settings, folder)
    console.result(folder / "benchmark.md")
