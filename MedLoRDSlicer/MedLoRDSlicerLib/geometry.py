"""Binary labelmaps of a segmentation in world space, whatever representation and transform it has.

The segmentation node is never changed: conversions and non-linear transforms work on a copy outside the scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk

from medlord.errors import InputError
from medlord.volumes import Grid, resample_mask

from .arrays import affine_from_matrix, array_from_image, grid_of_image, matrix_from_affine

BINARY = "Binary labelmap"
_WHOLE_VOXEL_TOLERANCE = 1e-3


@dataclass
class WorldSegmentation:
    """A `vtkSegmentation` with binary labelmaps, the grid that all masks share and the matrix from there to world."""

    segmentation: object
    local_grid: Grid
    local_to_world: np.ndarray

    @property
    def grid(self) -> Grid:
        """The shared grid in world space (RAS mm)."""
        return Grid(self.local_grid.shape, self.local_to_world @ self.local_grid.affine)

    def mask(self, segment_id: str) -> np.ndarray:
        """One segment as bool [i, j, k] on the shared grid; a segment without voxels is an empty mask."""
        segment = self.segmentation.GetSegment(segment_id)
        result = np.zeros(self.local_grid.shape, dtype=bool)
        image = segment.GetRepresentation(BINARY)
        if image is None or image.IsEmpty():
            return result
        part = array_from_image(image) == segment.GetLabelValue()
        source = grid_of_image(image)
        start = _whole_voxel_offset(source, self.local_grid)
        if start is None:
            return resample_mask(part, source, self.local_grid)
        low = np.maximum(start, 0)
        high = np.minimum(start + part.shape, self.local_grid.shape)
        if (high > low).all():
            inner = tuple(slice(a, b) for a, b in zip(low - start, high - start))
            result[tuple(slice(a, b) for a, b in zip(low, high))] = part[inner]
        return result


def world_segmentation(node, snapshot: bool = False) -> WorldSegmentation:
    """Bring a `vtkMRMLSegmentationNode` to binary labelmaps on one grid with its parent transforms.

    With `snapshot` it is a copy in any case: what is drawn afterwards does not change it.
    The grid is the segmentation's reference geometry (with its oversampling), enlarged where a segment reaches
    beyond it; without one it is the common grid of the binary labelmaps. Rotation, translation, mirroring and
    uniform scaling move the grid, so no voxel is interpolated; any other transform resamples the copy as Slicer's
    "harden transform" does.
    Raises `InputError` for a node without segments, without a geometry or with a representation that cannot be
    converted to binary labelmaps.
    """
    name = node.GetName()
    segmentation = node.GetSegmentation()
    if segmentation is None or segmentation.GetNumberOfSegments() == 0:
        raise InputError(
            f"The segmentation '{name}' has 0 segments; draw or load at least one and run again."
        )
    _require_geometry(node)
    local_to_world, warp = _transform(node)
    if snapshot or warp is not None or not _has_every_labelmap(segmentation):
        segmentation = _converted_copy(segmentation, warp, name)
    local_grid = _common_grid(segmentation, name)
    world = WorldSegmentation(segmentation, local_grid, local_to_world)
    world.grid.validate(f"The segmentation '{name}'")
    return world


def reference_geometry(segmentation) -> str:
    """The serialised reference geometry of a `vtkSegmentation`, empty when it was never set."""
    return segmentation.GetConversionParameter(
        slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
    )


def set_reference_geometry(segmentation, grid: Grid) -> None:
    """Make `grid` the geometry on which segments are drawn and converted."""
    image = slicer.vtkOrientedImageData()
    image.SetExtent(0, grid.shape[0] - 1, 0, grid.shape[1] - 1, 0, grid.shape[2] - 1)
    image.SetGeometryFromImageToWorldMatrix(matrix_from_affine(grid.affine))
    segmentation.SetConversionParameter(
        slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName(),
        slicer.vtkSegmentationConverter.SerializeImageGeometry(image),
    )


def _require_geometry(node) -> None:
    """Refuse a segmentation that no grid can be taken from: no reference geometry and no labelmap with voxels."""
    segmentation = node.GetSegmentation()
    if reference_geometry(segmentation):
        return
    for segment_id in segmentation.GetSegmentIDs():
        image = segmentation.GetSegment(segment_id).GetRepresentation(BINARY)
        if image is not None and not image.IsEmpty():
            return
    raise InputError(
        f"The segmentation '{node.GetName()}' has no geometry (no reference volume and no labelmap with voxels); "
        "choose its source volume in the Segment Editor, or set its geometry, and run again."
    )


def _has_every_labelmap(segmentation) -> bool:
    """True when no segment has to be converted; an empty segment has nothing to convert."""
    if segmentation.GetSourceRepresentationName() == BINARY:
        return True
    return segmentation.ContainsRepresentation(BINARY)


def _transform(node) -> tuple[np.ndarray, vtk.vtkGeneralTransform | None]:
    """Matrix to world of the node's parent transforms, or the identity and the transform that a copy is warped by."""
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4), None
    if parent.IsTransformToWorldLinear():
        matrix = vtk.vtkMatrix4x4()
        slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(parent, None, matrix)
        affine = affine_from_matrix(matrix)
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise InputError(
                f"The transform '{parent.GetName()}' above the segmentation '{node.GetName()}' is singular or not "
                "finite; correct it in the Transforms module and run again."
            )
        gram = affine[:3, :3].T @ affine[:3, :3]
        if np.abs(gram / gram[0, 0] - np.eye(3)).max() <= 1e-6:
            return affine, None
    warp = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(parent, None, warp)
    return np.eye(4), warp


def _converted_copy(segmentation, warp: vtk.vtkGeneralTransform | None, name: str):
    """A copy outside the scene, warped when asked, with binary labelmaps."""
    copy = slicer.vtkSegmentation()
    copy.DeepCopy(segmentation)
    if warp is not None:
        copy.ApplyNonLinearTransform(warp)
    # A warp bends the source representation only; what was converted from it before is outdated.
    outdated = warp is not None and copy.GetSourceRepresentationName() != BINARY
    if (outdated or not _has_every_labelmap(copy)) and not copy.CreateRepresentation(BINARY):
        raise InputError(
            f"The segmentation '{name}' ({copy.GetSourceRepresentationName()}) cannot be converted to binary "
            "labelmaps; create that representation in the Segmentations module and run again."
        )
    return copy


def _common_grid(segmentation, name: str) -> Grid:
    """The grid of the reference geometry joined with all labelmaps, in the segmentation's own coordinates."""
    segment_ids = vtk.vtkStringArray()
    for segment_id in segmentation.GetSegmentIDs():
        segment_ids.InsertNextValue(segment_id)
    mode = slicer.vtkSegmentation.EXTENT_UNION_OF_EFFECTIVE_SEGMENTS_AND_REFERENCE_GEOMETRY
    geometry = segmentation.DetermineCommonLabelmapGeometry(mode, segment_ids)
    grid = grid_of_geometry(geometry) if geometry else None
    if grid is None or min(grid.shape) < 1:
        raise InputError(
            f"All segments of '{name}' are empty (0 voxels); draw at least one structure and run again."
        )
    return grid


def grid_of_geometry(geometry: str) -> Grid:
    """The grid of a serialised image geometry, as `reference_geometry` returns it."""
    image = slicer.vtkOrientedImageData()
    slicer.vtkSegmentationConverter.DeserializeImageGeometry(geometry, image, False)
    return grid_of_image(image)


def _whole_voxel_offset(part: Grid, whole: Grid) -> np.ndarray | None:
    """Index in `whole` of the first voxel of `part` when both have the same lattice, else None."""
    between = np.linalg.inv(whole.affine) @ part.affine
    if np.abs(between[:3, :3] - np.eye(3)).max() * max(part.shape) > 0.01:
        return None
    offset = np.rint(between[:3, 3])
    return offset.astype(int) if np.abs(between[:3, 3] - offset).max() < _WHOLE_VOXEL_TOLERANCE else None
