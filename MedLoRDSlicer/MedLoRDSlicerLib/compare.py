"""The Compare layout: input and result side by side with linked slices and the contours of the conditions in both.

It has slice views of its own, so the user's other views keep what they show. `leave` restores the layout and the
display of every volume and segmentation that was changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medlord.errors import InputError

from .arrays import volume_grid
from .presets import apply_window
from .results import CONDITIONS_ROLE, REFERENCE_ROLE, SEGMENTATION_ROLE
from .slice_views import composite_node, fit_views, layout_node, slice_node, view_description

# Layouts of the application end at 100; others' custom ones usually start at 501.
LAYOUT_ID = 7301
# Views of one group are linked; no other layout uses this group.
VIEW_GROUP = 73
LEFT, RIGHT = "Left", "Right"
ORIENTATIONS = ("Axial", "Coronal")


def view_name(side: str, orientation: str) -> str:
    """Singleton tag of a slice view: `side` LEFT or RIGHT, `orientation` one of ORIENTATIONS."""
    return f"MedLoRD{side}{orientation}"


def result_conditions(volume_node):
    """The segmentation of the conditions that a synthetic volume was made from, None when it is gone."""
    return _node_of(volume_node, CONDITIONS_ROLE)


def input_volume_of(volume_node):
    """What a synthetic volume is compared with: its reference CT, else the volume it was drawn on, or None."""
    reference = _node_of(volume_node, REFERENCE_ROLE)
    if reference is not None:
        return reference
    drawn = _node_of(volume_node, SEGMENTATION_ROLE)
    if drawn is None:
        return None
    return drawn.GetNodeReference(drawn.GetReferenceImageGeometryReferenceRole())


class CompareView:
    """Shows two volumes of `scene` side by side in a layout of its own.

    The layout is made known at once, so that a scene that was saved in it can be loaded again.
    """

    def __init__(self, scene):
        self._scene = scene
        self._layout_before: int | None = None
        self._displays: dict[str, tuple[bool, bool, bool]] = {}
        self._windows: dict[str, tuple[bool, float, float]] = {}
        self._sides: dict[str, str | None] = {LEFT: None, RIGHT: None}
        self.swapped = False
        self._register_layout()

    @property
    def active(self) -> bool:
        """True while the layout is on the screen: the user may have chosen another one."""
        layout = self._layout_node()
        return layout is not None and layout.GetViewArrangement() == LAYOUT_ID

    def show(self, input_volume, result_volume, conditions=None) -> None:
        """Show an input (None: contours alone) on the left and a result on the right, with contours in both.

        `conditions` is the segmentation of the contours (default: that of the result). The first call remembers the
        present layout and fits the views; later ones keep the place that the user looks at.
        Raises `InputError` where there are no views and for a result without voxels.
        """
        layout = self._layout_node()
        if layout is None:
            raise InputError(
                "This program has no views, so nothing can be compared; use Slicer with its window."
            )
        volume_grid(result_volume)  # raises, before anything is changed, when there are no voxels
        first = not self.active or self._layout_before is None
        self._register_layout()
        if first:
            # A scene that was saved in this layout is loaded in it: what was there before is not known.
            before = layout.GetViewArrangement()
            self._layout_before = before if before != LAYOUT_ID else layout.SlicerLayoutFourUpView
            self.swapped = False
            layout.SetViewArrangement(LAYOUT_ID)
        self._sides = {
            LEFT: input_volume.GetID() if input_volume is not None else None,
            RIGHT: result_volume.GetID(),
        }
        if self.swapped:
            self._sides = {LEFT: self._sides[RIGHT], RIGHT: self._sides[LEFT]}
        self._fill_views()
        self._show_contours(conditions if conditions is not None else result_conditions(result_volume))
        if first:
            self.fit()

    def swap(self) -> None:
        """Exchange left and right."""
        if self.active:
            self.swapped = not self.swapped
            self._sides = {LEFT: self._sides[RIGHT], RIGHT: self._sides[LEFT]}
            self._fill_views()

    def apply_window(self, preset: str) -> None:
        """Show both volumes in a window of `presets.WINDOW_PRESETS`; `leave` gives them back the one they had."""
        for identifier in self._sides.values():
            node = self._scene.GetNodeByID(identifier) if identifier else None
            if node is None:
                continue
            display = node.GetDisplayNode()
            if display is not None:
                present = bool(display.GetAutoWindowLevel()), display.GetWindow(), display.GetLevel()
                self._windows.setdefault(display.GetID(), present)
            apply_window(node, preset)

    def fit(self, through_ras_mm: Sequence[float] | None = None) -> None:
        """Show the whole result in every view, its middle in the middle; both sides have one scale.

        The slices lie in the middle too, or go through a point (RAS mm).
        """
        result = self._scene.GetNodeByID(self._sides[LEFT if self.swapped else RIGHT] or "")
        if result is None:
            return
        for orientation in ORIENTATIONS:
            nodes = [self._slice_node(side, orientation) for side in (LEFT, RIGHT)]
            fit_views(nodes, result)
            for node in nodes if through_ras_mm is not None else ():
                node.JumpSliceByOffsetting(*through_ras_mm)

    def leave(self) -> None:
        """Restore the layout, unless the user chose another one meanwhile, and how volumes and segmentations look.

        Safe when volumes or the whole scene are gone.
        """
        layout = self._layout_node()
        if self.active and self._layout_before is not None:
            layout.SetViewArrangement(self._layout_before)
        self._layout_before = None
        self._restore_displays()
        self._sides = {LEFT: None, RIGHT: None}
        self.swapped = False

    def slice_nodes(self) -> Iterator[tuple[str, str, object]]:
        """All views as (side, orientation, slice node), as far as they exist."""
        for side in (LEFT, RIGHT):
            for orientation in ORIENTATIONS:
                node = self._scene.GetSingletonNode(view_name(side, orientation), "vtkMRMLSliceNode")
                if node is not None:
                    yield side, orientation, node

    def _layout_node(self):
        return layout_node(self._scene)

    def _register_layout(self) -> None:
        """Make the layout known, once per layout node."""
        layout = self._layout_node()
        if layout is not None and not layout.IsLayoutDescription(LAYOUT_ID):
            layout.AddLayoutDescription(LAYOUT_ID, _layout_description())

    def _slice_node(self, side: str, orientation: str):
        return slice_node(self._scene, view_name(side, orientation), orientation, VIEW_GROUP)

    def _composite_node(self, side: str, orientation: str):
        return composite_node(self._scene, view_name(side, orientation))

    def _fill_views(self) -> None:
        """Give every view its volume; linking is off meanwhile, since it would carry one volume to all views."""
        views = [
            (self._sides[side], self._slice_node(side, orientation), self._composite_node(side, orientation))
            for side in (LEFT, RIGHT)
            for orientation in ORIENTATIONS
        ]
        for *_, composite in views:
            composite.SetLinkedControl(False)
        for identifier, _, composite in views:
            composite.SetBackgroundVolumeID(identifier)
            composite.SetForegroundVolumeID(None)
            composite.SetLabelVolumeID(None)
        for *_, composite in views:
            composite.SetLinkedControl(True)

    def _show_contours(self, conditions) -> None:
        """Outlines of one segmentation; all others are hidden until `leave`."""
        for number in range(self._scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode")):
            node = self._scene.GetNthNodeByClass(number, "vtkMRMLSegmentationNode")
            display = node.GetDisplayNode()
            if display is None:
                continue
            if display.GetID() not in self._displays:
                self._displays[display.GetID()] = (
                    bool(display.GetVisibility()),
                    bool(display.GetVisibility2DFill()),
                    bool(display.GetVisibility2DOutline()),
                )
            display.SetVisibility(node is conditions)
            if node is conditions:
                display.SetVisibility2DFill(False)
                display.SetVisibility2DOutline(True)

    def _restore_displays(self) -> None:
        for identifier, (visible, fill, outline) in self._displays.items():
            display = self._scene.GetNodeByID(identifier)
            if display is not None and display.IsA("vtkMRMLSegmentationDisplayNode"):
                display.SetVisibility(visible)
                display.SetVisibility2DFill(fill)
                display.SetVisibility2DOutline(outline)
        self._displays.clear()
        for identifier, (automatic, window, level) in self._windows.items():
            display = self._scene.GetNodeByID(identifier)
            if display is not None and display.IsA("vtkMRMLScalarVolumeDisplayNode"):
                display.SetWindowLevel(window, level)
                display.SetAutoWindowLevel(automatic)
        self._windows.clear()


def _layout_description() -> str:
    """Two columns, one row per orientation, as the XML of Slicer's layouts."""
    rows = "".join(
        '<item><layout type="horizontal" split="true">'
        + "".join(_view_description(side, orientation) for side in (LEFT, RIGHT))
        + "</layout></item>"
        for orientation in ORIENTATIONS
    )
    return f'<layout type="vertical" split="true">{rows}</layout>'


def _view_description(side: str, orientation: str) -> str:
    # A number: L and R would read as sides of the patient.
    label = f"{orientation[0]}{1 if side == LEFT else 2}"
    return view_description(view_name(side, orientation), orientation, label, VIEW_GROUP)


def _node_of(volume_node, role: str):
    node = volume_node.GetNodeReference(role) if volume_node is not None else None
    return node if node is not None and node.GetScene() is volume_node.GetScene() else None
