"""A check of a CT in the scene: by the engine process, with its results as nodes beside the CT."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import slicer

from medlord.conditions import Conditions
from medlord.errors import InputError
from medlord.volumes import Volume

from .arrays import oriented_image, volume_from_node
from .check_chart import add_check_chart
from .check_table import (
    SUMMARY_ATTRIBUTE,
    VERDICT_ATTRIBUTE,
    CheckRow,
    add_check_table,
    check_rows,
    read_check_table,
)
from .engine import Engine
from .headless import rendering_paused
from .recipes import is_synthetic
from .results import CONDITIONS_ROLE, REFERENCE_ROLE, put_into_folder, recipe_of
from .segments import Preparation, add_segmentation, condition_segment
from .task import FAILED, PREPARING, RUNNING, EngineTask
from .translation import _

if TYPE_CHECKING:
    from medlord.client import CheckResult

HU_RULES, LABELMAP = "hu-rules", "labelmap"
TABLE_ROLE, CHART_ROLE, FOUND_ROLE = "MedLoRD.check.table", "MedLoRD.check.chart", "MedLoRD.check.found"
# What the segmenter finds that no vocabulary names, in the colour of what it is part of.
_COLOUR_OF = {"airways": "trachea", "blood_pool": "aorta"}
_FOUND_OPACITY = 0.35
_BUDGET_S = 0.015


@dataclass(frozen=True)
class CheckNodes:
    """What a check added to the scene, and what it said.

    level      "green", "amber" or "red"
    rows       as in the table, worst first
    report     the whole scorecard, as `medlord check` writes it
    chart      None where there was no reference to compare with
    """

    level: str
    rows: list[CheckRow]
    report: dict[str, Any]
    table: object
    chart: object
    segmentation: object


class FoundSegments:
    """The pieces of a result: one segment per structure that was found."""

    def __init__(self, found: Conditions, colours: dict[str, tuple[float, float, float]]):
        self.segments: list[tuple[str, object]] = []
        self.found = found
        self._left = [name for name in found.names if found[name].any()]
        self._colours = colours

    @property
    def done(self) -> bool:
        """True when all segments are made."""
        return not self._left

    def step(self) -> None:
        """Make one more segment."""
        name = self._left.pop(0)
        segment = condition_segment(
            _COLOUR_OF.get(name, name), oriented_image(self.found[name], self.found.grid.affine)
        )
        segment.SetName(name)
        if name in _COLOUR_OF:
            segment.RemoveTag(slicer.vtkSegment.GetTerminologyEntryTagName())
        if name in self._colours:
            segment.SetColor(*self._colours[name])
        self.segments.append((name, segment))


class Check(EngineTask):
    """A check on its way; see `EngineTask` for its states, before which "preparing" stands while masks are taken.

    segmenter       what finds the structures; "labelmap" needs `found`
    reference       name or absolute path of a reference distribution, "none", or "" for that of the model
    contrast_phase  "native", "arterial", "venous"; "" for what the recipe says
    options         what only some segmenters take: weights (folder), download (agreed), license_key
    masks, found    preparations of segmentations: what was drawn (default: the masks in the recipe of the CT), and
                    what a segmenter found already

    The CT is taken when the check is made, in the place where it lies then, and so is the real CT that a synthetic one
    refers to, which tells the segmenter's own ceiling. Raises `InputError` for a volume without
    voxels and for "labelmap" without a segmentation.
    """

    source = "volume"
    subject = "check"

    def __init__(
        self,
        engine: Engine,
        volume_node,
        *,
        segmenter: str = HU_RULES,
        reference: str = "",
        contrast_phase: str = "",
        masks: Preparation | None = None,
        found: Preparation | None = None,
        **options: Any,
    ):
        super().__init__(engine, volume_node)
        if (segmenter == LABELMAP) != (found is not None):
            raise InputError(
                "The segmenter 'labelmap' takes a segmentation of the CT that exists already; choose both or none."
            )
        self.state = PREPARING
        self.segmenter = segmenter
        self.nodes: CheckNodes | None
        self.volume_node = volume_node
        self._options = {
            "segmenter": None if segmenter == LABELMAP else segmenter,
            "reference": reference or None,
            "contrast_phase": contrast_phase or None,
            **options,
        }
        self._preparations = {
            name: given for name, given in (("conditions", masks), ("found", found)) if given
        }
        volume = volume_from_node(volume_node)
        recipe = recipe_of(volume_node) if is_synthetic(volume_node) else None
        self._volume = Volume(volume.array, volume.grid, recipe)
        real = volume_node.GetNodeReference(REFERENCE_ROLE)
        self._real = volume_from_node(real) if real is not None and real.GetImageData() is not None else None

    def poll(self) -> None:
        """As `EngineTask.poll`; before the engine is asked, a piece of the masks."""
        if self.state == PREPARING and not self._input_is_gone():
            self._prepare()
        super().poll()

    def _prepare(self) -> None:
        end = time.perf_counter() + _BUDGET_S
        waiting = [one for one in self._preparations.values() if not one.done]
        while waiting and time.perf_counter() < end:
            waiting[0].step()
            waiting = [one for one in waiting if not one.done]
        if waiting:
            return
        wrong = next((one.error for one in self._preparations.values() if one.error is not None), None)
        if wrong is not None:
            self._end(FAILED, wrong)
            return
        masks = {name: one.given.conditions for name, one in self._preparations.items()}
        self.state = RUNNING
        self._job = self._engine.submit_check(
            self._volume, self._take, real=self._real, **masks, **self._options
        )
        self._volume, self._real, self._preparations = None, None, {}

    def _begin_delivery(self, result: CheckResult) -> FoundSegments:
        return FoundSegments(result.found, _colours(self.volume_node))

    def _add_to_scene(self, delivery: FoundSegments) -> CheckNodes:
        return add_check(self._scene, self.volume_node, self.result, delivery)


def add_check(scene, volume_node, result: CheckResult, pieces: FoundSegments) -> CheckNodes:
    """Add table, chart and found segmentation beside a CT, and let the CT know them; all of it or nothing.

    `pieces` is done. Former checks of the CT stay; the CT refers to the latest one.
    """
    name = scene.GenerateUniqueName(_("{name} check").format(name=volume_node.GetName()))
    rows = check_rows(result.report, result.positions_ras_mm)
    known = {scene.GetNthNode(number).GetID() for number in range(scene.GetNumberOfNodes())}
    with rendering_paused():
        try:
            table = add_check_table(scene, name, rows)
            _say_on(table, result)
            plots = add_check_chart(
                scene,
                _("{name} chart").format(name=name),
                result.measure,
                result.distributions,
                _chart_title(result),
            )
            found = _add_found(scene, volume_node, pieces, _("{name} found").format(name=name))
            for node in (table, found, *plots[:1]):
                put_into_folder(scene, node, None, beside=volume_node)
        except BaseException:
            for number in reversed(range(scene.GetNumberOfNodes())):
                if scene.GetNthNode(number).GetID() not in known:
                    scene.RemoveNode(scene.GetNthNode(number))
            raise
    chart = plots[0] if plots else None
    for role, node in ((TABLE_ROLE, table), (CHART_ROLE, chart), (FOUND_ROLE, found)):
        volume_node.SetNodeReferenceID(role, node.GetID() if node is not None else None)
    return CheckNodes(result.report["verdict"]["level"], rows, result.report, table, chart, found)


def check_of(volume_node) -> tuple[object, list[CheckRow]] | None:
    """The table and rows of the latest check of a volume, None when there was none or its table is gone."""
    table = volume_node.GetNodeReference(TABLE_ROLE) if volume_node is not None else None
    if table is None or table.GetScene() is not volume_node.GetScene():
        return None
    return table, read_check_table(table)


def jump_slices(scene, position_ras_mm: tuple[float, float, float]) -> None:
    """Move every slice view to a point in RAS mm, without changing what part of the plane it shows."""
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
        scene.GetNthNodeByClass(number, "vtkMRMLSliceNode").JumpSliceByOffsetting(*position_ras_mm)


def show_chart_and_table(scene, volume_node) -> None:
    """Show the latest check of a volume in the layout with a plot and a table.

    Raises `InputError` where there are no views, and for a volume without a check.
    """
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    selection = scene.GetFirstNodeByClass("vtkMRMLSelectionNode")
    table, chart = (volume_node.GetNodeReference(role) for role in (TABLE_ROLE, CHART_ROLE))
    if layout is None or selection is None:
        raise InputError("This program has no views, so nothing can be shown; use Slicer with its window.")
    if table is None:
        raise InputError(f"The volume '{volume_node.GetName()}' was not checked yet; check it first.")
    selection.SetActiveTableID(table.GetID())
    if chart is not None:
        selection.SetActivePlotChartID(chart.GetID())
    layout.SetViewArrangement(layout.SlicerLayoutFourUpPlotTableView)
    _assign(scene, "vtkMRMLTableViewNode", "SetTableNodeID", table)
    _assign(scene, "vtkMRMLPlotViewNode", "SetPlotChartNodeID", chart)


def _assign(scene, kind: str, setter: str, node) -> None:
    """Give a node to all views of a kind: the application's logic does it for views that exist by then only."""
    for number in range(scene.GetNumberOfNodesByClass(kind)):
        if node is not None:
            getattr(scene.GetNthNodeByClass(number, kind), setter)(node.GetID())


def _say_on(table, result: CheckResult) -> None:
    """Verdict, segmenter and reference of a check on its table, so that numbers never stand alone."""
    report, reference = result.report, result.report["reference"]
    table.SetAttribute(VERDICT_ATTRIBUTE, report["verdict"]["level"])
    summary = {
        "verdict": report["verdict"]["level"],
        "meaning": report["verdict"]["meaning"],
        "notice": report["notice"],
        "scope": report["verdict"].get("scope", ""),
        "segmenter": report["segmenter"],
        "contrast_phase": report["contrast_phase"],
        "reference": reference
        and {key: reference[key] for key in ("name", "count", "population", "comparable_field_of_view")},
    }
    table.SetAttribute(SUMMARY_ATTRIBUTE, json.dumps(summary))


def _chart_title(result: CheckResult) -> str:
    reference = result.report["reference"]
    if not reference:
        return ""
    return _("Sizes among those of {name} (N = {count}), segmenter {segmenter}").format(
        name=reference["name"], count=reference["count"], segmenter=result.report["segmenter"]
    )


def _add_found(scene, volume_node, pieces: FoundSegments, name: str):
    """What was found, as a tint: the drawn conditions are outlines."""
    node = add_segmentation(scene, pieces.found, name, segments=pieces.segments)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    display = node.GetDisplayNode()
    display.SetVisibility2DOutline(False)
    display.SetOpacity2DFill(_FOUND_OPACITY)
    display.SetVisibility3D(False)
    return node


def _colours(volume_node) -> dict[str, tuple[float, float, float]]:
    """The colours that the conditions of a CT have now: the user may have changed them."""
    conditions = volume_node.GetNodeReference(CONDITIONS_ROLE)
    if conditions is None:
        return {}
    segmentation = conditions.GetSegmentation()
    return {name: segmentation.GetSegment(name).GetColor() for name in segmentation.GetSegmentIDs()}
