"""A finished run in the scene: the CT, the conditions it was made from, one subject-hierarchy folder, provenance.

Both nodes lie in world space without a parent transform. The segmentation may have been under one, but the network
saw its masks where that transform had put them; a volume of its own in that place stays true when the transform is
edited later, and keeps its place in a file, which holds no transforms.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer

from medlord.conditions import Conditions
from medlord.errors import EngineError, InputError
from medlord.volume_files import save_volume, write_atomically
from medlord.volumes import Volume

from .arrays import set_volume, volume_from_node
from .segments import add_segmentation

RECIPE_ATTRIBUTE = "MedLoRD.recipe"
SYNTHETIC_ATTRIBUTES = {"MedLoRD.synthetic": "1", "synthetic": "1"}
DISPLAY_PRESET = "CT_ABDOMEN"
MEDIASTINAL_WINDOW_HU, MEDIASTINAL_LEVEL_HU = 400.0, 40.0


@dataclass(frozen=True)
class RunNodes:
    """What one run added to the scene: subject-hierarchy folder item, CT node, segmentation of the conditions."""

    folder_item: int
    volume: object
    conditions: object


def add_run(
    scene, volume: Volume, conditions: Conditions, name: str, details: dict[str, str], beside=None
) -> RunNodes:
    """Add a synthesized CT and its conditions to `scene`, in a folder of their own next to the node `beside`.

    `volume` carries its recipe; `details` become attributes `MedLoRD.<key>` of the CT. Names that exist already get
    a number: nothing is overwritten. When anything fails, every node added so far is removed again.
    """
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    known = set(_node_ids(scene))
    folder = None
    try:
        ct_node = _add_ct(scene, volume, name, details)
        conditions_node = _add_conditions(scene, conditions, ct_node)
        folder = hierarchy.CreateFolderItem(
            _folder_of(hierarchy, beside), hierarchy.GenerateUniqueItemName(f"{ct_node.GetName()} run")
        )
        for node in (ct_node, conditions_node):
            _put_into(hierarchy, node, folder)
    except BaseException:
        for identifier in reversed([added for added in _node_ids(scene) if added not in known]):
            scene.RemoveNode(scene.GetNodeByID(identifier))
        if folder is not None:
            hierarchy.RemoveItem(folder)
        raise
    return RunNodes(folder, ct_node, conditions_node)


def recipe_of(volume_node) -> dict:
    """The recipe that a synthetic volume node carries. Raises `InputError` when it has none."""
    text = volume_node.GetAttribute(RECIPE_ATTRIBUTE)
    if not text:
        raise InputError(
            f"The volume '{volume_node.GetName()}' carries no MedLoRD recipe; choose a synthesized volume."
        )
    return json.loads(text)


def save_ct(volume_node, path: str | Path) -> Path:
    """Write a synthetic volume to NIfTI or NRRD with its recipe and the synthetic mark in the header."""
    volume = volume_from_node(volume_node)
    return save_volume(volume, path, recipe=recipe_of(volume_node), synthetic=True)


def save_segmentation(segmentation_node, path: str | Path) -> Path:
    """Write a segmentation as Slicer does (.seg.nrrd: names, terminology, colours, geometry), whole or not at all.

    The file holds the segmentation in its own coordinates, without parent transforms. A copy is written, since
    writing merges labelmaps and the node is the user's. Raises `InputError` for another ending, `EngineError` when
    it cannot be written.
    """
    path = Path(path)
    if not path.name.endswith(".seg.nrrd"):
        raise InputError(f"{path.name} has an unknown ending; a segmentation is saved as .seg.nrrd.")

    copy = slicer.vtkMRMLSegmentationNode()
    copy.SetName(segmentation_node.GetName())
    copy.GetSegmentation().DeepCopy(segmentation_node.GetSegmentation())

    def write(temporary: Path) -> None:
        storage = slicer.vtkMRMLSegmentationStorageNode()
        storage.SetFileName(str(temporary))
        if not storage.WriteData(copy):
            raise EngineError(
                f"The segmentation '{segmentation_node.GetName()}' could not be written to {path.name}."
            )

    write_atomically(path, write)
    return path


def show_in_slices(scene, volume_node) -> None:
    """Make a volume the background of all slice views."""
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
        scene.GetNthNodeByClass(number, "vtkMRMLSliceCompositeNode").SetBackgroundVolumeID(
            volume_node.GetID()
        )


def apply_ct_display(volume_node) -> None:
    """Mediastinal window: Slicer's preset where its data is installed, else window 400 HU, level 40 HU."""
    display = volume_node.GetDisplayNode()
    volumes = getattr(getattr(slicer, "modules", None), "volumes", None)
    logic = volumes.logic() if volumes is not None else None
    if logic is not None and (Path(logic.GetModuleShareDirectory()) / "VolumeDisplayPresets.json").is_file():
        if logic.ApplyVolumeDisplayPreset(display, DISPLAY_PRESET):
            return
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(MEDIASTINAL_WINDOW_HU, MEDIASTINAL_LEVEL_HU)


def _add_ct(scene, volume: Volume, name: str, details: dict[str, str]):
    """The CT as int16 with its provenance; its NRRD storage writes every attribute into the file."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(name))
    low, high = np.iinfo(np.int16).min, np.iinfo(np.int16).max
    set_volume(node, np.clip(np.rint(volume.array), low, high).astype(np.int16), volume.grid.affine)
    node.SetAttribute(RECIPE_ATTRIBUTE, json.dumps(volume.recipe))
    for key, value in details.items():
        node.SetAttribute(f"MedLoRD.{key}", value)
    for key, value in SYNTHETIC_ATTRIBUTES.items():
        node.SetAttribute(key, value)
    storage = scene.AddNewNodeByClass("vtkMRMLNRRDStorageNode")
    node.SetAndObserveStorageNodeID(storage.GetID())
    node.CreateDefaultDisplayNodes()
    apply_ct_display(node)
    return node


def _add_conditions(scene, conditions: Conditions, ct_node):
    """The masks as the network saw them, drawn as outlines over the CT."""
    name = scene.GenerateUniqueName(f"{ct_node.GetName()} conditions")
    node = add_segmentation(scene, conditions, name)
    node.SetReferenceImageGeometryParameterFromVolumeNode(ct_node)
    node.GetDisplayNode().SetVisibility2DFill(False)
    return node


def _node_ids(scene) -> list[str]:
    """IDs of all nodes, in the order they were added."""
    return [scene.GetNthNode(number).GetID() for number in range(scene.GetNumberOfNodes())]


def _folder_of(hierarchy, beside) -> int:
    """The item under which `beside` lies, or the scene's own item."""
    item = hierarchy.GetItemByDataNode(beside) if beside is not None else 0
    return hierarchy.GetItemParent(item) if item else hierarchy.GetSceneItemID()


def _put_into(hierarchy, node, folder: int) -> None:
    """Slicer makes an item for every node by itself, plain Python does not."""
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, folder)
    else:
        hierarchy.CreateItem(folder, node)
