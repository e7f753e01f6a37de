"""Training of the latent denoiser: v-prediction on the cosine schedule (MedLoRD 2.2; Salimans & Ho 2022, eq. 13)."""

from __future__ import annotations

from pathlib import Path

import torch

from ..devices import autocast
from ..networks.build import build_denoiser
from ..progress import Cancel, Progress
from ..sampling.schedule import NoiseSchedule
from .config import section
from .latents import load_latents
from .losses import DIFFUSION_LOSSES
from .optimisation import Descent, generator_for, run_steps

DIFFUSION_DEFAULTS = {
    "seed": 0,
    "optimizer": "adamw",
    "learning_rate": 1e-4,
    "warmup": 100,
    "cooldown": None,
    "earlier_ends": (),
    "weight_decay": 1e-2,
    "loss": "l1",
    "average_decay": 0.999,
    "gradient_clip": 1.0,
    "precision": "float32",
    "checkpoint_every": 500,
}


NOISY_FROM = 0.3
"""Where, as a share of all time steps, the noisy ones begin: on the cosine schedule at a half log SNR of 0.64."""


def noisy_batch(
    latents: torch.Tensor, schedule: NoiseSchedule, generator: torch.Generator, noisy_share: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scaled latents x0 (batch, ...) -> (noisy latents, time steps (batch,), v target); t uniform, strata per batch.

    A `noisy_share` (0 to 1) of the draws falls on the noisy time steps alone, from `NOISY_FROM` of all on.
    """
    size = len(latents)
    position = (torch.rand(size, generator=generator) + torch.arange(size)) / size
    if noisy_share:
        noisy_alone = torch.rand(size, generator=generator) < noisy_share
        position = torch.where(noisy_alone, NOISY_FROM + (1 - NOISY_FROM) * position, position)
    timesteps = (position * schedule.training_steps).long().clamp(max=schedule.training_steps - 1)
    noise = torch.randn(latents.shape, generator=generator)
    return (
        schedule.add_noise(latents, noise, timesteps),
        timesteps,
        schedule.velocity(latents, noise, timesteps),
    )


def train_diffusion(
    config: dict,
    latents_folder: Path,
    scale_factor: float,
    folder: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> None:
    """Train the denoiser on the latents of `latents_folder`; resumes when `folder` holds a checkpoint.

    `config` has the sections `denoiser` (see `build_denoiser`), `schedule` (see `NoiseSchedule`) and `training`
    (steps, batch and `DIFFUSION_DEFAULTS`).
    """
    settings = section(config, "training", ("steps", "batch"), DIFFUSION_DEFAULTS)
    schedule = NoiseSchedule.from_dict(config["schedule"])
    _, latents = load_latents(latents_folder)
    target = torch.device(device)
    torch.manual_seed(settings["seed"])
    descent = Descent(build_denoiser(config["denoiser"]).to(target).train(), settings)
    loss_of = DIFFUSION_LOSSES[settings["loss"]]

    def one_step(step: int) -> dict[str, float]:
        draw = generator_for(settings["seed"], step, "diffusion")
        chosen = torch.randint(0, len(latents), (settings["batch"],), generator=draw)
        noisy, timesteps, velocity = noisy_batch(latents[chosen] * scale_factor, schedule, draw)
        with autocast(target, settings["precision"]):
            prediction = descent.network(noisy.to(target), timesteps.to(target))
        loss = loss_of(prediction, velocity.to(target))
        descent.descend(loss, step)
        return {"loss": float(loss.detach())}

    run_steps(
        folder,
        settings["steps"],
        one_step,
        networks={"denoiser": descent.network, "average": descent.average.network},
        optimizers=descent.optimizers,
        config=config,
        defaults=DIFFUSION_DEFAULTS,
        checkpoint_every=settings["checkpoint_every"],
        phase="diffusion",
        progress=progress,
        cancel=cancel,
    )
