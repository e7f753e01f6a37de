"""The page of an autoencoder's evaluation: the paper's table 3 for this model and these volumes."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from string import Template

from ..report_page import PLAIN_PAGE
from ..sets.slices import PLANES
from ..spread import Spread
from ..wording import counted
from .evaluation import MEANINGS, MODEL_WINDOW, AutoencoderEvaluation

COLUMNS = {
    "psnr_db": ("PSNR, dB", "{:.2f}"),
    "ms_ssim": ("MS-SSIM", "{:.4f}"),
    "lpips": ("LPIPS 2.5D", "{:.4f}"),
    **{f"lpips {plane}": (f"LPIPS {plane}", "{:.4f}") for plane in PLANES},
}
"""Measure -> heading and format of its numbers."""

_SCALED = "ms_ssim "

_NOTICE = (
    "What is measured here is how much of a CT the autoencoder keeps: the best that any synthesis with this model can "
    "look like, not how good its syntheses are. Not for diagnosis."
)


def render_autoencoder_page(result: AutoencoderEvaluation) -> str:
    """The HTML of the evaluation."""
    title = f"Autoencoder of {result.model['id']}"
    return Template(PLAIN_PAGE).substitute(
        title=escape(title),
        page_title=escape(title),
        notice=escape(_NOTICE),
        content=_facts(result) + _warnings(result) + _table(result),
    )


def in_words(measure: str, spread: Spread) -> str:
    """Median (first to third quartile) of a measure, "–" where it is unknown or infinite."""
    form = COLUMNS[_column(measure)][1]
    numbers = (spread.median, spread.first_quartile, spread.third_quartile)
    median, low, high = ("–" if number is None else form.format(number) for number in numbers)
    return median if median == "–" else f"{median} ({low} to {high})"


def headings(spreads: Mapping[str, Spread]) -> dict[str, str]:
    """Measure -> heading, in the order of the columns; MS-SSIM of several numbers of scales have one each."""
    shown = sorted(spreads, key=lambda measure: list(COLUMNS).index(_column(measure)))
    return {
        measure: f"{COLUMNS['ms_ssim'][0]}, {counted(int(measure.removeprefix(_SCALED)), 'scale')} "
        f"(N = {spreads[measure].count})"
        if measure.startswith(_SCALED)
        else COLUMNS[measure][0]
        for measure in shown
    }


def _column(measure: str) -> str:
    """The entry of `COLUMNS` that a measure of `AutoencoderEvaluation.spreads` belongs to."""
    return "ms_ssim" if measure.startswith(_SCALED) else measure


def _facts(result: AutoencoderEvaluation) -> str:
    model, structure = result.model, result.settings["ms_ssim"]
    facts = {
        "Model": f"{model['id']} {model['version']}",
        "SHA-256 of the autoencoder": model["autoencoder_sha256"],
        "CT": f"N = {len(result.volumes)}",
        "Grid": f"{_times(model['grid_shape'])} voxels of {_times(model['spacing_mm'])} mm, or less for smaller CT",
        "MS-SSIM": f"3D, {' or '.join(map(str, structure['scales']))} scales, Gaussian window of "
        f"{structure['kernel_voxels']} voxels",
    }
    if result.features:
        facts["LPIPS"] = (
            f"{result.features['name']}, layers {', '.join(result.features['layers'])}, "
            f"at most {result.settings['slices_per_plane']} slices per plane, pixels of "
            f"{result.settings['pixel_mm']:g} mm"
        )
        facts["SHA-256 of its weights"] = result.features["sha256"]
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items()
    )
    return f"<section class='card'><dl class='facts'>{items}</dl></section>"


def _warnings(result: AutoencoderEvaluation) -> str:
    if not result.warnings:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in result.warnings)
    return f"<section class='warnings'><h2>To keep in mind</h2><ul>{items}</ul></section>"


def _table(result: AutoencoderEvaluation) -> str:
    measures = headings(result.spreads[MODEL_WINDOW])
    heads = ("Window, HU", *measures.values())
    body = ""
    for window, spreads in result.spreads.items():
        low, high = result.settings["windows_hu"][window]
        cells = "".join(f"<td>{escape(in_words(name, spreads[name]))}</td>" for name in measures)
        body += f"<tr><th scope='row'>{escape(window)} <small>{low:g} to {high:g}</small></th>{cells}</tr>"
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    meanings = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in MEANINGS.items())
    return (
        "<section class='card'><h2>Median and interquartile range</h2><div class='scroll'><table>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        f"<dl class='meanings'>{meanings}</dl></section>"
    )


def _times(numbers) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
