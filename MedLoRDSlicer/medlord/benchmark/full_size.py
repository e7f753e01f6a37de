"""The published MedLoRD configurations as models with random weights, and reduced ones for a computer without a GPU.

Speed and memory depend on shapes, not on weights. Factors 4 and 8 are those between image and latent: Seyfarth et
al., "MedLoRD" (autoencoder [128, 256] and [128, 256, 512], 16384 codes of 8 numbers), the denoisers of the published
configurations and a control adapter of half their width with 6 masks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    import torch

    from ..bundles.bundle import ModelBundle
    from ..bundles.description import ModelDescription
    from ..conditions import Conditions

SIZES = ("reduced", "paper")
FACTORS = (4, 8)
TRAINING_STEPS = 300
CONDITIONS = ("body", "lung", "bone", "aorta", "heart_atrium_left", "heart_ventricle_left")
_WEIGHT_SCALE = 0.05


@dataclass(frozen=True)
class Configuration:
    """One model to measure.

    image_shape   voxels (i, j, k) of the volume that is synthesized
    decode_shape  voxels of the volume whose decoding is measured for memory; large enough that tiles pay
    denoisers     constructor dictionaries by their published names; the first one is used for whole runs
    """

    size: str
    factor: int
    image_shape: tuple[int, int, int]
    decode_shape: tuple[int, int, int]
    autoencoder: dict
    denoisers: dict[str, dict]
    control: dict

    @property
    def name(self) -> str:
        """In words, for tables."""
        return f"factor {self.factor}, {' x '.join(map(str, self.image_shape))}"

    @property
    def denoiser(self) -> dict:
        """The denoiser of whole runs."""
        return next(iter(self.denoisers.values()))

    def latent_shape(self, image_shape: tuple[int, int, int] | None = None) -> tuple[int, ...]:
        """(1, channel, i, j, k) of the latent of a volume of `image_shape` (default: the synthesized one)."""
        sizes = (n // self.factor for n in image_shape or self.image_shape)
        return 1, self.autoencoder["embedding_dim"], *sizes

    def networks(self) -> dict[str, dict]:
        """Constructor dictionaries as a model's description holds them."""
        return {"autoencoder": self.autoencoder, "denoiser": self.denoiser, "control": self.control}


def _denoiser(channels: list[int], blocks: int, attention: list[bool], head: int, groups: int = 32) -> dict:
    """As MedLoRD's code builds it: no activation before the last convolution, no layer after the attention."""
    return {
        "in_channels": 8,
        "out_channels": 8,
        "channels": channels,
        "num_res_blocks": blocks,
        "attention_levels": attention,
        "num_head_channels": head,
        "norm_num_groups": groups,
        "include_fc": False,
        "output_activation": "none",
    }


def _autoencoder(channels: list[int], codes: int) -> dict:
    return {
        "channels": channels,
        "num_res_layers": 2,
        "strides": [2] * len(channels),
        "num_embeddings": codes,
        "embedding_dim": 8,
    }


def _control(channels: list[int], head: int, groups: int) -> dict:
    return {
        "condition_channels": len(CONDITIONS),
        "embedding_channels": channels,
        "embedding_strides": [2] * len(channels),
        "num_head_channels": head,
        "norm_num_groups": groups,
        "with_transformers": True,
    }


PAPER_DENOISERS = {
    "medlord": _denoiser([64, 128, 256, 512], 2, [False, False, True, True], 32),
    "3level": _denoiser([128, 256, 512], 3, [False, False, True], 64),
    "wide": _denoiser([128, 256, 512, 512], 3, [False, False, True, True], 32),
}
REDUCED_DENOISERS = {"reduced": _denoiser([32, 64, 128], 2, [False, False, True], 32)}
PAPER_SHAPE = (512, 512, 256)

CONFIGURATIONS = {
    ("paper", 4): Configuration(
        "paper", 4, PAPER_SHAPE, PAPER_SHAPE,
        _autoencoder([128, 256], 16384), PAPER_DENOISERS, _control([32, 64], 32, 32),
    ),
    # the published adapter has two embedding entries, which is factor 4; factor 8 needs a third
    ("paper", 8): Configuration(
        "paper", 8, PAPER_SHAPE, PAPER_SHAPE,
        _autoencoder([128, 256, 512], 16384), PAPER_DENOISERS, _control([32, 64, 96], 32, 32),
    ),
    ("reduced", 4): Configuration(
        "reduced", 4, (64, 64, 64), PAPER_SHAPE,
        _autoencoder([32, 64], 1024), REDUCED_DENOISERS, _control([16, 32], 16, 16),
    ),
    ("reduced", 8): Configuration(
        "reduced", 8, (128, 128, 128), PAPER_SHAPE,
        _autoencoder([32, 64, 128], 1024), REDUCED_DENOISERS, _control([16, 32, 48], 16, 16),
    ),
}  # fmt: skip


def configuration(size: str, factor: int) -> Configuration:
    """The configuration of a size and a factor; raises `InputError` naming the known ones."""
    if (size, factor) not in CONFIGURATIONS:
        raise InputError(
            f"There is no benchmark of the size '{size}' with factor {factor}; sizes are {', '.join(SIZES)}, "
            f"factors {', '.join(map(str, FACTORS))}."
        )
    return CONFIGURATIONS[size, factor]


def describe(configuration: Configuration) -> ModelDescription:
    """The description that a bundle of this configuration would have; without weight files."""
    from ..bundles.description import ModelDescription

    return ModelDescription(
        id=f"benchmark-{configuration.size}-{configuration.factor}",
        version="0",
        networks=configuration.networks(),
        weights_sha256={},
        schedule={"kind": "cosine", "training_steps": TRAINING_STEPS},
        prediction_type="v_prediction",
        scale_factor=1.0,
        grid_shape=configuration.image_shape,
        spacing_mm=tuple(360.0 / n for n in configuration.image_shape),
        orientation="RAS",
        conditions=list(CONDITIONS),
        attributes={},
        window_hu=(-1000.0, 1000.0),
        licence="none: random weights",
        title=f"Random weights, {configuration.name}",
    )


def random_bundle(configuration: Configuration, device: torch.device, seed: int = 0) -> ModelBundle:
    """A model with random weights on `device`; no layer is left at zero, so nothing is saved by an early zero."""
    from ..bundles.bundle import ModelBundle

    networks = {
        name: random_network(configuration, name, device, seed)
        for name in ("autoencoder", "denoiser", "control")
    }
    return ModelBundle(describe(configuration), Path(), device, **networks)


def random_network(
    configuration: Configuration, name: str, device: torch.device, seed: int = 0
) -> torch.nn.Module:
    """One network ("autoencoder", "denoiser" or "control") with random weights, in evaluation mode."""
    import torch

    from ..networks.build import build_autoencoder, build_control, build_denoiser

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        with torch.device(device):
            if name == "autoencoder":
                network = build_autoencoder(configuration.autoencoder)
            elif name == "denoiser":
                network = build_denoiser(configuration.denoiser)
            else:
                network = build_control(configuration.control, configuration.denoiser)
            network.eval().requires_grad_(False)
            if device.type != "meta":
                for parameter in network.parameters():
                    if not parameter.any():
                        parameter.normal_(0.0, _WEIGHT_SCALE)
    return network


def with_denoiser(configuration: Configuration, name: str) -> Configuration:
    """The same with only the denoiser of that published name."""
    return replace(configuration, denoisers={name: configuration.denoisers[name]})


def ellipsoids(description: ModelDescription) -> Conditions:
    """Masks on the model's grid: one ellipsoid per condition, each smaller than the one before."""
    from ..conditions import Conditions

    grid = description.grid_at((0.0, 0.0, 0.0))
    axes = [np.linspace(-1, 1, n, dtype=np.float32) ** 2 for n in grid.shape]
    radius = axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :]
    return Conditions(
        grid, {name: radius < (0.9 / (n + 1)) ** 2 for n, name in enumerate(description.conditions)}
    )
