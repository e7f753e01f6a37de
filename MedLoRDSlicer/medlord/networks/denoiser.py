"""The latent denoiser: MONAI's diffusion U-Net with the output activation as a choice."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import DiffusionModelUNet
from torch import nn

from .attention import take_over_attention


class DenoisingUNet(DiffusionModelUNet):
    """Predicts v (or noise) from noisy latents (batch, in_channels, i, j, k) and time steps (batch,).

    `output_activation` "silu" is MONAI's and the older MedLoRD's; "none" leaves the activation between the last
    group norm and the last convolution out, as MedLoRD's current code does. `include_fc` is the linear layer after
    the attention, which MedLoRD stores but never applies. How the attention is computed is a switch of
    `medlord.networks.attention`. Spatial sizes must be multiples of 2^(levels-1).
    """

    def __init__(self, *, output_activation: str = "silu", **monai_arguments) -> None:
        super().__init__(spatial_dims=3, **monai_arguments)
        if output_activation not in ("silu", "none"):
            raise ValueError(f'output_activation is {output_activation!r}; it can be "silu" or "none"')
        if output_activation == "none":
            self.out[1] = nn.Identity()
        self.output_activation = output_activation
        take_over_attention(self)

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        down_block_additional_residuals: Sequence[torch.Tensor] | None = None,
        mid_block_additional_residual: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Noisy latents and time steps, optionally the residuals of a `ControlNetwork` -> prediction like `x`."""
        return super().forward(
            x=x,
            timesteps=timesteps,
            down_block_additional_residuals=down_block_additional_residuals,
            mid_block_additional_residual=mid_block_additional_residual,
        )
