"""Running a recipe: plan its memory, load the model, denoise its latent, decode it to HU."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .condition_channels import fill_channels
from .conditions import Conditions
from .errors import InputError, InsufficientMemoryError
from .progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from .recipe import Recipe
from .volumes import Grid, Volume

if TYPE_CHECKING:
    import torch

    from .bundles.bundle import ModelBundle
    from .bundles.description import ModelDescription
    from .bundles.loaded_models import LoadedModels
    from .memory.planner import MemoryPlan
    from .networks.tiling import Size
    from .sampling.loop import Preview
    from .sampling.samplers import Sampler

_Made, _Tile = TypeVar("_Made"), TypeVar("_Tile")


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


@dataclass(frozen=True)
class RunOptions:
    """How a recipe is run where that does not change its volume.

    device           "auto", "cpu", "cuda" or "cuda:N"
    memory_limit     bytes that this process may hold on the device (CPU: resident memory), weights included;
                     None takes what is free
    preview_every    a preview goes with every so many-th step's event; 0 for none
    models           where the model is looked for and, once loaded, kept for the next run; None keeps nothing

    Raises `InputError` for a limit that is no whole number above 0 and for a negative number of steps.
    """

    device: str = "auto"
    memory_limit: int | None = None
    preview_every: int = 0
    models: LoadedModels | None = None

    def __post_init__(self):
        if self.memory_limit is not None and not (
            isinstance(self.memory_limit, int) and self.memory_limit > 0
        ):
            raise InputError(
                f"The memory limit is {self.memory_limit!r}; it must be a whole number of bytes above 0, such as "
                "8 * 10**9."
            )
        if self.preview_every < 0:
            raise InputError(
                f"A preview every {self.preview_every} steps was asked for; give 0 for none, or 1 and more."
            )


def sampler_of(description: ModelDescription, name: str, steps: int | None) -> Sampler:
    """The chain of a model: a sampler by name with `steps`, or its default when None."""
    from .sampling.registry import make_sampler
    from .sampling.schedule import NoiseSchedule

    return make_sampler(
        name, NoiseSchedule.from_dict(description.schedule), steps, description.prediction_type
    )


def run_recipe(
    recipe: Recipe,
    conditions: Conditions,
    model: str | Path,
    loaded: ModelBundle | None,
    options: RunOptions,
    timings: dict[str, float],
    warnings: list[str],
    progress: Progress | None,
    cancel: Cancel | None,
) -> Result:
    """Plan the memory, load the model unless it is in memory, run `recipe` on `conditions` (on its grid).

    In memory is `loaded`, or what `options.models` keeps; other models that are kept there go when the run needs their
    memory.

    The result's recipe records the tiles that were used; they do not change the volume beyond rounding. A recipe that
    records tiles is run in them again where they fit.

    Raises `InsufficientMemoryError` (before anything is loaded when the plan tells it), `WeightsError`,
    `CancelledError`, `InputError` for a recorded tiling that is none.
    """
    import torch

    from .devices import choose_device, energy_counter_mj, exact_kernels, peak_memory_bytes, reset_peak_memory
    from .memory.free import limited

    target = choose_device(options.device)
    started = time.perf_counter()
    raise_if_cancelled(cancel, "loading")
    plan, bundle = _planned(recipe, model, loaded, options, target)
    plan.require_enough()
    if bundle is None:
        with _memory_errors(plan, target):
            bundle = _loaded(model, options, target, progress)
        raise_if_cancelled(cancel, "loading")
    timings["load"] = time.perf_counter() - started
    reset_peak_memory(target)
    energy = energy_counter_mj(target)
    with _memory_errors(plan, target), limited(target, options.memory_limit):
        with torch.inference_mode(), exact_kernels():
            run = _Run(bundle, recipe, plan, warnings, progress, cancel)
            latent = run.denoise(conditions, timings, options.preview_every)
            raise_if_cancelled(cancel, "decoding")
            hu = run.decode(latent, timings)
    spent = energy_counter_mj(target)
    timings["total"] = sum(timings.values())
    recipe = replace(recipe, tiling={phase: list(tile) for phase, tile in run.tiles.items()})
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


def require_memory(
    recipe: Recipe, model: str | Path, loaded: ModelBundle | None, options: RunOptions
) -> None:
    """Raise `InsufficientMemoryError` when a run of `recipe` would not fit, as `run_recipe` does; loads nothing."""
    from .devices import choose_device

    _planned(recipe, model, loaded, options, choose_device(options.device))[0].require_enough()


def _planned(
    recipe: Recipe, model: str | Path, loaded: ModelBundle | None, options: RunOptions, target: torch.device
) -> tuple[MemoryPlan, ModelBundle | None]:
    """The plan of a run's memory, and the model when it is in memory; frees kept models where that lets it run."""
    from .bundles.bundle import find_model
    from .bundles.description import read_description
    from .bundles.loaded_models import LoadedModels
    from .memory.planner import plan_run

    models = LoadedModels() if options.models is None else options.models
    folder = find_model(model) if loaded is None else loaded.folder
    bundle = loaded or models.get(folder, target)
    if bundle is None:
        models.forget(folder, target)
    description = read_description(folder) if bundle is None else bundle.description

    def plan(returnable: int = 0) -> MemoryPlan:
        return plan_run(
            description,
            recipe,
            target,
            loaded=bundle is not None,
            limit=options.memory_limit,
            returnable=returnable,
        )

    planned = plan()
    others = 0 if planned.fits else models.bytes_beside(folder, target)
    # A run that would not fit even then must not cost the user the models that are loaded.
    if others and plan(others).fits:
        models.free_beside(folder, target)
        planned = plan()
    return planned, bundle


def _loaded(
    model: str | Path, options: RunOptions, target: torch.device, progress: Progress | None
) -> ModelBundle:
    """Load the model, and keep it where the options say so."""
    from .bundles.bundle import find_model, load_bundle

    clock, folder = PhaseClock("load", 1, progress), find_model(model)
    clock.report(0)
    bundle = load_bundle(folder, target) if options.models is None else options.models.load(folder, target)
    clock.report(1)
    return bundle


class _Run:
    """The phases of one run; `tiles` holds the tiles that were used, by phase."""

    def __init__(
        self,
        bundle: ModelBundle,
        recipe: Recipe,
        plan: MemoryPlan,
        warnings: list[str],
        progress: Progress | None,
        cancel: Cancel | None,
    ):
        self.tiles: dict[str, Size] = {}
        self._bundle, self._recipe, self._plan = bundle, recipe, plan
        self._warnings, self._progress, self._cancel = warnings, progress, cancel

    def denoise(self, conditions: Conditions, timings: dict[str, float], preview_every: int) -> torch.Tensor:
        """The chain from the seed's noise to a clean, scaled latent (1, channel, i, j, k) float32."""
        from .devices import autocast
        from .sampling.loop import denoise

        started, bundle, recipe = time.perf_counter(), self._bundle, self._recipe
        description, device = bundle.description, bundle.device
        sampler = sampler_of(description, recipe.sampler, recipe.steps)
        factors = bundle.autoencoder.downsampling_factors
        channels = description.networks["denoiser"]["in_channels"]
        shape = (1, channels, *(n // f for n, f in zip(description.grid_shape, factors)))
        embedded = None
        if bundle.control is not None and recipe.control_scale > 0:
            embedded = self._embed(conditions)

        def predict(latent: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            with autocast(device, recipe.precision):
                if embedded is None:
                    return bundle.denoiser(latent, timesteps)
                down, middle = bundle.control(latent, timesteps, embedded, recipe.control_scale)
                return bundle.denoiser(latent, timesteps, down, middle)

        latent = denoise(
            predict, sampler, shape, recipe.seed, device=device, progress=self._progress, cancel=self._cancel,
            preview=preview_of(bundle) if preview_every else None, preview_every=preview_every,
        )  # fmt: skip
        timings["denoise"] = time.perf_counter() - started
        return latent

    def _embed(self, conditions: Conditions) -> torch.Tensor:
        """The features of the masks, once for all steps; the masks stay bytes on the CPU, tiles go to the device."""
        import torch

        from .devices import autocast
        from .memory.planner import halved
        from .networks.tiling import embed_tiled

        bundle, recipe = self._bundle, self._recipe
        filled = fill_channels(
            conditions.masks,
            recipe.attributes,
            bundle.description.conditions,
            bundle.description.attributes,
            np.uint8,
        )
        masks = torch.from_numpy(filled)[None]

        def embed(tile: Size) -> torch.Tensor:
            with autocast(bundle.device, recipe.precision):
                return embed_tiled(
                    bundle.control,
                    masks,
                    tile,
                    device=bundle.device,
                    progress=self._progress,
                    cancel=self._cancel,
                    warn=self._warn,
                )

        embedded, self.tiles["condition"] = in_smaller_tiles(embed, self._plan.condition_tile, halved)
        return embedded

    def decode(self, latent: torch.Tensor, timings: dict[str, float]) -> np.ndarray:
        """Latent -> int16 HU [i, j, k]; in float32, since rounding flips codes."""
        from .memory.planner import IN_SLABS, IN_TILES, halved
        from .memory.slabs import thinner
        from .networks.slab_decoding import decode_in_slabs, decodes_in_slabs
        from .networks.tiling import decode_tiled

        started, bundle = time.perf_counter(), self._bundle
        scaled = latent / bundle.description.scale_factor

        size, network = tuple(latent.shape[2:]), bundle.autoencoder

        def decode(way: tuple[str, Size]) -> torch.Tensor:
            how = {"progress": self._progress, "cancel": self._cancel}
            if way[0] == IN_SLABS:
                return decode_in_slabs(network, scaled, way[1], **how)
            return decode_tiled(network, scaled, way[1], warn=self._warn, **how)

        def smaller(way: tuple[str, Size]) -> tuple[str, Size] | None:
            kind, tile = way
            if kind == IN_TILES and tile == size and decodes_in_slabs(network):
                kind = IN_SLABS
            less = thinner(tile, size) if kind == IN_SLABS else halved(tile)
            return None if less is None else (kind, less)

        planned = (IN_SLABS if self._plan.in_slabs else IN_TILES, self._plan.decode_tile)
        image, (kind, tile) = in_smaller_tiles(decode, planned, smaller)
        self.tiles[kind] = tile
        hu = to_hu(image[0, 0].numpy(), bundle.description.window_hu)
        timings["decode"] = time.perf_counter() - started
        return hu

    def _warn(self, sentence: str) -> None:
        if sentence not in self._warnings:
            self._warnings.append(sentence)


def preview_of(bundle: ModelBundle) -> Preview:
    """What makes pictures of a chain's present estimate, cheaply."""
    from .sampling.previews import make_preview

    return make_preview(bundle)


def to_hu(image: np.ndarray, window_hu: tuple[float, float]) -> np.ndarray:
    """Network intensities [i, j, k] in -1..1 (clipped) -> int16 HU in `window_hu`, a slice at a time."""
    low, high = window_hu
    hu = np.empty(image.shape, np.int16)
    for place, slice_ in enumerate(image):
        hu[place] = np.rint((slice_.clip(-1, 1) + 1) / 2 * (high - low) + low)
    return hu


def in_smaller_tiles(
    run: Callable[[_Tile], _Made], tile: _Tile, smaller_than: Callable[[_Tile], _Tile | None]
) -> tuple[_Made, _Tile]:
    """`run(tile)`; when an allocation fails, again with `smaller_than(tile)` until that is None. Also the last tile.

    Raises the failure of the smallest tile, and at once what is no lack of memory.
    """
    import torch

    from .devices import is_memory_error

    while True:
        try:
            return run(tile), tile
        except (MemoryError, RuntimeError, OSError) as error:
            smaller = smaller_than(tile)
            if smaller is None or not is_memory_error(error):
                raise
        # Only here the error and the tensors that its frames hold are gone.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        tile = smaller


@contextlib.contextmanager
def _memory_errors(plan: MemoryPlan, device: torch.device) -> Iterator[None]:
    """Any failed allocation within it becomes the one sentence for the user."""
    from .devices import is_memory_error
    from .memory.free import budget_bytes
    from .memory.sizes import in_words

    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_memory_error(error):
            raise
        free = budget_bytes(device, plan.limit)
        raise InsufficientMemoryError(
            f"An allocation failed on {device}: the run needs about {in_words(plan.needed)} of memory and "
            f"{in_words(free)} are free now ({in_words(plan.free)} when it began); {plan.way_out}."
        ) from error
