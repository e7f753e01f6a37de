"""Segmentations for tests: what a user draws, built from arrays [i, j, k]."""

from __future__ import annotations

from pathlib import Path

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


def small_model(**changes):
    """The description of a model that is never run: 320 x 320 x 240 mm in 20 x 20 x 30 mm voxels."""
    from medlord.bundles.description import ModelDescription

    fields = {
        "id": "small",
        "version": "1.0",
        "networks": {},
        "weights_sha256": {},
        "schedule": {},
        "prediction_type": "v_prediction",
        "scale_factor": 1.0,
        "grid_shape": (16, 16, 8),
        "spacing_mm": (20.0, 20.0, 30.0),
        "orientation": "RAS",
        "conditions": ["body", "lung", "bone", "aorta"],
        "attributes": {},
        "window_hu": (-1000.0, 1000.0),
        "licence": "Apache-2.0",
    }
    return ModelDescription(**{**fields, **changes})


def synthetic(grid: Grid, masks: dict[str, np.ndarray], seed: int, **changes):
    """A volume in HU that depends on the seed alone, with a whole recipe, and its conditions; no engine ran."""
    from dataclasses import replace

    from medlord.conditions import Conditions
    from medlord.recipe import Recipe, pack_conditions
    from medlord.volumes import Volume

    conditions = Conditions(grid, masks)
    recipe = Recipe(
        model="small",
        model_version="1.0",
        weights_sha256={"models/denoiser.safetensors": "0" * 64},
        conditions=pack_conditions(conditions),
        attributes={"contrast_phase": "arterial"},
        seed=seed,
        sampler="unipc",
        steps=3,
        control_scale=1.0,
        guidance=1.0,
        grid=grid.to_dict(),
        precision="float32",
    )
    noise = np.random.default_rng(seed).normal(0, 30, grid.shape)
    hu = np.where(masks["body"], 40, -1000) + noise
    recipe = replace(recipe, **changes)
    return Volume(np.rint(hu).astype(np.int16), grid, recipe.to_dict()), conditions


def chest_masks() -> dict[str, np.ndarray]:
    """Body, lung and bone of `add_chest` as masks."""
    lungs = box((4, 5, 3), (10, 14, 13)) | box((14, 5, 3), (20, 14, 13))
    return {"body": box((1, 1, 0), (23, 19, 16)), "lung": lungs, "bone": box((11, 14, 0), (13, 17, 16))}


def folder_content(scene, folder_item: int) -> list[str]:
    """Names of what lies in a subject-hierarchy folder."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(folder_item, items, False)
    return [hierarchy.GetItemName(items.GetId(number)) for number in range(items.GetNumberOfIds())]


def save_and_load(scene, path: Path) -> None:
    """Save a scene as .mrb, close it, load it again."""
    scene.SetRootDirectory(str(path.parent))
    if scene.GetDataIOManager() is None:  # the application has one; bundles are unpacked in its cache folder
        cache = slicer.vtkCacheManager()
        cache.SetRemoteCacheDirectory(str(path.parent))
        manager = slicer.vtkDataIOManager()
        manager.SetCacheManager(cache)
        scene.SetDataIOManager(manager)
    assert scene.WriteToMRB(str(path))
    scene.Clear()
    assert scene.ReadFromMRB(str(path))
