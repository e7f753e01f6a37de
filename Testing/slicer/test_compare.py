"""The Compare layout on Slicer's own layout, slice and link logics, drawn by its displayable managers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import slicer
from offscreen_views import OffscreenSliceView, coloured, save_picture, side_by_side
from scene_building import AFFINE, SHAPE, add_chest, chest_masks, synthetic

from medlord.errors import InputError
from medlord.volumes import Grid
from MedLoRDSlicerLib.arrays import set_volume
from MedLoRDSlicerLib.compare import (
    LAYOUT_ID,
    LEFT,
    ORIENTATIONS,
    RIGHT,
    CompareView,
    input_volume_of,
    result_conditions,
    view_name,
)
from MedLoRDSlicerLib.headless import in_slicer_application
from MedLoRDSlicerLib.presets import WINDOW_PRESETS, apply_window
from MedLoRDSlicerLib.results import Origin, add_run


@pytest.fixture
def result(scene):
    """A scan, a drawing on it and a run made from both."""
    drawing = add_chest(scene)
    drawing.CreateDefaultDisplayNodes()
    scan = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Scan")
    set_volume(scan, np.where(chest_masks()["lung"], -850, 60).astype(np.int16), AFFINE)
    apply_window(scan, "mediastinum")
    volume, conditions = synthetic(Grid(SHAPE, AFFINE), chest_masks(), seed=3)
    nodes = add_run(scene, volume, conditions, "CT", {}, origin=Origin(drawing, scan))
    return nodes.volume


@pytest.fixture
def views(scene, application_logic):
    """Makes offscreen views of the slice nodes of a compare view."""
    if in_slicer_application():
        pytest.skip("in Slicer the views are on the screen")
    made = []

    def make(compare: CompareView) -> dict[tuple[str, str], OffscreenSliceView]:
        found = {
            (side, orientation): OffscreenSliceView(application_logic, node)
            for side, orientation, node in compare.slice_nodes()
        }
        made.extend(found.values())
        return found

    yield make
    for view in made:
        view.close()


def backgrounds(scene) -> dict[str, str | None]:
    found = {}
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLSliceCompositeNode")
        found[node.GetLayoutName()] = node.GetBackgroundVolumeID()
    return found


def test_input_and_result_lie_side_by_side_and_swap(scene, layout, application_logic, result):
    scan = input_volume_of(result)
    assert scan.GetName() == "Scan"
    other = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    other.SetLayoutName("Red")
    other.SetBackgroundVolumeID(scan.GetID())
    compare = CompareView(scene)
    compare.show(scan, result)
    assert compare.active and layout.GetViewArrangement() == LAYOUT_ID
    for orientation in ORIENTATIONS:
        assert backgrounds(scene)[view_name(LEFT, orientation)] == scan.GetID()
        assert backgrounds(scene)[view_name(RIGHT, orientation)] == result.GetID()
    compare.swap()
    assert compare.swapped and backgrounds(scene)[view_name(LEFT, "Axial")] == result.GetID()
    # A later show keeps the sides as the user has them.
    compare.show(scan, result)
    assert backgrounds(scene)[view_name(LEFT, "Coronal")] == result.GetID()
    compare.swap()
    assert not compare.swapped and backgrounds(scene)[view_name(LEFT, "Axial")] == scan.GetID()
    assert backgrounds(scene)["Red"] == scan.GetID()


def test_leaving_restores_layout_and_displays(scene, layout, application_logic, result):
    drawing = scene.GetFirstNodeByName("Drawing")
    drawing.GetDisplayNode().SetVisibility2DOutline(False)
    conditions = result_conditions(result)

    def state(node) -> tuple:
        display = node.GetDisplayNode()
        return display.GetVisibility(), display.GetVisibility2DFill(), display.GetVisibility2DOutline()

    before = [state(node) for node in (drawing, conditions)]
    layout.SetViewArrangement(layout.SlicerLayoutConventionalView)
    compare = CompareView(scene)
    compare.show(None, result)
    assert state(drawing)[0] == 0 and state(conditions) == (1, 0, 1)
    compare.show(input_volume_of(result), result, drawing)
    assert state(drawing) == (1, 0, 1) and state(conditions)[0] == 0
    compare.leave()
    assert layout.GetViewArrangement() == layout.SlicerLayoutConventionalView and not compare.active
    assert [state(node) for node in (drawing, conditions)] == before
    compare.leave()
    assert layout.GetViewArrangement() == layout.SlicerLayoutConventionalView


def test_a_layout_that_the_user_chose_meanwhile_stays(scene, layout, application_logic, result):
    compare = CompareView(scene)
    compare.show(None, result)
    layout.SetViewArrangement(layout.SlicerLayoutOneUpRedSliceView)
    assert not compare.active
    compare.leave()
    assert layout.GetViewArrangement() == layout.SlicerLayoutOneUpRedSliceView


def test_gone_volumes_and_a_closed_scene_do_no_harm(scene, layout, application_logic, result):
    compare = CompareView(scene)
    compare.show(input_volume_of(result), result)
    scene.RemoveNode(input_volume_of(result))
    compare.swap()
    compare.apply_window("lung")
    scene.RemoveNode(result)
    compare.fit()
    scene.Clear(0)
    compare.swap()
    compare.leave()
    assert not compare.active


def test_a_scene_saved_in_this_layout_can_be_left(scene, layout, application_logic, result):
    compare = CompareView(scene)
    layout.SetViewArrangement(LAYOUT_ID)
    compare.show(None, result)
    compare.leave()
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView


def test_without_views_the_reason_is_said(scene, result):
    with pytest.raises(InputError, match="no views"):
        CompareView(scene).show(None, result)


def test_windows(scene, layout, application_logic, result):
    compare = CompareView(scene)
    nodes = (result, input_volume_of(result))

    def windows() -> list[tuple]:
        displays = [node.GetDisplayNode() for node in nodes]
        return [(one.GetWindow(), one.GetLevel(), one.GetAutoWindowLevel()) for one in displays]

    before = windows()
    compare.show(input_volume_of(result), result)
    assert set(WINDOW_PRESETS) == {"lung", "mediastinum", "bone", "ccta"}
    for name, preset in WINDOW_PRESETS.items():
        compare.apply_window(name)
        for node in nodes:
            display = node.GetDisplayNode()
            assert (display.GetWindow(), display.GetLevel()) == (preset.window_hu, preset.level_hu)
            assert not display.GetAutoWindowLevel()
    with pytest.raises(InputError, match="There is no window 'brain'; choose one of lung"):
        compare.apply_window("brain")
    assert windows() != before
    compare.leave()
    assert windows() == before


def test_both_sides_show_the_same_place_and_move_together(scene, layout, application_logic, result, views):
    compare = CompareView(scene)
    compare.show(input_volume_of(result), result)
    shown = views(compare)
    assert set(shown) == {(side, orientation) for side in (LEFT, RIGHT) for orientation in ORIENTATIONS}
    compare.fit()
    link = slicer.vtkMRMLSliceLinkLogic()
    link.SetMRMLApplicationLogic(application_logic)
    link.SetMRMLScene(scene)
    left, right = shown[(LEFT, "Axial")], shown[(RIGHT, "Axial")]
    center = np.zeros(6)
    result.GetRASBounds(center)
    assert right.node.GetSliceOffset() == pytest.approx((center[4] + center[5]) / 2)
    np.testing.assert_allclose(left.node.GetFieldOfView(), right.node.GetFieldOfView())
    for view in shown.values():
        np.testing.assert_allclose(middle_of(view.node), (center[0::2] + center[1::2]) / 2, atol=1e-6)
    coronal = shown[(LEFT, "Coronal")].node.GetSliceOffset()
    right.logic.StartSliceOffsetInteraction()
    right.logic.SetSliceOffset(34.0)
    right.logic.EndSliceOffsetInteraction()
    assert left.node.GetSliceOffset() == pytest.approx(34.0)
    assert shown[(LEFT, "Coronal")].node.GetSliceOffset() == coronal
    link.SetMRMLScene(None)


def middle_of(node) -> np.ndarray:
    """The point in RAS mm in the middle of a view."""
    columns, rows, _depth = node.GetDimensions()
    return np.array(node.GetXYToRAS().MultiplyPoint((columns / 2, rows / 2, 0.0, 1.0))[:3])


def test_views_of_different_sizes_show_the_whole_volume_at_one_scale(scene, layout, result):
    compare = CompareView(scene)
    compare.show(None, result)
    nodes = {(side, orientation): node for side, orientation, node in compare.slice_nodes()}
    nodes[(LEFT, "Axial")].SetDimensions(500, 200, 1)
    nodes[(RIGHT, "Axial")].SetDimensions(300, 400, 1)
    nodes[(RIGHT, "Axial")].SetXYZOrigin(40, -30, 0)
    bounds = np.zeros(6)
    result.GetRASBounds(bounds)
    middle, size = (bounds[0::2] + bounds[1::2]) / 2, bounds[1::2] - bounds[0::2]
    compare.fit()
    scales = []
    for side in (LEFT, RIGHT):
        node = nodes[(side, "Axial")]
        width, height, _depth = node.GetFieldOfView()
        columns, rows, _depth = node.GetDimensions()
        assert width / columns == pytest.approx(height / rows), "square pixels"
        assert width >= size[0] - 1e-6 and height >= size[1] - 1e-6
        np.testing.assert_allclose(middle_of(node), middle, atol=1e-6)
        scales.append(width / columns)
    assert scales[0] == pytest.approx(scales[1])
    assert scales[0] == pytest.approx(max(size[0] / 300, size[1] / 200)), "no larger than needed"
    compare.fit((middle[0] + 9.0, middle[1], middle[2] + 8.0))
    np.testing.assert_allclose(middle_of(nodes[(LEFT, "Axial")]), middle + (0.0, 0.0, 8.0), atol=1e-6)


def test_contours_are_drawn_in_both_and_follow_the_masks(
    scene, layout, application_logic, result, views, tmp_path
):
    compare = CompareView(scene)
    compare.show(input_volume_of(result), result)
    shown = views(compare)
    compare.fit()
    pictures = {place: view.picture() for place, view in shown.items()}
    folder = Path(os.environ.get("MEDLORD_SCREENSHOTS") or tmp_path)
    rows = [[pictures[(side, orientation)] for side in (LEFT, RIGHT)] for orientation in ORIENTATIONS]
    path = save_picture(folder / "compare-boxes.png", side_by_side(rows))
    assert path.stat().st_size > 1000
    for orientation in ORIENTATIONS:
        left, right = (coloured(pictures[(side, orientation)]) for side in (LEFT, RIGHT))
        assert left.sum() > 300
        # The same contours at the same place, over different images.
        assert (left & right).sum() > 0.95 * max(left.sum(), right.sum())
        assert (pictures[(LEFT, orientation)] != pictures[(RIGHT, orientation)]).any()
    result_conditions(result).GetDisplayNode().SetVisibility(False)
    assert coloured(shown[(RIGHT, "Axial")].picture()).sum() == 0
