"""The chart of a check: this volume's sizes on the distribution of the reference, one curve per structure.

A curve is the cumulative distribution: across, the size as a share of the reference's median, so that airways and lungs
fit into one picture; up, how much of the reference is smaller. This volume's value is a point on every curve. What lies
near the lower or upper end is unusual.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import slicer
import vtk

from .translation import _

# More curves cannot be told apart; the most unusual structures are shown.
MOST_CURVES = 8
# Colours that differ for colour-blind eyes too, on a white ground: Okabe and Ito, "Color Universal Design" (2008).
_COLOURS = (
    (0.00, 0.45, 0.70),
    (0.90, 0.62, 0.00),
    (0.00, 0.62, 0.45),
    (0.80, 0.47, 0.65),
    (0.34, 0.71, 0.91),
    (0.84, 0.37, 0.00),
    (0.60, 0.55, 0.10),
    (0.45, 0.45, 0.45),
)
_PERCENTILES = np.arange(0.0, 101.0)
_POINT_COLOUR = (0.1, 0.1, 0.1)

Distributions = Mapping[str, tuple[float, float, list[float]]]


def add_check_chart(scene, name: str, measure: str, distributions: Distributions, title: str) -> list:
    """Add a plot chart with its series and their tables, and return these nodes, the chart first.

    `distributions`: structure -> (value of this volume, its percentile, all values of the reference); those whose
    median is zero have no share of it and are left out. `measure` is "rvr" or "ml". Returns [] where none is left.
    """
    shown = {name: entry for name, entry in distributions.items() if np.median(entry[2]) > 0}
    chosen = sorted(shown, key=lambda structure: -abs(shown[structure][1] - 50))[:MOST_CURVES]
    if not chosen:
        return []
    medians = {structure: float(np.median(shown[structure][2])) for structure in chosen}
    curves = {
        structure: 100 * np.percentile(shown[structure][2], _PERCENTILES) / medians[structure]
        for structure in chosen
    }
    across, up = _("Share of the reference's median"), _("Percentile")
    curve_table = _add_columns(
        scene, _("{name} distributions").format(name=name), {**curves, up: _PERCENTILES}
    )
    points = {
        across: [100 * shown[structure][0] / medians[structure] for structure in chosen],
        up: [shown[structure][1] for structure in chosen],
    }
    point_table = _add_columns(scene, _("{name} values").format(name=name), points, (_("Structure"), chosen))
    series = [
        _add_series(scene, structure.replace("_", " "), curve_table, (structure, up), colour)
        for structure, colour in zip(chosen, _COLOURS)
    ]
    own = _add_series(scene, _("This volume"), point_table, (across, up), _POINT_COLOUR, points=True)
    own.SetLabelColumnName(_("Structure"))
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", name)
    for node in (*series, own):
        chart.AddAndObservePlotSeriesNodeID(node.GetID())
    chart.SetTitle(title)
    what = _("Share of the volume (RVR)") if measure == "rvr" else _("Volume in ml")
    chart.SetXAxisTitle(_("{what}, % of the reference's median").format(what=what))
    chart.SetYAxisTitle(_("Reference's volumes that are smaller, %"))
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(-2.0, 102.0)
    return [chart, *series, own, curve_table, point_table]


def _add_series(scene, name: str, table, columns: tuple[str, str], colour, *, points: bool = False):
    """A curve, or points without a line."""
    node = _add_helper(scene, slicer.vtkMRMLPlotSeriesNode(), name)
    node.SetAndObserveTableNodeID(table.GetID())
    node.SetXColumnName(columns[0])
    node.SetYColumnName(columns[1])
    node.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    node.SetColor(*colour)
    node.SetLineStyle(node.LineStyleNone if points else node.LineStyleSolid)
    node.SetMarkerStyle(node.MarkerStyleDiamond if points else node.MarkerStyleNone)
    node.SetMarkerSize(12.0)
    node.SetLineWidth(2.0)
    return node


def _add_helper(scene, node, name: str):
    """A node that only the chart needs: lists of nodes and the folders of the user do not show it."""
    node.SetName(name)
    node.SetHideFromEditors(True)
    return scene.AddNode(node)


def _add_columns(
    scene, name: str, columns: Mapping[str, object], labels: tuple[str, list[str]] | None = None
):
    """A table node that feeds series: columns of numbers of one length, and one of texts."""
    node = _add_helper(scene, slicer.vtkMRMLTableNode(), scene.GenerateUniqueName(name))
    table = vtk.vtkTable()
    if labels is not None:
        texts = vtk.vtkStringArray()
        texts.SetName(labels[0])
        for text in labels[1]:
            texts.InsertNextValue(text)
        table.AddColumn(texts)
    for title, values in columns.items():
        numbers = vtk.vtkDoubleArray()
        numbers.SetName(title)
        for value in values:
            numbers.InsertNextValue(float(value))
        table.AddColumn(numbers)
    node.SetAndObserveTable(table)
    node.SetLocked(True)
    return node
