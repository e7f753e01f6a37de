"""Plots for scorecards: values among those of a reference, and HU against the ranges of tissues."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .plausibility import TissueHu

_REFERENCE_COLOUR, _OWN_COLOUR, _RANGE_COLOUR = "#9db4cc", "#e4572e", "#cfe3d4"
_DOTS_PER_INCH = 110


@dataclass(frozen=True)
class ViolinPanel:
    """One panel: the values of a reference beside those of a set, or one volume's value among them.

    `reference` and `own` are numbers of one measure in one unit, `title` and `unit` its names. One `own` value is
    drawn as a point, several as a second violin.
    """

    title: str
    unit: str
    reference: np.ndarray
    own: np.ndarray


@dataclass(frozen=True)
class IntervalPoint:
    """One line of `interval_plot`: a value and its interval (None: unknown), and what it is to be compared with.

    `floor` is the value of real against real for sets of half the size, `at_floor` that of sets as small (None: there
    are none): a distance that falls with the size of sets is compared at one size.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    floor: float | None
    at_floor: float | None = None


def violin_plot(panels: Sequence[ViolinPanel]) -> bytes:
    """PNG bytes of violins side by side, at most six in a row; each panel has its own axis."""
    columns = min(len(panels), 6)
    rows = -(-len(panels) // columns)
    figure = _figure(1.75 * columns + 0.2, 2.5 * rows)
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        _violin(axes, panel.reference, 0.0, _REFERENCE_COLOUR)
        if len(panel.own) > 1:
            _violin(axes, panel.own, 1.0, _OWN_COLOUR)
            axes.set_xticks([0, 1], ["reference", "set"])
        else:
            axes.scatter(
                np.zeros(len(panel.own)), panel.own, color=_OWN_COLOUR, zorder=3, s=36, edgecolors="white"
            )
            axes.set_xticks([])
        axes.set_title(panel.title, fontsize=9)
        axes.set_ylabel(panel.unit, fontsize=8)
        _tidy(axes)
    return _png(figure)


def tissue_plot(rows: Sequence[TissueHu]) -> bytes:
    """PNG bytes: for every structure with a published range, the range as a bar, median and spread as a point."""
    rows = [row for row in rows if row.expected is not None]
    figure = _figure(7.2, 0.26 * len(rows) + 0.8)
    axes = figure.add_subplot()
    for line, row in enumerate(rows):
        expected = row.expected
        axes.barh(
            line, expected.high_hu - expected.low_hu, left=expected.low_hu, height=0.7, color=_RANGE_COLOUR
        )
        axes.errorbar(
            row.median_hu,
            line,
            xerr=row.spread_hu,
            fmt="o",
            markersize=5,
            color=_OWN_COLOUR,
            ecolor=_OWN_COLOUR,
        )
    axes.set_yticks(range(len(rows)), [row.name.replace("_", " ") for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("HU", fontsize=8)
    _tidy(axes)
    return _png(figure)


def interval_plot(points: Sequence[IntervalPoint], unit: str) -> bytes:
    """PNG bytes: one line per point with its interval, a bar to its floor, a ring for the value at that size."""
    figure = _figure(7.2, 0.36 * len(points) + 0.9)
    axes = figure.add_subplot()
    for line, point in enumerate(points):
        if point.floor is not None:
            axes.barh(line, point.floor, height=0.6, color=_RANGE_COLOUR)
        if point.low is not None:
            axes.hlines(line, point.low, point.high, color=_OWN_COLOUR, linewidth=2)
        axes.plot([point.value], [line], "o", markersize=6, color=_OWN_COLOUR)
        if point.at_floor is not None:
            axes.plot([point.at_floor], [line], "o", markersize=8, color=_OWN_COLOUR, fillstyle="none")
    axes.set_yticks(range(len(points)), [point.name for point in points])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    ringed = any(point.at_floor is not None for point in points)
    words = ". Compare the ring with the bar: real against real, both at the floor's size" if ringed else ""
    axes.set_xlabel(f"{unit}{words}", fontsize=8)
    _tidy(axes)
    return _png(figure)


def _violin(axes, values: np.ndarray, place: float, colour: str) -> None:
    """A violin with its median; a line where all values are equal, since those have no density."""
    if not len(values):
        return
    if np.ptp(values) > 0:
        for body in axes.violinplot(values, [place], widths=0.8, showextrema=False)["bodies"]:
            body.set_facecolor(colour)
            body.set_alpha(0.9)
    axes.hlines(np.median(values), place - 0.2, place + 0.2, color="#1b2330", linewidth=1.2)


def _tidy(axes) -> None:
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _figure(width: float, height: float):
    """A matplotlib figure without a window; inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, facecolor="white", layout="tight")
    FigureCanvasAgg(figure)
    return figure


def _png(figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
