"""Training of the control adapter, from scratch, on the frozen denoiser (MedLoRD 2.3; Zhang et al. 2023)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..condition_channels import condition_channels, fill_channels
from ..devices import autocast
from ..errors import InputError
from ..networks.build import build_control
from ..networks.denoiser import DenoisingUNet
from ..progress import Cancel, Progress
from ..sampling.schedule import NoiseSchedule
from .cases import Case, load_case
from .config import section
from .diffusion import TRAINING_DEFAULTS, noisy_batch
from .latents import load_latents
from .losses import DIFFUSION_LOSSES
from .optimisation import Descent, generator_for, run_steps

CONTROL_DEFAULTS = {**TRAINING_DEFAULTS, "drop_all": 0.1, "drop_each": 0.1, "sparse_share": 0.0}


def dropped_channels(
    channels: int, drop_all: float, drop_each: float, sparse_share: float, generator: torch.Generator
) -> torch.Tensor:
    """Which of `channels` conditions stay, bool (channels,).

    All are dropped with probability `drop_all`, each with `drop_each`. In a `sparse_share` of the draws each
    stays only with a probability that is itself uniform in [0, 1]: users often draw two structures, not twelve.
    """
    numbers = torch.rand(channels + 3, generator=generator)
    if numbers[0] < drop_all:
        return torch.zeros(channels, dtype=torch.bool)
    probability = float(numbers[2]) if numbers[1] < sparse_share else drop_each
    return numbers[3:] >= probability


class PackedMasks:
    """The masks of all cases as packed bits in memory; unpacked one case at a time."""

    def __init__(
        self, cases: Path, names: list[str], conditions: list[str], attributes: dict[str, list[str]]
    ):
        self.channels = condition_channels(conditions, attributes)
        self._conditions, self._attributes_known = conditions, attributes
        self._packed, self._attributes, self._shape = [], [], None
        for name in names:
            case: Case = load_case(cases / f"{name}.npz")
            if case.conditions != conditions:
                raise InputError(
                    f"Case {name} has the conditions {case.conditions}, the configuration {conditions}."
                )
            self._shape = case.image_hu.shape
            self._packed.append(np.packbits(case.masks.reshape(len(conditions), -1), axis=1))
            self._attributes.append(case.attributes)

    def tensor(self, index: int, kept: torch.Tensor) -> torch.Tensor:
        """Channels (1, channel, i, j, k) float32 of one case; dropped ones are zero."""
        count = int(np.prod(self._shape))
        masks = np.unpackbits(self._packed[index], axis=1, count=count).reshape(-1, *self._shape)
        named = dict(zip(self._conditions, masks, strict=True))
        full = fill_channels(named, self._attributes[index], self._conditions, self._attributes_known)
        return torch.from_numpy(full * kept.numpy()[:, None, None, None])[None]


class _ControlTraining:
    """The control adapter, the frozen denoiser that it steers, and one step."""

    def __init__(self, config: dict, settings: dict, denoiser: DenoisingUNet, device: torch.device):
        self.settings, self.device = settings, device
        self.schedule = NoiseSchedule.from_dict(config["schedule"])
        self.denoiser = denoiser.to(device).eval().requires_grad_(False)
        torch.manual_seed(settings["seed"])
        network = build_control(config["control"], config["denoiser"])
        self.descent = Descent(network.to(device).train(), settings)
        self._loss_of = DIFFUSION_LOSSES[settings["loss"]]

    def step(self, step: int, latents: torch.Tensor, masks: PackedMasks) -> dict[str, float]:
        """Train on one batch of scaled latents and their masks, some of them dropped."""
        settings, network = self.settings, self.descent.network
        draw = generator_for(settings["seed"], step, "control")
        chosen = torch.randint(0, len(latents), (settings["batch"],), generator=draw).tolist()
        noisy, timesteps, velocity = noisy_batch(latents[chosen], self.schedule, draw)
        rates = [settings[name] for name in ("drop_all", "drop_each", "sparse_share")]
        kept = [dropped_channels(len(masks.channels), *rates, draw) for _ in chosen]
        condition = torch.cat([masks.tensor(index, keep) for index, keep in zip(chosen, kept, strict=True)])
        noisy, timesteps = noisy.to(self.device), timesteps.to(self.device)
        with autocast(self.device, settings["precision"]):
            down, middle = network(noisy, timesteps, network.embed_condition(condition.to(self.device)))
            prediction = self.denoiser(noisy, timesteps, down, middle)
        loss = self._loss_of(prediction, velocity.to(self.device))
        self.descent.descend(loss, step)
        return {"loss": float(loss.detach())}


def train_control(
    config: dict,
    denoiser: DenoisingUNet,
    cases: Path,
    latents_folder: Path,
    scale_factor: float,
    folder: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> None:
    """Train the control adapter; `denoiser` is frozen, resumes when `folder` holds a checkpoint.

    `config` has the sections `denoiser`, `control` (see `build_control`), `schedule`, `conditions` (names),
    `attributes` and `training` (steps, batch and `CONTROL_DEFAULTS`).
    """
    settings = section(config, "training", ("steps", "batch"), CONTROL_DEFAULTS)
    names, latents = load_latents(latents_folder)
    latents = latents * scale_factor
    masks = PackedMasks(cases, names, list(config["conditions"]), config["attributes"])
    training = _ControlTraining(config, settings, denoiser, torch.device(device))
    run_steps(
        folder,
        settings["steps"],
        lambda step: training.step(step, latents, masks),
        networks={"control": training.descent.network, "average": training.descent.average.network},
        optimizers={"control": training.descent.optimizer},
        config=config,
        checkpoint_every=settings["checkpoint_every"],
        phase="control",
        progress=progress,
        cancel=cancel,
    )
