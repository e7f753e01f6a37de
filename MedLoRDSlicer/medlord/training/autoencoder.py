"""Training of the vector-quantised autoencoder (MedLoRD 2.1; van den Oord 2017; Esser 2021 for the adversary).

Loss = L1 + commitment + optional terms: squared error, spectral (Jukebox), adversarial. The perceptual term of the
paper needs a network with downloaded weights; without it the squared error and the spectral term keep edges.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..networks.build import build_autoencoder, build_discriminator
from ..progress import Cancel, Progress
from .cases import Case, list_cases, load_case, to_network
from .config import section
from .losses import discriminator_loss, generator_adversarial_loss, spectral_loss
from .optimisation import autocast, generator_for, learning_rate, run_steps

TRAINING_DEFAULTS = {
    "seed": 0,
    "learning_rate": 1e-3,
    "warmup": 100,
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

    def __init__(self, folder: Path, crop: tuple[int, int, int], body_share: float):
        self.cases: list[Case] = [load_case(path) for path in list_cases(folder)]
        self.crop, self.body_share = np.asarray(crop), body_share
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
            crops.append(to_network(case.image_hu[window]))
        return torch.from_numpy(np.stack(crops)[:, None])

    def _around_tissue(self, case: Case, numbers: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Start of a crop whose middle is a random voxel above -300 HU (of 16 tries; else `start`)."""
        shape = np.asarray(case.image_hu.shape)
        for attempt in range(16):
            point = np.modf(numbers[5:8] * (attempt + 1) * 7.31)[0] * shape
            if case.image_hu[tuple(point.astype(int))] > -300:
                return np.clip(point.astype(int) - self.crop // 2, 0, shape - self.crop)
        return start


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

    `config` has the sections `autoencoder` (see `build_autoencoder`) and `training` (steps, batch, crop and
    `TRAINING_DEFAULTS`).
    """
    settings = section(config, "training", ("steps", "batch", "crop"), TRAINING_DEFAULTS)
    seed, target = settings["seed"], torch.device(device)
    torch.manual_seed(seed)
    network = (
        build_autoencoder(config["autoencoder"]).to(target, memory_format=torch.channels_last_3d).train()
    )
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"]
    )
    networks, optimizers = {"autoencoder": network}, {"autoencoder": optimizer}
    adversary = _Adversary(settings, target) if settings["adversarial_weight"] > 0 else None
    if adversary:
        networks["discriminator"], optimizers["discriminator"] = adversary.network, adversary.optimizer
    source = CropSource(cases, tuple(settings["crop"]), settings["body_share"])

    def one_step(step: int) -> dict[str, float]:
        draw = generator_for(seed, step, "autoencoder")
        network.codebook.revival_generator = draw
        images = source.batch(settings["batch"], draw).to(target, memory_format=torch.channels_last_3d)
        rate = learning_rate(step, settings["steps"], settings["learning_rate"], settings["warmup"])
        optimizer.param_groups[0]["lr"] = rate
        with autocast(target, settings["precision"]):
            reconstruction, commitment, indices = network(images)
        losses = {"l1": (reconstruction - images).abs().mean(), "commitment": commitment}
        total = losses["l1"] + commitment
        if settings["squared_weight"]:
            losses["squared"] = (reconstruction - images).square().mean()
            total = total + settings["squared_weight"] * losses["squared"]
        if settings["spectral_weight"]:
            losses["spectral"] = spectral_loss(reconstruction, images)
            total = total + settings["spectral_weight"] * losses["spectral"]
        if adversary and step >= settings["adversarial_start"]:
            losses["adversarial"] = adversary.generator_term(reconstruction)
            total = total + settings["adversarial_weight"] * losses["adversarial"]
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings["gradient_clip"])
        optimizer.step()
        if adversary and step >= settings["adversarial_start"]:
            losses["discriminator"] = adversary.improve(images, reconstruction.detach())
        used = float(len(torch.unique(indices)))
        return {name: float(value.detach()) for name, value in losses.items()} | {"codes": used}

    run_steps(
        folder,
        settings["steps"],
        one_step,
        networks=networks,
        optimizers=optimizers,
        config=config,
        checkpoint_every=settings["checkpoint_every"],
        phase="autoencoder",
        progress=progress,
        cancel=cancel,
    )


class _Adversary:
    """The patch discriminator and its own optimiser."""

    def __init__(self, settings: dict, device: torch.device):
        if not settings["discriminator"]:
            raise InputError(
                "adversarial_weight is above 0 but training.discriminator is missing; describe the network."
            )
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
