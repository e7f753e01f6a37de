"""medlord evaluate --checks: reports of medlord check as one table, median and quartiles per condition."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .outputs import all_or_nothing, json_and_page, refuse_options, write_json_and_page

if TYPE_CHECKING:
    from ..evaluation.adherence_table import AdherenceTable
    from .console import Console

# Options of the other evaluations, which have no effect here.
_OF_OTHERS = (
    "real",
    "features",
    "segmenter",
    "windows",
    "bootstrap",
    "splits",
    "seed",
    "work",
    "subset",
    "weights",
)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Do it; the last lines on stdout are the files."""
    refuse_options(arguments, _OF_OTHERS, "reports that exist already")
    outputs = json_and_page(arguments)
    from ..evaluation.adherence_table import adherence_table, read_check_reports, render_adherence_page
    from ..evaluation.reference_build import files_matching

    table = adherence_table(read_check_reports(files_matching(arguments.checks, "report")))
    with all_or_nothing(outputs):
        write_json_and_page(arguments, table.to_dict(), lambda: render_adherence_page(table))
    _say(table, console)
    for path in outputs:
        console.result(path)


def _say(table: AdherenceTable, console: Console) -> None:
    """A line per condition; the ceiling in brackets."""
    from ..evaluation.adherence_table import COLUMNS, count_in_words, not_compared, spread_in_words
    from ..evaluation.wording import counted, spoken

    console.note(
        f"{counted(table.count, 'report')}, segmenter {table.segmenter}; median (quartiles) [ceiling]."
    )
    for row in (row for row in table.rows if row.compared):
        numbers = []
        for name, (title, _form) in COLUMNS.items():
            ceiling = row.ceilings[name]
            behind = f" [{spread_in_words(name, ceiling)}]" if ceiling else ""
            numbers.append(f"{title} {spread_in_words(name, row.measures[name])}{behind}")
        console.note(f"{spoken(row.structure):28s} N {count_in_words(row)}  {'  '.join(numbers)}")
    for text in not_compared(table):
        console.note(text)
