"""Checks in the scene: a real worker with the HU rules on a small chest; table, chart, segmentation beside the CT."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from scene_building import (
    AFFINE,
    SHAPE,
    add_segmentation,
    chest_masks,
    save_and_load,
    scene_content,
    synthetic,
)

from medlord.errors import CancelledError, InputError
from medlord.volumes import Grid, Volume
from MedLoRDSlicerLib.arrays import array_from_image, set_volume
from MedLoRDSlicerLib.check_chart import MOST_CURVES, add_check_chart
from MedLoRDSlicerLib.check_table import Column
from MedLoRDSlicerLib.checks import check_of, jump_slices, show_chart_and_table
from MedLoRDSlicerLib.results import CONDITIONS_ROLE, REFERENCE_ROLE, add_run

PURPLE = (0.5, 0.0, 0.5)


def add_ct(scene, *, lung_hu: int = -850):
    """A synthetic chest with its conditions, the lungs in a colour that the user chose."""
    volume, conditions = synthetic(Grid(SHAPE, AFFINE), chest_masks(), 3)
    array = volume.array.copy()
    array[conditions["bone"]] += 500
    array[conditions["lung"]] += lung_hu - 40
    nodes = add_run(scene, Volume(array, volume.grid, volume.recipe), conditions, "CT", {})
    nodes.conditions.GetSegmentation().GetSegment("lung").SetColor(*PURPLE)
    return nodes.volume


def rows_by_name(rows) -> dict:
    return {row.structure: row for row in rows}


def test_a_check_puts_its_results_beside_the_ct(scene, logic, tmp_path):
    ct, events = add_ct(scene), []
    ct.SetNodeReferenceID(REFERENCE_ROLE, ct.GetID())
    nodes = logic.check(ct, reference="thorax-phantom", progress=events.append)
    rows = rows_by_name(nodes.rows)
    assert {"segment", "compare"} <= {event.phase for event in events}
    assert nodes.level == nodes.report["verdict"]["level"] == nodes.table.GetAttribute("MedLoRD.verdict")

    segment = nodes.segmentation.GetSegmentation().GetSegment("lung")
    found = array_from_image(segment.GetRepresentation("Binary labelmap")).astype(bool)
    drawn = chest_masks()["lung"]
    dice = 2 * np.count_nonzero(found & drawn) / (found.sum() + drawn.sum())
    assert rows["lung"].numbers[Column.DICE] == pytest.approx(dice, abs=1e-4) and dice > 0.9
    assert rows["lung"].numbers[Column.CEILING] == rows["lung"].numbers[Column.DICE], "it is its own real CT"
    assert rows["lung"].numbers[Column.RVR] == pytest.approx(100 * found.mean(), abs=1e-3)
    np.testing.assert_allclose(segment.GetColor(), PURPLE, atol=1e-6)

    # Another field of view than the reference's, so sizes are compared in ml.
    assert not nodes.report["reference"]["comparable_field_of_view"]
    assert nodes.chart.GetNumberOfPlotSeriesNodes() >= 3 and "ml" in nodes.chart.GetXAxisTitle()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folders = {
        hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
        for node in (ct, nodes.table, nodes.chart, nodes.segmentation)
    }
    assert len(folders) == 1

    expected = nodes.rows
    save_and_load(scene, tmp_path / "checked.mrb")
    _table, rows = check_of(scene.GetFirstNodeByName("CT"))
    for row, before in zip(rows, expected, strict=True):
        assert (row.structure, row.level, row.reason) == (before.structure, before.level, before.reason)
        assert (row.position_ras_mm is None) == (before.position_ras_mm is None)
        assert (row.position_ras_mm or ()) == pytest.approx(before.position_ras_mm or (), rel=1e-3)
        assert row.numbers == pytest.approx(before.numbers, rel=1e-3, abs=1e-4, nan_ok=True)


def test_a_missing_organ_is_red_and_its_row_leads_there(scene, logic):
    nodes = logic.check(add_ct(scene, lung_hu=40))
    lung = rows_by_name(nodes.rows)["lung"]
    assert nodes.level == lung.level == "red" and "lung" in lung.reason.lower()
    assert nodes.chart is None, "the model 'small' has no reference"
    index = np.linalg.inv(AFFINE) @ (*lung.position_ras_mm, 1)
    assert chest_masks()["lung"].any(axis=(0, 1))[round(index[2])]

    view = slicer.vtkMRMLSliceNode()
    view.SetLayoutName("Red")
    view = scene.AddNode(view)
    view.SetOrientation("Axial")
    jump_slices(scene, lung.position_ras_mm)
    assert view.GetSliceToRAS().GetElement(2, 3) == pytest.approx(lung.position_ras_mm[2])


def test_a_segmentation_that_exists_and_a_ct_without_a_recipe(scene, logic):
    synthetic_ct = add_ct(scene)
    real = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "real")
    set_volume(real, array_from_image(synthetic_ct.GetImageData()), AFFINE)
    drawn = add_segmentation(scene, chest_masks())
    nodes = logic.check(real, segmenter="labelmap", found=drawn, masks=drawn)
    rows = rows_by_name(nodes.rows)
    assert [rows[name].numbers[Column.DICE] for name in ("body", "lung", "bone")] == [1.0, 1.0, 1.0]
    assert nodes.report["segmenter"] == "labelmap"
    assert real.GetNodeReference(CONDITIONS_ROLE) is None


def test_what_cannot_be_checked_changes_nothing(scene, logic):
    ct = add_ct(scene)
    array = array_from_image(ct.GetImageData())
    scaled = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "scaled")
    set_volume(scaled, ((array + 1000) / 2000).astype(np.float32), AFFINE)
    before = scene_content(scene)
    for node, options, words in (
        (None, {}, "choose a volume"),
        (ct, {"segmenter": "labelmap"}, "exists already"),
        (ct, {"segmenter": "guess"}, "no segmenter 'guess'"),
        (ct, {"reference": "atlantis"}, "no reference 'atlantis'"),
        (scaled, {}, "no CT in HU"),
    ):
        with pytest.raises(InputError, match=words):
            logic.check(node, **options)
    with pytest.raises(CancelledError):
        logic.check(ct, cancel=lambda: True)
    assert scene_content(scene) == before
    check = logic.check(scaled, wait=False)
    scene.RemoveNode(scaled)
    check.poll()
    assert check.state == "dropped" and logic.check(ct).table is not None


def test_the_chart_shows_the_value_on_the_curve(scene):
    reference = [float(value) for value in range(1, 101)]
    distributions = {f"part {n}": (50.5, 50.0, reference) for n in range(MOST_CURVES)}
    distributions |= {"lung": (101.0, 100.0, reference), "nothing": (0.0, 50.0, [0.0] * 9)}
    chart, *_rest = add_check_chart(scene, "chart", "rvr", distributions, "title")
    assert chart.GetNumberOfPlotSeriesNodes() == MOST_CURVES + 1
    own = chart.GetNthPlotSeriesNode(MOST_CURVES)
    table = own.GetTableNode().GetTable()
    across, up = (table.GetColumnByName(name) for name in (own.GetXColumnName(), own.GetYColumnName()))
    labels = table.GetColumnByName(own.GetLabelColumnName())
    assert (labels.GetValue(0), across.GetValue(0), up.GetValue(0)) == ("lung", 200.0, 100.0)
    curve = chart.GetNthPlotSeriesNode(0)
    assert curve.GetName() == "lung"
    values = curve.GetTableNode().GetTable().GetColumnByName(curve.GetXColumnName())
    assert values.GetValue(50) == pytest.approx(100.0) and values.GetValue(100) == pytest.approx(100 / 0.505)


def test_showing_needs_views_and_a_check(scene, logic, layout):
    selection = scene.GetFirstNodeByClass("vtkMRMLSelectionNode") or scene.AddNewNodeByClass(
        "vtkMRMLSelectionNode"
    )
    ct = add_ct(scene)
    with pytest.raises(InputError, match="not checked yet"):
        show_chart_and_table(scene, ct)
    nodes = logic.check(ct, reference="thorax-phantom")
    show_chart_and_table(scene, ct)
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpPlotTableView
    assert selection.GetActivePlotChartID() == nodes.chart.GetID()
    assert selection.GetActiveTableID() == nodes.table.GetID()
