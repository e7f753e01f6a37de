"""The scorecard's parts of a report page: verdict, worst slices, sizes, HU and image, as HTML."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from ..conditions import Conditions
from ..volumes import Volume
from .adherence import StructureAdherence, drawn_structures
from .image_quality import AXES
from .pictures import (
    AXIAL,
    BONE,
    LUNG,
    MEDIASTINAL,
    Outline,
    Slicer2D,
    Window,
    picture_of_ct,
    picture_of_outlines,
)
from .plots import ViolinPanel, tissue_plot, violin_plot
from .reference_check import Placed
from .scorecard import MEANINGS, Scorecard
from .tissue_ranges import SOURCES, tissue_range
from .verdicts import GREEN, SMALLEST_REFERENCE
from .wording import counted, spoken

# Apart for colour-blind eyes too, and both on black, grey and white.
DRAWN_COLOUR, FOUND_COLOUR = "#3d9be9", "#f08a1c"
# In the window of soft tissue, bone and contrast are white all over.
_WINDOWS = {"lung": LUNG, "airway": LUNG, "nodule": LUNG, "bone": BONE, "blood": BONE}


def verdict_section(card: Scorecard) -> str:
    """The verdict in a word, what it means, and every reason, worst first."""
    if card.findings:
        reasons = "".join(
            f"<li class='{escape(f.level)}'><span class='level'>{escape(f.level)}</span>{escape(f.reason)}</li>"
            for f in card.findings
        )
    else:
        reasons = f"<li class='{GREEN}'><span class='level'>{GREEN}</span>No finding.</li>"
    return (
        f"<section class='card verdict {escape(card.level)}'><h2>Check: {escape(card.level)} "
        f"<small>{escape(MEANINGS[card.level])}</small></h2><ul class='findings'>{reasons}</ul>"
        f"{_paragraph(card.scope)}</section>"
    )


def worst_slices_section(
    volume: Volume, conditions: Conditions, found: Conditions, card: Scorecard, kind: str
) -> str:
    """For every structure that was compared, worst first, the axial slice where drawn and found differ most.

    `conditions` and `found` lie on the grid of `volume`; `kind` is the word for it that stands in the pictures.
    """
    rows = [] if card.adherence is None else [row for row in card.adherence.structures if row.worst_slice]
    if not rows:
        return ""
    drawn = drawn_structures(conditions, tuple(found.names))
    figures = "".join(
        _worst_slice(volume, drawn[row.name], found[row.name], row, kind)
        for row in sorted(rows, key=lambda r: r.dice)
    )
    return (
        "<section class='card'><h2>Where it differs most</h2>"
        "<p><small>Worst structure first, each in the axial slice where the masks differ most. Blue: drawn. Orange, "
        f"dashed: found by {escape(card.segmenter)}.</small></p><div class='pictures'>{figures}</div></section>"
    )


def _worst_slice(
    volume: Volume, drawn: np.ndarray, found: np.ndarray, row: StructureAdherence, kind: str
) -> str:
    worst = row.worst_slice
    window = _window_for(row.name)
    outlines = [Outline(drawn, DRAWN_COLOUR), Outline(found, FOUND_COLOUR, dashed=True)]
    name = spoken(row.name)
    picture = embedded(
        picture_of_ct(volume, AXIAL, worst.index, window, kind),
        f"axial slice of the CT, {window.name} window",
    )
    overlay = embedded(
        picture_of_outlines(volume.grid, AXIAL, worst.index, outlines), "drawn and found", "overlay"
    )
    position = Slicer2D(volume.grid, AXIAL).position_mm(worst.index)
    caption = f"{escape(name)} <small>Dice {row.dice:.2f}; slice {worst.index + 1}, S = {position:.0f} mm, "
    caption += f"{worst.differing_mm2 / 100:.1f} cm² differ</small>"
    return f"<figure><div class='stack'>{picture}{overlay}</div><figcaption>{caption}</figcaption></figure>"


def sizes_section(card: Scorecard) -> str:
    """RVR, ml and HU of everything that was found, on the reference where there is one."""
    placed = {} if card.reference_too_small else {row.name: row for row in card.regions}
    heads = ["Structure", "RVR", "ml", "Median HU", "Spread HU"]
    heads += ["Percentile of size", "Central 95 % of sizes"] if placed else []
    body = ""
    for name, values in card.measures.structures.items():
        cells = [f"{values['rvr']:.2%}", f"{values['ml']:.1f}"]
        cells += [_number(values[measure]) for measure in ("median_hu", "spread_hu")]
        if placed:
            measures = placed[name].measures if name in placed else {}
            is_rvr = measures.get("rvr") is not None
            cells += _place_cells(
                measures["rvr"] if is_rvr else measures.get("ml"), "{:.2%}" if is_rvr else "{:.0f} ml"
            )
        body += _table_row(spoken(name), cells)
    text = (
        f"All of what {card.segmenter} found, whatever was drawn; findings that name a reference speak of these "
        "numbers. RVR: voxels of the structure over voxels of the volume. It depends on the field of view, so it is "
        "compared only with volumes of about the same extent; ml do not. HU are taken a few mm away from the surface."
    )
    title = "What was found: sizes and HU"
    return f"<section class='card'><h2>{title}</h2>{_table(heads, body)}{_paragraph(text)}{_reference(card)}</section>"


def _reference(card: Scorecard) -> str:
    """The population that was compared with, and this volume on its distributions."""
    reference = card.reference
    if reference is None:
        return _paragraph("No reference population was given (--reference), so nothing says what is usual.")
    text = f"Reference {reference.name}, N = {reference.count}: {reference.population} "
    text += f"Segmenter {reference.segmenter}. "
    if card.reference_too_small:
        text += f"{_too_small(card)}, no plot and no finding but of what is missing."
        return _paragraph(text)
    text += "Of the reference's own volumes 1 in 20 lies outside the central 95 % of each measure."
    if card.unusual is not None:
        count = card.unusual
        text += (
            f" Of {counted(count.measures, 'measure')} chance does that: {count.own_share:.0%} of its own volumes lie "
            f"outside in at least one, 95 of 100 in at most {count.own_limit}. This volume lies outside in "
            f"{count.here}."
        )
    panels = []
    for row in card.regions:
        measure, unit = ("rvr", "RVR") if row.measures.get("rvr") is not None else ("ml", "ml")
        own = card.measures.structures[row.name][measure]
        panels.append(
            ViolinPanel(spoken(row.name), unit, reference.values(row.name, measure), np.array([own]))
        )
    plot = (
        embedded(violin_plot(panels), "this volume on the reference distribution", "plot") if panels else ""
    )
    return _paragraph(text) + plot


def _too_small(card: Scorecard) -> str:
    """Why a reference of few volumes has no percentiles."""
    return f"Reference too small ({card.reference.count} of {SMALLEST_REFERENCE} volumes): no percentiles"


def tissues_section(card: Scorecard) -> str:
    """HU of every structure against published ranges, inside the drawn masks."""
    rows = [row for row in card.tissues if row.expected is not None]
    if not rows:
        return ""
    body = ""
    for row in rows:
        expected = row.expected
        spread = "–" if expected.spread_hu is None else f"{expected.spread_hu:.0f}"
        cells = [
            row.where,
            f"{row.median_hu:.0f}",
            f"{row.spread_hu:.0f}",
            f"{expected.tissue}: {expected.low_hu:.0f} to {expected.high_hu:.0f}",
            spread,
            expected.source,
        ]
        body += _table_row(spoken(row.name), cells)
    heads = ["Structure", "Mask", "Median HU", "Spread HU", "Published range", "Largest spread", "Source"]
    phase = card.contrast_phase or "not known, so the ranges hold all phases"
    text = (
        f"Mask drawn: inside the mask that was drawn, wherever {card.segmenter} finds the structure. Mask found: "
        f"nobody drew it, so inside what {card.segmenter} found. Both a few mm away from the surface. HU of what was "
        "found of the drawn structures stand in the table above, and findings that name a reference speak of those. "
        f"Contrast phase: {phase}. Spread: interquartile range / 1.349."
    )
    used = dict.fromkeys(name for row in rows for name in row.expected.source.split(", "))
    sources = " ".join(f"{name}: {SOURCES[name]}." for name in used)
    plot = embedded(tissue_plot(rows), "HU of every structure on the published range", "plot")
    return (
        f"<section class='card'><h2>HU of tissues</h2>{_table(heads, body)}{_paragraph(text)}{plot}"
        f"{_paragraph(sources)}</section>"
    )


def image_section(card: Scorecard) -> str:
    """Air, noise, sharpness, saturation and breaks between slices."""
    quality = card.measures.quality
    rows = [
        ("Air around the body, HU", quality.outside_air_hu, "{:.0f}", "outside_air_hu"),
        ("Noise in soft tissue, HU", quality.noise_hu, "{:.1f}", "noise_hu"),
        ("Width of the skin's edge, mm", quality.edge_width_mm, "{:.1f}", "edge_width_mm"),
        ("Body voxels at the lowest value", quality.saturated_low, "{:.2%}", ""),
        ("Body voxels at the highest value", quality.saturated_high, "{:.2%}", ""),
    ]
    for number, axis in enumerate(AXES):
        rows.append(
            (f"Incoherence of slices, {axis}", quality.incoherence[number], "{:.2f}", f"incoherence {axis}")
        )
        rows.append((f"Largest break, {axis}", quality.seam[number], "{:.1f} ×", f"seam {axis}"))
    has_places = card.reference is not None and not card.reference_too_small
    body = ""
    for title, value, form, measure in rows:
        cells = ["–" if value is None else form.format(value)]
        if has_places:
            cells += _place_cells(card.scan.get(measure), form)
        body += _table_row(title, cells)
    heads = ["Measure", "Value"] + (["Percentile", "Central 95 %"] if has_places else [])
    text = (
        "Incoherence: difference of neighbouring slices over that of slices two apart; 1 means slices in a random "
        "order. Break: as a multiple of what is usual between the slices nearby; tiles that do not fit make one."
    )
    if card.reference_too_small:
        text += f" {_too_small(card)}."
    return f"<section class='card'><h2>Image</h2>{_table(heads, body)}{_paragraph(text)}</section>"


def embedded(png: bytes, text: str, style: str = "") -> str:
    """An image inside the page; `text` says what it shows."""
    data = base64.b64encode(png).decode("ascii")
    return f"<img class='{style}' alt='{escape(text)}' src='data:image/png;base64,{data}'>"


def _place_cells(placed: Placed | None, form: str) -> list[str]:
    if placed is None:
        return ["–", "–"]
    return [f"{placed.percentile:.1f}", f"{form.format(placed.low)} to {form.format(placed.high)}"]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _table(heads: Sequence[str], body: str) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _table_row(name: str, cells: Sequence[str]) -> str:
    return (
        f"<tr><th scope='row'>{escape(name)}</th>" + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>"
    )


def _paragraph(text: str) -> str:
    return f"<p class='meaning'>{escape(text)}</p>"


def _window_for(name: str) -> Window:
    expected = tissue_range(name)
    return _WINDOWS.get(expected.tissue if expected else "", LUNG if name == "body" else MEDIASTINAL)


def all_sections(
    volume: Volume, conditions: Conditions, found: Conditions | None, card: Scorecard, kind: str
) -> Mapping:
    """The scorecard's places in the page: name of the place to HTML; `kind` as in `worst_slices_section`."""
    worst = worst_slices_section(volume, conditions, found, card, kind) if found is not None else ""
    return {
        "verdict": verdict_section(card),
        "trust": worst + sizes_section(card) + tissues_section(card) + image_section(card),
    }
