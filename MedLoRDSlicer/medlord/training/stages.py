"""The stages of training; without torch, so that the command line can name them at once."""

from __future__ import annotations

DESCRIPTIONS = {
    "prepare": "make or read the training cases",
    "autoencoder": "train the VQ-VAE GAN",
    "encode": "latents of all cases and their scale factor",
    "decoder": "train the decoder on, with the latents as they are (only where the configuration asks for it)",
    "diffusion": "train the denoiser",
    "control": "train the control network",
}
"""What each stage does, in the order in which they follow each other."""

STAGES = tuple(DESCRIPTIONS)
"""All stages in order."""

OPTIONAL = ("decoder",)
"""Stages without which a model is whole: they run where the configuration has a section of that name."""


def stages_of(config: dict) -> list[str]:
    """The stages that the configuration `config` asks for, in order."""
    return [stage for stage in STAGES if stage not in OPTIONAL or stage in config]
