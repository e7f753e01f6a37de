"""The engine's parts as the measurements call them: one denoising step, one decoding, one whole run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..progress import Cancel, Progress

if TYPE_CHECKING:
    import torch

    from ..bundles.bundle import ModelBundle
    from ..generation import Result, RunOptions
    from ..networks.autoencoder import VectorQuantizedAutoencoder
    from ..networks.control import ControlNetwork
    from ..networks.denoiser import DenoisingUNet
    from .full_size import Configuration


def engine_step(
    denoiser: DenoisingUNet,
    control: ControlNetwork,
    latent: torch.Tensor,
    timesteps: torch.Tensor,
    embedded: torch.Tensor,
    precision: str,
) -> Callable[[], torch.Tensor]:
    """One prediction as the engine makes it in every step: masks embedded before, autocast to `precision`."""
    from ..devices import autocast

    def step() -> torch.Tensor:
        with autocast(latent.device, precision):
            down, middle = control(latent, timesteps, embedded)
            return denoiser(latent, timesteps, down, middle)

    return step


def decode(
    autoencoder: VectorQuantizedAutoencoder,
    latent: torch.Tensor,
    tile: Sequence[int] | None,
    in_slabs: bool = False,
    progress: Progress | None = None,
) -> torch.Tensor:
    """Unscaled latent (1, channel, i, j, k) -> image on the CPU, in tiles or slabs of `tile`, or in one piece."""
    from ..networks.slab_decoding import decode_in_slabs
    from ..networks.tiling import decode_tiled

    if in_slabs:
        return decode_in_slabs(autoencoder, latent, tuple(tile), progress=progress)
    return decode_tiled(autoencoder, latent, None if tile is None else tuple(tile), progress=progress)


def random_masks(configuration: Configuration, device: torch.device) -> torch.Tensor:
    """Channels (1, condition, i, j, k) of the ellipsoids, float32 on `device`."""
    import torch

    from ..condition_channels import fill_channels
    from .full_size import describe, ellipsoids

    description = describe(configuration)
    masks = ellipsoids(description).masks
    channels = fill_channels(masks, {}, description.conditions, description.attributes)
    return torch.from_numpy(channels)[None].to(device)


def engine_run(
    bundle: ModelBundle,
    sampler: str,
    steps: int,
    precision: str,
    options: RunOptions,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Result:
    """A whole synthesis by the engine, through the same function that every other run takes."""
    from ..generation import run_recipe
    from .full_size import ellipsoids
    from .planning import plain_recipe

    description = bundle.description
    recipe = plain_recipe(description, sampler, steps, precision)
    conditions = ellipsoids(description)
    return run_recipe(recipe, conditions, description.id, bundle, options, {}, [], progress, cancel)
