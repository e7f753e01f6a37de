"""How much arithmetic a configuration needs: counted on networks without memory, so at full size too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .full_size import random_network, with_denoiser

if TYPE_CHECKING:
    from .full_size import Configuration


def count_operations(configuration: Configuration) -> dict[str, float]:
    """Floating-point operations (a multiplication and an addition are two) of the parts of one synthesis.

    "denoiser" and "control" once per step, "embedding" (of the masks) once per run, "decode" once; "denoiser NAME" for
    the other published denoisers.
    """
    import torch

    meta = torch.device("meta")
    latent = torch.empty(configuration.latent_shape(), device=meta)
    steps = torch.zeros(1, dtype=torch.int64, device=meta)
    masks = torch.empty(
        (1, configuration.control["condition_channels"], *configuration.image_shape), device=meta
    )
    counted = {}
    for number, name in enumerate(configuration.denoisers):
        denoiser = random_network(with_denoiser(configuration, name), "denoiser", meta)
        counted[f"denoiser {name}" if number else "denoiser"] = _counted(lambda: denoiser(latent, steps))  # noqa: B023
    control = random_network(configuration, "control", meta)
    embedded = control.embed_condition(masks)
    counted["embedding"] = _counted(lambda: control.embed_condition(masks))
    counted["control"] = _counted(lambda: control(latent, steps, embedded))
    autoencoder = random_network(configuration, "autoencoder", meta)
    counted["decode"] = _counted(lambda: autoencoder.decode(latent))
    return counted


def _counted(call: Callable[[], object]) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return float(counter.get_total_flops())
