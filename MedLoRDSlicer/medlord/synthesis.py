"""From conditions to a CT: Recipe -> validate -> run -> Result."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .condition_channels import check_attributes
from .conditions import Conditions
from .errors import InputError, WeightsError
from .generation import Result, RunOptions, require_memory, run_recipe, sampler_of
from .progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from .recipe import Recipe, library_versions, pack_conditions
from .resources import BUNDLED_MODEL
from .volumes import Grid, Volume, require_ct, resample_mask

if TYPE_CHECKING:
    from .bundles.bundle import ModelBundle
    from .bundles.description import ModelDescription
    from .bundles.loaded_models import LoadedModels
    from .sampling.samplers import Sampler

_LOST_SHARE = 0.01


def synthesize(
    conditions: Conditions | None = None,
    model: str | Path = BUNDLED_MODEL,
    *,
    seed: int = 0,
    sampler: str = "sde-dpm-solver++",
    steps: int | None = None,
    control_scale: float = 1.0,
    attributes: Mapping[str, str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    reference: Volume | None = None,
    center_ras_mm: tuple[float, float, float] | None = None,
    unconditional: bool = False,
    loaded: ModelBundle | None = None,
    models: LoadedModels | None = None,
    memory_limit: int | None = None,
    preview_every: int = 0,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Result:
    """Synthesize a CT that follows `conditions`, or one that follows the seed alone.

    The latter (`conditions` None or without masks) is all that a model without control makes; of one with control it
    must be asked by `unconditional`. The model's grid is placed in world space around `center_ras_mm`, else around the
    middle of `reference` (a CT that belongs to the masks) if all masks fit there, else around the box of all masks or,
    without masks, the origin; nothing is stretched. `steps=None` takes the sampler's default. `attributes` chooses e.g.
    {"contrast_phase": "arterial"}; the default is each first value. `loaded` is a bundle that is already in memory.
    `memory_limit` (bytes), `preview_every` (steps) and `models` (kept between runs) are those of `RunOptions`.
    Memory is planned first, before masks are placed and weights are loaded.

    Raises `InputError`, `WeightsError`, `InsufficientMemoryError` or `CancelledError`.
    """
    if reference is not None:
        require_ct(reference, "The reference")
    description = _description_of(model, loaded)
    is_placed = center_ras_mm is not None or reference is not None
    wanted, chosen, warnings = _steering(conditions, description, unconditional, attributes, is_placed)
    chain = sampler_of(description, sampler, steps)
    scale = 0.0 if wanted is None else float(control_scale)
    grid = description.grid_at(_center(wanted, description.extent_mm, reference, center_ras_mm))
    recipe = _new_recipe(description, chain, seed, chosen, scale, grid, _compute(device, precision))
    recipe.require_valid()
    options = RunOptions(device, memory_limit, preview_every, models)
    require_memory(recipe, model, loaded, options)
    # Not before: importing torch and the first plan belong to no phase.
    started = time.perf_counter()
    placed, more = _placed_conditions(wanted, Grid.from_dict(recipe.grid), progress, cancel)
    recipe = replace(recipe, conditions=pack_conditions(placed))
    timings = {"condition": time.perf_counter() - started}
    return run_recipe(recipe, placed, model, loaded, options, timings, warnings + more, progress, cancel)


def _new_recipe(
    description: ModelDescription,
    chain: Sampler,
    seed: int,
    attributes: dict[str, str],
    control_scale: float,
    grid: Grid,
    compute: dict[str, str],
) -> Recipe:
    """The recipe of a run, still without its masks; `compute` is that of `_compute`."""
    return Recipe(
        model=description.id,
        model_version=description.version,
        weights_sha256=description.weights_sha256,
        settings_sha256=description.settings_sha256,
        conditions={},
        attributes=attributes,
        seed=seed,
        sampler=chain.name,
        steps=chain.steps,
        control_scale=control_scale,
        guidance=1.0,
        grid=grid.to_dict(),
        **compute,
        versions=library_versions(),
    )


def follows_masks(
    description: ModelDescription,
    names: Sequence[str],
    unconditional: bool,
    attributes: Mapping[str, str] | None = None,
) -> bool:
    """Whether masks (`names` were given) steer a run of this model.

    Raises `InputError` for masks or attributes that would have no effect, and for a model that takes masks when there
    are none and no unconditional volume was asked for.
    """
    if names and not description.takes_masks:
        raise InputError(
            f"The model '{description.id}' takes no masks, so its volumes would not follow {', '.join(names)}; leave "
            "the masks away, or choose a model that takes them."
        )
    if names and unconditional:
        raise InputError(
            f"An unconditional volume was asked for and masks were given ({', '.join(names)}); leave one away."
        )
    follows = description.takes_masks and not unconditional
    if follows and not names:
        raise InputError(
            f"The segmentation holds no structure, and the model '{description.id}' follows one; draw or load at "
            "least one and run again, or ask for an unconditional volume."
        )
    if attributes and not follows:
        raise InputError(
            f"The attribute {next(iter(attributes))} has no effect on a volume without masks; leave it away."
        )
    return follows


def _steering(
    conditions: Conditions | None,
    description: ModelDescription,
    unconditional: bool,
    attributes: Mapping[str, str] | None,
    is_placed: bool,
) -> tuple[Conditions | None, dict[str, str], list[str]]:
    """(the model's conditions or None for a run without, its attributes, what to tell the user)."""
    warnings = _about_the_model(description)
    names = conditions.names if conditions is not None else []
    if not follows_masks(description, names, unconditional, attributes):
        if not is_placed:
            warnings.append("Note: no centre was given, so the volume lies around the origin of world space.")
        return None, {}, warnings
    conditions.require_content()
    wanted, more = _wanted_conditions(conditions, description)
    chosen = {**description.default_attributes, **(attributes or {})}
    check_attributes(chosen, description.attributes)
    return wanted, chosen, warnings + more


def _about_the_model(description: ModelDescription) -> list[str]:
    """What must be known of every volume of a model."""
    from .bundles.description import OWN_RANGE

    if description.intensity_map != OWN_RANGE:
        return []
    low, high = description.window_hu
    return [
        f"HU are relative: '{description.id}' was trained on volumes scaled by their own minimum and maximum, shown "
        f"here as {low:g} and {high:g} HU."
    ]


def repeat_recipe(
    recipe: Recipe,
    *,
    model: str | Path | None = None,
    device: str = "auto",
    loaded: ModelBundle | None = None,
    models: LoadedModels | None = None,
    memory_limit: int | None = None,
    preview_every: int = 0,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Result:
    """Run a recipe again: the same volume, bit for bit on the same machine and libraries.

    `model` names a bundle's folder when the recipe's model is not installed; the other arguments are those of
    `synthesize`. Other library versions are allowed and said in the warnings.

    Raises `InputError` for a recipe that cannot be run and a model that is not there, `WeightsError` for one with other
    weights or settings than the recipe's, and what `run_recipe` raises.
    """
    recipe.require_valid()
    try:
        description = _description_of(model or recipe.model, loaded)
    except InputError as error:
        if model is not None:
            raise
        raise InputError(
            f"The recipe's model '{recipe.model}' (version {recipe.model_version}) is not installed; install or import "
            "it, or give its bundle's folder as the model."
        ) from error
    model = model or recipe.model
    _require_model_of(recipe, description)
    conditions = recipe.unpack_conditions()
    if recipe.control_scale > 0:
        conditions.require_content()
    current, warnings = library_versions(), _about_the_model(description)
    changed = [
        f"{name} {old} -> {current.get(name, 'absent')}"
        for name, old in recipe.versions.items()
        if current.get(name) != old
    ]
    if changed:
        warnings.append(
            f"The volume was made with other versions ({', '.join(changed)}); small differences are possible."
        )
    recipe = replace(
        recipe,
        **_compute(device, recipe.precision),
        versions=current,
        settings_sha256=description.settings_sha256,
    )
    options = RunOptions(device, memory_limit, preview_every, models)
    return run_recipe(recipe, conditions, model, loaded, options, {}, warnings, progress, cancel)


def _description_of(model: str | Path, loaded: ModelBundle | None) -> ModelDescription:
    from .bundles.bundle import find_model
    from .bundles.description import read_description

    return loaded.description if loaded else read_description(find_model(model))


def _require_model_of(recipe: Recipe, description: ModelDescription) -> None:
    """Raise `WeightsError` or `InputError` unless the model can make the recipe's volume."""
    this = f"The model '{description.id}' (version {description.version})"
    made_by = f"the recipe's, '{recipe.model}' (version {recipe.model_version})"
    files = sorted({*recipe.weights_sha256, *description.weights_sha256})
    other = [
        name for name in files if recipe.weights_sha256.get(name) != description.weights_sha256.get(name)
    ]
    if other:
        raise WeightsError(
            f"{this} has other weights than {made_by}: {', '.join(map(str, other))}; give the model that made the "
            "volume, by its id or folder."
        )
    if recipe.settings_sha256 and recipe.settings_sha256 != description.settings_sha256:
        raise WeightsError(
            f"{this} has the weights of {made_by}, but other settings (scale factor, noise schedule, HU window, masks "
            "or sizes of the networks); import it with those of the volume."
        )
    if tuple(recipe.grid["shape"]) != tuple(description.grid_shape):
        raise InputError(
            f"The recipe's grid has {recipe.grid['shape']} voxels, the model's {list(description.grid_shape)}; "
            "the recipe was changed."
        )
    unknown = sorted(set(recipe.conditions) - set(description.conditions))
    if unknown:
        raise InputError(
            f"The recipe has conditions that its model lacks ({', '.join(unknown)}); it was changed."
        )
    check_attributes(recipe.attributes, description.attributes)


def _compute(device: str, precision: str) -> dict[str, str]:
    from .devices import choose_device, choose_precision

    target = choose_device(device)
    return {"device": str(target), "precision": choose_precision(precision, target)}


def _wanted_conditions(conditions: Conditions, description: ModelDescription) -> tuple[Conditions, list[str]]:
    """The model's conditions out of what the user gave, and what to tell about the rest."""
    from .unused_names import why_unused
    from .vocabulary import load_vocabulary

    vocabulary = load_vocabulary()
    wanted, names, missing = vocabulary.assemble(conditions, description.conditions)
    wanted.require_content()
    found = [vocabulary.match(name=name, wanted=description.conditions) for name in names]
    unused = [(name, match and match.structure) for name, match in zip(names, found)]
    warnings = why_unused(
        unused, vocabulary.plan(conditions.names, description.conditions), description.conditions
    )
    if missing:
        warnings.append(f"Note: not given, so left to the model: {', '.join(missing)}.")
    return _with_nodules_in_lung(wanted), warnings


def _with_nodules_in_lung(wanted: Conditions) -> Conditions:
    """The same masks with the nodules' voxels in the lung as well, as in training: a nodule is a part of the lung.

    A nodule painted over the lung in the Segment Editor takes its voxels away, which leaves a hole that no model saw.
    """
    if "lung" not in wanted or "lung_nodules" not in wanted:
        return wanted
    return Conditions(wanted.grid, {**wanted.masks, "lung": wanted["lung"] | wanted["lung_nodules"]})


def _center(
    conditions: Conditions | None,
    extent_mm: np.ndarray,
    reference: Volume | None,
    center_ras_mm: tuple | None,
) -> np.ndarray:
    """Where the middle of a grid of `extent_mm` (along R, A, S) goes, in RAS mm."""
    if center_ras_mm is not None:
        center = np.asarray(center_ras_mm, dtype=float)
        if center.shape != (3,) or not np.isfinite(center).all():
            raise InputError(f"The centre {center_ras_mm} is no position of three numbers in RAS mm.")
        return center
    if conditions is None:
        return np.zeros(3) if reference is None else reference.grid.center_ras_mm
    low, high = conditions.bounding_box_ras_mm()
    if reference is not None:
        center, half = reference.grid.center_ras_mm, np.asarray(extent_mm) / 2
        if (low >= center - half).all() and (high <= center + half).all():
            return center
    return (low + high) / 2


def _placed_conditions(
    wanted: Conditions | None, grid: Grid, progress: Progress | None, cancel: Cancel | None
) -> tuple[Conditions, list[str]]:
    """The masks on the model's grid, and what was lost on the way; raises `InputError` when nothing is left."""
    if wanted is None:
        return Conditions(grid, {}), []
    clock, masks = PhaseClock("condition", len(wanted.masks), progress), {}
    for name, mask in wanted.masks.items():
        raise_if_cancelled(cancel, "placing the masks")
        masks[name] = resample_mask(mask, wanted.grid, grid)
        clock.report(len(masks))
    placed = Conditions(grid, masks)
    warnings = _placement_warnings(wanted, placed)
    if not any(mask.any() for mask in placed.masks.values()):
        raise InputError(
            f"Nothing of {', '.join(wanted.names)} lies within the model's field of view of "
            f"{' x '.join(f'{n:.0f}' for n in np.asarray(grid.shape) * grid.spacing_mm)} mm around "
            f"{np.round(grid.center_ras_mm, 1).tolist()} (RAS mm); choose another centre or reference."
        )
    return placed, warnings


def _placement_warnings(given: Conditions, placed: Conditions) -> list[str]:
    """What was lost between the user's grid and the model's: parts outside it, structures too thin for it."""
    warnings, before, after = [], given.volumes_ml(), placed.volumes_ml()
    empty = [name for name, mask in given.masks.items() if not mask.any()]
    if empty:
        warnings.append(f"Note: nothing is drawn in {', '.join(empty)}, so left to the model.")
    for name, mask in given.masks.items():
        if name in empty:
            continue
        outside = _share_outside(mask, given.grid, placed.grid)
        if outside > _LOST_SHARE:
            warnings.append(
                f"{outside:.0%} of '{name}' lies outside the model's field of view and was left out."
            )
        elif not 0.8 < after[name] / before[name] < 1.25:
            warnings.append(
                f"'{name}' is thin for the model's grid: {before[name]:.1f} ml drawn, {after[name]:.1f} ml on it."
            )
    return warnings


def _share_outside(mask: np.ndarray, source: Grid, target: Grid) -> float:
    """Share of the mask's voxel centres that lie outside the faces of `target` (judged on at most 20000 of them)."""
    flat = np.flatnonzero(mask)
    flat = flat[:: max(1, len(flat) // 20000)]
    points = np.stack([*np.unravel_index(flat, mask.shape), np.ones(len(flat))])
    index = (target.index_to_index(source) @ points)[:3]
    limits = np.asarray(target.shape)[:, None] - 0.5
    return float(1 - ((index >= -0.5) & (index <= limits)).all(axis=0).mean())
