"""Draws as a user does: the Segment Editor's own logic, with the functions that its Draw effect calls."""

from __future__ import annotations

import math

import numpy as np
import slicer
import vtk

from MedLoRDSlicerLib.placement import source_volume_of

_CORNERS = 24


class SegmentEditor:
    """Slicer's Segment Editor without its widgets, on the editor node that `prepare_segment_editor` returned."""

    def __init__(self, scene, application_logic, editor_node):
        self.node = editor_node
        self._logic = slicer.vtkSlicerSegmentEditorLogic()
        self._logic.SetMRMLApplicationLogic(application_logic)
        self._logic.SetMRMLScene(scene)
        self._logic.SetSegmentEditorNode(editor_node)
        self._slice = slicer.vtkMRMLSliceNode()
        self._slice.SetLayoutName("Drawing")
        self._slice.SetSingletonTag("Drawing")
        self._slice = scene.AddNode(self._slice)
        self._slice.SetOrientation("Axial")
        self._slice.SetDimensions(400, 400, 1)
        self._slice.SetFieldOfView(400, 400, 1)

    def draw_ellipsoid(self, segment_id: str, center_ras_mm, radii_mm) -> None:
        """Outline an ellipsoid slice by slice in the axial view, as with the effect Draw, and apply it once."""
        volume = source_volume_of(self.node.GetSegmentationNode())
        spacing = volume.GetSpacing()[2]
        self.node.SetSelectedSegmentID(segment_id)
        assert self._logic.SaveStateForUndo()
        assert self._logic.UpdateReferenceGeometryImage()
        assert self._logic.ResetModifierLabelmapToDefault()
        labelmap = self._logic.GetModifierLabelmap()
        bounds = np.zeros(6)
        volume.GetRASBounds(bounds)
        for height in np.arange(bounds[4] + spacing / 2, bounds[5], spacing):
            share = 1 - ((height - center_ras_mm[2]) / radii_mm[2]) ** 2
            if share > 0:
                self._slice.SetSliceOffset(float(height))
                outline = self._outline(center_ras_mm, radii_mm, math.sqrt(share), height)
                self._logic.AppendPolyMask(labelmap, outline, self._slice, self.node.GetSegmentationNode())
        self._logic.ModifySegmentByLabelmap(
            self.node.GetSegmentationNode(),
            segment_id,
            labelmap,
            self._logic.ModificationModeAdd,
            False,
            False,
        )

    def undo(self) -> None:
        """Take back the last stroke."""
        self._logic.Undo()

    def _outline(self, center, radii, scale: float, height: float) -> vtk.vtkPolyData:
        """A closed polygon in the view's pixels."""
        to_xy = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self._slice.GetXYToRAS(), to_xy)
        points, polygon = vtk.vtkPoints(), vtk.vtkCellArray()
        polygon.InsertNextCell(_CORNERS)
        for corner in range(_CORNERS):
            angle = 2 * math.pi * corner / _CORNERS
            x = center[0] + radii[0] * scale * math.cos(angle)
            y = center[1] + radii[1] * scale * math.sin(angle)
            column, row, *_rest = to_xy.MultiplyPoint((x, y, float(height), 1.0))
            polygon.InsertCellPoint(points.InsertNextPoint(column, row, 0.0))
        outline = vtk.vtkPolyData()
        outline.SetPoints(points)
        outline.SetPolys(polygon)
        return outline
