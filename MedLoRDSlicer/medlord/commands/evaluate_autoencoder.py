"""medlord evaluate --autoencoder: what a model's autoencoder loses of real CT."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import InputError
from .outputs import all_or_nothing, json_and_page, refuse_options, write_json_and_page

if TYPE_CHECKING:
    from ..evaluation.reconstruction.evaluation import AutoencoderEvaluation
    from .console import Console

# Options of the comparison of two sets, which have no effect here.
_OF_SETS = (
    "segmenter",
    "bootstrap",
    "splits",
    "seed",
    "subset",
    "weights",
    "download_weights",
    "license_key",
    "segmenter_python",
)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Do it; the last lines on stdout are the files."""
    refuse_options(arguments, _OF_SETS, "the evaluation of an autoencoder")
    outputs = json_and_page(arguments)
    from ..evaluation.reconstruction.evaluation import evaluate_autoencoder
    from ..evaluation.reconstruction.page import render_autoencoder_page
    from ..evaluation.reconstruction.perceptual import load_radimagenet_perceptual
    from ..evaluation.sets.store import volume_files_of

    windows = named_windows(arguments.windows)
    volumes = volume_files_of(arguments.real, "real")
    perceptual = None
    if arguments.features:
        perceptual = load_radimagenet_perceptual(arguments.features, arguments.device)
    with console.interruptible():
        result = evaluate_autoencoder(
            arguments.autoencoder,
            volumes,
            arguments.work or arguments.out.with_suffix(".work"),
            perceptual=perceptual,
            windows=windows,
            slices=arguments.slices,
            pixel_mm=arguments.pixel_mm,
            device=arguments.device,
            progress=console.progress,
            cancel=console.cancel,
        )
    with all_or_nothing(outputs):
        write_json_and_page(arguments, result.to_dict(), lambda: render_autoencoder_page(result))
    _say(result, console)
    for path in outputs:
        console.result(path)


def named_windows(text: str | None) -> dict[str, tuple[float, float]]:
    """Name -> (low, high) in HU of the windows that --windows names; none without it."""
    from ..evaluation.sets.slices import WINDOWS

    names = [name.strip().replace("-", " ") for name in text.split(",")] if text else []
    unknown = [name for name in names if name not in WINDOWS]
    if unknown:
        known = ", ".join(name.replace(" ", "-") for name in WINDOWS)
        raise InputError(f"There is no window '{unknown[0]}'; choose some of {known}.")
    return {name: WINDOWS[name] for name in names}


def _say(result: AutoencoderEvaluation, console: Console) -> None:
    """The table: median (first to third quartile) of every measure, a line per window."""
    from ..evaluation.reconstruction.page import headings, in_words

    console.note(
        f"{len(result.volumes)} CT through the autoencoder of {result.model['id']}; median (quartiles)."
    )
    for window, spreads in result.spreads.items():
        low, high = result.settings["windows_hu"][window]
        numbers = "  ".join(
            f"{title} {in_words(name, spreads[name])}"
            for name, title in headings(spreads).items()
            if not name.startswith("lpips ")
        )
        console.note(f"{window:12s} {low:g} to {high:g} HU  {numbers}")
    if not result.features:
        console.note("Note: LPIPS needs the weights of a feature network: --features FILE.")
    for text in result.warnings:
        console.note(f"Note: {text}")
