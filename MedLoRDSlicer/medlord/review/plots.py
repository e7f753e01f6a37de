"""The pictures of the report: PNG made by matplotlib without a display, each drawn from the report's own numbers.

Text from outside (names of sources and readers, wordings) is never read as a formula.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from .comparison import margin_of
from .estimate import Estimate, about
from .readings import Readings, coded_options, is_ordered
from .roc import roc_curve, signed_confidence
from .rubric import Question

_DOTS_PER_INCH = 110
_INK, _SOFT, _LINE = "#1b2330", "#5c6675", "#dde2e9"
_MOST_PANELS_IN_A_ROW = 4
_LONGEST_NAME = 28

# Distinguishable with the common colour blindnesses (Okabe and Ito), used for readers and unordered answers.
_DISTINCT = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#6b6b6b", "#b3a100")


def plain(text: str, longest: int = _LONGEST_NAME) -> str:
    """`text` as matplotlib shows it letter by letter, one line, shortened."""
    text = " ".join(text.split())
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.replace("$", r"\$")


def rating_bars(readings: Readings, estimates: Sequence[Estimate], question: Question) -> bytes:
    """Stacked bars of the shares of every answer per source, one panel for all readers and one for each."""
    readers = _panels(readings)
    options = coded_options(question)
    colours = _scale_colours(len(options)) if is_ordered(question) else _cycle(len(options))
    columns = min(len(readers), _MOST_PANELS_IN_A_ROW)
    rows = -(-len(readers) // columns)
    height = 0.34 * len(readings.sources) + 0.6
    figure = _figure(3.2 * columns + 1.2, height * rows + 0.75)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel in panels[len(readers) :]:
        panel.set_visible(False)
    for panel, reader in zip(panels, readers, strict=False):
        found = about(estimates, "distribution", question=question.id, reader=reader)
        for row, source in enumerate(readings.sources):
            shares = [estimate for estimate in found if estimate.source == source]
            _bar(panel, row, shares, colours)
        panel.set_title(plain(reader) if reader else "all readers", fontsize=9, color=_INK, loc="left")
        panel.set_xlim(0, 1)
        panel.set_ylim(len(readings.sources) - 0.5, -0.5)
        panel.set_yticks(range(len(readings.sources)), [plain(source) for source in readings.sources])
        panel.set_xticks([0, 0.5, 1], ["0", "50", "100 %"])
        _quiet(panel, grid=False)
    handles = [_patch(colour) for colour in colours]
    figure.legend(
        handles,
        [plain(label, 60) for _, label in options],
        loc="outside lower center",
        ncols=_legend_columns([label for _, label in options], 3.2 * columns + 1.2),
        frameon=False,
        fontsize=8,
    )
    return _png(figure)


def _legend_columns(labels: Sequence[str], inches: float) -> int:
    """As many columns as fit into the width, with rows of the same length where there are several."""
    characters = 6 + max(min(len(label), 60) for label in labels)
    fitting = max(1, min(len(labels), int(13 * inches / characters)))
    rows = -(-len(labels) // fitting)
    return -(-len(labels) // rows)


def _bar(panel, row: int, shares: Sequence[Estimate], colours: Sequence[str]) -> None:
    left = 0.0
    for estimate, colour in zip(shares, colours, strict=False):
        if not estimate.value:
            continue
        panel.barh(
            row, estimate.value, left=left, height=0.72, color=colour, edgecolor="white", linewidth=0.6
        )
        if estimate.value >= 0.09:
            panel.text(
                left + estimate.value / 2,
                row,
                str(round(estimate.value * estimate.readings)),
                ha="center",
                va="center",
                fontsize=7.5,
                color=_ink_on(colour),
            )
        left += estimate.value
    if shares and shares[0].readings == 0:
        panel.text(0.02, row, "no answers", va="center", fontsize=7.5, color=_SOFT)


def shares_by_source(
    readings: Readings, estimates: Sequence[Estimate], topic: str, label: str, chance: float | None = None
) -> bytes:
    """Dots with intervals of `topic` per source: all readers in black, each reader in a colour."""
    sources = [source for source in readings.sources if about(estimates, topic, source=source)]
    readers = _panels(readings)
    step = 0.8 / max(len(readers), 1)
    figure = _figure(7.6, max(0.2 * len(readers), 0.42) * len(sources) + 1.2)
    panel = figure.subplots()
    for number, reader in enumerate(readers):
        colour = _INK if not reader else _cycle(len(readers))[number - 1 if readers[0] == "" else number]
        for row, source in enumerate(sources):
            for estimate in about(estimates, topic, source=source, reader=reader):
                _dot(panel, estimate, row - 0.4 + step * (number + 0.5), colour, big=not reader)
    handles = [
        _dot_handle(_INK if not reader else _cycle(len(readers))[number - 1 if readers[0] == "" else number])
        for number, reader in enumerate(readers)
    ]
    if chance is not None:
        panel.axvline(chance, color=_SOFT, linewidth=1, linestyle=(0, (4, 3)))
    for row in range(1, len(sources)):
        panel.axhline(row - 0.5, color=_LINE, linewidth=0.8)
    panel.set_xlim(-0.02, 1.02)
    panel.set_ylim(len(sources) - 0.5, -0.5)
    panel.set_yticks(range(len(sources)), [plain(source) for source in sources])
    panel.set_xlabel(label, fontsize=9, color=_INK)
    _quiet(panel)
    names = [plain(reader) if reader else "all readers" for reader in readers]
    figure.legend(
        handles, names, loc="outside lower center", ncols=min(len(names), 5), frameon=False, fontsize=8
    )
    return _png(figure)


def roc_curves(readings: Readings) -> bytes:
    """The empirical ROC curve of every reader: synthetic is positive, all synthetic sources together."""
    scores, synthetic = signed_confidence(readings), readings.is_synthetic
    figure = _figure(4.6, 4.4)
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle=(0, (4, 3)))
    colours = _cycle(len(readings.readers))
    for row, reader in enumerate(readings.readers):
        given = np.isfinite(scores[row])
        real, positive = scores[row, given & ~synthetic], scores[row, given & synthetic]
        if len(real) and len(positive):
            panel.plot(
                *roc_curve(real, positive), color=colours[row], linewidth=1.8, marker="o", markersize=3.5,
                label=plain(reader),
            )  # fmt: skip
    panel.set_aspect("equal")
    panel.set_xlim(-0.02, 1.02)
    panel.set_ylim(-0.02, 1.02)
    panel.set_xlabel("real cases called synthetic", fontsize=9, color=_INK)
    panel.set_ylabel("synthetic cases called synthetic", fontsize=9, color=_INK)
    _quiet(panel)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False, fontsize=8, loc="lower right")
    return _png(figure)


def equivalence_intervals(readings: Readings, estimates: Sequence[Estimate], margin: float) -> bytes:
    """Differences from real in units of the margin, with 90 % intervals; the band is what counts as equivalent."""
    shown = [estimate for estimate in about(estimates, "equivalence") if estimate.value is not None]
    questions = list(dict.fromkeys(estimate.question for estimate in shown))
    sources = list(dict.fromkeys(estimate.source for estimate in shown))
    figure = _figure(7.6, max(0.2 * len(sources), 0.4) * max(len(questions), 1) + 1.3)
    panel = figure.subplots()
    panel.axvspan(-1, 1, color="#0072B2", alpha=0.10, linewidth=0)
    panel.axvline(0, color=_SOFT, linewidth=1)
    colours, step, widest = _cycle(len(sources)), 0.8 / max(len(sources), 1), 1.5
    for estimate in shown:
        limit = margin_of(readings.rubric.question(estimate.question), margin)
        height = questions.index(estimate.question) - 0.4 + step * (sources.index(estimate.source) + 0.5)
        colour = colours[sources.index(estimate.source)]
        ends = [end / limit for end in (estimate.low, estimate.high) if end is not None]
        if ends:
            panel.plot(ends, [height, height], color=colour, linewidth=2)
        panel.plot(estimate.value / limit, height, "o", color=colour, markersize=5)
        widest = max([widest, abs(estimate.value / limit), *map(abs, ends)])
    for row in range(1, len(questions)):
        panel.axhline(row - 0.5, color=_LINE, linewidth=0.8)
    panel.set_xlim(-1.05 * widest, 1.05 * widest)
    panel.set_ylim(max(len(questions), 1) - 0.5, -0.5)
    panel.set_yticks(range(len(questions)), [plain(question) for question in questions])
    panel.set_xlabel(
        "worse than real  ←  mean difference in margins (band: equivalent)  →  better", fontsize=9, color=_INK
    )
    _quiet(panel)
    handles = [_dot_handle(colour) for colour in colours]
    figure.legend(
        handles, [plain(source) for source in sources], loc="outside lower center", ncols=4, frameon=False,
        fontsize=8,
    )  # fmt: skip
    return _png(figure)


def time_boxes(readings: Readings) -> bytes:
    """Visible time per case of every reader (box: quartiles, line: median, whiskers: 1.5 times the box)."""
    seconds = readings.seconds()
    figure = _figure(7.6, 0.42 * len(readings.readers) + 0.9)
    panel = figure.subplots()
    for row in range(len(readings.readers)):
        values = seconds[row][np.isfinite(seconds[row])]
        panel.boxplot(
            values, positions=[row], orientation="horizontal", widths=0.55, patch_artist=True,
            boxprops={"facecolor": "#cfe3f3", "edgecolor": _SOFT}, medianprops={"color": _INK, "linewidth": 1.8},
            whiskerprops={"color": _SOFT}, capprops={"color": _SOFT},
            flierprops={"marker": ".", "markersize": 4, "markeredgecolor": _SOFT},
        )  # fmt: skip
    panel.set_ylim(max(len(readings.readers), 1) - 0.5, -0.5)
    panel.set_yticks(range(len(readings.readers)), [plain(reader) for reader in readings.readers])
    panel.set_xlim(left=0)
    panel.set_xlabel("seconds that a case was visible", fontsize=9, color=_INK)
    _quiet(panel)
    return _png(figure)


def _panels(readings: Readings) -> tuple[str, ...]:
    """ "" for all readers together, then each; one reader needs no summary."""
    return readings.readers if len(readings.readers) == 1 else ("", *readings.readers)


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained", facecolor="white")


def _png(figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    # No date and no version in the file: the same numbers give the same bytes.
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _quiet(panel, grid: bool = True) -> None:
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color(_LINE)
    panel.tick_params(length=0, labelsize=8.5, colors=_INK)
    if grid:
        panel.grid(axis="x", color=_LINE, linewidth=0.8)
        panel.set_axisbelow(True)


def _dot(panel, estimate: Estimate, height: float, colour: str, big: bool) -> None:
    if estimate.value is None:
        return
    if estimate.low is not None:
        panel.plot([estimate.low, estimate.high], [height, height], color=colour, linewidth=2 if big else 1.3)
    panel.plot(estimate.value, height, "o", color=colour, markersize=6 if big else 4.5)


def _dot_handle(colour: str):
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, marker="o", markersize=5, linewidth=1.5)


def _patch(colour: str):
    from matplotlib.patches import Patch

    return Patch(facecolor=colour)


def _cycle(count: int) -> list[str]:
    return [_DISTINCT[number % len(_DISTINCT)] for number in range(count)]


def _scale_colours(steps: int) -> list[str]:
    """From worst to best: orange through grey to blue, told apart without colour by lightness too."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    scale = LinearSegmentedColormap.from_list("rating", ["#c2571a", "#f2c48d", "#b9cfe4", "#1f5f99"])
    return [to_hex(scale(place)) for place in np.linspace(0, 1, max(steps, 2))]


def _ink_on(colour: str) -> str:
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(colour)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else _INK
