"""The report of one synthesis: a single HTML file with pictures and numbers, readable without a network.

Every text that comes from outside (names of structures, warnings, the recipe) is escaped; there are no scripts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template

from ..conditions import Conditions
from ..volume_files import write_atomically
from ..volumes import Volume
from .adherence import Adherence, StructureAdherence
from .pictures import (
    PLANES,
    WINDOWS,
    Outline,
    Plane,
    Slicer2D,
    colours_for,
    most_telling_slice,
    picture_of_ct,
    picture_of_masks,
    picture_of_outlines,
)
from .report_page import PAGE
from .scorecard import NOT_CLINICAL, Scorecard
from .scorecard_page import all_sections, embedded
from .wording import spoken

__all__ = ["NOT_CLINICAL", "ReportContent", "render_report", "write_report"]

_FOUND_COLOUR = "#ffffff"
_PHASE_NAMES = {
    "load": "Loading the model",
    "condition": "Preparing the masks",
    "denoise": "Denoising",
    "decode": "Decoding to HU",
    "total": "Total",
}


@dataclass(frozen=True)
class ReportContent:
    """What a report shows.

    `volume` is the CT (HU), taken for synthetic when it carries a recipe, `conditions` the masks that the network
    saw, `found` what the segmenter found (drawn dashed), `scorecard` the verdict with all that it rests on, `recipe`
    the JSON form of the recipe, `timings_s` seconds per phase, `peak_memory_bytes` the most memory the run used,
    `energy_kwh` where it could be read. An empty recipe, no timings and 0 bytes are left out: they are not known of a
    CT that came as a file.
    """

    volume: Volume
    conditions: Conditions
    adherence: Adherence
    recipe: Mapping
    timings_s: Mapping[str, float]
    peak_memory_bytes: int
    energy_kwh: float | None = None
    warnings: Sequence[str] = field(default_factory=tuple)
    found: Conditions | None = None
    scorecard: Scorecard | None = None
    title: str = "Synthetic CT from a segmentation"

    @property
    def kind(self) -> str:
        """The word for the CT that stands on the page and in its pictures."""
        return "SYNTHETIC" if self.volume.recipe is not None else "CT OF UNKNOWN ORIGIN"


def write_report(path: str | Path, content: ReportContent) -> Path:
    """Write the report as one HTML file; raises `InputError` when the folder cannot be written."""
    path = Path(path)
    html = render_report(content)
    write_atomically(path, lambda temporary: temporary.write_text(html, encoding="utf-8"))
    return path


def render_report(content: ReportContent) -> str:
    """The HTML of the report."""
    conditions = content.conditions
    if not conditions.grid.matches(content.volume.grid):
        conditions = conditions.resampled(content.volume.grid)
    shown = [name for name, mask in conditions.masks.items() if mask.any()]
    colours = colours_for(shown)
    outlines = [Outline(conditions[name], colours[name]) for name in shown]
    found = content.found.masks.values() if content.found is not None else ()
    dashed = [Outline(mask, _FOUND_COLOUR, dashed=True) for mask in found if mask.any()]
    pictures = "".join(_plane_section(content, conditions, plane, outlines, dashed) for plane in PLANES)
    trust = {"verdict": "", "trust": ""}
    if content.scorecard is not None:
        trust = all_sections(content.volume, conditions, content.found, content.scorecard, content.kind)
    return Template(PAGE).substitute(
        trust,
        title=escape(content.title),
        page_title=escape(f"{content.kind} – {content.title}"),
        kind=escape(content.kind),
        notice=escape(NOT_CLINICAL),
        facts=_facts(content),
        warnings=_warnings(content.warnings),
        legend=_legend(colours, content),
        pictures=pictures,
        table=_adherence_table(content.adherence, colours),
        meanings=_meanings(content.adherence),
        provenance=_timings(content.timings_s) + _recipe(content.recipe),
    )


def _facts(content: ReportContent) -> str:
    recipe, grid = content.recipe, content.volume.grid
    attributes = ", ".join(f"{spoken(key)}: {value}" for key, value in recipe.get("attributes", {}).items())
    rows = [
        ("Model", recipe.get("model")),
        ("Seed", recipe.get("seed")),
        ("Sampler", f"{recipe['sampler']}, {recipe.get('steps')} steps" if "sampler" in recipe else None),
        ("Attributes", attributes),
        ("Device", f"{recipe['device']}, {recipe.get('precision')}" if "device" in recipe else None),
        (
            "Grid",
            f"{' × '.join(map(str, grid.shape))} at {' × '.join(f'{s:.4g}' for s in grid.spacing_mm)} mm",
        ),
        ("Time", f"{_total_s(content.timings_s):.1f} s" if content.timings_s else None),
        (
            "Peak memory",
            f"{content.peak_memory_bytes / 2**30:.2f} GiB" if content.peak_memory_bytes else None,
        ),
        ("Energy", f"{content.energy_kwh * 1000:.2f} Wh" if content.energy_kwh is not None else None),
    ]
    rows = [(name, value) for name, value in rows if value not in (None, "")]
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in rows)


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    return f'<section class="warnings"><h2>Warnings</h2><ul>{items}</ul></section>'


def _legend(colours: Mapping[str, str], content: ReportContent) -> str:
    items = [f"<li>{_swatch(colour)}{escape(spoken(name))}</li>" for name, colour in colours.items()]
    if content.found is not None:
        items.append(
            f'<li><span class="dash"></span>found in the CT by {escape(content.adherence.segmenter)}</li>'
        )
    return "".join(items)


def _plane_section(
    content: ReportContent,
    conditions: Conditions,
    plane: Plane,
    outlines: Sequence[Outline],
    dashed: Sequence[Outline],
) -> str:
    volume = content.volume
    index = most_telling_slice(conditions, plane)
    slicer = Slicer2D(volume.grid, plane)
    overlay = embedded(
        picture_of_outlines(volume.grid, plane, index, [*outlines, *dashed]), "contours", "overlay"
    )
    masks = embedded(
        picture_of_masks(volume.grid, plane, index, outlines), f"{plane.name} slice of the input masks"
    )
    figures = [f"<figure><div class='stack'>{masks}</div><figcaption>Input masks</figcaption></figure>"]
    for window in WINDOWS:
        picture = picture_of_ct(volume, plane, index, window, content.kind)
        image = embedded(
            picture, f"{plane.name} slice of the CT ({content.kind.lower()}), {window.name} window"
        )
        caption = f"Result, {window.name} window <small>W {window.width:g} L {window.level:g}</small>"
        figures.append(
            f"<figure><div class='stack'>{image}{overlay}</div><figcaption>{caption}</figcaption></figure>"
        )
    title = f"{plane.name.capitalize()} <small>slice {index + 1} of {slicer.count}, {_AXES[plane.axis]} = "
    title += f"{slicer.position_mm(index):.1f} mm</small>"
    return f"<h3>{title}</h3><div class='pictures'>{''.join(figures)}</div>"


_AXES = ("R", "A", "S")


def _adherence_table(result: Adherence, colours: Mapping[str, str]) -> str:
    has_ceiling = result.has_ceiling
    heads = ["Structure"]
    for name in ("Dice", "95 % Hausdorff, mm", "Surface Dice"):
        heads += [name, "Ceiling"] if has_ceiling else [name]
    heads += ["Drawn, ml", "Found, ml", "Inside drawn, HU"]
    heads += ["In the masks' CT, HU"] if has_ceiling else []
    # What was compared first: of the others there is only HU.
    ordered = sorted(result.structures, key=lambda row: row.dice is None)
    notes = list(dict.fromkeys(row.note for row in ordered if row.note))
    rows = "".join(_table_row(row, colours.get(row.name), has_ceiling, notes) for row in ordered)
    head = "".join(f"<th>{text}</th>" for text in heads)
    below = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return (
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"<ol class='notes'>{below}</ol>"
    )


def _table_row(row: StructureAdherence, colour: str | None, has_ceiling: bool, notes: list[str]) -> str:
    bar = "" if row.dice is None else f"<meter min='0' max='1' value='{row.dice:.3f}'></meter>"
    cells = []
    for value, ceiling, digits, extra in (
        (row.dice, row.ceiling_dice, 3, bar),
        (row.hd95_mm, row.ceiling_hd95_mm, 1, ""),
        (row.surface_dice, row.ceiling_surface_dice, 3, ""),
    ):
        cells.append(_number(value, digits) + extra)
        cells += [_number(ceiling, digits)] if has_ceiling else []
    spread = "" if row.sd_hu is None else f" <small>± {row.sd_hu:.0f}</small>"
    cells += [_number(row.drawn_ml, 1), _number(row.found_ml, 1), f"{_number(row.mean_hu, 0)}{spread}"]
    cells += [_number(row.reference_mean_hu, 0)] if has_ceiling else []
    mark = f"<sup>{notes.index(row.note) + 1}</sup>" if row.note else ""
    name = f"<th scope='row'>{_swatch(colour)}{escape(spoken(row.name))}{mark}</th>"
    return f"<tr>{name}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _meanings(result: Adherence) -> str:
    names = {
        "dice": "Dice",
        "hd95_mm": "95 % Hausdorff",
        "surface_dice": "Surface Dice",
        "ceiling_dice": "Ceiling",
        "drawn_ml": "Drawn",
        "found_ml": "Found",
        "mean_hu": "Inside drawn",
        "reference_mean_hu": "In the masks' CT",
    }
    texts = result.explanations()
    return "".join(f"<dt>{names[key]}</dt><dd>{escape(texts[key])}</dd>" for key in names if key in texts)


def _timings(timings_s: Mapping[str, float]) -> str:
    if not timings_s:
        return ""
    rows = [(name, seconds) for name, seconds in timings_s.items() if name != "total"]
    rows.append(("total", _total_s(timings_s)))
    cells = "".join(
        f"<tr><th scope='row'>{escape(_PHASE_NAMES.get(name, name))}</th><td>{seconds:.2f} s</td></tr>"
        for name, seconds in rows
    )
    return (
        f'<section class="card"><h2>Time</h2><table class="narrow"><tbody>{cells}</tbody></table></section>'
    )


def _total_s(timings_s: Mapping[str, float]) -> float:
    return float(timings_s.get("total", sum(timings_s.values())))


def _recipe(recipe: Mapping) -> str:
    """The recipe without the packed masks, which only machines can read."""
    if not recipe:
        return ""
    shown = json.loads(json.dumps(recipe))
    for condition in (shown.get("conditions") or {}).values():
        if isinstance(condition, dict) and "packed" in condition:
            condition["packed"] = "... (the mask itself, in recipe.json)"
    text = escape(json.dumps(shown, indent=2))
    return f'<section class="card"><details><summary>Recipe</summary><pre>{text}</pre></details></section>'


def _swatch(colour: str | None) -> str:
    return f"<span class='swatch' style='background:{escape(colour)}'></span>" if colour else ""


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
