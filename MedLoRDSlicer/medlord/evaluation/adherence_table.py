"""Adherence of a set of volumes, condition by condition: median and interquartile range (the paper's table 2)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from ..errors import InputError
from .report_page import PLAIN_PAGE
from .scorecard import NOT_CLINICAL
from .spread import Spread, spread_of
from .wording import counted, spoken

COLUMNS = {
    "dice": ("Dice", "{:.3f}"),
    "hd95_mm": ("HD95, mm", "{:.1f}"),
    "surface_dice": ("Surface Dice", "{:.3f}"),
    "difference_ml": ("Volume difference, ml", "{:+.1f}"),
}
"""Measure -> heading and format of its numbers; meanings in `adherence.StructureAdherence`."""

_CEILING = "ceiling_"


@dataclass(frozen=True)
class AdherenceRow:
    """One condition over a set: in how many volumes it was drawn, the share of them in which nothing of it was found,
    and the spread of each measure, with that of the segmenter's own ceiling (None where no real CT was given).

    `missing_share` is None where the segmenter does not look for the structure. `notes` say why the structure was
    compared in fewer volumes than it was drawn in, as the checks do.
    """

    structure: str
    count: int
    missing_share: float | None
    measures: dict[str, Spread]
    ceilings: dict[str, Spread | None]
    notes: tuple[str, ...] = ()

    @property
    def compared(self) -> int:
        """In how many volumes the structure was compared with what was found; of the others there is no Dice."""
        return self.measures["dice"].count


@dataclass(frozen=True)
class AdherenceTable:
    """Adherence of `count` volumes, all measured by one segmenter and with one tolerance of the surface Dice."""

    segmenter: str
    tolerance_mm: float
    count: int
    rows: tuple[AdherenceRow, ...]

    def to_dict(self) -> dict:
        """JSON form."""
        return {
            "format": "medlord-adherence-table",
            "version": 1,
            "segmenter": self.segmenter,
            "surface_tolerance_mm": self.tolerance_mm,
            "count": self.count,
            "notice": NOT_CLINICAL,
            "structures": {
                row.structure: {
                    "count": row.count,
                    "compared": row.compared,
                    "notes": list(row.notes),
                    "missing_share": row.missing_share,
                    "measures": {name: spread.to_dict() for name, spread in row.measures.items()},
                    "ceilings": {name: spread and spread.to_dict() for name, spread in row.ceilings.items()},
                }
                for row in self.rows
            },
        }


def read_check_reports(paths: Sequence[Path]) -> list[dict]:
    """The JSON reports of `medlord check`; raises `InputError` for a file that is none, and for one without masks."""
    reports = []
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path.name} cannot be read as a report ({error}); give those of medlord check."
            ) from error
        if not isinstance(content, Mapping) or not {"segmenter", "structures", "verdict"} <= set(content):
            raise InputError(f"{path.name} is no report of medlord check; give its files (.json).")
        if not content["structures"]:
            raise InputError(
                f"{path.name} is the check of a CT without masks, so nothing can be followed; leave it out."
            )
        reports.append(dict(content))
    return reports


def adherence_table(reports: Sequence[Mapping]) -> AdherenceTable:
    """Put reports (`Scorecard.to_dict`, as `read_check_reports` gives them) together, condition by condition.

    Volumes in which a structure was not found count with the numbers that the check gave them (Dice 0); distances that
    do not exist then are left out, and the share of such volumes stands beside. Raises `InputError` for no report, and
    for reports of several segmenters or tolerances, which cannot be compared.
    """
    if not reports:
        raise InputError("There is no report to put together; give files of medlord check.")
    for key, what in (
        ("segmenter", "segmenters"),
        ("surface_tolerance_mm", "tolerances of the surface Dice"),
    ):
        found = sorted({str(report[key]) for report in reports})
        if len(found) > 1:
            raise InputError(f"The reports have several {what} ({', '.join(found)}); give those of one.")
    names = dict.fromkeys(row["name"] for report in reports for row in report["structures"])
    rows = [
        _row(name, [row for report in reports for row in report["structures"] if row["name"] == name])
        for name in names
    ]
    first = reports[0]
    return AdherenceTable(first["segmenter"], first["surface_tolerance_mm"], len(reports), tuple(rows))


def spread_in_words(measure: str, spread: Spread | None) -> str:
    """Median (first to third quartile), "–" where nothing is known."""
    if spread is None or spread.median is None:
        return "–"
    numbers = (spread.median, spread.first_quartile, spread.third_quartile)
    median, low, high = map(COLUMNS[measure][1].format, numbers)
    return f"{median} ({low} to {high})"


def count_in_words(row: AdherenceRow) -> str:
    """N of a row: the volumes that were compared, and of how many where the structure was drawn in more."""
    return str(row.count) if row.compared == row.count else f"{row.compared} of {row.count}"


def not_compared(table: AdherenceTable) -> list[str]:
    """A sentence for all conditions that lack a Dice in the same number of volumes, with the reason of the checks."""
    alike: dict[tuple, list[str]] = {}
    for row in table.rows:
        if row.compared < row.count:
            alike.setdefault((row.count - row.compared, row.count, row.notes), []).append(
                spoken(row.structure)
            )
    return [
        f"Not compared in {lacking} of {counted(count, 'report')}: {', '.join(names)}. "
        + (" ".join(notes) or "The reports do not say why.")
        for (lacking, count, notes), names in alike.items()
    ]


def render_adherence_page(table: AdherenceTable) -> str:
    """The HTML of the table; the segmenter's ceiling stands in the next column where there is one."""
    ceilings = {name for row in table.rows for name, spread in row.ceilings.items() if spread is not None}
    heads = ["Condition", "N", "Not found"]
    for name, (title, _form) in COLUMNS.items():
        heads += [title, "Ceiling"] if name in ceilings else [title]
    body = ""
    for row in (row for row in table.rows if row.compared):
        missing = "–" if row.missing_share is None else f"{row.missing_share:.0%}"
        cells = [count_in_words(row), missing]
        for name in COLUMNS:
            cells.append(spread_in_words(name, row.measures[name]))
            if name in ceilings:
                cells.append(spread_in_words(name, row.ceilings[name]))
        shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        body += f"<tr><th scope='row'>{escape(spoken(row.structure))}</th>{shown}</tr>"
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    meaning = (
        f"Median (first to third quartile) over {counted(table.count, 'volume')}. Segmenter {table.segmenter} on the "
        f"synthetic CT against the mask that it was made from; surface Dice within {table.tolerance_mm:g} mm. Ceiling: "
        "the same segmenter on the real CT against the same mask. N: volumes that were compared. HD95 is of those in "
        "which the structure was found."
    )
    notes = "".join(f"<li>{escape(text)}</li>" for text in not_compared(table))
    below = f"<ul class='notes'>{notes}</ul>" if notes else ""
    content = (
        f"<section class='card'><p class='meaning'>{escape(meaning)}</p><div class='scroll'><table><thead><tr>{head}"
        f"</tr></thead><tbody>{body}</tbody></table></div>{below}</section>"
    )
    title = "Adherence of a set"
    return Template(PLAIN_PAGE).substitute(
        title=title, page_title=title, notice=escape(NOT_CLINICAL), content=content
    )


def _row(name: str, rows: Sequence[Mapping]) -> AdherenceRow:
    looked_for = [row for row in rows if row["found_ml"] is not None]
    missing = sum(row["found_ml"] == 0 for row in looked_for) / len(looked_for) if looked_for else None
    notes = (row.get("note") for row in rows if row["dice"] is None)
    ceilings = {measure: spread_of([row.get(_CEILING + measure) for row in rows]) for measure in COLUMNS}
    return AdherenceRow(
        structure=name,
        count=len(rows),
        missing_share=missing,
        measures={measure: spread_of([row[measure] for row in rows]) for measure in COLUMNS},
        ceilings={measure: spread if spread.count else None for measure, spread in ceilings.items()},
        notes=tuple(sorted({note for note in notes if note})),
    )
