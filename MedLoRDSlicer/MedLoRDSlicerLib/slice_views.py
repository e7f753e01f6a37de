"""Slice views of layouts of our own: their nodes, their place in the layout, what they show.

In the application the layout makes views and nodes; where no application is, the nodes are made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import slicer

from .arrays import affine_from_matrix

_COLOURS = {"Axial": "#F34A33", "Coronal": "#6EB04B", "Sagittal": "#EDD54C"}


def layout_node(scene):
    """The node of the layout, None in a program without views."""
    return scene.GetFirstNodeByClass("vtkMRMLLayoutNode")


def view_description(name: str, orientation: str, label: str, group: int) -> str:
    """A slice view as an item of a layout's XML; views of one group can be linked."""
    properties = {
        "orientation": orientation,
        "viewlabel": label,
        "viewcolor": _COLOURS[orientation],
        "viewgroup": str(group),
    }
    written = "".join(
        f'<property name="{key}" action="default">{value}</property>' for key, value in properties.items()
    )
    return f'<item><view class="vtkMRMLSliceNode" singletontag="{name}">{written}</view></item>'


def slice_node(scene, name: str, orientation: str, group: int):
    """The slice node of a view."""
    node = scene.GetSingletonNode(name, "vtkMRMLSliceNode")
    if node is None:
        node = slicer.vtkMRMLSliceNode()
        node.SetName(name)
        node.SetLayoutName(name)
        node.SetSingletonTag(name)
        node.SetViewGroup(group)
        node = scene.AddNode(node)
        node.SetOrientation(orientation)
    return node


def composite_node(scene, name: str):
    """The node that says which volumes a view shows."""
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLSliceCompositeNode")
        if node.GetLayoutName() == name:
            return node
    node = slicer.vtkMRMLSliceCompositeNode()
    node.SetLayoutName(name)
    node.SetSingletonTag(name)
    return scene.AddNode(node)


def fit_views(slice_nodes: Sequence, volume) -> None:
    """Centre views on a volume, at the largest scale at which all of it is seen in every one of them.

    Each gets a field of view (mm) in the proportion of its own size in pixels: they need not be equally large, and
    pixels stay square. Slicer's own fit takes one view at a time, which gives the two sides different scales.
    """
    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    center = (bounds[0::2] + bounds[1::2]) / 2
    corners = np.array(list(product(*bounds.reshape(3, 2)))) - center
    sizes = [np.maximum(node.GetDimensions()[:2], 1) for node in slice_nodes]
    mm_per_pixel = 0.0
    for node, size in zip(slice_nodes, sizes):
        across_and_up = affine_from_matrix(node.GetSliceToRAS())[:3, :2]
        needed_mm = 2 * np.abs(corners @ across_and_up).max(axis=0)
        mm_per_pixel = max(mm_per_pixel, float((needed_mm / size).max()))
    for node, size in zip(slice_nodes, sizes):
        width, height = (float(value) for value in mm_per_pixel * size)
        node.SetFieldOfView(width, height, node.GetFieldOfView()[2])
        node.SetXYZOrigin(0.0, 0.0, 0.0)
        for axis in range(3):
            node.GetSliceToRAS().SetElement(axis, 3, float(center[axis]))
        node.UpdateMatrices()
