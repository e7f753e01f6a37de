"""A finished run in the scene: the CT, the conditions it was made from, a table of numbers, in one folder.

Volume and segmentation lie in world space without a parent transform. The segmentation may have been under one, but
the network saw its masks where that transform had put them; a volume of its own in that place stays true when the
transform is edited later, and keeps its place in a file, which holds no transforms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import vtk

from medlord.conditions import Conditions
from medlord.errors import EngineError, InputError
from medlord.volume_files import SLICER_RECIPE_KEY, save_volume, write_atomically
from medlord.volumes import Volume

from .arrays import oriented_image, set_volume, volume_from_node
from .dicom_markers import mark_item, mark_node, series_tags
from .headless import rendering_paused
from .results_table import StructureNumbers, add_seed_columns, add_table, measure_structure
from .segments import add_segmentation, condition_segment

RECIPE_ATTRIBUTE = SLICER_RECIPE_KEY
SYNTHETIC_ATTRIBUTES = {"MedLoRD.synthetic": "1", "synthetic": "1"}
DISPLAY_PRESET = "CT_ABDOMEN"
MEDIASTINAL_WINDOW_HU, MEDIASTINAL_LEVEL_HU = 400.0, 40.0

# Roles of the nodes that a synthetic volume refers to; they survive saving and loading of a scene.
CONDITIONS_ROLE = "MedLoRD.conditions"
SEGMENTATION_ROLE = "MedLoRD.segmentation"
REFERENCE_ROLE = "MedLoRD.reference"
TABLE_ROLE = "MedLoRD.table"
BY_HAND_ATTRIBUTE = "MedLoRD.by_hand"


@dataclass(frozen=True)
class RunNodes:
    """What one run added to the scene: subject-hierarchy folder item, CT, segmentation of the conditions, table."""

    folder_item: int
    volume: object
    conditions: object
    table: object


@dataclass
class SampleSet:
    """Several seeds of the same masks: their CTs lie as siblings in one folder, with one segmentation and one table.

    Give the same object to all runs. `name` is that of the folder. A run with other masks gets a folder of its own.
    """

    name: str | None = None
    nodes: RunNodes | None = None

    def fits(self, scene, recipe: Mapping) -> bool:
        """True when folder, segmentation and table are still in `scene` and hold the masks of `recipe`."""
        if self.nodes is None:
            return False
        here = [
            node is not None and node.GetScene() is scene
            for node in (self.nodes.conditions, self.nodes.table)
        ]
        if not all(here) or self.nodes.volume.GetScene() is not scene:
            return False
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        item = hierarchy.GetItemByDataNode(self.nodes.conditions)
        if not item or hierarchy.GetItemParent(item) != self.nodes.folder_item:
            return False
        return _mask_hashes(recipe) == _mask_hashes(recipe_of(self.nodes.volume))


@dataclass(frozen=True)
class Origin:
    """What a run came from: the segmentation as drawn, the CT it belongs to, volumes of the drawn masks in ml.

    Each may be None. `by_hand` is the text of the segments that the user chose for conditions (`by_hand_to_text`).
    """

    segmentation: object = None
    reference: object = None
    drawn_ml: Mapping[str, float] | None = None
    by_hand: str = ""


class Delivery:
    """The pieces of a result, made one structure per `step` before anything enters the scene.

    Segments and numbers of a dozen structures take longer than a main thread may be blocked; adding them does not.
    """

    def __init__(self, volume: Volume, conditions: Conditions):
        self.volume, self.conditions = volume, conditions
        self.numbers: list[StructureNumbers] = []
        self.segments: list[tuple[str, object]] = []
        self._left = list(conditions.masks)

    @property
    def done(self) -> bool:
        """True when all pieces are made."""
        return not self._left

    def step(self) -> None:
        """Make the pieces of one more structure; empty ones have none."""
        structure = self._left.pop(0)
        if self.conditions[structure].any():
            image = oriented_image(self.conditions[structure], self.conditions.grid.affine)
            self.segments.append((structure, condition_segment(structure, image)))
            self.numbers.append(measure_structure(self.volume, self.conditions, structure))

    def finish(self) -> Delivery:
        """Make all pieces that are left and return itself."""
        while not self.done:
            self.step()
        return self


def add_run(
    scene,
    volume: Volume,
    conditions: Conditions,
    name: str,
    details: dict[str, str],
    beside=None,
    *,
    origin: Origin | None = None,
    samples: SampleSet | None = None,
    pieces: Delivery | None = None,
) -> RunNodes:
    """Add a synthesized CT, its conditions and its numbers to `scene`, in a folder next to the node `beside`.

    `volume` carries its recipe; `details` become attributes `MedLoRD.<key>` of the CT. With `samples` that already
    have a folder the CT joins it. Names that exist already get a number: nothing is overwritten. When anything
    fails, every node added so far is removed again. `pieces` are those of a `Delivery`, where they were made before.
    """
    pieces = (pieces or Delivery(volume, conditions)).finish()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    known, known_items = set(_node_ids(scene)), set(_item_ids(hierarchy))
    joined = samples.nodes if samples is not None and samples.fits(scene, volume.recipe) else None
    with rendering_paused():
        try:
            ct_node = _add_ct(scene, volume, name, details)
            if joined is not None:
                nodes = RunNodes(joined.folder_item, ct_node, joined.conditions, joined.table)
            else:
                folder_name = (samples.name if samples else None) or f"{ct_node.GetName()} run"
                nodes = _add_companions(scene, ct_node, pieces, origin or Origin(), folder_name, beside)
            _refer(nodes, origin or Origin())
            for node in (nodes.volume,) if joined else (nodes.volume, nodes.conditions, nodes.table):
                _put_into(hierarchy, node, nodes.folder_item)
            mark_item(hierarchy, hierarchy.GetItemByDataNode(ct_node), series_tags(volume.recipe))
            if joined is not None:
                add_seed_columns(nodes.table, pieces.numbers, volume.recipe["seed"])
        except BaseException:
            for identifier in reversed([added for added in _node_ids(scene) if added not in known]):
                scene.RemoveNode(scene.GetNodeByID(identifier))
            for item in [added for added in _item_ids(hierarchy) if added not in known_items]:
                hierarchy.RemoveItem(item)
            raise
    if samples is not None and joined is None:
        samples.nodes = nodes
    return nodes


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
    node = scene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
    node.UnRegister(None)
    node.SetName(scene.GenerateUniqueName(name))
    # First, so that lists of synthetic volumes see at once that it is one.
    node.SetAttribute(RECIPE_ATTRIBUTE, json.dumps(volume.recipe))
    node = scene.AddNode(node)
    array = volume.array
    if array.dtype != np.int16:
        low, high = np.iinfo(np.int16).min, np.iinfo(np.int16).max
        array = np.clip(np.rint(array), low, high).astype(np.int16)
    set_volume(node, array, volume.grid.affine)
    mark_node(node, series_tags(volume.recipe))
    for key, value in details.items():
        node.SetAttribute(f"MedLoRD.{key}", value)
    for key, value in SYNTHETIC_ATTRIBUTES.items():
        node.SetAttribute(key, value)
    storage = scene.AddNewNodeByClass("vtkMRMLNRRDStorageNode")
    node.SetAndObserveStorageNodeID(storage.GetID())
    node.CreateDefaultDisplayNodes()
    apply_ct_display(node)
    return node


def _add_conditions(scene, pieces: Delivery, ct_node, origin: Origin):
    """The masks as the network saw them, drawn as outlines over the CT."""
    name = scene.GenerateUniqueName(f"{ct_node.GetName()} conditions")
    node = add_segmentation(scene, pieces.conditions, name, segments=pieces.segments)
    node.SetReferenceImageGeometryParameterFromVolumeNode(ct_node)
    node.GetDisplayNode().SetVisibility2DFill(False)
    # Not on the CT, whose file carries every attribute: IDs of segments may hold what a user typed.
    if origin.by_hand:
        node.SetAttribute(BY_HAND_ATTRIBUTE, origin.by_hand)
    return node


def _add_companions(scene, ct_node, pieces: Delivery, origin: Origin, folder_name: str, beside) -> RunNodes:
    """What a CT has beside it when it is the first of its masks: segmentation, table, folder."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    conditions_node = _add_conditions(scene, pieces, ct_node, origin)
    table_name = scene.GenerateUniqueName(f"{ct_node.GetName()} numbers")
    seed = pieces.volume.recipe.get("seed", 0)
    table_node = add_table(scene, table_name, pieces.numbers, origin.drawn_ml, seed)
    folder = hierarchy.CreateFolderItem(
        _folder_of(hierarchy, beside), hierarchy.GenerateUniqueItemName(folder_name)
    )
    return RunNodes(folder, ct_node, conditions_node, table_node)


def _refer(nodes: RunNodes, origin: Origin) -> None:
    """Let the CT know its conditions, its table and what it came from."""
    found = {
        CONDITIONS_ROLE: nodes.conditions,
        TABLE_ROLE: nodes.table,
        SEGMENTATION_ROLE: origin.segmentation,
        REFERENCE_ROLE: origin.reference,
    }
    for role, node in found.items():
        if node is not None:
            nodes.volume.SetNodeReferenceID(role, node.GetID())


def _mask_hashes(recipe: Mapping) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in recipe.get("conditions", {}).items()}


def _node_ids(scene) -> list[str]:
    """IDs of all nodes, in the order they were added."""
    return [scene.GetNthNode(number).GetID() for number in range(scene.GetNumberOfNodes())]


def add_folder(scene, name: str) -> int:
    """Add a subject-hierarchy folder at the top and return its item; a name that exists gets a number."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    return hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), hierarchy.GenerateUniqueItemName(name))


def put_into_folder(scene, node, folder: int | None, beside=None) -> int:
    """Put a node into a folder, or into the one in which the node `beside` lies; returns its item."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    _put_into(hierarchy, node, _folder_of(hierarchy, beside) if folder is None else folder)
    return hierarchy.GetItemByDataNode(node)


def folder_of(node) -> int:
    """The subject-hierarchy item under which a node of a scene lies."""
    return _folder_of(slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene()), node)


def _item_ids(hierarchy) -> list[int]:
    """All items of the subject hierarchy."""
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    return [items.GetId(number) for number in range(items.GetNumberOfIds())]


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
