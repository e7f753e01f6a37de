"""The model card of an imported model: what it is, where it came from, what was stated and what is not known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .description import OWN_RANGE, ModelDescription

_SOURCES = (
    "From an option of the import, the configuration, the family (what its code always does), the file (it holds one "
    "kind of weights only), or the code's default."
)


def imported_model_card(description: ModelDescription, warnings: Sequence[str]) -> str:
    """Markdown for `docs/README.md` of an imported bundle."""
    low, high = description.window_hu
    shape = " x ".join(str(n) for n in description.grid_shape)
    spacing = " x ".join(f"{s:g}" for s in description.spacing_mm)
    masks = (
        ", ".join(description.conditions)
        if description.takes_masks
        else "none: its volumes follow the seed alone"
    )
    lines = [
        f"# {description.title}",
        "",
        f"Imported from checkpoints of the family {description.provenance['family']}. Who trained it, on which data "
        "and how well it does is not known to this program: ask for the card of those who published the weights.",
        "For research, teaching and software tests; not for clinical use.",
        "",
        f"* Licence, as stated at import: {description.licence}",
        f"* Grid: {shape} voxels of {spacing} mm, axes {description.orientation}",
        f"* HU window: {low:g} to {high:g}",
        f"* Masks, in the order of their channels: {masks}",
    ]
    if description.intensity_map == OWN_RANGE:
        lines.append(
            "* Intensities: every training volume was scaled by its own minimum and maximum, so HU are relative; the "
            "window only says which HU are shown for the lowest and highest value."
        )
    lines += ["", "## Files", "", "| role | file | SHA-256 |", "|---|---|---|"]
    lines += [
        f"| {role.replace('_', '-')} | {entry['file']} | {entry['sha256']} |"
        for role, entry in description.provenance["files"].items()
    ]
    lines += ["", "## Settings that no weight holds", ""]
    lines += [_SOURCES, "", "| setting | value | from |", "|---|---|---|"]
    lines += [f"| {name} | {value} | {source} |" for name, value, source in stated_settings(description)]
    if warnings:
        lines += ["", "## Warnings at import", "", *(f"* {text}" for text in warnings)]
    return "\n".join(lines) + "\n"


def stated_settings(description: ModelDescription) -> list[tuple[str, str, str]]:
    """(setting, value in words, source) of an imported model, those that its weights tell by their shapes left out.

    Sources are "option", "configuration", "family" (what its code does whatever the configuration says), "file" (the
    only kind of weights there is) and "default".
    """
    rows = []
    for part, entries in description.provenance.get("settings", {}).items():
        for name, entry in entries.items():
            if entry["source"] != "shapes":
                rows.append((f"{part} {name}", _words(entry["value"]), entry["source"]))
    return rows


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(_words(item) for item in value)
    if isinstance(value, Mapping):
        return json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
