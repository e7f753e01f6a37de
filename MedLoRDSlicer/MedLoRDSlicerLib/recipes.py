"""What a synthetic volume tells of how it was made: settings for the panel, masks as a segmentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from medlord.recipe import Recipe
from medlord.volumes import Grid

from .conditions_table import by_hand_from_text
from .file_recipes import adopt_recipe
from .results import (
    BY_HAND_ATTRIBUTE,
    CONDITIONS_ROLE,
    RECIPE_ATTRIBUTE,
    REFERENCE_ROLE,
    SEGMENTATION_ROLE,
    recipe_of,
)
from .segments import add_segmentation


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run, as the panel and `SynthesisLogic.start` know them.

    `segmentation` is the drawn one where it is still in the scene (it may have been edited since), else the masks
    as they were used, else None; `reference` the CT it belonged to, or None. `device` is where the volume was made.
    """

    model: str
    model_version: str
    seed: int
    sampler: str
    steps: int
    control_scale: float
    attributes: dict[str, str]
    precision: str
    device: str
    center_ras_mm: tuple[float, float, float]
    conditions: list[str]
    segmentation: object = None
    reference: object = None
    by_hand: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """Keyword arguments for `SynthesisLogic.start(settings.segmentation, settings.model, ...)`.

        The device is not among them: this computer may have another one.
        """
        return {
            "seed": self.seed,
            "sampler": self.sampler,
            "steps": self.steps,
            "control_scale": self.control_scale,
            "attributes": dict(self.attributes),
            "precision": self.precision,
            "center_ras_mm": self.center_ras_mm,
            "reference": self.reference,
            "by_hand": dict(self.by_hand),
        }


def is_synthetic(node) -> bool:
    """True for a volume node that carries a recipe."""
    return node is not None and bool(node.GetAttribute(RECIPE_ATTRIBUTE))


def recipe_in(volume_node) -> Recipe:
    """The recipe of a synthetic volume, or that in the file it came from, checked.

    Raises `InputError` when there is none or it was damaged.
    """
    adopt_recipe(volume_node)
    recipe = Recipe.from_dict(recipe_of(volume_node))
    recipe.require_valid()
    return recipe


def settings_of(volume_node) -> RunSettings:
    """The settings that a synthetic volume was made with. Raises `InputError` when it carries no valid recipe."""
    recipe = recipe_in(volume_node)
    drawn = _reference(volume_node, SEGMENTATION_ROLE)
    used = _reference(volume_node, CONDITIONS_ROLE)
    by_hand = {}
    if drawn is not None and used is not None:
        by_hand = by_hand_from_text(used.GetAttribute(BY_HAND_ATTRIBUTE) or "")
    return RunSettings(
        model=recipe.model,
        model_version=recipe.model_version,
        seed=recipe.seed,
        sampler=recipe.sampler,
        steps=recipe.steps,
        control_scale=recipe.control_scale,
        attributes=dict(recipe.attributes),
        precision=recipe.precision,
        device=recipe.device,
        center_ras_mm=tuple(float(value) for value in Grid.from_dict(recipe.grid).center_ras_mm),
        conditions=list(recipe.conditions),
        segmentation=drawn if drawn is not None else used,
        reference=_reference(volume_node, REFERENCE_ROLE),
        by_hand=by_hand,
    )


def segmentation_from_recipe(scene, volume_node, name: str | None = None):
    """Add a segmentation with the masks inside a volume's recipe, for a volume that came without its scene.

    Raises `InputError` when there is no recipe or its masks were changed.
    """
    conditions = recipe_in(volume_node).unpack_conditions()
    name = scene.GenerateUniqueName(name or f"{volume_node.GetName()} conditions")
    node = add_segmentation(scene, conditions, name)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    if volume_node.GetNodeReference(CONDITIONS_ROLE) is None:
        volume_node.SetNodeReferenceID(CONDITIONS_ROLE, node.GetID())
    return node


def _reference(volume_node, role: str):
    """The node that a volume refers to, None when it is not in the volume's scene (any more)."""
    node = volume_node.GetNodeReference(role)
    return node if node is not None and node.GetScene() is volume_node.GetScene() else None
