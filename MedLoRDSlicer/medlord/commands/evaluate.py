"""medlord evaluate: a set of synthetic volumes against real ones, or what an autoencoder loses of real ones."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, WeightsError
from . import evaluate_autoencoder, evaluate_checks
from .outputs import all_or_nothing, json_and_page, write_json_and_page
from .segmenter_options import SEGMENTER_HELP, add_segmenter_arguments, named_segmenter

if TYPE_CHECKING:
    from ..evaluation.sets.evaluation import SetEvaluation
    from ..evaluation.sets.features import FeatureSettings
    from .console import Console

SUMMARY = (
    "compare a set of synthetic CT with a set of real ones: 2.5D FID, KID, sizes and HU of regions; or a model's "
    "autoencoder: PSNR, MS-SSIM, LPIPS; or sum up reports of check"
)
_SLICES, _PIXEL_MM = 32, 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.description = (
        "Compares two sets of CT. With --features: Frechet distance (FID) and kernel distance (KID) of the features of "
        "slices in three planes and several windows, with an interval over volumes and the distance of real volumes "
        "from each other (floor). With --segmenter: distributions of sizes and HU of regions. With --autoencoder "
        "instead of --synthetic: the real CT are encoded, quantised and decoded by a model and compared with what went "
        "in, by PSNR and 3D MS-SSIM and, with --features, 2.5D LPIPS. With --checks: reports of medlord check become a "
        "table of Dice, distances and volumes per condition, median and quartiles. What was computed of a volume is "
        "kept, so the same command goes on where it was stopped."
    )
    parser.add_argument("--real", metavar="DIR|GLOB", help="folder or quoted pattern of the real CT")
    against = parser.add_mutually_exclusive_group(required=True)
    against.add_argument(
        "--synthetic", metavar="DIR|GLOB", help="folder or quoted pattern of the synthetic CT"
    )
    against.add_argument(
        "--autoencoder", metavar="ID|DIR", help="the model whose autoencoder the real CT go through"
    )
    against.add_argument(
        "--checks",
        metavar="GLOB",
        help="quoted pattern of reports of medlord check (.json), instead of --real",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="numbers to write (.json)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also a page with tables and plots (.html)")
    parser.add_argument(
        "--features", type=Path, metavar="FILE",
        help="weights of RadImageNet's ResNet50 (.pt, .pth, .safetensors); nothing is downloaded",
    )  # fmt: skip
    parser.add_argument("--segmenter", metavar="NAME", help=f"compare regions too, found by {SEGMENTER_HELP}")
    parser.add_argument(
        "--windows", metavar="NAMES",
        help="some of wide, lung, vessel, soft-tissue, bone; with commas (all; with --autoencoder none beside the "
        "model's own)",
    )  # fmt: skip
    parser.add_argument(
        "--slices", type=int, default=_SLICES, metavar="N",
        help=f"slices per plane and volume, at most ({_SLICES})",
    )  # fmt: skip
    parser.add_argument(
        "--pixel-mm", type=float, default=_PIXEL_MM, metavar="X", help=f"width of a pixel ({_PIXEL_MM})"
    )
    parser.add_argument(
        "--bootstrap", type=int, metavar="N", help="replicates for the intervals (50; 0: none)"
    )
    parser.add_argument("--splits", type=int, metavar="N", help="splits for the floor (5; 0: none)")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of bootstrap and splits (0)")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="folder of what is kept (beside the output, NAME.work)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace output files that exist")
    add_segmenter_arguments(parser, with_device=False)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Do it; the last lines on stdout are the files."""
    if arguments.checks:
        evaluate_checks.run(arguments, console)
        return
    if not arguments.real:
        raise InputError("No real CT were given; add --real DIR or a quoted pattern.")
    if arguments.autoencoder:
        evaluate_autoencoder.run(arguments, console)
        return
    outputs = _check_arguments(arguments)
    from ..evaluation.sets.evaluation import EvaluationSettings, evaluate_sets
    from ..evaluation.sets.extractors import load_radimagenet
    from ..evaluation.sets.page import render_evaluation_page
    from ..evaluation.sets.store import volume_files_of

    given = {"replicates": arguments.bootstrap, "splits": arguments.splits, "seed": arguments.seed}
    settings = EvaluationSettings(**{name: value for name, value in given.items() if value is not None})
    feature_settings = _feature_settings(arguments)
    real, synthetic = (
        volume_files_of(arguments.real, "real"),
        volume_files_of(arguments.synthetic, "synthetic"),
    )
    segmenter = named_segmenter(arguments.segmenter, arguments) if arguments.segmenter else None
    extractor = load_radimagenet(arguments.features, arguments.device) if arguments.features else None
    with console.interruptible():
        result = evaluate_sets(
            real,
            synthetic,
            arguments.work or arguments.out.with_suffix(".work"),
            extractor=extractor,
            segmenter=segmenter,
            feature_settings=feature_settings,
            settings=settings,
            progress=console.progress,
            cancel=console.cancel,
        )
    with all_or_nothing(outputs):
        write_json_and_page(arguments, result.to_dict(), lambda: render_evaluation_page(result))
    _say(result, console)
    for path in outputs:
        console.result(path)


def _check_arguments(arguments: argparse.Namespace) -> list[Path]:
    """The output files, after all that can be said without reading a file has been said."""
    outputs = json_and_page(arguments)
    if not arguments.features and not arguments.segmenter:
        from ..evaluation.sets.extractors import WHERE_TO_GET

        raise WeightsError(
            "FID needs the weights of a feature extractor: --features FILE. "
            f"{WHERE_TO_GET}. Sizes and HU of regions need none: --segmenter hu-rules."
        )
    return outputs


def _feature_settings(arguments: argparse.Namespace) -> FeatureSettings:
    from ..evaluation.sets.features import FeatureSettings
    from ..evaluation.sets.slices import WINDOWS

    windows = evaluate_autoencoder.named_windows(arguments.windows) or WINDOWS
    return FeatureSettings(arguments.slices, arguments.pixel_mm, windows)


def _say(result: SetEvaluation, console: Console) -> None:
    """The 2.5D values and the warnings in a few lines."""
    console.note(f"{result.counts['real']} real and {result.counts['synthetic']} synthetic volumes.")
    for window, planes in result.distances.items():
        mean = planes["mean"]
        floor = "" if mean.fid_floor is None else (
            f"  at floor's size {mean.fid_at_floor:.3g}, floor {mean.fid_floor:.3g}"
        )  # fmt: skip
        console.note(f"{window:12s} 2.5D FID {mean.fid:.3g}{floor}  KID x 1000 {mean.kid * 1000:.3g}")
    for row in result.regions[0] if result.regions else ():
        if row.measure == "rvr" and row.wasserstein is not None:
            console.note(
                f"{row.structure:12s} RVR W1 {row.wasserstein:.3g}  KS {row.ks_statistic:.2f} (p {row.ks_p_value:.2g})"
                f"  missing {row.missing_share:.0%} (real {row.reference_missing_share:.0%})"
            )
    for text in result.warnings:
        console.note(f"Note: {text}")
