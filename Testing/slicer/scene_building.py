"""Segmentations for tests: what a user draws, built from arrays [i, j, k]."""

from __future__ import annotations

import numpy as np
import slicer
import vtk

from medlord.volumes import Grid
from MedLoRDSlicerLib.arrays import affine_from_matrix, array_from_image, oriented_image
from MedLoRDSlicerLib.geometry import set_reference_geometry

BINARY, SURFACE = "Binary labelmap", "Closed surface"
SHAPE = (24, 20, 16)
AFFINE = np.array([[10.0, 0, 0, -115], [0, 12, 0, -110], [0, 0, 14, -100], [0, 0, 0, 1]])


def rotation(angles_degree: tuple[float, float, float]) -> np.ndarray:
    """3x3 rotation about x, then y, then z."""
    transform = vtk.vtkTransform()
    for turn, angle in zip(
        (transform.RotateX, transform.RotateY, transform.RotateZ), angles_degree, strict=True
    ):
        turn(angle)
    return affine_from_matrix(transform.GetMatrix())[:3, :3]


def oblique_affine() -> np.ndarray:
    """Anisotropic voxels, rotated about all axes, left-handed."""
    affine = np.eye(4)
    affine[:3, :3] = rotation((20, -15, 35)) @ np.diag([-9.0, 12.0, 15.0])
    affine[:3, 3] = (90.0, -120.0, -70.0)
    return affine


def box(
    low: tuple[int, int, int], high: tuple[int, int, int], shape: tuple[int, int, int] = SHAPE
) -> np.ndarray:
    """A mask that is set from index `low` up to, not including, `high`."""
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def add_segmentation(
    scene, masks: dict[str, np.ndarray], affine: np.ndarray = AFFINE, reference: bool = True
):
    """A segmentation node with one segment per mask, named so; with its reference geometry unless told otherwise."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Drawing")
    segmentation = node.GetSegmentation()
    if reference and masks:
        set_reference_geometry(segmentation, Grid(next(iter(masks.values())).shape, affine))
    for name, mask in masks.items():
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.AddRepresentation(BINARY, oriented_image(mask, affine))
        segmentation.AddSegment(segment)
    return node


def add_chest(scene, affine: np.ndarray = AFFINE):
    """Body with two lungs inside it (overlapping, as bodies are drawn) and a spine."""
    lungs = box((4, 5, 3), (10, 14, 13)) | box((14, 5, 3), (20, 14, 13))
    masks = {"body": box((1, 1, 0), (23, 19, 16)), "lungs": lungs, "bone": box((11, 14, 0), (13, 17, 16))}
    return add_segmentation(scene, masks, affine)


def put_under(scene, node, matrix: np.ndarray):
    """Put `node` under a new linear transform (4x4, to parent)."""
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Move")
    transform.SetMatrixTransformToParent(_matrix(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def world_points(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """RAS mm of all voxels of a mask, sorted, to compare masks on different grids."""
    points = np.argwhere(mask) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    return points[np.lexsort(np.round(points, 3).T)]


def fingerprint(node) -> list:
    """All that a user could see changed in a segmentation node."""
    segmentation = node.GetSegmentation()
    found = [node.GetName(), node.GetTransformNodeID(), segmentation.GetSourceRepresentationName()]
    for segment_id in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segment_id)
        image = segment.GetRepresentation(BINARY)
        voxels = None if image is None else array_from_image(image).tobytes()
        found.append(
            (segment_id, segment.GetName(), segment.GetColor(), segment.GetRepresentation(SURFACE), voxels)
        )
    return found


def scene_content(scene) -> list[tuple[str, str, str]]:
    """ID, class and name of every node, and the names in the subject hierarchy."""
    nodes = [scene.GetNthNode(number) for number in range(scene.GetNumberOfNodes())]
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    names = [hierarchy.GetItemName(items.GetId(number)) for number in range(items.GetNumberOfIds())]
    return [(node.GetID(), node.GetClassName(), node.GetName()) for node in nodes] + [
        ("", "item", name) for name in names
    ]


def _matrix(matrix: np.ndarray) -> vtk.vtkMatrix4x4:
    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, dtype=float).ravel().tolist())
    return result
