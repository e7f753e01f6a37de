"""From conditions to a CT: Recipe -> validate -> run -> Result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .condition_channels import check_attributes, fill_channels
from .conditions import Conditions
from .errors import InputError, InsufficientMemoryError, WeightsError
from .progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from .recipe import Recipe, library_versions, pack_conditions
from .resources import BUNDLED_MODEL
from .volumes import Grid, Volume, require_ct

if TYPE_CHECKING:
    import torch

    from .bundles.bundle import ModelBundle
    from .bundles.description import ModelDescription

_LOST_SHARE = 0.01


@dataclass
class Result:
    """A synthesized volume and all that is known about how it came to be.

    volume               int16 HU on the model's grid in world space, its recipe inside
    conditions           the masks on that grid, as the network saw them
    timings_s            seconds per phase ("load", "condition", "denoise", "decode", "total")
    peak_memory_bytes    of the device (CUDA) or of the process (CPU)
    energy_kwh           of the device, None where it cannot be read
    warnings             sentences for the user
    """

    volume: Volume
    recipe: Recipe
    conditions: Conditions
    timings_s: dict[str, float]
    peak_memory_bytes: int
    energy_kwh: float | None = None
    warnings: list[str] = field(default_factory=list)


def synthesize(
    conditions: Conditions,
    model: str | Path = BUNDLED_MODEL,
    *,
    seed: int = 0,
    sampler: str = "unipc",
    steps: int | None = None,
    control_scale: float = 1.0,
    attributes: Mapping[str, str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    reference: Volume | None = None,
    center_ras_mm: tuple[float, float, float] | None = None,
    loaded: ModelBundle | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Result:
    """Synthesize a CT that follows `conditions`.

    The model's grid is placed in world space around `center_ras_mm`, else around the middle of `reference` (a CT
    that belongs to the masks) if all masks fit there, else around the box of all masks; nothing is stretched.
    `steps=None` takes the sampler's default. `attributes` chooses e.g. {"contrast_phase": "arterial"}; the default
    is each first value. `loaded` is a bundle that is already in memory.

    Raises `InputError`, `WeightsError`, `InsufficientMemoryError` or `CancelledError`.
    """
    from .bundles.bundle import find_model
    from .bundles.description import read_description

    started = time.perf_counter()
    conditions.require_content()
    if reference is not None:
        require_ct(reference, "The reference")
    description = loaded.description if loaded else read_description(find_model(model))
    wanted, warnings = _wanted_conditions(conditions, description)
    chosen = {**description.default_attributes, **(attributes or {})}
    check_attributes(chosen, description.attributes)
    chain = _sampler(description, sampler, steps)
    recipe = Recipe(
        model=description.id,
        model_version=description.version,
        weights_sha256=description.weights_sha256,
        conditions={},
        attributes=chosen,
        seed=seed,
        sampler=chain.name,
        steps=chain.steps,
        control_scale=float(control_scale),
        guidance=1.0,
        grid=description.grid_at(_center(wanted, description.extent_mm, reference, center_ras_mm)).to_dict(),
        **_compute(device, precision),
        versions=library_versions(),
    )
    recipe.require_valid()
    placed, more = _placed_conditions(wanted, Grid.from_dict(recipe.grid), progress)
    recipe = replace(recipe, conditions=pack_conditions(placed))
    timings = {"condition": time.perf_counter() - started}
    return _run(recipe, placed, model, device, loaded, timings, warnings + more, progress, cancel)


def repeat_recipe(
    recipe: Recipe,
    *,
    model: str | Path | None = None,
    device: str = "auto",
    loaded: ModelBundle | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Result:
    """Run a recipe again: the same volume, bit for bit on the same machine and libraries.

    `model` names a bundle's folder when the recipe's model is not installed. Raises `WeightsError` when the
    installed weights are not those of the recipe. Other library versions are allowed and said in the warnings.
    """
    from .bundles.bundle import find_model
    from .bundles.description import read_description

    recipe.require_valid()
    model = model or recipe.model
    description = loaded.description if loaded else read_description(find_model(model))
    _require_model_of(recipe, description)
    conditions = recipe.unpack_conditions()
    conditions.require_content()
    current, warnings = library_versions(), []
    changed = [
        f"{name} {old} -> {current.get(name, 'absent')}"
        for name, old in recipe.versions.items()
        if current.get(name) != old
    ]
    if changed:
        warnings.append(
            f"The volume was made with other versions ({', '.join(changed)}); small differences are possible."
        )
    recipe = replace(recipe, **_compute(device, recipe.precision), versions=current)
    return _run(recipe, conditions, model, device, loaded, {}, warnings, progress, cancel)


def _require_model_of(recipe: Recipe, description: ModelDescription) -> None:
    """Raise `WeightsError` or `InputError` unless the installed model can make the recipe's volume."""
    if description.weights_sha256 != recipe.weights_sha256:
        raise WeightsError(
            f"The installed model '{description.id}' (version {description.version}) has other weights than the "
            f"recipe's (version {recipe.model_version}); install that version to repeat the volume."
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


def _sampler(description: ModelDescription, name: str, steps: int | None):
    from .sampling.registry import make_sampler
    from .sampling.schedule import NoiseSchedule

    return make_sampler(
        name, NoiseSchedule.from_dict(description.schedule), steps, description.prediction_type
    )


def _wanted_conditions(conditions: Conditions, description: ModelDescription) -> tuple[Conditions, list[str]]:
    """The model's conditions out of what the user gave, and what to tell about the rest."""
    from .vocabulary import assemble

    wanted, unused, missing = assemble(conditions, description.conditions)
    wanted.require_content()
    warnings = []
    if unused:
        warnings.append(f"Not used by the model: {', '.join(unused)}.")
    if missing:
        warnings.append(f"Not given, so left to the model: {', '.join(missing)}.")
    return wanted, warnings


def _center(
    conditions: Conditions, extent_mm: np.ndarray, reference: Volume | None, center_ras_mm: tuple | None
) -> np.ndarray:
    """Where the middle of a grid of `extent_mm` (along R, A, S) goes, in RAS mm."""
    if center_ras_mm is not None:
        center = np.asarray(center_ras_mm, dtype=float)
        if center.shape != (3,) or not np.isfinite(center).all():
            raise InputError(f"The centre {center_ras_mm} is no position of three numbers in RAS mm.")
        return center
    low, high = conditions.bounding_box_ras_mm()
    if reference is not None:
        center, half = reference.grid.center_ras_mm, np.asarray(extent_mm) / 2
        if (low >= center - half).all() and (high <= center + half).all():
            return center
    return (low + high) / 2


def _placed_conditions(
    wanted: Conditions, grid: Grid, progress: Progress | None
) -> tuple[Conditions, list[str]]:
    """The masks on the model's grid, and what was lost on the way; raises `InputError` when nothing is left."""
    clock = PhaseClock("condition", 1, progress)
    placed = wanted.resampled(grid)
    warnings = _placement_warnings(wanted, placed)
    if not any(mask.any() for mask in placed.masks.values()):
        raise InputError(
            f"Nothing of {', '.join(wanted.names)} lies within the model's field of view of "
            f"{' x '.join(f'{n:.0f}' for n in np.asarray(grid.shape) * grid.spacing_mm)} mm around "
            f"{np.round(grid.center_ras_mm, 1).tolist()} (RAS mm); choose another centre or reference."
        )
    clock.report(1)
    return placed, warnings


def _placement_warnings(given: Conditions, placed: Conditions) -> list[str]:
    """What was lost between the user's grid and the model's: parts outside it, structures too thin for it."""
    warnings, before, after = [], given.volumes_ml(), placed.volumes_ml()
    for name, mask in given.masks.items():
        if not mask.any():
            warnings.append(f"'{name}' is empty.")
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


def _run(
    recipe: Recipe,
    conditions: Conditions,
    model: str | Path,
    device: str,
    loaded: ModelBundle | None,
    timings: dict[str, float],
    warnings: list[str],
    progress: Progress | None,
    cancel: Cancel | None,
) -> Result:
    """Load, denoise, decode."""
    import torch

    from .bundles.bundle import load_bundle
    from .devices import (
        choose_device,
        energy_counter_mj,
        exact_kernels,
        is_memory_error,
        peak_memory_bytes,
        reset_peak_memory,
    )

    target = choose_device(device)
    started = time.perf_counter()
    raise_if_cancelled(cancel, "loading")
    clock = PhaseClock("load", 1, progress)
    bundle = loaded or load_bundle(model, target)
    clock.report(1)
    timings["load"] = time.perf_counter() - started
    reset_peak_memory(target)
    energy = energy_counter_mj(target)
    try:
        with torch.inference_mode(), exact_kernels():
            latent = _denoise(bundle, recipe, conditions, timings, progress, cancel)
            raise_if_cancelled(cancel, "decoding")
            hu = _decode(bundle, recipe, latent, timings, progress)
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_memory_error(error):
            raise
        raise InsufficientMemoryError(
            f"The run needs more memory than {target} has free ({peak_memory_bytes(target) / 2**30:.1f} GB were in "
            "use); close other programs or choose another device."
        ) from error
    spent = energy_counter_mj(target)
    timings["total"] = sum(timings.values())
    volume = Volume(hu, Grid.from_dict(recipe.grid), recipe.to_dict())
    return Result(
        volume,
        recipe,
        conditions,
        timings,
        peak_memory_bytes(target),
        None if energy is None or spent is None else (spent - energy) / 3.6e9,
        warnings,
    )


def _denoise(
    bundle: ModelBundle,
    recipe: Recipe,
    conditions: Conditions,
    timings: dict,
    progress: Progress | None,
    cancel: Cancel | None,
) -> torch.Tensor:
    """The chain from the seed's noise to a clean, scaled latent (1, channel, i, j, k) float32."""
    import torch

    from .devices import autocast
    from .sampling.loop import denoise

    started, description, device = time.perf_counter(), bundle.description, bundle.device
    sampler = _sampler(description, recipe.sampler, recipe.steps)
    factors = bundle.autoencoder.downsampling_factors
    channels = description.networks["denoiser"]["in_channels"]
    shape = (1, channels, *(n // f for n, f in zip(description.grid_shape, factors, strict=True)))
    embedded = None
    if bundle.control is not None and recipe.control_scale > 0:
        filled = fill_channels(
            conditions.masks, recipe.attributes, description.conditions, description.attributes
        )
        masks = torch.from_numpy(filled)[None].to(device)
        with autocast(device, recipe.precision):
            embedded = bundle.control.embed_condition(masks)
        del masks

    def predict(latent: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        with autocast(device, recipe.precision):
            if embedded is None:
                return bundle.denoiser(latent, timesteps)
            down, middle = bundle.control(latent, timesteps, embedded, recipe.control_scale)
            return bundle.denoiser(latent, timesteps, down, middle)

    latent = denoise(predict, sampler, shape, recipe.seed, device=device, progress=progress, cancel=cancel)
    timings["denoise"] = time.perf_counter() - started
    return latent


def _decode(
    bundle: ModelBundle, recipe: Recipe, latent: torch.Tensor, timings: dict, progress: Progress | None
) -> np.ndarray:
    """Latent -> int16 HU [i, j, k]; in float32, since rounding flips codes."""

    started = time.perf_counter()
    clock = PhaseClock("decode", 1, progress)
    scaled = latent / bundle.description.scale_factor
    image = bundle.autoencoder.decode_latent(scaled)[0, 0].clamp(-1, 1).cpu().numpy()
    low, high = bundle.description.window_hu
    hu = np.rint((image + 1) / 2 * (high - low) + low).astype(np.int16)
    timings["decode"] = time.perf_counter() - started
    clock.report(1)
    return hu
