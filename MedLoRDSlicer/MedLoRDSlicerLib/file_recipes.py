"""Synthetic volumes that were loaded from a file alone get back their recipe, and the marks that they are synthetic.

A scene keeps the attributes of its nodes. A volume's file keeps them in its header, but Slicer's reader of scalar
volumes does not bring them to the node, so the header is looked at here.
"""

from __future__ import annotations

import json

import slicer

from medlord.errors import MedlordError
from medlord.recipe import Recipe
from medlord.recipe_headers import recipe_in_header

from .dicom_markers import mark_item, mark_node, series_tags
from .results import RECIPE_ATTRIBUTE, SYNTHETIC_ATTRIBUTES


def adopt_recipe(volume_node) -> bool:
    """Give a volume node the recipe in its file, with the marks of a synthetic volume; False when it gets none.

    A node whose file holds none, or that has one already, stays as it is. One whose recipe this version cannot run
    gets the marks alone: what it is must not be lost on the way to a DICOM export.
    """
    storage = volume_node.GetStorageNode()
    if volume_node.GetAttribute(RECIPE_ATTRIBUTE) or storage is None or not storage.GetFileName():
        return False
    found = recipe_in_header(storage.GetFullNameFromFileName())
    if found is None:
        return False
    for key, value in SYNTHETIC_ATTRIBUTES.items():
        volume_node.SetAttribute(key, value)
    tags = series_tags(found)
    mark_node(volume_node, tags)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume_node.GetScene())
    if item := hierarchy.GetItemByDataNode(volume_node):
        mark_item(hierarchy, item, tags)
    try:
        Recipe.from_dict(found).require_valid()
    except MedlordError:
        return False
    for key in ("model", "seed"):
        volume_node.SetAttribute(f"MedLoRD.{key}", str(found[key]))
    volume_node.SetAttribute(RECIPE_ATTRIBUTE, json.dumps(found))
    return True
