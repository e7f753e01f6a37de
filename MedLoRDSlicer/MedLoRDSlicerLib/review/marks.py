"""Where artefacts are: clicks in the views of the room, and the marks that show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import vtk

from .room import ReadingRoom, View

# A click that moves further than this (pixels) is a drag, which pans or sets the window.
_CLICK_PIXELS = 4
# Before the view's own interaction, which may keep an event to itself.
_PRIORITY = 1.0
_NAME = "Artefacts"


class ArtefactMarks:
    """Numbered points in the scene; they cannot be moved and are never saved with it."""

    def __init__(self, scene):
        self._scene, self._id = scene, ""

    def show(self, positions_ras_mm: Sequence[Sequence[float]]) -> None:
        """Show these points instead of the ones before."""
        node = self._scene.GetNodeByID(self._id) if self._id else None
        if node is None:
            if not positions_ras_mm:
                return
            node = self._add()
        node.RemoveAllControlPoints()
        for number, position in enumerate(positions_ras_mm, 1):
            node.AddControlPointWorld(vtk.vtkVector3d(*position), str(number))
        node.SetLocked(True)

    def positions(self) -> list[list[float]]:
        """What is shown, in RAS mm."""
        node = self._scene.GetNodeByID(self._id) if self._id else None
        found = []
        for number in range(node.GetNumberOfControlPoints() if node is not None else 0):
            position = [0.0, 0.0, 0.0]
            node.GetNthControlPointPositionWorld(number, position)
            found.append(position)
        return found

    def leave(self) -> None:
        """Remove the points."""
        node = self._scene.GetNodeByID(self._id) if self._id else None
        if node is not None:
            for display in [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]:
                self._scene.RemoveNode(display)
            self._scene.RemoveNode(node)
        self._id = ""

    def _add(self):
        node = self._scene.CreateNodeByClass("vtkMRMLMarkupsFiducialNode")
        node.UnRegister(None)
        node.SetName(_NAME)
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        node = self._scene.AddNode(node)
        self._id = node.GetID()
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetPropertiesLabelVisibility(False)
        return node


class ViewClicks:
    """Calls `clicked(view, position in RAS mm)` for a click with the left button that is no drag.

    `interactor_of(name)` gives the interactor of the view of that name, None for a view that is not on the screen.
    """

    def __init__(
        self,
        room: ReadingRoom,
        interactor_of: Callable[[str], object],
        clicked: Callable[[View, list[float]], None],
    ):
        self._room, self._interactor_of, self._clicked = room, interactor_of, clicked
        self._observed: list[tuple[object, int]] = []
        self._pressed: tuple[int, int] | None = None

    def watch(self) -> None:
        """Follow the views of the present layout instead of those before."""
        self.leave()
        for view in self._room.views:
            interactor = self._interactor_of(view.name)
            if interactor is None:
                continue
            for event, callback in (
                ("LeftButtonPressEvent", self._on_press),
                ("LeftButtonReleaseEvent", self._release_in(view)),
            ):
                self._observed.append((interactor, interactor.AddObserver(event, callback, _PRIORITY)))

    def leave(self) -> None:
        """Follow no view."""
        for interactor, tag in self._observed:
            interactor.RemoveObserver(tag)
        self._observed = []

    def _on_press(self, interactor, event=None) -> None:
        self._pressed = tuple(interactor.GetEventPosition())

    def _release_in(self, view: View) -> Callable:
        def on_release(interactor, event=None) -> None:
            pressed, self._pressed = self._pressed, None
            x, y = interactor.GetEventPosition()
            if pressed is not None and abs(x - pressed[0]) + abs(y - pressed[1]) <= _CLICK_PIXELS:
                self._clicked(view, self._position(view, x, y))

        return on_release

    def _position(self, view: View, x: int, y: int) -> list[float]:
        node = self._room.slice_node(view)
        return list(node.GetXYToRAS().MultiplyPoint((x, y, 0.0, 1.0))[:3])
