"""The table of a check: one row per structure, worst first, with numbers, verdict, reason and where to look."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import vtk

from .translation import _

LEVELS = ("red", "amber", "green")
VERDICT_ATTRIBUTE = "MedLoRD.verdict"
SUMMARY_ATTRIBUTE = "MedLoRD.check"
_NOTHING = float("nan")


class Column(IntEnum):
    """The columns, in their order: a saved table is read by it, since the names are translated."""

    STRUCTURE = 0
    VERDICT = 1
    DICE = 2
    CEILING = 3
    HD95 = 4
    SURFACE_DICE = 5
    DRAWN = 6
    FOUND = 7
    RVR = 8
    PERCENTILE = 9
    HU = 10
    RIGHT = 11
    ANTERIOR = 12
    SUPERIOR = 13
    REASON = 14


_TEXTS = (Column.STRUCTURE, Column.VERDICT, Column.REASON)


@dataclass(frozen=True)
class CheckRow:
    """One row. `structure` is empty for what concerns the whole volume; `level` is "green", "amber" or "red".

    `numbers` holds the values of the columns that are numbers, NaN where there is none; `position_ras_mm` is None where
    there is nothing to look at. `reason` is the engine's, in words, empty for green.
    """

    structure: str
    level: str
    reason: str
    numbers: dict[Column, float]
    position_ras_mm: tuple[float, float, float] | None


def check_rows(
    report: Mapping[str, Any], positions: Mapping[str, tuple[float, float, float]]
) -> list[CheckRow]:
    """The rows of a scorecard (`Scorecard.to_dict`), worst first: one for the whole volume, one per structure."""
    findings = report["verdict"]["findings"]
    measured = {row["name"]: row for row in report["structures"]}
    sizes = report["regions"]["structures"]
    tissues = {row["name"]: row for row in report["hu"]}
    named = [finding["structure"] for finding in findings]
    whole = [""] if None in named else []
    rows = []
    for name in dict.fromkeys([*whole, *measured, *sizes, *filter(None, named)]):
        own = sorted(
            (finding for finding in findings if (finding["structure"] or "") == name),
            key=lambda finding: LEVELS.index(finding["level"]),
        )
        level = own[0]["level"] if own else "green"
        numbers = _numbers(measured.get(name), sizes.get(name), tissues.get(name))
        reason = " ".join(finding["reason"] for finding in own)
        rows.append(CheckRow(name, level, reason, numbers, positions.get(name)))
    return sorted(rows, key=lambda row: (LEVELS.index(row.level), bool(row.structure)))


def _numbers(
    measured: Mapping | None = None, size: Mapping | None = None, tissue: Mapping | None = None
) -> dict:
    """The numbers of a row from the three parts of a scorecard."""
    measured, size, tissue = measured or {}, size or {}, tissue or {}
    placed = (size.get("reference") or {}).get("rvr") or (size.get("reference") or {}).get("ml") or {}
    rvr = size.get("rvr")
    found = {
        Column.DICE: measured.get("dice"),
        Column.CEILING: measured.get("ceiling_dice"),
        Column.HD95: measured.get("hd95_mm"),
        Column.SURFACE_DICE: measured.get("surface_dice"),
        Column.DRAWN: measured.get("drawn_ml"),
        Column.FOUND: size.get("ml", measured.get("found_ml")),
        Column.RVR: None if rvr is None else 100 * rvr,
        Column.PERCENTILE: placed.get("percentile"),
        Column.HU: tissue.get("median_hu", measured.get("median_hu")),
    }
    return {column: _NOTHING if value is None else float(value) for column, value in found.items()}


def add_check_table(scene, name: str, rows: list[CheckRow]):
    """Add a locked table node with these rows; every column says what it measures and its unit."""
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    table, titles = vtk.vtkTable(), column_titles()
    for column in Column:
        values = vtk.vtkStringArray() if column in _TEXTS else vtk.vtkDoubleArray()
        values.SetName(titles[column])
        for row in rows:
            values.InsertNextValue(_cell(row, column))
        table.AddColumn(values)
    node.SetAndObserveTable(table)
    # Slicer 5.12 has the new name and warns of the old one.
    show_names = getattr(node, "SetUseColumnTitleAsColumnHeader", None) or node.SetUseColumnNameAsColumnHeader
    show_names(True)
    for column, text in column_meanings().items():
        node.SetColumnDescription(titles[column], text)
    for column, unit in _UNITS.items():
        node.SetColumnUnitLabel(titles[column], unit)
    node.SetLocked(True)
    return node


def read_check_table(node) -> list[CheckRow]:
    """The rows of a table that `add_check_table` made, also after its scene was saved and loaded."""
    table = node.GetTable()
    rows = []
    for number in range(table.GetNumberOfRows()):
        values = {column: table.GetValue(number, int(column)) for column in Column}
        numbers = {column: values[column].ToDouble() for column in Column if column not in _TEXTS}
        position = tuple(numbers.pop(c) for c in (Column.RIGHT, Column.ANTERIOR, Column.SUPERIOR))
        structure = values[Column.STRUCTURE].ToString()
        rows.append(
            CheckRow(
                "" if structure == _whole() else structure,
                values[Column.VERDICT].ToString(),
                values[Column.REASON].ToString(),
                numbers,
                None if math.isnan(position[0]) else position,
            )
        )
    return rows


def column_titles() -> dict[Column, str]:
    """What stands above each column."""
    return {
        Column.STRUCTURE: _("Structure"),
        Column.VERDICT: _("Verdict"),
        Column.DICE: _("Dice"),
        Column.CEILING: _("Dice on the real CT"),
        Column.HD95: _("Hausdorff distance 95 %"),
        Column.SURFACE_DICE: _("Surface Dice"),
        Column.DRAWN: _("Drawn"),
        Column.FOUND: _("Found"),
        Column.RVR: _("Share of the volume (RVR)"),
        Column.PERCENTILE: _("Percentile in the reference"),
        Column.HU: _("Median HU"),
        Column.RIGHT: _("Look at R"),
        Column.ANTERIOR: _("Look at A"),
        Column.SUPERIOR: _("Look at S"),
        Column.REASON: _("Reason"),
    }


def column_meanings() -> dict[Column, str]:
    """What each number measures and against what."""
    place = _("Where the found and the drawn mask differ most, else the middle of the structure")
    return {
        Column.STRUCTURE: _("Structure that was drawn, found, or both"),
        Column.VERDICT: _("green: nothing wrong was found; amber: look at it; red: do not use it"),
        Column.DICE: _("Overlap (0 to 1) of the drawn mask with what the segmenter finds in the CT"),
        Column.CEILING: _("The segmenter's own ceiling: the same for the real CT that belongs to the masks"),
        Column.HD95: _("95 of 100 surface voxels lie at most this far from the other mask's surface"),
        Column.SURFACE_DICE: _("Share (0 to 1) of both surfaces within the tolerance of the other one"),
        Column.DRAWN: _("Volume of the mask that was drawn"),
        Column.FOUND: _("Volume that the segmenter finds"),
        Column.RVR: _("Voxels of the structure over voxels of the volume; depends on the field of view"),
        Column.PERCENTILE: _("Share of the reference's volumes in which the structure is smaller"),
        Column.HU: _("Median HU inside the structure, a few mm away from its surface"),
        Column.RIGHT: place,
        Column.ANTERIOR: place,
        Column.SUPERIOR: place,
        Column.REASON: _("Why the verdict is not green"),
    }


_UNITS = {
    Column.HD95: "mm",
    Column.DRAWN: "ml",
    Column.FOUND: "ml",
    Column.RVR: "%",
    Column.PERCENTILE: "%",
    Column.HU: "HU",
    Column.RIGHT: "mm",
    Column.ANTERIOR: "mm",
    Column.SUPERIOR: "mm",
}


def _whole() -> str:
    return _("Whole volume")


def _cell(row: CheckRow, column: Column) -> str | float:
    if column is Column.STRUCTURE:
        return row.structure or _whole()
    if column is Column.VERDICT:
        return row.level
    if column is Column.REASON:
        return row.reason
    if column in (Column.RIGHT, Column.ANTERIOR, Column.SUPERIOR):
        return row.position_ras_mm[column - Column.RIGHT] if row.position_ras_mm else _NOTHING
    return round(row.numbers[column], 4)
