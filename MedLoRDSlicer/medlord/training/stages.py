"""The stages of training; without torch, so that the command line can name them at once."""

from __future__ import annotations

DESCRIPTIONS = {
    "prepare": "make or read the training cases",
    "autoencoder": "train the VQ-VAE GAN",
    "encode": "latents of all cases and their scale factor",
    "diffusion": "train the denoiser",
    "control": "train the control network",
}
"""What each stage does, in the order in which they follow each other."""

STAGES = tuple(DESCRIPTIONS)
