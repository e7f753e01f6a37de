"""Drawing from nothing: a blank volume on the model's grid, a body to start from, the Segment Editor set up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import slicer

from medlord.conditions import Conditions
from medlord.demo import FIRST_HELD_OUT_SEED
from medlord.errors import InputError
from medlord.vocabulary import load_vocabulary
from medlord.volumes import AIR_HU, Grid, Volume

from .arrays import set_volume
from .geometry import BINARY, grid_of_geometry, reference_geometry
from .phantom_job import PhantomJob
from .placement import CANVAS_ATTRIBUTE, Point, source_volume_of
from .presets import apply_window
from .results import add_folder, put_into_folder
from .segments import condition_segments

if TYPE_CHECKING:
    from medlord.bundles.description import ModelDescription

SEGMENT_EDITOR_TAG = "SegmentEditor"
"""Singleton tag of the parameter node that Slicer's Segment Editor module works on."""

TEMPLATE_SEED = FIRST_HELD_OUT_SEED + 7


@dataclass(frozen=True)
class CanvasNodes:
    """A blank volume, the segmentation to draw in, and their subject-hierarchy folder item."""

    volume: object
    segmentation: object
    folder_item: int


def new_canvas(
    scene,
    description: ModelDescription,
    *,
    name: str = "Canvas",
    center_ras_mm: Point = (0.0, 0.0, 0.0),
    structures: Sequence[str] | None = None,
) -> CanvasNodes:
    """Add a volume of air on the model's grid and a segmentation on the same grid, with empty segments to draw in.

    `structures` names the segments (default: all conditions of the model); they have the vocabulary's colours and
    terminology, so they are recognised. A synthesis of what is drawn lies exactly on the canvas.
    Raises `InputError` for a centre that is none.
    """
    grid = description.grid_at(center_ras_mm)
    return _add_canvas(scene, grid, name, description.conditions if structures is None else structures, None)


def start_body_template(
    scene,
    description: ModelDescription,
    *,
    name: str = "Body template",
    phantom_seed: int = TEMPLATE_SEED,
    structures: Sequence[str] = ("body",),
    python: str | None = None,
) -> PhantomJob:
    """Begin a canvas with `structures` of a phantom drawn in; the job's `nodes` are `CanvasNodes`.

    The other conditions of the model are empty segments. The canvas lies about the origin of world space.
    """

    def deliver(volume: Volume, conditions: Conditions) -> CanvasNodes:
        drawn = {structure: conditions[structure] for structure in conditions.names}
        names = list(dict.fromkeys([*drawn, *description.conditions]))
        return _add_canvas(scene, volume.grid, name, names, Conditions(volume.grid, drawn))

    grid = description.grid_at((0.0, 0.0, 0.0))
    return PhantomJob(scene, phantom_seed, grid, structures, deliver, python=python)


def prepare_segment_editor(
    scene,
    segmentation_node,
    description: ModelDescription | None = None,
    source_volume=None,
    *,
    tag: str = SEGMENT_EDITOR_TAG,
):
    """Point the Segment Editor at a segmentation, with its geometry set, and return the editor's parameter node.

    The source volume is the one given, else the one that the segmentation refers to, else a new blank one on the
    segmentation's own grid, or on the model's of `description` when it has none. Segments may overlap: a lung is
    inside the body. A geometry that the segmentation already has stays. Another `tag` gives an editor of one's own.
    Raises `InputError` when there is neither a geometry nor a model.
    """
    source = source_volume if source_volume is not None else source_volume_of(segmentation_node)
    if source is None:
        source = _blank_for(scene, segmentation_node, description)
    segmentation_node.CreateDefaultDisplayNodes()
    if not reference_geometry(segmentation_node.GetSegmentation()):
        segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(source)
    elif source_volume_of(segmentation_node) is None:
        segmentation_node.SetNodeReferenceID(
            segmentation_node.GetReferenceImageGeometryReferenceRole(), source.GetID()
        )
    editor = scene.GetSingletonNode(tag, "vtkMRMLSegmentEditorNode")
    if editor is None:
        editor = slicer.vtkMRMLSegmentEditorNode()
        editor.SetSingletonTag(tag)
        editor = scene.AddNode(editor)
    editor.SetAndObserveSegmentationNode(segmentation_node)
    editor.SetAndObserveSourceVolumeNode(source)
    editor.SetOverwriteMode(editor.OverwriteNone)
    ids = segmentation_node.GetSegmentation().GetSegmentIDs()
    if ids and editor.GetSelectedSegmentID() not in ids:
        editor.SetSelectedSegmentID(ids[0])
    return editor


def add_blank_volume(scene, grid: Grid, name: str):
    """Add a volume of air (-1000 HU, int16) that is marked as a canvas; it holds nothing that was measured."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(name))
    set_volume(node, np.full(grid.shape, AIR_HU, dtype=np.int16), grid.affine)
    node.SetAttribute(CANVAS_ATTRIBUTE, "1")
    apply_window(node, "mediastinum")
    return node


def _add_canvas(
    scene, grid: Grid, name: str, structures: Sequence[str], drawn: Conditions | None
) -> CanvasNodes:
    volume = add_blank_volume(scene, grid, name)
    title = volume.GetName()
    node = scene.AddNewNodeByClass(
        "vtkMRMLSegmentationNode", scene.GenerateUniqueName(f"{title} segmentation")
    )
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    made = dict(condition_segments(drawn)) if drawn is not None else {}
    for structure in structures:
        if structure in made:
            node.GetSegmentation().AddSegment(made[structure], structure)
        else:
            _add_empty_segment(node.GetSegmentation(), structure)
    folder = add_folder(scene, title)
    for part in (volume, node):
        put_into_folder(scene, part, folder)
    return CanvasNodes(volume, node, folder)


def _add_empty_segment(segmentation, structure: str) -> None:
    """A segment with the vocabulary's name, colour and terminology in which nothing is drawn."""
    vocabulary = load_vocabulary()
    if segmentation.GetNumberOfSegments() == 0:
        segmentation.SetSourceRepresentationName(BINARY)
    segment_id = segmentation.AddEmptySegment(structure, structure)
    segment = segmentation.GetSegment(segment_id)
    if structure in vocabulary:
        segment.SetColor(*(value / 255 for value in vocabulary[structure].color))
        if vocabulary[structure].terminology:
            tag = slicer.vtkSegment.GetTerminologyEntryTagName()
            segment.SetTag(tag, vocabulary[structure].terminology)


def _blank_for(scene, segmentation_node, description: ModelDescription | None):
    """A blank volume for a segmentation that has no source volume."""
    geometry = reference_geometry(segmentation_node.GetSegmentation())
    if geometry:
        grid = grid_of_geometry(geometry)
    elif description is not None:
        bounds = np.zeros(6)
        segmentation_node.GetRASBounds(bounds)
        drawn = bool((bounds[1::2] >= bounds[0::2]).all() and np.abs(bounds).max() > 0)
        center = tuple((bounds[0::2] + bounds[1::2]) / 2) if drawn else (0.0, 0.0, 0.0)
        grid = description.grid_at(center)
    else:
        raise InputError(
            f"The segmentation '{segmentation_node.GetName()}' has no geometry; choose a source volume or a model."
        )
    volume = add_blank_volume(scene, grid, f"{segmentation_node.GetName()} canvas")
    if geometry:  # it is in the segmentation's own coordinates
        volume.SetAndObserveTransformNodeID(segmentation_node.GetTransformNodeID())
    put_into_folder(scene, volume, None, beside=segmentation_node)
    return volume
