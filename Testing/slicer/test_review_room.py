"""The reading room on Slicer's own layout and slice logics: what it shows, what it leaves, what a click means."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from offscreen_views import OffscreenSliceView, coloured
from scene_building import add_chest
from support.review_volumes import thorax

from medlord.errors import InputError
from medlord.review.case_files import CaseVoxels
from medlord.volumes import Grid
from MedLoRDSlicerLib.headless import in_slicer_application
from MedLoRDSlicerLib.review.marks import ArtefactMarks, ViewClicks
from MedLoRDSlicerLib.review.room import ReadingRoom

GRID = Grid.centered((48, 40, 24), (8.0, 9.0, 10.0), orientation="LPS")


def case(seed: int, with_mask: bool = False) -> tuple[CaseVoxels, CaseVoxels | None]:
    """Voxels as they come from a file."""
    hu = np.asfortranarray(np.rint(thorax(seed, GRID.shape)).astype(np.int16))
    mask = CaseVoxels((hu > 400).astype(np.uint8), GRID) if with_mask else None
    return CaseVoxels(hu, GRID), mask


@pytest.fixture
def open_room(scene, layout, application_logic):
    """Makes entered rooms with offscreen views; they are left at the end."""
    if in_slicer_application():
        pytest.skip("in Slicer the views are on the screen")
    rooms, views = [], {}

    def make(**options) -> tuple[ReadingRoom, dict]:
        room = ReadingRoom(scene, **options)
        room.enter()
        room.set_layout("three-planes")
        rooms.append(room)
        for view in room.views:
            views[view.name] = OffscreenSliceView(application_logic, room.slice_node(view))
        return room, views

    yield make
    for room in rooms:
        room.leave()
    for view in views.values():
        view.close()


def test_a_case_has_a_number_and_no_file(open_room, scene):
    room, views = open_room()
    room.set_window(1500, -600)
    room.show("Case 7", [case(1)])
    room.fit()
    assert {name: view.picture().std() > 20 for name, view in views.items()} == dict.fromkeys(views, True)
    (node, *others) = room.nodes()
    assert node.GetName() == "Case 7" and node.GetStorageNode() is None and node.GetAttributeNames() == ()
    for entry in (node, *others):
        assert entry.GetHideFromEditors() or entry.IsA("vtkMRMLDisplayNode")
        assert not entry.GetSaveWithScene()
    first = views["MedLoRDReviewAxial"].picture()
    room.show("Case 8", [case(2)])
    assert room.nodes() == [node, *others], "the same nodes, so that views keep them"
    assert node.GetName() == "Case 8" and (views["MedLoRDReviewAxial"].picture() != first).any()
    room.cover()
    assert not any(view.picture().any() for view in views.values())
    room.uncover()
    assert views["MedLoRDReviewAxial"].picture().any()


def test_leaving_restores_layout_displays_and_nodes(open_room, scene, layout):
    drawing = add_chest(scene)
    drawing.CreateDefaultDisplayNodes()
    hidden = add_chest(scene)
    hidden.CreateDefaultDisplayNodes()
    hidden.GetDisplayNode().SetVisibility(False)
    layout.SetViewArrangement(layout.SlicerLayoutConventionalView)
    room, _ = open_room(mask_names=("bone",))
    room.show("Case 1", [case(1, with_mask=True)])
    marks = ArtefactMarks(scene)
    marks.show([[1.0, 2.0, 3.0]])
    assert not drawing.GetDisplayNode().GetVisibility()
    added = [node.GetID() for node in room.nodes()]
    room.leave()
    marks.leave()
    assert layout.GetViewArrangement() == layout.SlicerLayoutConventionalView
    assert drawing.GetDisplayNode().GetVisibility() and not hidden.GetDisplayNode().GetVisibility()
    assert [scene.GetNodeByID(identifier) for identifier in added] == [None] * len(added)
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode") == 0
    room.leave()
    assert layout.GetViewArrangement() == layout.SlicerLayoutConventionalView


def test_keys_move_the_chosen_view_within_the_volume(open_room):
    room, _ = open_room()
    room.show("Case 1", [case(1)])
    room.fit()
    middle = room.slice_node(room.current_view).GetSliceOffset()
    assert room.move(1) == pytest.approx(middle + 10)
    assert room.move(1000) == pytest.approx(115) and room.move(-1000) == pytest.approx(-115)
    assert room.choose_view(1).orientation == "Coronal"
    assert abs(room.move(1) - room.move(-1)) == pytest.approx(9)
    assert room.choose_view(-1).orientation == "Axial" and room.choose_view(-1).orientation == "Sagittal"
    with pytest.raises(InputError, match="no layout 'four'"):
        room.set_layout("four")


def test_masks_are_outlines_that_can_be_hidden(open_room):
    room, views = open_room(mask_names=("bone",))
    room.show("Case 1", [case(1, with_mask=True)])
    room.fit()
    assert coloured(views["MedLoRDReviewAxial"].picture()).sum() > 20
    assert room.toggle_mask() is False
    assert coloured(views["MedLoRDReviewAxial"].picture()).sum() == 0
    room.show("Case 2", [case(2, with_mask=True)])
    assert coloured(views["MedLoRDReviewAxial"].picture()).sum() > 20, "every case begins with its mask"


def test_a_click_is_a_place_in_the_body(open_room):
    room, views = open_room(sides=2)
    room.show("Case 3", [case(1), case(2)])
    room.fit()
    heard = []
    clicks = ViewClicks(
        room, lambda name: views[name]._interactor, lambda view, place: heard.append((view, place))
    )
    clicks.watch()
    view = room.views[4]
    assert (view.side, view.orientation) == ("Right", "Coronal")
    node, interactor = room.slice_node(view), views[view.name]._interactor
    for begin, end in (((100, 90), (101, 90)), ((100, 90), (180, 90))):
        interactor.SetEventPosition(*begin)
        interactor.InvokeEvent("LeftButtonPressEvent")
        interactor.SetEventPosition(*end)
        interactor.InvokeEvent("LeftButtonReleaseEvent")
    ((where, place),) = heard
    back = vtk.vtkMatrix4x4()
    vtk.vtkMatrix4x4.Invert(node.GetXYToRAS(), back)
    assert where == view and back.MultiplyPoint((*place, 1.0))[:2] == pytest.approx((101, 90))
    assert place[1] == pytest.approx(-node.GetSliceOffset()) or place[1] == pytest.approx(
        node.GetSliceOffset()
    )
    clicks.leave()
    interactor.InvokeEvent("LeftButtonPressEvent")
    interactor.InvokeEvent("LeftButtonReleaseEvent")
    assert len(heard) == 1


def test_without_views_the_reason_is_said(scene):
    room = ReadingRoom(slicer.vtkMRMLScene())
    with pytest.raises(InputError, match="no views"):
        room.enter()
    assert not room.active
