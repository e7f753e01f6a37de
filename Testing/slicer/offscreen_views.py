"""Slice views without a window: Slicer's own slice logic and displayable managers, drawn into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
import vtk
import vtk.util.numpy_support

# What draws in a slice view of Slicer and matters here; cameras and crosshairs do not.
_MANAGERS = ("vtkMRMLSegmentationsDisplayableManager2D",)


class OffscreenSliceView:
    """One slice view of a headless scene: the volume that its composite node names, contours on top."""

    def __init__(self, application_logic, slice_node, size: tuple[int, int] = (320, 260)):
        self.node = slice_node
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(application_logic)
        self.logic.SetMRMLScene(slice_node.GetScene())
        self.logic.SetSliceNode(slice_node)
        if application_logic.GetSliceLogics() is None:
            application_logic.SetSliceLogics(vtk.vtkCollection())
        application_logic.GetSliceLogics().AddItem(self.logic)
        self.logic.ResizeSliceNode(*size)
        slice_node.SetDimensions(*size, 1)
        mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        self._mapper = mapper
        actor = vtk.vtkActor2D()
        actor.SetMapper(mapper)
        self._renderer = vtk.vtkRenderer()
        self._renderer.AddViewProp(actor)
        self._actor = actor
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(True)
        self._window.SetSize(*size)
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        # VTK's default style turns cameras and takes all events of a drag for itself; Slicer's slice views have none.
        self._interactor.SetInteractorStyle(None)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(application_logic)
        for name in _MANAGERS:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._managers = factory.InstantiateDisplayableManagers(self._renderer)
        self._managers.SetMRMLDisplayableNode(slice_node)

    def picture(self) -> np.ndarray:
        """What the view shows: (row, column, RGB) uint8, first row on top."""
        self.logic.UpdatePipeline()
        connection = self.logic.GetImageDataConnection()
        self._actor.SetVisibility(connection is not None)
        if connection is not None:
            self._mapper.SetInputConnection(connection)
        self._window.Render()
        grabber = vtk.vtkWindowToImageFilter()
        grabber.SetInput(self._window)
        grabber.ReadFrontBufferOff()
        grabber.ShouldRerenderOff()
        grabber.Update()
        image = grabber.GetOutput()
        columns, rows, _ = image.GetDimensions()
        flat = vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
        return flat.reshape(rows, columns, -1)[::-1, :, :3].copy()

    def close(self) -> None:
        """Let go of scene and window."""
        self._managers.SetMRMLDisplayableNode(None)
        self._window.Finalize()
        self.logic.SetMRMLScene(None)


def coloured(picture: np.ndarray) -> np.ndarray:
    """Which pixels are no grey: contours, since a CT is grey."""
    values = picture.astype(int)
    return values.max(axis=2) - values.min(axis=2) > 40


def side_by_side(rows: list[list[np.ndarray]], gap: int = 4) -> np.ndarray:
    """Pictures of one size in rows and columns with a grey line between them."""
    height, width = rows[0][0].shape[:2]
    whole = np.full(
        (len(rows) * (height + gap) - gap, len(rows[0]) * (width + gap) - gap, 3), 90, dtype=np.uint8
    )
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            top, left = row * (height + gap), column * (width + gap)
            whole[top : top + height, left : left + width] = picture
    return whole


def save_picture(path: Path, picture: np.ndarray) -> Path:
    """Write (row, column, RGB) uint8 as PNG, or as JPEG of quality 88 where the name ends so."""
    rows, columns = picture.shape[:2]
    image = vtk.vtkImageData()
    image.SetDimensions(columns, rows, 1)
    flat = np.ascontiguousarray(picture[::-1]).reshape(-1, 3)
    image.GetPointData().SetScalars(vtk.util.numpy_support.numpy_to_vtk(flat, deep=True))
    if path.suffix == ".jpg":
        writer = vtk.vtkJPEGWriter()
        writer.SetQuality(88)
    else:
        writer = vtk.vtkPNGWriter()
        writer.SetCompressionLevel(9)
    writer.SetFileName(str(path))
    writer.SetInputData(image)
    writer.Write()
    return path


def add_grey_colours(scene) -> None:
    """The colour node of grey volumes, which the application adds to every scene."""
    node = slicer.vtkMRMLColorTableNode()
    node.SetTypeToGrey()
    node.SetSingletonTag(node.GetTypeAsString())
    node.SetSaveWithScene(False)
    scene.AddNode(node)
