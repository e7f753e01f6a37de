"""The page of a set of volumes compared with a reference: violin plots and a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from string import Template

from .plots import ViolinPanel, violin_plot
from .reference import ReferenceDistribution
from .reference_check import SetComparison
from .report_page import PLAIN_PAGE
from .scorecard_page import embedded
from .wording import spoken

_MEASURES = {"rvr": "RVR", "ml": "ml", "median_hu": "median HU", "spread_hu": "spread, HU"}
_NOTICE = (
    "Equal distributions are not clinical validity: they say that the set is like the reference in these measures. "
    "Not for diagnosis."
)
_MEANING = (
    "W1: Wasserstein-1 distance in the unit of the measure. KS: Kolmogorov-Smirnov statistic (0 to 1) and its p "
    "value. Variance ratio: variance of the set over that of the reference; below 1 the set is less diverse. "
    "Missing or almost missing: share of volumes in which the structure has less than 5 % of the reference's "
    "median volume."
)


def render_set_page(
    made: ReferenceDistribution,
    reference: ReferenceDistribution,
    rows: Sequence[SetComparison],
    warnings: Sequence[str] = (),
) -> str:
    """The HTML of the comparison; `rows` and `warnings` are those of `compare_sets` and `set_warnings`."""
    facts = "".join(
        f"<div><dt>{title}</dt><dd>{escape(one.name)}, N = {one.count}<br>"
        f"<small>{escape(one.population)}</small></dd></div>"
        for title, one in (("Set", made), ("Reference", reference))
    )
    head = f"<section class='card'><dl class='facts'>{facts}</dl></section>"
    title = escape(f"{made.name} against {reference.name}")
    return Template(PLAIN_PAGE).substitute(
        title=title,
        page_title=title,
        notice=escape(_NOTICE),
        content=warnings_section(warnings) + head + comparison_sections(made, reference, rows),
    )


def warnings_section(warnings: Sequence[str]) -> str:
    """What makes the numbers of a page say less, as HTML; nothing without warnings."""
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    return f"<section class='warnings'><h2>To keep in mind</h2><ul>{items}</ul></section>"


def comparison_sections(
    made: ReferenceDistribution, reference: ReferenceDistribution, rows: Sequence[SetComparison]
) -> str:
    """What the numbers mean, then a section with violins and a table for every structure, as HTML."""
    sections = "".join(_section(structure, made, reference, rows) for structure in _structures(rows))
    return f"<section class='card'><p class='meaning'>{escape(_MEANING)}</p></section>{sections}"


def _structures(rows: Sequence[SetComparison]) -> list[str]:
    return list(dict.fromkeys(row.structure for row in rows))


def _section(
    structure: str,
    made: ReferenceDistribution,
    reference: ReferenceDistribution,
    rows: Sequence[SetComparison],
) -> str:
    own = [row for row in rows if row.structure == structure]
    panels = [
        ViolinPanel(
            _MEASURES[row.measure],
            "",
            reference.values(structure, row.measure),
            made.values(structure, row.measure),
        )
        for row in own
        if row.count and row.reference_count
    ]
    plot = embedded(violin_plot(panels), f"distributions of {spoken(structure)}", "plot") if panels else ""
    heads = ("Measure", "Median", "Reference", "W1", "KS", "p", "Variance ratio", "N")
    body = "".join(
        f"<tr><th scope='row'>{_MEASURES[row.measure]}</th>"
        + "".join(f"<td>{_number(value)}</td>" for value in _numbers(row))
        + f"<td>{row.count} / {row.reference_count}</td></tr>"
        for row in own
    )
    head = "".join(f"<th>{text}</th>" for text in heads)
    shares = own[0].missing_share, own[0].reference_missing_share
    missing = f"Missing or almost missing in {shares[0]:.1%} of the set, in {shares[1]:.1%} of the reference."
    return (
        f"<section class='card'><h2>{escape(spoken(structure))}</h2><p class='meaning'>{missing}</p>{plot}"
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _numbers(row: SetComparison) -> tuple:
    return (
        row.median, row.reference_median, row.wasserstein, row.ks_statistic, row.ks_p_value, row.variance_ratio,
    )  # fmt: skip


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
