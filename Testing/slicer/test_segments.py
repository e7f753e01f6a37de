"""From a segmentation node to conditions, on real MRML nodes."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from scene_building import (
    AFFINE,
    BINARY,
    SHAPE,
    SURFACE,
    add_chest,
    add_segmentation,
    box,
    fingerprint,
    oblique_affine,
    put_under,
    rotation,
    world_points,
)

from medlord.conditions import Conditions
from medlord.errors import InputError
from medlord.vocabulary import load_vocabulary
from medlord.volumes import Grid
from MedLoRDSlicerLib.segments import add_segmentation as add_segmentation_node
from MedLoRDSlicerLib.segments import conditions_from_segmentation, match_segments

WANTED = ["body", "lung", "bone", "aorta"]


def tag(segment, structure: str) -> None:
    segment.SetTag("TerminologyEntry", load_vocabulary()[structure].terminology)


def test_every_mask_is_where_it_was_drawn(scene):
    node = add_chest(scene)
    before = fingerprint(node)
    given = conditions_from_segmentation(node, WANTED)

    assert given.conditions.names == ["body", "lung", "bone"]
    assert given.conditions.grid.shape == SHAPE
    np.testing.assert_allclose(given.conditions.grid.affine, AFFINE, atol=1e-9)
    np.testing.assert_array_equal(given.conditions["bone"], box((11, 14, 0), (13, 17, 16)))
    assert given.missing == ["aorta"] and given.unmatched == []
    assert fingerprint(node) == before


def test_overlapping_segments_keep_all_their_voxels(scene):
    one, other = box((2, 2, 2), (12, 12, 12)), box((8, 8, 8), (18, 18, 15))
    given = conditions_from_segmentation(add_segmentation(scene, {"body": one, "lung": other}), WANTED)
    np.testing.assert_array_equal(given.conditions["body"], one)
    np.testing.assert_array_equal(given.conditions["lung"], other)
    assert (given.conditions["body"] & given.conditions["lung"]).any()


def test_segments_in_one_shared_labelmap_are_told_apart(scene):
    one, other = box((2, 2, 2), (8, 12, 12)), box((8, 2, 2), (18, 12, 15))
    node = add_segmentation(scene, {"body": one, "lung": other})
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    assert node.GetSegmentation().GetNumberOfLayers() == 1
    given = conditions_from_segmentation(node, WANTED)
    np.testing.assert_array_equal(given.conditions["body"], one)
    np.testing.assert_array_equal(given.conditions["lung"], other)


@pytest.mark.parametrize("affine", [AFFINE, oblique_affine()], ids=["axis-aligned", "oblique"])
def test_parent_transforms_move_the_masks_exactly(scene, affine):
    mask = box((3, 4, 5), (6, 8, 10))
    node = add_segmentation(scene, {"lung": mask}, affine)
    inner, outer = np.eye(4), np.eye(4)
    inner[:3, :3], inner[:3, 3] = rotation((10, 25, -40)), (12.5, -7.0, 30.0)
    outer[:3, :3] = -1.3 * rotation((0, 0, 90))
    lower = put_under(scene, node, inner)
    put_under(scene, lower, outer)
    before = fingerprint(node)

    given = conditions_from_segmentation(node, WANTED)
    expected = outer @ inner @ affine
    np.testing.assert_allclose(given.conditions.grid.affine, expected, atol=1e-6)
    np.testing.assert_array_equal(given.conditions["lung"], mask)
    assert fingerprint(node) == before


def test_a_nonlinear_transform_bends_the_masks(scene):
    mask = box((8, 8, 6), (14, 12, 10))
    node = add_segmentation(scene, {"lung": mask})
    centre = world_points(mask, conditions_from_segmentation(node, WANTED).conditions.grid).mean(axis=0)
    corners = [np.array([x, y, z]) for x in (-150, 150) for y in (-150, 150) for z in (-130, 130)]
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for point in corners:
        source.InsertNextPoint(point)
        target.InsertNextPoint(point)
    source.InsertNextPoint(centre)
    target.InsertNextPoint(centre + [0, 0, 28.0])
    bend = vtk.vtkThinPlateSplineTransform()
    bend.SetBasisToR()
    bend.SetSourceLandmarks(source)
    bend.SetTargetLandmarks(target)
    transform = scene.AddNewNodeByClass("vtkMRMLTransformNode", "Bend")
    transform.SetAndObserveTransformToParent(bend)
    node.SetAndObserveTransformNodeID(transform.GetID())
    assert not transform.IsTransformToWorldLinear()
    before = fingerprint(node)

    conditions = conditions_from_segmentation(node, WANTED).conditions
    moved = world_points(conditions["lung"], conditions.grid).mean(axis=0) - centre
    assert moved[2] == pytest.approx(28.0, abs=8.0) and np.abs(moved[:2]).max() < 6.0
    assert fingerprint(node) == before


def test_closed_surfaces_are_converted_without_touching_the_node(scene):
    sphere = vtk.vtkSphereSource()
    sphere.SetRadius(50)
    sphere.SetCenter(5, 6, 7)
    sphere.SetThetaResolution(40)
    sphere.SetPhiResolution(40)
    sphere.Update()
    node = add_segmentation(scene, {"placeholder": box((0, 0, 0), (1, 1, 1))})
    segmentation = node.GetSegmentation()
    segmentation.RemoveAllSegments()
    segmentation.SetSourceRepresentationName(SURFACE)
    segment = slicer.vtkSegment()
    segment.SetName("aorta")
    segment.AddRepresentation(SURFACE, sphere.GetOutput())
    segmentation.AddSegment(segment)

    conditions = conditions_from_segmentation(node, WANTED).conditions
    points = world_points(conditions["aorta"], conditions.grid)
    np.testing.assert_allclose(points.mean(axis=0), (5, 6, 7), atol=4)
    assert conditions.volumes_ml()["aorta"] == pytest.approx(4 / 3 * np.pi * 5**3, rel=0.1)
    assert not segmentation.ContainsRepresentation(BINARY)


def test_a_segment_beyond_the_reference_is_not_cut(scene):
    node = add_segmentation(scene, {"body": box((0, 0, 0), (24, 20, 16))})
    beyond = AFFINE.copy()
    beyond[:3, 3] += AFFINE[:3, :3] @ (20, 0, 0)
    segment = slicer.vtkSegment()
    segment.SetName("lung")
    from MedLoRDSlicerLib.arrays import oriented_image

    mask = box((0, 2, 2), (10, 6, 6))
    segment.AddRepresentation(BINARY, oriented_image(mask, beyond))
    node.GetSegmentation().AddSegment(segment)
    conditions = conditions_from_segmentation(node, WANTED).conditions
    assert conditions["lung"].sum() == mask.sum()
    assert conditions["body"].sum() == 24 * 20 * 16
    np.testing.assert_allclose(
        world_points(conditions["lung"], conditions.grid)[0], (beyond @ (0, 2, 2, 1))[:3], atol=1e-6
    )


def test_terminology_wins_over_a_name_in_any_language(scene):
    node = add_segmentation(
        scene, {"Poumon (modifié)": box((3, 3, 3), (9, 9, 9)), "body": box((1, 1, 1), (20, 18, 14))}
    )
    tag(node.GetSegmentation().GetNthSegment(0), "lung")
    match = match_segments(node, WANTED)[0]
    assert (match.structure, match.how, match.conditions) == ("lung", "terminology", ("lung",))


def test_order_of_recognition(scene):
    mask = box((3, 3, 3), (9, 9, 9))
    node = add_segmentation(scene, {"any name": mask, "Bone": mask, "Lungs": mask, "Segment_7": mask})
    segmentation = node.GetSegmentation()
    first = segmentation.GetNthSegmentID(0)
    image = segmentation.GetSegment(first)
    segmentation.RemoveSegment(first)
    segmentation.AddSegment(image, "aorta")
    # What the Segment Editor gives every new segment.
    tissue = (
        "Segmentation category and type - 3D Slicer General Anatomy list~SCT^85756007^Tissue~"
        "SCT^85756007^Tissue~^^~Anatomic codes - DICOM master list~^^~^^"
    )
    segmentation.GetSegment("aorta").SetTag("TerminologyEntry", tissue)
    found = {match.segment_name: (match.structure, match.how) for match in match_segments(node, WANTED)}
    assert found == {
        "any name": ("aorta", "id"),
        "Bone": ("bone", "name"),
        "Lungs": ("lung", "alias"),
        "Segment_7": (None, ""),
    }


def test_parts_are_united_and_what_is_not_used_is_said(scene):
    masks = {
        "lung_upper_lobe_left": box((3, 3, 8), (8, 10, 14)),
        "lung_lower_lobe_left": box((3, 3, 2), (8, 10, 8)),
        "liver": box((10, 3, 0), (18, 10, 3)),
        "my scribble": box((0, 0, 0), (2, 2, 2)),
    }
    given = conditions_from_segmentation(add_segmentation(scene, masks), WANTED)
    united = masks["lung_upper_lobe_left"] | masks["lung_lower_lobe_left"]
    np.testing.assert_array_equal(given.conditions["lung"], united)
    assert given.conditions.names == ["lung"]
    assert given.unmatched == ["liver", "my scribble"]
    text = " ".join(given.warnings())
    assert "liver" in text and "my scribble" in text and "lung_right" in text


def test_labelmaps_without_a_reference_have_their_own_geometry(scene):
    mask = box((3, 4, 5), (6, 8, 10))
    node = add_segmentation(scene, {"lung": mask}, oblique_affine(), reference=False)
    conditions = conditions_from_segmentation(node, WANTED).conditions
    grid = conditions.grid
    expected = np.argwhere(mask) @ oblique_affine()[:3, :3].T + oblique_affine()[:3, 3]
    found = world_points(conditions["lung"], grid)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.mean(axis=0), expected.mean(axis=0), atol=1e-6)


def no_segments(scene):
    return add_segmentation(scene, {})


def without_geometry(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Drawing")
    segment = slicer.vtkSegment()
    segment.SetName("lung")
    node.GetSegmentation().AddSegment(segment)
    return node


def without_voxels(scene):
    return add_segmentation(scene, {"lung": box((0, 0, 0), (0, 0, 0))})


def no_match(scene):
    return add_segmentation(scene, {"my scribble": box((0, 0, 0), (2, 2, 2))})


def not_finite(scene):
    node = add_chest(scene)
    matrix = np.eye(4)
    matrix[0, 3] = np.nan
    put_under(scene, node, matrix)
    return node


def singular(scene):
    node = add_chest(scene)
    put_under(scene, node, np.diag([1.0, 1.0, 0.0, 1.0]))
    return node


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (no_segments, "has 0 segments"),
        (without_geometry, "has no geometry"),
        (without_voxels, "0 voxels"),
        (no_match, "No segment of 'Drawing' matches"),
        (not_finite, "not finite"),
        (singular, "singular"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(scene, build, words):
    node = build(scene)
    before = fingerprint(node)
    with pytest.raises(InputError) as refused:
        conditions_from_segmentation(node, WANTED)
    assert words in str(refused.value) and "\n" not in str(refused.value)
    assert fingerprint(node) == before


def test_conditions_become_a_segmentation_and_come_back(scene):
    masks = {
        "body": box((1, 1, 0), (23, 19, 16)),
        "lung": box((4, 5, 3), (10, 14, 13)),
        "aorta": np.zeros(SHAPE, bool),
    }
    conditions = Conditions(Grid(SHAPE, oblique_affine()), masks)
    node = add_segmentation_node(scene, conditions, "Phantom")
    matches = match_segments(node, WANTED)
    assert [(match.structure, match.how) for match in matches] == [
        ("body", "terminology"),
        ("lung", "terminology"),
    ]
    back = conditions_from_segmentation(node, WANTED).conditions
    assert back.grid.matches(conditions.grid)
    for name in ("body", "lung"):
        np.testing.assert_array_equal(back[name], masks[name])
    color = node.GetSegmentation().GetSegment("lung").GetColor()
    np.testing.assert_allclose(np.array(color) * 255, load_vocabulary()["lung"].color, atol=0.5)
