"""Drawing from nothing: canvas, body template, the Segment Editor's node and its real logic."""

from __future__ import annotations

import numpy as np
import pytest
import vtk
from drawing import SegmentEditor
from scene_building import add_chest, add_segmentation, fingerprint, put_under, scene_content, small_model

from medlord.errors import CancelledError, EngineError, InputError
from MedLoRDSlicerLib.arrays import volume_from_node, volume_grid
from MedLoRDSlicerLib.canvas import new_canvas, prepare_segment_editor, start_body_template
from MedLoRDSlicerLib.placement import grid_center, is_canvas, source_volume_of
from MedLoRDSlicerLib.segments import conditions_from_segmentation, match_segments


def test_a_canvas_is_air_on_the_models_grid_with_segments_to_draw_in(scene):
    model = small_model()
    nodes = new_canvas(scene, model, center_ras_mm=(10.0, -20.0, 30.0))
    volume = volume_from_node(nodes.volume)
    assert volume.grid.matches(model.grid_at((10.0, -20.0, 30.0)))
    assert volume.array.dtype == np.int16 and (volume.array == -1000).all()
    assert is_canvas(nodes.volume) and source_volume_of(nodes.segmentation) is nodes.volume
    segmentation = nodes.segmentation.GetSegmentation()
    assert list(segmentation.GetSegmentIDs()) == model.conditions
    tag = vtk.reference("")
    assert segmentation.GetSegment("lung").GetTag("TerminologyEntry", tag) and "Lung" in str(tag)
    assert segmentation.GetSegment("lung").GetColor() != segmentation.GetSegment("bone").GetColor()
    matches = match_segments(nodes.segmentation, model.conditions)
    assert [match.conditions for match in matches] == [(name,) for name in model.conditions]
    another = new_canvas(scene, model, structures=[])
    assert another.volume.GetName() != nodes.volume.GetName() and another.folder_item != nodes.folder_item
    assert another.segmentation.GetSegmentation().GetNumberOfSegments() == 0


def test_what_is_drawn_on_a_canvas_is_synthesized_on_the_canvas(scene, editor_logic):
    model = small_model()
    nodes = new_canvas(scene, model, center_ras_mm=(5.0, 5.0, 5.0))
    editor = SegmentEditor(scene, editor_logic, prepare_segment_editor(scene, nodes.segmentation, model))
    editor.draw_ellipsoid("body", (0, 0, 0), (140, 110, 110))
    editor.draw_ellipsoid("lung", (60, 0, 0), (50, 70, 90))
    given = conditions_from_segmentation(nodes.segmentation, model.conditions)
    masks = given.conditions
    # Drawn off the middle, so only the canvas can put the grid where the canvas is.
    center = grid_center(nodes.segmentation, masks, model)
    assert model.grid_at(center).matches(volume_grid(nodes.volume))
    assert masks.grid.matches(volume_grid(nodes.volume))
    # The lung is inside the body: the editor must not have cut it out.
    assert masks["lung"].any() and (masks["body"] & masks["lung"]).sum() == masks["lung"].sum()
    for name, radii in (("body", (140, 110, 110)), ("lung", (50, 70, 90))):
        expected = 4 / 3 * np.pi * np.prod(radii) / 1000
        assert given.volumes_ml[name] == pytest.approx(expected, rel=0.15), name
    assert given.volumes_ml["bone"] == 0.0


def test_the_editors_undo_takes_a_stroke_back(scene, editor_logic):
    model = small_model()
    nodes = new_canvas(scene, model)
    editor = SegmentEditor(scene, editor_logic, prepare_segment_editor(scene, nodes.segmentation, model))
    editor.draw_ellipsoid("body", (0, 0, 0), (140, 110, 110))
    before = conditions_from_segmentation(nodes.segmentation, model.conditions).volumes_ml
    editor.draw_ellipsoid("lung", (60, 0, 0), (50, 70, 90))
    editor.undo()
    assert conditions_from_segmentation(nodes.segmentation, model.conditions).volumes_ml == before


def test_the_segment_editor_is_pointed_at_the_segmentation(scene):
    model = small_model()
    nodes = new_canvas(scene, model)
    node = prepare_segment_editor(scene, nodes.segmentation, model)
    assert scene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode") is node
    assert node.GetSegmentationNode() is nodes.segmentation and node.GetSourceVolumeNode() is nodes.volume
    assert node.GetOverwriteMode() == node.OverwriteNone and node.GetSelectedSegmentID() == "body"
    other = new_canvas(scene, model)
    assert prepare_segment_editor(scene, other.segmentation, model) is node
    own = prepare_segment_editor(scene, nodes.segmentation, model, tag="MedLoRD")
    assert own is not node and node.GetSegmentationNode() is other.segmentation


def test_a_geometry_that_is_there_stays(scene):
    drawing = add_chest(scene)
    before = fingerprint(drawing)
    node = prepare_segment_editor(scene, drawing)
    canvas = node.GetSourceVolumeNode()
    assert is_canvas(canvas)
    given = conditions_from_segmentation(drawing, ["body", "lung", "bone"]).conditions
    assert volume_grid(canvas).matches(given.grid) and fingerprint(drawing) == before


def test_a_blank_source_lies_under_the_segmentations_transform(scene):
    drawing = add_chest(scene)
    move = np.eye(4)
    move[:3, 3] = (40, -30, 20)
    put_under(scene, drawing, move)
    canvas = prepare_segment_editor(scene, drawing).GetSourceVolumeNode()
    given = conditions_from_segmentation(drawing, ["body"]).conditions
    assert volume_grid(canvas).matches(given.grid)


def test_without_geometry_the_models_grid_is_the_geometry(scene):
    empty = add_segmentation(scene, {})
    with pytest.raises(InputError, match="has no geometry; choose a source volume or a model"):
        prepare_segment_editor(scene, empty)
    node = prepare_segment_editor(scene, empty, small_model())
    assert volume_grid(node.GetSourceVolumeNode()).matches(small_model().grid_at((0, 0, 0)))
    assert source_volume_of(empty) is node.GetSourceVolumeNode()


def test_a_body_template_comes_from_a_phantom(scene):
    model = small_model()
    job = start_body_template(scene, model)
    nodes = job.wait()
    assert job.state == "finished" and job.nodes is nodes
    given = conditions_from_segmentation(nodes.segmentation, model.conditions)
    assert given.volumes_ml["body"] > 5000 and given.volumes_ml["lung"] == 0.0
    assert is_canvas(nodes.volume) and given.conditions.grid.matches(volume_grid(nodes.volume))
    ids = list(nodes.segmentation.GetSegmentation().GetSegmentIDs())
    assert ids[0] == "body" and set(ids) == set(model.conditions)


def test_a_template_for_a_scene_that_was_closed_is_dropped(scene):
    job = start_body_template(scene, small_model())
    scene.Clear()
    new_canvas(scene, small_model(), name="Next")
    before = scene_content(scene)
    with pytest.raises(CancelledError, match="scene was closed"):
        job.wait()
    job.poll()
    assert job.state == "dropped" and scene_content(scene) == before


def test_a_cancelled_template_leaves_nothing_behind(scene):
    before = scene_content(scene)
    job = start_body_template(scene, small_model())
    process, folder = job._process, job._folder
    job.cancel()
    assert job.state == "cancelled" and process.poll() is not None and not folder.exists()
    assert scene_content(scene) == before


def test_a_template_that_fails_says_why(scene):
    before = scene_content(scene)
    job = start_body_template(scene, small_model(), phantom_seed=-1)
    with pytest.raises(EngineError, match="The phantom could not be made") as failed:
        job.wait()
    assert "seed" in str(failed.value) and "\n" not in str(failed.value)
    assert job.state == "failed" and scene_content(scene) == before
    with pytest.raises(EngineError, match="does not exist"):
        start_body_template(scene, small_model(), python="/nowhere/python")
