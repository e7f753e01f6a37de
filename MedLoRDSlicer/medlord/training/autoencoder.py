"""Training of the vector-quantised autoencoder (MedLoRD 2.1; van den Oord 2017; Esser 2021 for the adversary).

Loss = L1 + commitment + optional terms: squared error, spectral (Jukebox), adversarial. The perceptual term of the
paper needs a network with downloaded weights; without it the squared error and the spectral term keep edges.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..devices import autocast
from ..errors import InputError
from ..networks.build import build_autoencoder, build_discriminator
from ..progress import Cancel, Progress
from .cases import Case, list_cases, load_case, to_network
from .config import section
from .losses import discriminator_loss, generator_adversarial_loss, spectral_loss
from .optimisation import Descent, generator_for, run_steps

AUTOENCODER_DEFAULTS = {
    "seed": 0,
    "learning_rate": 1e-3,
    "warmup": 100,
    "cooldown": None,
    "earlier_ends": (),
    "weight_decay": 0.0,
    "squared_weight": 0.0,
    "spectral_weight": 0.0,
    "adversarial_weight": 0.0,
    "discriminator": None,
    "discriminator_learning_rate": 1e-4,
    "adversarial_start": 0,
    "gradient_clip": 1.0,
    "precision": "float32",
    "checkpoint_every": 500,
    "body_share": 0.8,
}


class CropSource:
    """Random crops of the training images; `body_share` of them are centred on tissue instead of air."""

    def __init__(self, folder: Path, crop: tuple[int, int, int], body_share: float, window_hu: tuple):
        self.cases: list[Case] = [load_case(path) for path in list_cases(folder)]
        self.crop, self.body_share, self.window_hu = np.asarray(crop), body_share, window_hu
        shape = np.asarray(self.cases[0].image_hu.shape)
        if (self.crop > shape).any():
            raise InputError(
                f"The training crop {tuple(crop)} is larger than the cases {tuple(shape)}; make it smaller."
            )

    def batch(self, size: int, generator: torch.Generator) -> torch.Tensor:
        """(size, 1, i, j, k) network intensities."""
        crops = []
        for _ in range(size):
            numbers = torch.rand(8, generator=generator).numpy()
            case = self.cases[int(numbers[0] * len(self.cases)) % len(self.cases)]
            shape = np.asarray(case.image_hu.shape)
            start = (numbers[1:4] * (shape - self.crop + 1)).astype(int)
            if numbers[4] < self.body_share:
                start = self._around_tissue(case, numbers, start)
            window = tuple(slice(a, a + n) for a, n in zip(start, self.crop, strict=True))
            crops.append(to_network(case.image_hu[window], self.window_hu))
        return torch.from_numpy(np.stack(crops)[:, None])

    def _around_tissue(self, case: Case, numbers: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Start of a crop whose middle is a random voxel above -300 HU (of 16 tries; else `start`)."""
        shape = np.asarray(case.image_hu.shape)
        for attempt in range(16):
            point = np.modf(numbers[5:8] * (attempt + 1) * 7.31)[0] * shape
            if case.image_hu[tuple(point.astype(int))] > -300:
                return np.clip(point.astype(int) - self.crop // 2, 0, shape - self.crop)
        return start


class _Adversary:
    """The patch discriminator and its own optimiser."""

    def __init__(self, settings: dict, device: torch.device):
        self.network = build_discriminator(settings["discriminator"]).to(device).train()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings["discriminator_learning_rate"]
        )

    def generator_term(self, reconstruction: torch.Tensor) -> torch.Tensor:
        self.network.requires_grad_(False)
        return generator_adversarial_loss(self.network(reconstruction.contiguous().float()))

    def improve(self, images: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
        self.network.requires_grad_(True)
        loss = discriminator_loss(
            self.network(reconstruction.contiguous()), self.network(images.contiguous())
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss


class _AutoencoderTraining:
    """The autoencoder, its adversary where one is wanted, and one step of both."""

    def __init__(self, config: dict, settings: dict, source: CropSource, device: torch.device):
        self.settings, self.source, self.device = settings, source, device
        torch.manual_seed(settings["seed"])
        # Measured in bfloat16 on a CPU: channels-last saves a few per cent in this network.
        network = build_autoencoder(config["autoencoder"]).to(device, memory_format=torch.channels_last_3d)
        self.descent = Descent(network.train(), settings)
        self.adversary = _Adversary(settings, device) if settings["adversarial_weight"] > 0 else None

    def step(self, step: int) -> dict[str, float]:
        """Train on one batch; returns the losses and the number of different codes in the batch."""
        settings, network = self.settings, self.descent.network
        draw = generator_for(settings["seed"], step, "autoencoder")
        network.codebook.revival_generator = draw
        images = self.source.batch(settings["batch"], draw)
        images = images.to(self.device, memory_format=torch.channels_last_3d)
        with autocast(self.device, settings["precision"]):
            reconstruction, commitment, indices = network(images)
        adversary = self.adversary if step >= settings["adversarial_start"] else None
        terms = self._terms(images, reconstruction, adversary) | {"commitment": (1.0, commitment)}
        self.descent.descend(sum(weight * value for weight, value in terms.values()), step)
        losses = {name: float(value.detach()) for name, (_, value) in terms.items()}
        if adversary:
            losses["discriminator"] = float(adversary.improve(images, reconstruction.detach()).detach())
        return losses | {"codes": float(len(torch.unique(indices)))}

    def _terms(
        self, images: torch.Tensor, reconstruction: torch.Tensor, adversary: _Adversary | None
    ) -> dict:
        """Name -> (weight, value) of the terms that are switched on."""
        settings, terms = self.settings, {"l1": (1.0, (reconstruction - images).abs().mean())}
        if settings["squared_weight"]:
            terms["squared"] = settings["squared_weight"], (reconstruction - images).square().mean()
        if settings["spectral_weight"]:
            terms["spectral"] = settings["spectral_weight"], spectral_loss(reconstruction, images)
        if adversary:
            terms["adversarial"] = settings["adversarial_weight"], adversary.generator_term(reconstruction)
        return terms


def train_autoencoder(
    config: dict,
    cases: Path,
    folder: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> None:
    """Train on the cases in `cases`, checkpoints and log in `folder`; resumes when `folder` holds a checkpoint.

    `config` has the sections `autoencoder` (see `build_autoencoder`), `window_hu` (low, high) and `training` (steps,
    batch, crop and `AUTOENCODER_DEFAULTS`).
    """
    settings = section(config, "training", ("steps", "batch", "crop"), AUTOENCODER_DEFAULTS)
    source = CropSource(cases, tuple(settings["crop"]), settings["body_share"], tuple(config["window_hu"]))
    training = _AutoencoderTraining(config, settings, source, torch.device(device))
    networks = {"autoencoder": training.descent.network}
    optimizers = dict(training.descent.optimizers)
    if training.adversary:
        networks["discriminator"] = training.adversary.network
        optimizers["discriminator"] = training.adversary.optimizer
    run_steps(
        folder,
        settings["steps"],
        training.step,
        networks=networks,
        optimizers=optimizers,
        config=config,
        defaults=AUTOENCODER_DEFAULTS,
        checkpoint_every=settings["checkpoint_every"],
        phase="autoencoder",
        progress=progress,
        cancel=cancel,
    )
