"""Where in world space the model's grid goes for a segmentation, before any engine is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import slicer

from medlord.conditions import Conditions
from medlord.errors import InputError
from medlord.volumes import Grid

from .arrays import volume_grid

if TYPE_CHECKING:
    from medlord.bundles.description import ModelDescription

CANVAS_ATTRIBUTE = "MedLoRD.canvas"

Point = tuple[float, float, float]


def is_canvas(node) -> bool:
    """True for a blank volume that was made to draw on."""
    return node is not None and node.GetAttribute(CANVAS_ATTRIBUTE) == "1"


def source_volume_of(segmentation_node):
    """The volume whose geometry a segmentation is drawn on, None when it has none."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentation_node.GetNodeReference(role)


def is_frame_of_sequence(node) -> bool:
    """True for a node that shows one frame of a sequence at a time, as Slicer's Sequences module keeps it."""
    sequences = getattr(slicer.modules, "sequences", None)
    return sequences is not None and sequences.logic().GetFirstBrowserNodeForProxyNode(node) is not None


def grid_center(
    segmentation_node,
    conditions: Conditions,
    description: ModelDescription,
    reference=None,
    region=None,
    center_ras_mm: Point | None = None,
) -> Point | None:
    """Where the middle of the model's grid goes, in RAS mm; None leaves it to the engine (middle of all masks).

    In this order: `center_ras_mm`; the middle of the `region` (a markups ROI node); the middle of the `reference`
    (a volume node), or of the canvas that the segmentation was drawn on, if all masks fit in a grid there.
    Raises `InputError` for a point that is none and for a reference without voxels.
    """
    if center_ras_mm is not None:
        return _checked(center_ras_mm, "The centre")
    if region is not None:
        center = [0.0, 0.0, 0.0]
        region.GetCenterWorld(center)
        return _checked(center, f"The centre of the region '{region.GetName()}'")
    source = source_volume_of(segmentation_node)
    volume = reference if reference is not None else source if is_canvas(source) else None
    if volume is None:
        return None
    center, half = volume_grid(volume).center_ras_mm, np.asarray(description.extent_mm) / 2
    low, high = conditions.bounding_box_ras_mm()
    fits = (low >= center - half - 1e-3).all() and (high <= center + half + 1e-3).all()
    return tuple(float(value) for value in center) if fits else None


def model_grid(conditions: Conditions, description: ModelDescription, center_ras_mm: Point | None) -> Grid:
    """The model's grid around a point in RAS mm, or around the middle of all masks when it is None."""
    if center_ras_mm is None:
        low, high = conditions.bounding_box_ras_mm()
        center_ras_mm = tuple((low + high) / 2)
    return description.grid_at(center_ras_mm)


def _checked(point, what: str) -> Point:
    values = np.asarray(point, dtype=float)
    if values.shape != (3,) or not np.isfinite(values).all():
        raise InputError(f"{what} is {point}; it must be three finite numbers in RAS mm.")
    return tuple(values.tolist())
