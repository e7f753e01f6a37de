"""Training of the control adapter, from scratch: on the frozen denoiser (MedLoRD 2.3; Zhang et al. 2023) or with it.

With `train_denoiser` the denoiser goes on learning beside the adapter (docs/adr/0005). Steps whose masks are all
dropped then train it alone, so that it stays a model of volumes without masks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..condition_channels import condition_channels, fill_channels
from ..devices import autocast
from ..errors import InputError
from ..networks.build import build_control
from ..networks.control import ControlNetwork
from ..networks.denoiser import DenoisingUNet
from ..progress import Cancel, Progress
from ..sampling.schedule import NoiseSchedule
from .cases import Case, load_case
from .config import section
from .diffusion import DIFFUSION_DEFAULTS, noisy_batch
from .latents import load_latents
from .losses import DIFFUSION_LOSSES
from .optimisation import Descent, generator_for, run_steps
from .planned import DROP_RATES, setting_at

CONTROL_DEFAULTS = {
    **DIFFUSION_DEFAULTS,
    "drop_all": 0.1,
    "drop_each": 0.1,
    "sparse_share": 0.0,
    "condition_weights": [],
    "later_drops": [],
    "noisy_shares": [],
    "train_denoiser": False,
}
DENOISER_AVERAGE = "denoiser_average"
"""Name, in the checkpoint of this stage, of the denoiser that was trained with the adapter (averaged weights)."""


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


def loss_weights(
    masks: torch.Tensor, conditions: list[str], weights: dict[str, float], shape: tuple
) -> torch.Tensor:
    """How much each latent voxel counts in the loss: (batch, 1, *shape) float32, 1 where no weighted condition lies.

    `masks` (batch, channel, i, j, k) begin with the channels of `conditions`. A latent voxel takes the largest weight
    among the conditions that it holds any part of: a nodule fills one latent voxel in ten thousand, and without a
    weight the network learns it last (Guo et al., MAISI, arXiv 2409.11169, weight the loss for the same reason).
    """
    result = torch.ones(len(masks), 1, *shape)
    for name, weight in weights.items():
        part = masks[:, conditions.index(name)][:, None]
        touched = torch.nn.functional.adaptive_max_pool3d(part, shape)
        result = torch.maximum(result, touched * weight)
    return result


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

    def tensor(self, index: int) -> torch.Tensor:
        """Channels (1, channel, i, j, k) float32 of one case."""
        count = int(np.prod(self._shape))
        masks = np.unpackbits(self._packed[index], axis=1, count=count).reshape(-1, *self._shape)
        named = dict(zip(self._conditions, masks, strict=True))
        full = fill_channels(named, self._attributes[index], self._conditions, self._attributes_known)
        return torch.from_numpy(full)[None]


class _ControlTraining:
    """The control adapter, the denoiser that it steers, and one step."""

    def __init__(self, config: dict, settings: dict, denoiser: DenoisingUNet, device: torch.device):
        self.settings, self.device = settings, device
        self.schedule = NoiseSchedule.from_dict(config["schedule"])
        self.conditions = list(config["conditions"])
        torch.manual_seed(settings["seed"])
        self.control: ControlNetwork = build_control(config["control"], config["denoiser"]).to(device).train()
        self.denoiser = denoiser.to(device)
        trained = torch.nn.ModuleDict({"control": self.control})
        if settings["train_denoiser"]:
            trained["denoiser"] = self.denoiser.train().requires_grad_(True)
        else:
            self.denoiser.eval().requires_grad_(False)
        self.descent = Descent(trained, settings)
        self._loss_of = DIFFUSION_LOSSES[settings["loss"]]

    def step(self, step: int, latents: torch.Tensor, masks: PackedMasks) -> dict[str, float]:
        """Train on one batch of scaled latents and their masks, some of them dropped."""
        settings = self.settings
        draw = generator_for(settings["seed"], step, "control")
        chosen = torch.randint(0, len(latents), (settings["batch"],), generator=draw).tolist()
        noisy_share = setting_at(step, settings["noisy_shares"], 0.0)
        noisy, timesteps, velocity = noisy_batch(latents[chosen], self.schedule, draw, noisy_share)
        later_drops = setting_at(step, settings["later_drops"], {})
        rates = [later_drops.get(name, settings[name]) for name in DROP_RATES]
        kept = torch.stack([dropped_channels(len(masks.channels), *rates, draw) for _ in chosen])
        condition = torch.cat([masks.tensor(index) for index in chosen])
        emphasis = setting_at(step, settings["condition_weights"], {})
        weights = loss_weights(condition, self.conditions, emphasis, noisy.shape[2:])
        condition[~kept] = 0
        alone = settings["train_denoiser"] and not kept.any()
        noisy, timesteps = noisy.to(self.device), timesteps.to(self.device)
        with autocast(self.device, settings["precision"]):
            if alone:
                prediction = self.denoiser(noisy, timesteps)
            else:
                embedded = self.control.embed_condition(condition.to(self.device))
                prediction = self.denoiser(noisy, timesteps, *self.control(noisy, timesteps, embedded))
        loss = self._loss_of(prediction, velocity.to(self.device), weights.to(self.device))
        self.descent.descend(loss, step)
        return {"loss": float(loss.detach())}

    def networks(self) -> dict[str, torch.nn.Module]:
        """What a checkpoint keeps: what is trained, and the averages, of which the adapter's is called `average`."""
        trained, averages = self.descent.network, self.descent.average.network
        kept = {"control": trained["control"], "average": averages["control"]}
        if self.settings["train_denoiser"]:
            kept |= {"denoiser": trained["denoiser"], DENOISER_AVERAGE: averages["denoiser"]}
        return kept


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
    """Train the control adapter for `denoiser`; resumes when `folder` holds a checkpoint.

    The denoiser is frozen, or trained on where `training.train_denoiser` says so: the checkpoint then holds it too.

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
        networks=training.networks(),
        optimizers=training.descent.optimizers,
        config=config,
        defaults=CONTROL_DEFAULTS,
        checkpoint_every=settings["checkpoint_every"],
        phase="control",
        progress=progress,
        cancel=cancel,
    )
