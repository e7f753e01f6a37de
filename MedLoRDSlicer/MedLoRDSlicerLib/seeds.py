"""Several seeds of one mask: the seeds, the volumes that belong together, and how much they differ."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
import slicer

from medlord.errors import InputError

from .arrays import set_volume, volume_from_node, volume_grid
from .dicom_markers import mark_item, mark_node, series_tags
from .recipes import is_synthetic
from .results import SYNTHETIC_ATTRIBUTES, SampleSet, folder_of, put_into_folder, recipe_of

__all__ = ["SampleSet", "add_standard_deviation", "random_seed", "sibling_seeds", "synthetic_siblings"]

# A spin box of Qt holds 32 bits; the engine itself takes seeds up to 2**63 - 1.
HIGHEST_SEED = 2**31 - 1
# What must be equal for volumes to differ by their noise alone.
_SAME = ("model", "weights_sha256", "attributes", "sampler", "steps", "control_scale", "guidance")
KIND_ATTRIBUTE = "MedLoRD.kind"
STANDARD_DEVIATION = "standard deviation over seeds"
_COLOURS = "MedLoRD standard deviation"
# Black, violet, red, orange, light yellow: lightness rises all the way, so it reads in print and with colour blindness.
_STOPS = ((0.0, 0.0, 0.0), (0.28, 0.07, 0.43), (0.70, 0.18, 0.36), (0.96, 0.49, 0.16), (0.99, 0.99, 0.75))


def random_seed() -> int:
    """A seed that nobody chose, 0 .. 2**31 - 1."""
    return random.SystemRandom().randrange(HIGHEST_SEED + 1)


def sibling_seeds(first: int, count: int) -> list[int]:
    """`count` seeds from `first` on, going on at 0 after the highest."""
    return [(first + number) % (HIGHEST_SEED + 1) for number in range(count)]


def synthetic_siblings(volume_node) -> list:
    """All volumes of the scene that differ from a synthetic one by their seed alone, itself included, by seed.

    Of several with the same seed the one in the volume's own folder is taken, else the first. Raises `InputError`
    when the volume carries no recipe.
    """
    recipe, grid, scene = recipe_of(volume_node), volume_grid(volume_node), volume_node.GetScene()
    found: dict[int, object] = {recipe["seed"]: volume_node}
    kind, own_folder = "vtkMRMLScalarVolumeNode", folder_of(volume_node)
    nodes = [scene.GetNthNodeByClass(number, kind) for number in range(scene.GetNumberOfNodesByClass(kind))]
    for node in sorted(nodes, key=lambda node: folder_of(node) != own_folder):
        if not is_synthetic(node) or node.GetImageData() is None:
            continue
        other = recipe_of(node)
        if not _differences(recipe, other) and volume_grid(node).matches(grid):
            found.setdefault(other["seed"], node)
    return [found[seed] for seed in sorted(found)]


def add_standard_deviation(scene, volume_nodes: Sequence, name: str | None = None):
    """Add the voxel-wise standard deviation (HU, n - 1) of volumes that differ by their seed alone; return its node.

    It is float32 on their grid with a colour map, lies beside the first one and says in the attribute
    `MedLoRD.seeds` what it was computed from. Raises `InputError` for fewer than two volumes, a seed that occurs
    twice, or volumes of other masks, settings or grids.
    """
    nodes = list(volume_nodes)
    if len(nodes) < 2:
        raise InputError(
            f"{len(nodes)} volume was given; a standard deviation needs at least 2 seeds of the same masks."
        )
    recipes = [recipe_of(node) for node in nodes]
    _require_siblings(nodes, recipes)
    grid = volume_grid(nodes[0])
    mean, squares = np.zeros(grid.shape), np.zeros(grid.shape)
    for count, node in enumerate(nodes, start=1):  # Welford: one volume in memory at a time, no cancellation
        array = volume_from_node(node).array.astype(np.float64)
        before = array - mean
        mean += before / count
        squares += before * (array - mean)
    deviation = np.sqrt(squares / (len(nodes) - 1)).astype(np.float32)
    result = scene.AddNewNodeByClass(
        "vtkMRMLScalarVolumeNode",
        scene.GenerateUniqueName(name or f"{nodes[0].GetName()} standard deviation of {len(nodes)} seeds"),
    )
    set_volume(result, deviation, grid.affine)
    seeds = ", ".join(str(recipe["seed"]) for recipe in recipes)
    result.SetAttribute(KIND_ATTRIBUTE, STANDARD_DEVIATION)
    result.SetAttribute("MedLoRD.seeds", seeds)
    for key, value in SYNTHETIC_ATTRIBUTES.items():
        result.SetAttribute(key, value)
    result.CreateDefaultDisplayNodes()
    _show_as_map(scene, result, deviation)
    tags = {**series_tags({**recipes[0], "seed": seeds}, "SD of CT"), "Modality": "OT"}
    mark_node(result, tags)
    item = put_into_folder(scene, result, None, beside=nodes[0])
    mark_item(slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene), item, tags)
    return result


def _require_siblings(nodes: Sequence, recipes: Sequence[Mapping]) -> None:
    """Raise `InputError` unless the volumes differ by their seed alone."""
    seeds = [recipe["seed"] for recipe in recipes]
    if len(set(seeds)) < len(seeds):
        raise InputError(
            f"The seeds {', '.join(map(str, seeds))} are not all different; give each volume once."
        )
    grid = volume_grid(nodes[0])
    for node, recipe in zip(nodes[1:], recipes[1:]):
        differences = _differences(recipes[0], recipe)
        if not volume_grid(node).matches(grid):
            differences.append("grid")
        if differences:
            raise InputError(
                f"'{node.GetName()}' and '{nodes[0].GetName()}' differ in more than their seed "
                f"({', '.join(differences)}); choose seeds of the same masks and settings."
            )


def _differences(one: Mapping, other: Mapping) -> list[str]:
    """Names of the settings in which two recipes differ, the seed left out."""
    found = [name for name in _SAME if one.get(name) != other.get(name)]
    hashes = [
        {name: entry["sha256"] for name, entry in recipe.get("conditions", {}).items()}
        for recipe in (one, other)
    ]
    return found + (["masks"] if hashes[0] != hashes[1] else [])


def _show_as_map(scene, node, deviation: np.ndarray) -> None:
    """Colours from 0 to the value that 99.5 % of the voxels stay below."""
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(_colour_node(scene).GetID())
    highest = max(float(np.percentile(deviation, 99.5)), 1.0)
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(highest, highest / 2)
    display.SetInterpolate(True)


def _colour_node(scene):
    """The colour map of standard deviations, made once per scene."""
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLColorTableNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLColorTableNode")
        if node.GetName() == _COLOURS:
            return node
    node = slicer.vtkMRMLColorTableNode()
    node.SetName(_COLOURS)
    node.SetTypeToUser()
    node.SetAttribute("Category", "MedLoRD")
    node.SetNumberOfColors(256)
    positions = np.linspace(0, 1, len(_STOPS))
    for number in range(256):
        color = [np.interp(number / 255, positions, [stop[part] for stop in _STOPS]) for part in range(3)]
        node.SetColor(number, f"{number}", *color, 1.0)
    return scene.AddNode(node)
