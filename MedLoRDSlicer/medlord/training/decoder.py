"""Training of the decoder alone, on latents that stay: sharper structures, and no later stage has to be repeated.

The latents of the cases are those of the stage `encode`, so encoder, codebook and everything that was trained on
latents keep their meaning; only the road from a latent to HU changes. Loss = weighted L1 + optional squared error,
spectral terms, where voxels in and around the conditions of `condition_weights` count more: thin
cortical bone is a hundredth of a thorax, and an unweighted mean gives it up first (MAISI, arXiv 2409.11169, weights
small structures for the same reason).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from ..devices import autocast
from ..errors import InputError
from ..networks.autoencoder import VectorQuantizedAutoencoder
from ..progress import Cancel, Progress
from .cases import load_case, to_network
from .config import section
from .latents import load_latents
from .losses import spectral_loss
from .optimisation import Descent, generator_for, run_steps

DECODER_DEFAULTS = {
    "seed": 0,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "warmup": 50,
    "cooldown": None,
    "earlier_ends": (),
    "weight_decay": 0.0,
    "squared_weight": 0.0,
    "spectral_weight": 0.0,
    "condition_weights": {},
    "average_decay": 0.99,
    "gradient_clip": 1.0,
    "precision": "float32",
    "checkpoint_every": 500,
    "condition_share": 0.7,
}
DECODER_AVERAGE = "average"
"""Name, in the checkpoint of this stage, of the decoder with averaged weights."""

EDGE = 8
"""Image voxels at the cut sides of a crop that do not count: there the decoder lacks its surroundings."""


class DecodingCases:
    """Latents, images and voxel weights of all training cases, and crops of them."""

    def __init__(self, cases: Path, latents_folder: Path, config: dict, settings: dict):
        names, self.latents = load_latents(latents_folder)
        self.settings, self.window_hu = settings, tuple(config["window_hu"])
        self.images, self.weights, self.marked = [], [], []
        for name in names:
            case = load_case(cases / f"{name}.npz")
            weights = voxel_weights(case.masks, case.conditions, settings["condition_weights"])
            self.images.append(case.image_hu)
            self.weights.append(weights)
            self.marked.append(np.flatnonzero(weights > 1).astype(np.int32))
        shape, latent_shape = np.asarray(self.images[0].shape), np.asarray(self.latents.shape[2:])
        self.factors, self.crop = shape // latent_shape, np.asarray(settings["crop"])
        cut_short = (self.crop < shape) & (self.crop <= 2 * EDGE)
        if (self.crop > shape).any() or (self.crop % self.factors).any() or cut_short.any():
            raise InputError(
                f"The decoder's training crop is {tuple(settings['crop'])}; along each axis it takes a multiple of "
                f"{tuple(self.factors.tolist())} above {2 * EDGE}, or the size of the cases {tuple(shape.tolist())}."
            )

    def batch(self, size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents (size, channel, ...), images and weights (size, 1, i, j, k) of `size` random crops."""
        parts = [self._crop(generator) for _ in range(size)]
        return tuple(torch.stack(part) for part in zip(*parts, strict=True))

    def _crop(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        numbers = torch.rand(6, generator=generator).numpy()
        index = min(int(numbers[0] * len(self.images)), len(self.images) - 1)
        shape = np.asarray(self.images[index].shape)
        start = numbers[1:4] * (shape - self.crop + 1)
        marked = self.marked[index]
        if numbers[4] < self.settings["condition_share"] and len(marked):
            voxel = marked[min(int(numbers[5] * len(marked)), len(marked) - 1)]
            start = np.asarray(np.unravel_index(voxel, shape)) - self.crop // 2
        first = np.clip(start, 0, shape - self.crop).astype(int) // self.factors
        start, extent = first * self.factors, self.crop // self.factors
        window = tuple(slice(a, a + n) for a, n in zip(start, self.crop, strict=True))
        latent = self.latents[
            (index, slice(None), *(slice(a, a + n) for a, n in zip(first, extent, strict=True)))
        ]
        image = to_network(self.images[index][window], self.window_hu)
        weights = self.weights[index][window].astype(np.float32)
        for axis in range(3):
            along = np.moveaxis(weights, axis, 0)
            along[: 0 if start[axis] == 0 else EDGE] = 0
            along[len(along) - (0 if start[axis] + self.crop[axis] == shape[axis] else EDGE) :] = 0
        return latent, torch.from_numpy(image)[None], torch.from_numpy(weights)[None]


def voxel_weights(masks: np.ndarray, conditions: list[str], weights: dict[str, float]) -> np.ndarray:
    """How much each image voxel counts, float16 [i, j, k]: the largest weight of a condition within one voxel, else 1.

    `masks` are bool (condition, i, j, k) in the order of `conditions`. Raises `InputError` for unknown conditions and
    weights under 1.
    """
    wrong = [name for name, weight in weights.items() if name not in conditions or weight < 1]
    if wrong:
        raise InputError(
            f"condition_weights names {wrong}; it takes conditions of the model ({', '.join(conditions)}) with "
            "weights of at least 1."
        )
    result = torch.ones(1, *masks.shape[1:])
    for name, weight in weights.items():
        mask = torch.from_numpy(masks[conditions.index(name)]).float()[None]
        result = torch.maximum(result, functional.max_pool3d(mask, 3, stride=1, padding=1) * weight)
    return result[0].numpy().astype(np.float16)


class _DecoderTraining:
    def __init__(self, network: VectorQuantizedAutoencoder, settings: dict, device: torch.device):
        self.settings, self.device, self.network = settings, device, network.to(device)
        network.requires_grad_(False)
        self.descent = Descent(network.decoder.train().requires_grad_(True), settings)

    def step(self, step: int, cases: DecodingCases) -> dict[str, float]:
        """Train on one batch of crops; returns the losses."""
        settings = self.settings
        draw = generator_for(settings["seed"], step, "decoder")
        latents, images, weights = (part.to(self.device) for part in cases.batch(settings["batch"], draw))
        with autocast(self.device, settings["precision"]):
            decoded = self.network.decode(latents)
        total = weights.sum()
        difference = decoded - images
        terms = {"l1": (1.0, (weights * difference.abs()).sum() / total)}
        if settings["squared_weight"]:
            terms["squared"] = settings["squared_weight"], (weights * difference.square()).sum() / total
        if settings["spectral_weight"]:
            inside = weights > 0
            terms["spectral"] = settings["spectral_weight"], spectral_loss(decoded * inside, images * inside)
        self.descent.descend(sum(weight * value for weight, value in terms.values()), step)
        return {name: float(value.detach()) for name, (_, value) in terms.items()}


def train_decoder(
    config: dict,
    autoencoder: VectorQuantizedAutoencoder,
    cases: Path,
    latents_folder: Path,
    folder: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> None:
    """Train the decoder of `autoencoder` on; resumes when `folder` holds a checkpoint (network "average" in it).

    `config` has the sections `window_hu` (low, high) and `training` (steps, batch, crop and `DECODER_DEFAULTS`).
    """
    settings = section(config, "training", ("steps", "batch", "crop"), DECODER_DEFAULTS)
    source = DecodingCases(cases, latents_folder, config, settings)
    training = _DecoderTraining(autoencoder, settings, torch.device(device))
    descent = training.descent
    run_steps(
        folder,
        settings["steps"],
        lambda step: training.step(step, source),
        networks={"decoder": descent.network, DECODER_AVERAGE: descent.average.network},
        optimizers=descent.optimizers,
        config=config,
        defaults=DECODER_DEFAULTS,
        checkpoint_every=settings["checkpoint_every"],
        phase="decoder",
        progress=progress,
        cancel=cancel,
    )
