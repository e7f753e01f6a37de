"""What a reader sees: slice views of their own, filled with one case, under a name that tells its number alone.

The voxels come into the scene without a file, so no node knows a path. The user's layout, views and displays are left
as they are or restored; nodes of the room are hidden from editors and never saved with the scene.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medlord.errors import InputError
from medlord.review.study import LAYOUTS

from ..arrays import set_volume, volume_grid
from ..slice_views import composite_node, fit_views, layout_node, slice_node, view_description

if TYPE_CHECKING:
    from medlord.review.case_files import CaseVoxels

# Layouts of the application end at 100; Compare has 7301.
FIRST_LAYOUT_ID = 7311
VIEW_GROUP = 74
ONE, LEFT, RIGHT = "", "Left", "Right"
ORIENTATIONS = {
    "axial": ("Axial",),
    "two-planes": ("Axial", "Coronal"),
    "three-planes": ("Axial", "Coronal", "Sagittal"),
}
_THROUGH_PLANE = {"Sagittal": 0, "Coronal": 1, "Axial": 2}
_ONE_COLOUR = (1.0, 0.75, 0.0)


@dataclass(frozen=True)
class View:
    """One slice view: `side` ONE, LEFT or RIGHT, and its orientation."""

    side: str
    orientation: str

    @property
    def name(self) -> str:
        """Singleton tag of its nodes."""
        return f"MedLoRDReview{self.side}{self.orientation}"


class ReadingRoom:
    """Shows cases in a layout of its own. `sides` is 2 for pairs; `mask_names` names the labels of masks."""

    def __init__(self, scene, sides: int = 1, mask_names: Sequence[str] = ()):
        self.scene = scene
        self.sides = (ONE,) if sides == 1 else (LEFT, RIGHT)
        self.layout = LAYOUTS[-1]
        self._mask_names = tuple(mask_names)
        self._layout_before: int | None = None
        self._visible_before: list[str] = []
        self._nodes: dict[tuple[str, str], str] = {}  # (what, side) -> ID
        self._current_view, self._covered = 0, True

    @property
    def active(self) -> bool:
        """True from `enter` to `leave`."""
        return self._layout_before is not None

    @property
    def views(self) -> list[View]:
        """The views of the present layout, from left to right."""
        return [View(side, plane) for side in self.sides for plane in ORIENTATIONS[self.layout]]

    @property
    def current_view(self) -> View:
        """The view that the arrow keys move."""
        return self.views[self._current_view % len(self.views)]

    def enter(self) -> None:
        """Take over the layout and hide what else the scene shows; raises `InputError` where there are no views."""
        layout = layout_node(self.scene)
        if layout is None:
            raise InputError(
                "This program has no views, so nothing can be read in it; use Slicer with its window, or 'medlord "
                "review answer'."
            )
        before = layout.GetViewArrangement()
        self._layout_before = layout.SlicerLayoutFourUpView if _is_ours(before) else before
        self._hide_displays()
        for side in self.sides:
            self._add_volume("case", side, "vtkMRMLScalarVolumeNode")
            if self._mask_names:
                self._add_mask(side)

    def leave(self) -> None:
        """Remove all nodes of the room; restore displays, and the layout unless the user chose another one.

        Safe when the scene was closed meanwhile.
        """
        layout = layout_node(self.scene)
        if layout is not None and self.active and _is_ours(layout.GetViewArrangement()):
            layout.SetViewArrangement(self._layout_before)
        self._layout_before = None
        for node in self.nodes():
            self.scene.RemoveNode(node)
        self._nodes.clear()
        for identifier in self._visible_before:
            display = self.scene.GetNodeByID(identifier)
            if display is not None:
                display.SetVisibility(True)
        self._visible_before = []

    def show(self, name: str, cases: Sequence[tuple[CaseVoxels, CaseVoxels | None]]) -> None:
        """Fill the views with the volumes (and masks) of one reading, under the name of its number."""
        if len(cases) != len(self.sides):
            raise ValueError(f"{len(cases)} cases for {len(self.sides)} sides of the reading room")
        for side, (voxels, mask) in zip(self.sides, cases):
            node = self._node("case", side)
            node.SetName(name if side == ONE else f"{name} {side.lower()}")
            set_volume(node, voxels.array, voxels.grid.affine)
            if mask is not None:
                set_volume(self._node("mask", side), mask.array, mask.grid.affine)
        self._fill_views()

    def cover(self) -> None:
        """Show nothing; the views stay."""
        self._covered = True
        for view in self.views:
            composite = composite_node(self.scene, view.name)
            composite.SetBackgroundVolumeID(None)
            composite.SetLabelVolumeID(None)

    def uncover(self) -> None:
        """Show again what `cover` took away."""
        self._fill_views()

    def set_layout(self, layout: str) -> None:
        """Arrange the views as one of `LAYOUTS`; raises `InputError` for another word."""
        if layout not in LAYOUTS:
            raise InputError(f"There is no layout '{layout}'; choose one of {', '.join(LAYOUTS)}.")
        self.layout, self._current_view = layout, 0
        node = layout_node(self.scene)
        identifier = FIRST_LAYOUT_ID + LAYOUTS.index(layout) + len(LAYOUTS) * (len(self.sides) - 1)
        if not node.IsLayoutDescription(identifier):
            node.AddLayoutDescription(identifier, _layout_description(self.views, self.sides))
        node.SetViewArrangement(identifier)
        for view in self.views:
            self.slice_node(view)
        if not self._covered:
            self._fill_views()

    def set_window(self, width_hu: float, level_hu: float) -> None:
        """Show all volumes in a window (HU)."""
        for side in self.sides:
            display = self._node("case", side).GetDisplayNode()
            display.SetAutoWindowLevel(False)
            display.SetWindowLevel(width_hu, level_hu)

    def fit(self) -> None:
        """Show the whole volumes in all views, at their middle."""
        for view in self.views:
            volume = self._node("case", view.side)
            if volume.GetImageData() is None:
                continue
            node = self.slice_node(view)
            node.SetOrientation(view.orientation)
            fit_views([node], volume)

    def choose_view(self, steps: int) -> View:
        """Let the arrow keys move the view that is `steps` further on; returns it."""
        self._current_view = (self._current_view + steps) % len(self.views)
        return self.current_view

    def move(self, slices: int) -> float:
        """Move the current view by whole slices, within the volume; returns its new place in mm."""
        view = self.current_view
        node = self.slice_node(view)
        grid = volume_grid(self._node("case", view.side))
        axis = _THROUGH_PLANE[view.orientation]
        # The grid of the cases runs along the body's axes.
        step = float(np.abs(grid.affine[axis, :3]).max())
        reach = (grid.shape[int(np.argmax(np.abs(grid.affine[axis, :3])))] - 1) / 2 * step
        middle = float(grid.center_ras_mm[axis])
        place = node.GetSliceOffset() + slices * step
        node.SetSliceOffset(float(np.clip(place, middle - reach, middle + reach)))
        return node.GetSliceOffset()

    def toggle_mask(self) -> bool:
        """Show or hide the outlines of the masks; returns whether they are shown."""
        composites = [composite_node(self.scene, view.name) for view in self.views]
        shown = not composites[0].GetLabelOpacity()
        for composite in composites:
            composite.SetLabelOpacity(float(shown))
        return shown

    def nodes(self) -> list:
        """All nodes that the room added to the scene, displays and colours included."""
        found = [self.scene.GetNodeByID(identifier) for identifier in self._nodes.values()]
        shown = [
            node.GetNthDisplayNode(number) for node in found if node for number in range(_displays(node))
        ]
        return [node for node in (*found, *shown) if node is not None]

    def slice_node(self, view: View):
        """The slice node of a view."""
        return slice_node(self.scene, view.name, view.orientation, VIEW_GROUP)

    def _node(self, what: str, side: str):
        return self.scene.GetNodeByID(self._nodes[what, side])

    def _add_volume(self, what: str, side: str, kind: str):
        node = self._add(what, side, kind)
        node.CreateDefaultDisplayNodes()
        _keep_private(node.GetDisplayNode())
        return node

    def _add(self, what: str, side: str, kind: str):
        node = self.scene.CreateNodeByClass(kind)
        node.UnRegister(None)
        _keep_private(node)
        node.SetName("Case")
        node = self.scene.AddNode(node)
        self._nodes[what, side] = node.GetID()
        return node

    def _add_mask(self, side: str) -> None:
        if ("colours", ONE) not in self._nodes:
            colours = self._add("colours", ONE, "vtkMRMLColorTableNode")
            _fill_colours(colours, self._mask_names)
        node = self._add_volume("mask", side, "vtkMRMLLabelMapVolumeNode")
        node.SetName("Mask")
        node.GetDisplayNode().SetAndObserveColorNodeID(self._nodes["colours", ONE])

    def _fill_views(self) -> None:
        self._covered = False
        for view in self.views:
            node = self.slice_node(view)
            composite = composite_node(self.scene, view.name)
            composite.SetLinkedControl(False)
            composite.SetBackgroundVolumeID(self._nodes["case", view.side])
            composite.SetForegroundVolumeID(None)
            composite.SetLabelVolumeID(self._nodes.get(("mask", view.side)))
            composite.SetLabelOpacity(1.0)
            node.SetUseLabelOutline(True)

    def _hide_displays(self) -> None:
        """Segmentations, models and markups of the user would be drawn over the cases."""
        kind = "vtkMRMLDisplayNode"
        for number in range(self.scene.GetNumberOfNodesByClass(kind)):
            display = self.scene.GetNthNodeByClass(number, kind)
            if not display.IsA("vtkMRMLVolumeDisplayNode") and display.GetVisibility():
                display.SetVisibility(False)
                self._visible_before.append(display.GetID())


def _displays(node) -> int:
    return node.GetNumberOfDisplayNodes() if node.IsA("vtkMRMLDisplayableNode") else 0


def _keep_private(node) -> None:
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)


def _fill_colours(node, names: Sequence[str]) -> None:
    """One colour per label, around the circle; label 0 is clear."""
    node.SetTypeToUser()
    node.SetNumberOfColors(len(names) + 1)
    node.SetColor(0, "background", 0.0, 0.0, 0.0, 0.0)
    for number, name in enumerate(names, 1):
        red, green, blue = _ONE_COLOUR if len(names) == 1 else _hue((number - 1) / len(names))
        node.SetColor(number, name, red, green, blue, 1.0)


def _hue(share: float) -> tuple[float, float, float]:
    return colorsys.hsv_to_rgb(share, 0.85, 1.0)


def _is_ours(arrangement: int) -> bool:
    return FIRST_LAYOUT_ID <= arrangement < FIRST_LAYOUT_ID + 2 * len(LAYOUTS)


def _layout_description(views: Sequence[View], sides: Sequence[str]) -> str:
    """One case: the axial view large, others beside it. A pair: a column for each, planes below one another."""

    def item(view: View) -> str:
        number = "" if view.side == ONE else str(1 + sides.index(view.side))
        return view_description(view.name, view.orientation, f"{view.orientation[0]}{number}", VIEW_GROUP)

    def stack(kind: str, items: Sequence[str]) -> str:
        return f'<layout type="{kind}" split="true">{"".join(items)}</layout>'

    if len(sides) == 1:
        first, *others = map(item, views)
        if len(others) < 2:
            return stack("horizontal", [first, *others])
        return stack("horizontal", [first, f"<item>{stack('vertical', others)}</item>"])
    columns = [[item(view) for view in views if view.side == side] for side in sides]
    return stack("horizontal", [f"<item>{stack('vertical', column)}</item>" for column in columns])
