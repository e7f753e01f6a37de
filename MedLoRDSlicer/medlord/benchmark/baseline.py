"""A plain MedLoRD synthesis to compare with: what the method says, nothing done about speed or memory.

Float32 throughout; the masks are embedded anew in every step; 300 strictly sequential steps; every distance of the
codebook search in one matrix; the volume decoded in one piece. The networks and the fused attention are the same as
the engine's, so a ratio shows what the engine does around them, and their numbers are the same too.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled

if TYPE_CHECKING:
    import torch

    from ..bundles.bundle import ModelBundle
    from ..networks.autoencoder import VectorQuantizedAutoencoder
    from ..networks.control import ControlNetwork
    from ..networks.denoiser import DenoisingUNet

_ROWS = 1024
"""Latent voxels per search where the whole matrix does not fit, as in MedLoRD's code."""


def baseline_step(
    denoiser: DenoisingUNet,
    control: ControlNetwork,
    latent: torch.Tensor,
    timesteps: torch.Tensor,
    masks: torch.Tensor,
) -> torch.Tensor:
    """One prediction in float32; the masks (1, condition, i, j, k) are embedded anew."""
    down, middle = control(latent, timesteps, control.embed_condition(masks))
    return denoiser(latent, timesteps, down, middle)


def baseline_decode(
    autoencoder: VectorQuantizedAutoencoder, latent: torch.Tensor, free_bytes: int
) -> torch.Tensor:
    """Unscaled latent (1, channel, i, j, k) -> image, untiled; one distance matrix where `free_bytes` hold it."""
    codebook = autoencoder.codebook
    vectors = codebook.flatten(latent)
    indices = nearest_by_full_matrix(vectors, codebook.embedding.weight, free_bytes)
    return autoencoder.decode(codebook.embed(indices.view(1, *latent.shape[2:])))


def nearest_by_full_matrix(vectors: torch.Tensor, codes: torch.Tensor, free_bytes: int) -> torch.Tensor:
    """Index (n,) int64 of the nearest code of vectors (n, dim), from the distances as they are defined.

    The (n, codes) matrix is built at once when twice its size is less than `free_bytes`, else for 1024 rows at a time.
    """
    import torch

    rows = len(vectors) if full_matrix_fits(len(vectors), len(codes), free_bytes) else _ROWS
    found = []
    for start in range(0, len(vectors), rows):
        chunk = vectors[start : start + rows]
        distances = (
            (chunk**2).sum(dim=1, keepdim=True) + (codes**2).sum(dim=1) - 2 * torch.matmul(chunk, codes.t())
        )
        found.append(distances.argmin(dim=1))
    return torch.cat(found)


def full_matrix_fits(vectors: int, codes: int, free_bytes: int) -> bool:
    """Whether the float32 distances, and one intermediate of their size, take less than `free_bytes`."""
    return 2 * 4 * vectors * codes < free_bytes


def baseline_synthesis(
    bundle: ModelBundle,
    masks: torch.Tensor,
    seed: int,
    free_bytes: int,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """The whole chain, DDPM over all training steps (Ho et al. 2020, algorithm 2), and its decoding.

    `masks` are (1, condition, i, j, k). Returns the image (1, 1, i, j, k) within -1 .. 1 and the seconds of "denoise"
    and "decode". The noise is that of the engine's own chains, so the two can be compared.
    """
    import torch

    from ..generation import sampler_of
    from ..sampling.noise import batch_noise

    sampler = sampler_of(bundle.description, "ddpm", None)
    factors = bundle.autoencoder.downsampling_factors
    channels = bundle.description.networks["denoiser"]["in_channels"]
    shape = (1, channels, *(n // f for n, f in zip(masks.shape[2:], factors, strict=True)))
    clock, started = PhaseClock("baseline", sampler.steps, progress), time.perf_counter()
    latent = batch_noise(seed, "initial", 0, shape).to(bundle.device)
    for index, t in enumerate(sampler.timesteps.tolist()):
        raise_if_cancelled(cancel, f"the baseline (step {index} of {sampler.steps} done)")
        timesteps = torch.full((1,), t, dtype=torch.int64, device=bundle.device)
        prediction = baseline_step(bundle.denoiser, bundle.control, latent, timesteps, masks)
        noise = batch_noise(seed, "step", index, shape).to(bundle.device) if t else None
        latent = _posterior_step(bundle, sampler.schedule, latent, prediction, t, noise)
        clock.report(index + 1)
    wait_for(bundle.device)
    denoised = time.perf_counter()
    scaled = latent / bundle.description.scale_factor
    image = baseline_decode(bundle.autoencoder, scaled, free_bytes).clamp(-1, 1)
    wait_for(bundle.device)
    return image, {"denoise": denoised - started, "decode": time.perf_counter() - denoised}


def _posterior_step(bundle, schedule, latent, prediction, t: int, noise) -> torch.Tensor:
    """x_{t-1} from x_t and the prediction: Ho et al. 2020, eq. 7."""
    x0 = schedule.to_x0(latent, prediction, t, bundle.description.prediction_type)
    kept, kept_before = schedule.alphas_cumprod_at(t), schedule.alphas_cumprod_at(t - 1)
    beta = float(schedule.betas[t])
    mean = math.sqrt(kept_before) * beta / (1 - kept) * x0
    mean = mean + math.sqrt(1 - beta) * (1 - kept_before) / (1 - kept) * latent
    if noise is None:
        return mean
    return mean + math.sqrt(max((1 - kept_before) / (1 - kept) * beta, 1e-20)) * noise


def wait_for(device: torch.device) -> None:
    """Return when the device has done what was asked of it so far."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
