"""The patch discriminator of the adversarial autoencoder training."""

from __future__ import annotations

import torch
from monai.networks.nets import PatchDiscriminator as MonaiPatchDiscriminator


class PatchDiscriminator(MonaiPatchDiscriminator):
    """MONAI's PatchGAN discriminator, returning only its logits: one per patch of the image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (batch, channel, i, j, k) -> logits (batch, 1, i', j', k')."""
        return super().forward(images)[-1]
