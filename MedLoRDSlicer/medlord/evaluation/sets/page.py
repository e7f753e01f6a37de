"""The page of a set evaluation: distances per window and plane, and the regional comparison."""

from __future__ import annotations

from html import escape
from string import Template

from ..plots import IntervalPoint, interval_plot
from ..report_page import PLAIN_PAGE
from ..scorecard_page import embedded
from ..set_page import comparison_sections, warnings_section
from .distances import Distances
from .evaluation import MEAN, MEANINGS, SetEvaluation

_NOTICE = (
    "Small distances are not clinical validity: they say that slices of both sets look alike to one network, and that "
    "regions have like sizes and HU. They do not say that an anatomy is possible, nor that no patient was copied. "
    "Not for diagnosis."
)


def render_evaluation_page(result: SetEvaluation) -> str:
    """The HTML of the evaluation."""
    content = _facts(result) + warnings_section(result.warnings)
    if result.distances:
        content += _overview(result) + "".join(
            _window_section(window, planes, result) for window, planes in result.distances.items()
        )
    if result.regions:
        rows, made, reference = result.regions
        content += comparison_sections(made, reference, rows)
    title = "Synthetic volumes against real ones"
    return Template(PLAIN_PAGE).substitute(
        title=title, page_title=title, notice=escape(_NOTICE), content=content
    )


def _facts(result: SetEvaluation) -> str:
    facts = {"Real": f"N = {result.counts['real']}", "Synthetic": f"N = {result.counts['synthetic']}"}
    if result.features:
        facts["Features"] = f"{result.features['name']}, {result.features['dimension']} numbers"
        facts["SHA-256 of the weights"] = result.features["sha256"]
        settings = result.settings
        facts["Slices"] = (
            f"at most {settings['slices_per_plane']} per plane and volume, pixels of {settings['pixel_mm']:g} mm"
        )
        facts["Resampling"] = (
            f"{settings['bootstrap_replicates']} bootstrap replicates over volumes; floor from {settings['splits']} "
            f"splits into halves of {settings['volumes_at_floor']} volumes"
        )
    for name, geometry in result.geometry.items():
        size = " x ".join(f"{length:.0f}" for length in geometry["field_of_view_mm"])
        voxel = " x ".join(f"{length:.3g}" for length in geometry["spacing_mm"])
        facts[f"Field of view, {name}"] = f"{size} mm, voxels {voxel} mm (medians)"
    if result.regions:
        made = result.regions[1]
        facts["Regions by"] = f"{made.segmenter} {made.segmenter_version}"
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items()
    )
    return f"<section class='card'><dl class='facts'>{items}</dl></section>"


def _overview(result: SetEvaluation) -> str:
    points = [
        IntervalPoint(
            window,
            planes[MEAN].fid,
            planes[MEAN].fid_low,
            planes[MEAN].fid_high,
            planes[MEAN].fid_floor,
            planes[MEAN].fid_at_floor,
        )
        for window, planes in result.distances.items()
    ]
    plot = embedded(interval_plot(points, "2.5D FID"), "2.5D FID of each window with its floor", "plot")
    meanings = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in MEANINGS.items())
    return f"<section class='card'><h2>Distance of features</h2>{plot}<dl class='meanings'>{meanings}</dl></section>"


def _window_section(window: str, planes: dict[str, Distances], result: SetEvaluation) -> str:
    low, high = result.settings["windows_hu"][window]
    heads = ("Plane", "FID", "FID at floor's size", "Floor", "KID x 1000", "Floor", "Slices")
    body = ""
    for plane, found in planes.items():
        counts = result.slices.get(plane)
        cells = (
            _with_interval(found.fid, found.fid_low, found.fid_high),
            _number(found.fid_at_floor),
            _number(found.fid_floor),
            _with_interval(found.kid, found.kid_low, found.kid_high, 1000),
            _number(found.kid_floor, 1000),
            f"{counts['real']} / {counts['synthetic']}" if counts else "",
        )
        name = plane if plane != MEAN else "mean (2.5D)"
        body += f"<tr><th scope='row'>{name}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    return (
        f"<section class='card'><h2>{escape(window.capitalize())} <small>{low:g} to {high:g} HU</small></h2>"
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _with_interval(value: float, low: float | None, high: float | None, factor: float = 1) -> str:
    text = _number(value, factor)
    return (
        text if low is None else f"{text} <small>({_number(low, factor)} to {_number(high, factor)})</small>"
    )


def _number(value: float | None, factor: float = 1) -> str:
    return "–" if value is None else f"{value * factor:.3g}"
