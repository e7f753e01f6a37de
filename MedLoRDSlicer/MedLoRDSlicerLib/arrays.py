"""The one place where Slicer's arrays and the engine's meet.

VTK stores voxels with i fastest, so numpy (and `slicer.util`) sees them as [k, j, i]. The engine indexes
[i, j, k]. Both directions of that transposition are here and nowhere else. Affines map array indices to RAS mm.
"""

from __future__ import annotations

import numpy as np
import slicer
import vtk
import vtk.util.numpy_support

from medlord.errors import InputError
from medlord.volumes import Grid, Volume


def affine_from_matrix(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """The 4x4 float64 array of a VTK matrix."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def matrix_from_affine(affine: np.ndarray) -> vtk.vtkMatrix4x4:
    """The VTK matrix of a 4x4 array."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(affine, dtype=float).ravel().tolist())
    return matrix


def array_from_image(image: vtk.vtkImageData) -> np.ndarray:
    """Scalars of a VTK image as [i, j, k] without a copy; the first voxel is the lower corner of its extent."""
    shape_kji = tuple(reversed(image.GetDimensions()))
    scalars = image.GetPointData().GetScalars()
    if scalars is None or 0 in shape_kji:
        return np.zeros((0, 0, 0), dtype=np.uint8)
    return vtk.util.numpy_support.vtk_to_numpy(scalars).reshape(shape_kji).T


def grid_of_image(image) -> Grid:
    """Grid of a `vtkOrientedImageData`, whose extent may start anywhere: array index 0 is the extent's corner."""
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    affine = affine_from_matrix(matrix)
    extent = image.GetExtent()
    affine[:3, 3] += affine[:3, :3] @ np.array(extent[0::2], dtype=float)
    return Grid(tuple(max(0, high - low + 1) for low, high in zip(extent[0::2], extent[1::2])), affine)


def oriented_image(array: np.ndarray, affine: np.ndarray):
    """A `vtkOrientedImageData` (as segments hold it) with a copy of `array` [i, j, k]; bool becomes uint8."""
    image = slicer.vtkOrientedImageData()
    _fill(image, array)
    image.SetGeometryFromImageToWorldMatrix(matrix_from_affine(affine))
    return image


def set_volume(node, array: np.ndarray, affine: np.ndarray) -> None:
    """Give a volume node a copy of `array` [i, j, k] and its matrix; the array's type is kept."""
    image = vtk.vtkImageData()
    _fill(image, array)
    node.SetIJKToRASMatrix(matrix_from_affine(affine))
    node.SetAndObserveImageData(image)


def volume_grid(node) -> Grid:
    """World geometry of a scalar volume node, its linear parent transforms included; no voxel is read.

    Raises `InputError` for a node without voxels or below a transform that is not linear.
    """
    if node is None or node.GetImageData() is None:
        name = node.GetName() if node is not None else "none"
        raise InputError(f"The volume '{name}' holds no voxels; load or create its data first.")
    to_world = vtk.vtkMatrix4x4()
    parent = node.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        raise InputError(
            f"The volume '{node.GetName()}' lies under the transform '{parent.GetName()}', which is not linear; "
            "harden it first."
        )
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(parent, None, to_world)
    ijk_to_ras = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(ijk_to_ras)
    return Grid(
        node.GetImageData().GetDimensions(), affine_from_matrix(to_world) @ affine_from_matrix(ijk_to_ras)
    )


def volume_from_node(node) -> Volume:
    """Voxels and world geometry of a scalar volume node; raises `InputError` as `volume_grid` does."""
    grid = volume_grid(node)
    return Volume(array_from_image(node.GetImageData()).copy(), grid)


def _fill(image: vtk.vtkImageData, array: np.ndarray) -> None:
    """Dimensions and scalars of `image` from a copy of `array` [i, j, k]."""
    array = np.asarray(array)
    array = array.astype(np.uint8) if array.dtype == bool else array
    image.SetDimensions(*array.shape)
    scalars = vtk.util.numpy_support.numpy_to_vtk(np.ascontiguousarray(array.T).ravel(), deep=True)
    image.GetPointData().SetScalars(scalars)
