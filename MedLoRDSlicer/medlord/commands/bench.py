"""medlord bench: how good the bundled model is, how fast and how large the published configurations are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..resources import BUNDLED_MODEL
from .inputs import SAMPLER_HELP

if TYPE_CHECKING:
    from .console import Console

SUMMARY = "measure quality, speed and memory; takes minutes to hours"
_OUT = Path("out") / "benchmark"
_UNSET = {"default": argparse.SUPPRESS}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of the verb; options without a value take the defaults of the measurement."""
    from ..cli import add_common_arguments

    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_quality(actions.add_parser("quality", help="the bundled model on phantoms that it never saw"))
    _add_compare(actions.add_parser("compare", help="two quality measurements side by side"))
    _add_speed(actions.add_parser("speed", help="published configurations beside a plain baseline"))
    _add_layout(actions.add_parser("layout", help="memory layout, compilation and kinds of attention"))
    _add_review(actions.add_parser("review", help="how long the creation of a review takes"))
    for action in actions.choices.values():
        add_common_arguments(action, default=argparse.SUPPRESS)


def _add_out(parser: argparse.ArgumentParser, folder: Path) -> None:
    parser.add_argument(
        "--out", type=Path, default=folder, metavar="DIR", help=f"folder to write to, created ({folder})"
    )


def _add_quality(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes benchmark.json (every number of every phantom) and benchmark.md (medians). An interrupted measurement "
        "goes on where it stopped when it is started again with the same options."
    )
    _add_out(parser, _OUT)
    settings = parser.add_argument_group("what is measured").add_argument
    settings("--seeds", type=int, metavar="N", help="how many phantoms (16)", **_UNSET)
    settings(
        "--start", type=int, metavar="N", help="seed of the first phantom, a held-out one (900100)", **_UNSET
    )
    settings("--phase", metavar="NAME", help="native, arterial or venous (arterial)", **_UNSET)
    settings("--sampler", metavar="NAME", help=SAMPLER_HELP, **_UNSET)
    settings("--steps", type=int, metavar="N", help="denoising steps (the sampler's default)", **_UNSET)
    settings("--noise-seed", type=int, metavar="N", help="seed of the noise of all volumes (1)", **_UNSET)
    settings(
        "--model", metavar="ID|DIR", help=f"installed model or folder of one ({BUNDLED_MODEL})", **_UNSET
    )
    settings("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (auto)", **_UNSET)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes comparison.json and comparison.md: per measure both medians, averaged over the noises, and whether the "
        "first is worse by more than what another noise changes."
    )
    _add_out(parser, _OUT / "comparison")
    files = parser.add_argument_group("benchmark.json files of the same phantoms").add_argument
    files(
        "--first", type=Path, nargs="+", required=True, metavar="FILE",
        help="what is judged: two or more that differ in --noise-seed alone",
    )  # fmt: skip
    files(
        "--second", type=Path, nargs="+", required=True, metavar="FILE",
        help="what to compare with: two or more as well",
    )  # fmt: skip


def _add_speed(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Random weights. Writes speed.json and speed.md: seconds per step, per part and end to end, peak memory, "
        "energy where it can be read, each beside a plain baseline measured in the same run."
    )
    _add_out(parser, _OUT / "speed")
    settings = parser.add_argument_group("what is measured").add_argument
    settings(
        "--size", choices=("reduced", "paper"), metavar="SIZE",
        help="paper (512 x 512 x 256, on a GPU) or reduced (on a CPU)", **_UNSET,
    )  # fmt: skip
    settings("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (auto)", **_UNSET)
    settings(
        "--memory-limit",
        metavar="SIZE",
        help="what the engine may take, for example 8GB (what is free)",
        **_UNSET,
    )
    settings("--rounds", type=int, metavar="N", help="how often each variant is timed (9)", **_UNSET)
    settings(
        "--longest", dest="longest_s", type=float, metavar="S",
        help="compute whole runs that would take longer from their parts instead, in seconds (900)", **_UNSET,
    )  # fmt: skip


def _add_layout(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Random weights. Writes layout.json and layout.md: times of denoiser, control and decoder with channels last, "
        "torch.compile and every kind of attention, to those that are used by default."
    )
    _add_out(parser, _OUT / "layout")
    settings = parser.add_argument_group("what is measured").add_argument
    settings("--size", choices=("reduced", "paper"), metavar="SIZE", help="as for speed", **_UNSET)
    settings("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N (auto)", **_UNSET)
    settings("--rounds", type=int, metavar="N", help="how often each variant is timed (9)", **_UNSET)
    settings("--no-compile", dest="compiled", action="store_false", help="leave torch.compile out", **_UNSET)


def _add_review(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Makes volumes of four sources, times `medlord review create` on them and removes them again. Writes "
        "review.json and review.md."
    )
    _add_out(parser, _OUT / "review")
    settings = parser.add_argument_group("what is measured").add_argument
    settings("--per-source", type=int, metavar="N", help="volumes of each source (15)", **_UNSET)
    settings(
        "--shape",
        type=int,
        nargs=3,
        metavar=("L", "P", "S"),
        help="voxels of a volume (256 256 128)",
        **_UNSET,
    )


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Do it; the last line on stdout is the table."""
    from ..output_folders import new_folder

    actions = {
        "quality": _quality,
        "compare": _compare,
        "speed": _speed,
        "layout": _layout,
        "review": _review,
    }
    measure = actions[arguments.action](arguments, console)
    with new_folder(arguments.out) as folder, console.interruptible():
        console.result(measure(folder))


def _given(arguments: argparse.Namespace, *names: str) -> dict:
    return {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}


def _quality(arguments: argparse.Namespace, console: Console):
    from ..benchmark.quality import QualitySettings, run_quality

    names = ("seeds", "start", "phase", "sampler", "steps", "noise_seed", "model", "device")
    settings = QualitySettings(**_given(arguments, *names))
    settings.validate()

    def measure(folder: Path) -> Path:
        run_quality(settings, folder, cancel=console.cancel)
        return folder / "benchmark.md"

    return measure


def _compare(arguments: argparse.Namespace, console: Console):
    from ..benchmark.comparison import FILES, compare_quality

    def measure(folder: Path) -> Path:
        compare_quality(arguments.first, arguments.second, folder)
        return folder / FILES[1]

    return measure


def _speed(arguments: argparse.Namespace, console: Console):
    from ..benchmark.speed import FILES, SpeedSettings, run_speed
    from ..memory.sizes import parse_memory

    given = _given(arguments, "size", "device", "rounds", "longest_s")
    if hasattr(arguments, "memory_limit"):
        given["memory_limit"] = parse_memory(arguments.memory_limit)
    settings = SpeedSettings(**given)
    settings.validate()

    def measure(folder: Path) -> Path:
        run_speed(settings, folder, console.progress, console.cancel)
        return folder / FILES[1]

    return measure


def _layout(arguments: argparse.Namespace, console: Console):
    from ..benchmark.layout import FILES, LayoutSettings, run_layout

    settings = LayoutSettings(**_given(arguments, "size", "device", "rounds", "compiled"))
    settings.validate()

    def measure(folder: Path) -> Path:
        run_layout(settings, folder, console.progress, console.cancel)
        return folder / FILES[1]

    return measure


def _review(arguments: argparse.Namespace, console: Console):
    from ..benchmark.review import FILES, ReviewSettings, run_review

    given = _given(arguments, "per_source", "shape")
    if "shape" in given:
        given["shape"] = tuple(given["shape"])
    settings = ReviewSettings(**given)
    settings.validate()

    def measure(folder: Path) -> Path:
        run_review(settings, folder, console.progress, console.cancel)
        return folder / FILES[1]

    return measure
