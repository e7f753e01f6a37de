"""The report as one HTML page: no script, no network, every text from outside escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from string import Template

from .analysis import Analysis
from .comparison import compared_questions
from .estimate import Estimate, about
from .page_style import PAGE
from .plots import equivalence_intervals, rating_bars, roc_curves, shares_by_source, time_boxes

CONTENT_SECURITY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render_page(analysis: Analysis, facts: Mapping[str, str]) -> str:
    """The whole page; `facts` are shown on top."""
    sections = [
        _ratings(analysis),
        _verdicts(analysis),
        _roc(analysis),
        _preferences(analysis),
        _equivalence(analysis),
        _comparisons(analysis),
        _agreement(analysis),
        _artefacts(analysis),
        _times(analysis),
        _comments(analysis),
    ]
    return Template(PAGE).substitute(
        policy=escape(CONTENT_SECURITY, quote=False),
        title="Blinded review: real and synthetic CT",
        facts="".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items()
        ),
        warnings=_warnings(analysis.warnings),
        sections="".join(sections),
    )


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in warnings)
    return f'<section class="warnings"><h2>Before you read the numbers</h2><ul>{items}</ul></section>'


def _ratings(analysis: Analysis) -> str:
    readings = analysis.readings
    parts = []
    for question in readings.questions:
        text = f"Answers to '{question.text}' per source, all readers and each reader"
        parts.append(
            f"<h3>{escape(question.text)} <small>{escape(question.id)}</small></h3>"
            + _image(rating_bars(readings, analysis.estimates, question), text)
        )
    rows = about(analysis.estimates, "distribution")
    table = _details("All shares", _table(rows, ("question", "source", "reader", "measure")))
    return _section(
        "Distribution of the answers",
        "Share of every answer among the first readings of a source; the numbers in the bars count readings.",
        "".join(parts) + table,
    )


def _verdicts(analysis: Analysis) -> str:
    rows = about(analysis.estimates, "judged_real")
    if not rows:
        return ""
    picture = shares_by_source(
        analysis.readings, analysis.estimates, "judged_real", "share of cases judged real", chance=None
    )
    return _section(
        "Real or synthetic?",
        "Share judged real: one reader with Wilson's interval; all readers as the mean of their shares. Real cases "
        "give the mark to reach: a synthetic source is not expected to be called real more often than real cases are.",
        _image(picture, "Share of cases judged real per source and reader, with 95 % intervals")
        + _table(rows, ("source", "reader"))
        + "<h3>Right and wrong verdicts</h3>"
        + _table(about(analysis.estimates, "accuracy"), ("measure", "reader")),
    )


def _roc(analysis: Analysis) -> str:
    rows = about(analysis.estimates, "roc")
    if not rows:
        return ""
    return _section(
        "Can readers tell them apart?",
        "Area under the ROC curve of signed confidence (synthetic is positive): 0.5 is guessing, 1 tells all cases "
        "apart. Source 'all': all synthetic sources together.",
        '<div class="pair">'
        + _image(roc_curves(analysis.readings), "ROC curve of every reader")
        + _image(
            shares_by_source(analysis.readings, analysis.estimates, "roc", "ROC AUC", chance=0.5),
            "ROC AUC per source and reader, with 95 % intervals",
        )
        + "</div>"
        + _table(rows, ("source", "reader")),
    )


def _preferences(analysis: Analysis) -> str:
    rows = about(analysis.estimates, "preference")
    if not rows:
        return ""
    return _section(
        "Which of the two is real?",
        "Share of pairs in which the real case was chosen; 0.5 is guessing.",
        _image(
            shares_by_source(
                analysis.readings,
                analysis.estimates,
                "preference",
                "share of pairs with the real one chosen",
                0.5,
            ),
            "Share of pairs with the real case chosen, per source and reader",
        )
        + _table(rows, ("source", "reader")),
    )


def _equivalence(analysis: Analysis) -> str:
    rows = about(analysis.estimates, "equivalence")
    if not rows:
        return ""
    picture = (
        _image(
            equivalence_intervals(analysis.readings, analysis.estimates, analysis.margin),
            "Mean difference from real in margins, with 90 % intervals",
        )
        if any(row.value is not None for row in rows)
        else ""
    )
    return _section(
        "As good as real?",
        f"Equivalence means a mean difference from real within ±{analysis.margin:g} steps of a scale (for the share "
        f"judged real ±{analysis.margin / 3:.3g}, the same part of its range as of a four-point scale's). It is shown "
        "when the corrected p-value is below 0.05. Where it is not shown, nothing is shown: not that the "
        "source is worse.",
        picture + _table(rows, ("question", "source")),
    )


def _comparisons(analysis: Analysis) -> str:
    rows = about(analysis.estimates, "comparison")
    if not rows:
        return ""
    names = ", ".join(question.id for question in compared_questions(analysis.readings))
    return _section(
        "Sources against one another",
        f"Every pair of sources, read by the same readers, on {names}. p-values are corrected by Holm's method over "
        "the pairs of one question.",
        _details("All pairs", _table(rows, ("question", "source"))),
    )


def _agreement(analysis: Analysis) -> str:
    rows = about(analysis.estimates, "agreement")
    return _section(
        "Do readers agree?",
        "Between readers Krippendorff's alpha and Fleiss' kappa on first readings, within a reader weighted kappa on "
        "the cases that came twice.",
        _table(rows, ("question", "measure", "reader")),
    )


def _artefacts(analysis: Analysis) -> str:
    rows = [row for row in about(analysis.estimates, "artefacts") if not row.reader]
    if not rows:
        return ""
    everyone = about(analysis.estimates, "artefacts")
    return _section(
        "Artefacts",
        "Share of first readings in which a reader marked an artefact.",
        _table(rows, ("source", "measure"))
        + _details(
            "Each reader", _table([row for row in everyone if row.reader], ("source", "reader", "measure"))
        ),
    )


def _times(analysis: Analysis) -> str:
    rows = about(analysis.estimates, "time")
    return _section(
        "Time per case",
        "Only while the case was visible; first readings.",
        _image(time_boxes(analysis.readings), "Time per case of every reader")
        + _table(rows, ("source", "reader")),
    )


def _comments(analysis: Analysis) -> str:
    readings = analysis.readings
    source_of = dict(zip(readings.items, readings.item_sources, strict=True))
    texts = readings.texts("text")
    if not texts:
        return ""
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td class='text'>{escape(str(cell))}</td>"
            for cell in (source_of[answer.item], answer.item, answer.reader, answer.value)
        )
        + "</tr>"
        for answer in sorted(texts, key=lambda answer: (source_of[answer.item], answer.item, answer.reader))
    )
    head = "".join(f"<th>{name}</th>" for name in ("Source", "Item", "Reader", "Comment"))
    return _section(
        "Comments",
        "As the readers wrote them.",
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>',
    )


def _table(rows: Iterable[Estimate], named_by: Sequence[str]) -> str:
    """Rows of estimates; `named_by` are the fields that tell them apart. Columns nobody fills are left out."""
    rows = list(rows)
    tested = any(row.p_value is not None for row in rows)
    corrected = any(row.p_corrected is not None for row in rows)
    head = [*(name.capitalize() for name in named_by), "Value", "Interval"]
    head += ["p", "p corrected"][: tested + corrected] + ["Against", "N", "How"]
    body = []
    for row in rows:
        cells = [f"<td class='text'>{escape(_named(row, name))}</td>" for name in named_by]
        cells.append(f"<td>{_number(row, row.value)}</td>")
        cells.append(f"<td>{_interval(row)}</td>")
        if tested:
            cells.append(f"<td>{_p_value(row.p_value)}</td>")
        if corrected:
            cells.append(f"<td>{_p_value(row.p_corrected)}</td>")
        cells.append(f"<td class='text'>{escape(row.against)}</td>")
        cells.append(f"<td class='text'>{_count(row)}</td>")
        how = " ".join(escape(part) for part in (row.method, row.note) if part)
        cells.append(f"<td class='text'>{how}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    columns = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="scroll"><table><thead><tr>{columns}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _named(row: Estimate, name: str) -> str:
    value = getattr(row, name)
    return value or {"reader": "all readers", "source": "all"}.get(name, "")


def _number(row: Estimate, value: float | None) -> str:
    if value is None:
        return "–"
    if row.unit == "s":
        return f"{value:.1f} s"
    return f"{value:.3f}"


def _interval(row: Estimate) -> str:
    if row.low is None or row.high is None:
        return "–"
    return f"{_number(row, row.low)} to {_number(row, row.high)}<br><small>{escape(row.interval)}</small>"


def _p_value(p_value: float | None) -> str:
    if p_value is None:
        return "–"
    return "&lt; 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _count(row: Estimate) -> str:
    parts = [f"{row.cases} cases", f"{row.readers} readers", f"{row.readings} readings"]
    if row.missing:
        parts.append(f"{row.missing} missing")
    return "<br>".join(parts)


def _section(title: str, meaning: str, content: str) -> str:
    return f'<section class="card"><h2>{escape(title)}</h2><p class="meaning">{escape(meaning)}</p>{content}</section>'


def _details(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def _image(png: bytes, text: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    return f"<figure><img alt='{escape(text)}' src='data:image/png;base64,{data}'></figure>"
