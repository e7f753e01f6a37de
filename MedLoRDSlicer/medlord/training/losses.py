"""Loss terms of the autoencoder and of the denoiser: pure functions, all computed in float32.

Every function takes tensors of any floating type and returns a scalar tensor (mean over all elements).
"""

from __future__ import annotations

import torch
from torch.nn import functional

ADVERSARIAL_SLOPE = 0.05
"""Negative slope of the leaky ReLU on the discriminator's logits, as in MONAI's `PatchAdversarialLoss`."""


def l1_loss(values: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """mean |values - target|; with `weights` (which broadcast over the channels) their weighted mean."""
    return _mean(functional.l1_loss(values.float(), target.float(), reduction="none"), weights)


def smooth_l1_loss(
    values: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Huber's loss with its corner at 1, mean as in `l1_loss`: d^2/2 below, |d| - 1/2 above."""
    return _mean(
        functional.smooth_l1_loss(values.float(), target.float(), beta=1.0, reduction="none"), weights
    )


def _mean(differences: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    if weights is None:
        return differences.mean()
    return (weights * differences).sum() / weights.expand_as(differences).sum()


DIFFUSION_LOSSES = {"l1": l1_loss, "smooth_l1": smooth_l1_loss}
"""Losses between a denoiser's prediction and its target, by the name in a training configuration."""


def least_squares_loss(logits: torch.Tensor, target: float) -> torch.Tensor:
    """mean (LeakyReLU(logits) - target)^2: least-squares GAN (Mao et al., arXiv 1611.04076, eq. 9), target 1 = real."""
    activated = functional.leaky_relu(logits.float(), ADVERSARIAL_SLOPE)
    return ((activated - target) ** 2).mean()


def generator_adversarial_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """How far the discriminator's `fake_logits` on reconstructions are from "real"."""
    return least_squares_loss(fake_logits, 1.0)


def discriminator_loss(fake_logits: torch.Tensor, real_logits: torch.Tensor) -> torch.Tensor:
    """Half the sum of the least-squares losses on reconstructions (target 0) and on images (target 1)."""
    return 0.5 * (least_squares_loss(fake_logits, 0.0) + least_squares_loss(real_logits, 1.0))


def spectral_loss(reconstruction: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """mean (|FFT(image)| - |FFT(reconstruction)|)^2 over the orthonormal 3D spectrum of (batch, channel, i, j, k).

    Dhariwal et al., "Jukebox" (arXiv 2005.00341, section 3.2.2), there over spectrograms. Real images have a
    mirrored spectrum: only half of it is computed, and its inner part counts twice.
    """
    difference = _half_spectrum_magnitude(image) - _half_spectrum_magnitude(reconstruction)
    size = image.shape[-1]
    weights = torch.full((difference.shape[-1],), 2.0, device=difference.device)
    weights[0] = 1.0
    if size % 2 == 0:
        weights[-1] = 1.0
    return (weights * difference**2).sum() / image.numel()


def _half_spectrum_magnitude(volume: torch.Tensor) -> torch.Tensor:
    with torch.autocast(volume.device.type, enabled=False):
        return torch.fft.rfftn(volume.float(), dim=(-3, -2, -1), norm="ortho").abs()
