"""The control adapter: masks at image resolution steer the denoiser through residuals on its skip tensors.

Zhang et al., "Adding Conditional Control to Text-to-Image Diffusion Models" (arXiv 2302.05543), at a fraction of
the denoiser's width as in MedLoRD, with 1x1x1 projections up to the denoiser's width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from monai.networks.nets.diffusion_model_unet import (
    get_down_block,
    get_mid_block,
    get_timestep_embedding,
    zero_module,
)
from torch import nn

from ..errors import InputError
from . import receptive_field
from .attention import take_over_attention
from .autoencoder import Axes, per_axis
from .receptive_field import Layer


class ConditionEmbedding(nn.Module):
    """Convolutions from masks at image resolution to features at latent resolution; the last one starts at zero.

    The first convolution has `strides[0]`; every further entry of `channels` adds one convolution of stride 1 and
    one of its entry in `strides`. SiLU after each but the last.
    """

    def __init__(
        self, in_channels: int, out_channels: int, channels: Sequence[int], strides: Sequence[Axes]
    ) -> None:
        super().__init__()
        self.strides = [per_axis(stride) for stride in strides]
        self.conv_in = _activated_convolution(in_channels, channels[0], self.strides[0])
        self.blocks = nn.ModuleList()
        for i in range(1, len(channels)):
            self.blocks.append(_activated_convolution(channels[i - 1], channels[i - 1], 1))
            self.blocks.append(_activated_convolution(channels[i - 1], channels[i], self.strides[i]))
        self.conv_out = zero_module(nn.Conv3d(channels[-1], out_channels, kernel_size=3, padding=1))

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        """(batch, conditions, i, j, k) -> (batch, out_channels, i/factor, j/factor, k/factor)."""
        hidden = self.conv_in(masks)
        for block in self.blocks:
            hidden = block(hidden)
        return self.conv_out(hidden)

    def layers(self, axis: int) -> list[Layer]:
        """The convolutions along one axis, for the receptive field."""
        layers = [Layer(3, self.strides[0][axis], 1)]
        for stride in self.strides[1:]:
            layers += [Layer(3, 1, 1), Layer(3, stride[axis], 1)]
        return [*layers, Layer(3, 1, 1)]


def _activated_convolution(in_channels: int, out_channels: int, strides: Axes) -> Convolution:
    return Convolution(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        strides=strides,
        kernel_size=3,
        padding=1,
        adn_ordering="A",
        act="SWISH",
    )


class ControlNetwork(nn.Module):
    """A narrow copy of the denoiser's encoder whose skip tensors become residuals for the denoiser.

    `channels` are its own widths, `denoiser_channels` the widths of the residuals; levels, residual blocks and
    attention levels must be the denoiser's. `with_transformers` puts transformer blocks (self-attention twice, feed
    forward) on the attention levels instead of plain self-attention.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        denoiser_channels: Sequence[int],
        num_res_blocks: Sequence[int],
        attention_levels: Sequence[bool],
        num_head_channels: Sequence[int],
        norm_num_groups: int,
        condition_channels: int,
        embedding_channels: Sequence[int],
        embedding_strides: Sequence[Axes],
        norm_eps: float = 1e-6,
        resblock_updown: bool = False,
        with_transformers: bool = False,
        include_fc: bool = True,
    ) -> None:
        super().__init__()
        self.condition_channels = condition_channels
        self.block_out_channels = tuple(channels)
        self._add_inputs(in_channels, channels[0], embedding_channels, embedding_strides)
        shared = {
            "spatial_dims": 3,
            "temb_channels": channels[0] * 4,
            "norm_num_groups": norm_num_groups,
            "norm_eps": norm_eps,
            "transformer_num_layers": 1,
            "cross_attention_dim": None,
            "include_fc": include_fc,
        }
        self.down_blocks = nn.ModuleList()
        self.controlnet_down_blocks = nn.ModuleList([_projection(channels[0], denoiser_channels[0])])
        for level, width in enumerate(channels):
            with_attention = {
                "with_attn": attention_levels[level] and not with_transformers,
                "with_cross_attn": attention_levels[level] and with_transformers,
                "num_head_channels": num_head_channels[level],
            }
            previous, blocks = channels[max(level - 1, 0)], num_res_blocks[level]
            self._add_level(
                previous,
                width,
                denoiser_channels[level],
                blocks,
                level == len(channels) - 1,
                resblock_updown=resblock_updown,
                **with_attention,
                **shared,
            )
        self.middle_block = get_mid_block(
            in_channels=channels[-1],
            with_conditioning=with_transformers,
            num_head_channels=num_head_channels[-1],
            **shared,
        )
        self.controlnet_mid_block = _projection(channels[-1], denoiser_channels[-1])
        take_over_attention(self)

    def _add_inputs(
        self,
        in_channels: int,
        width: int,
        embedding_channels: Sequence[int],
        embedding_strides: Sequence[Axes],
    ) -> None:
        """What reads the noisy latent, the time step and the masks."""
        time_channels = width * 4
        self.conv_in = Convolution(
            spatial_dims=3,
            in_channels=in_channels,
            out_channels=width,
            kernel_size=3,
            padding=1,
            conv_only=True,
        )
        self.time_embed = nn.Sequential(
            nn.Linear(width, time_channels), nn.SiLU(), nn.Linear(time_channels, time_channels)
        )
        self.controlnet_cond_embedding = ConditionEmbedding(
            self.condition_channels, width, embedding_channels, embedding_strides
        )

    def _add_level(
        self,
        in_channels: int,
        width: int,
        denoiser_width: int,
        num_res_blocks: int,
        is_last: bool,
        **settings,
    ) -> None:
        """One level of the encoder, and a projection for each of its skip tensors."""
        self.down_blocks.append(
            get_down_block(
                in_channels=in_channels,
                out_channels=width,
                num_res_blocks=num_res_blocks,
                add_downsample=not is_last,
                **settings,
            )
        )
        for _ in range(num_res_blocks + (not is_last)):
            self.controlnet_down_blocks.append(_projection(width, denoiser_width))

    @property
    def condition_factors(self) -> tuple[int, int, int]:
        """Mask voxels per latent voxel along each axis; must equal the autoencoder's `downsampling_factors`."""
        embedding = self.controlnet_cond_embedding
        return tuple(receptive_field.downsampling(embedding.layers(axis)) for axis in range(3))

    @property
    def condition_halo(self) -> tuple[int, int, int]:
        """Mask voxels that a tile needs beyond its core, per axis, to be embedded exactly."""
        embedding = self.controlnet_cond_embedding
        return tuple(receptive_field.encoding_halo(embedding.layers(axis)) for axis in range(3))

    def embed_condition(self, masks: torch.Tensor) -> torch.Tensor:
        """Masks at full resolution (batch, conditions, i, j, k), any dtype -> features at latent resolution.

        They do not depend on the time step: compute them once per run and hand them to every `forward`.
        """
        if masks.shape[1] != self.condition_channels:
            raise InputError(
                f"{masks.shape[1]} condition channels were given, the model takes {self.condition_channels}; "
                "give an empty channel for every condition without a mask."
            )
        return self.controlnet_cond_embedding(masks.to(self.conv_in.conv.weight.dtype))

    def forward(
        self,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        embedded_condition: torch.Tensor,
        conditioning_scale: float = 1.0,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Noisy latents, time steps (batch,) and `embed_condition` features -> residuals for `DenoisingUNet`.

        Returns (one residual per skip tensor, beginning with the input convolution's; middle residual), each times
        `conditioning_scale`. Features of batch 1 serve a whole batch of latents.
        """
        if embedded_condition.shape[2:] != x.shape[2:]:
            raise InputError(
                f"The embedded conditions have the shape {tuple(embedded_condition.shape[2:])}, the latent "
                f"{tuple(x.shape[2:])}; masks need {self.condition_factors} voxels per latent voxel."
            )
        time = get_timestep_embedding(timesteps, self.block_out_channels[0]).to(x.dtype)
        time = self.time_embed(time)
        hidden = self.conv_in(x) + embedded_condition
        skips = [hidden]
        for block in self.down_blocks:
            hidden, outputs = block(hidden_states=hidden, temb=time)
            skips += outputs
        hidden = self.middle_block(hidden_states=hidden, temb=time)
        residuals = [project(skip) for project, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        middle = self.controlnet_mid_block(hidden)
        if isinstance(conditioning_scale, float | int) and conditioning_scale == 1:
            return residuals, middle
        return [residual * conditioning_scale for residual in residuals], middle * conditioning_scale


def _projection(in_channels: int, out_channels: int) -> nn.Conv3d:
    return zero_module(nn.Conv3d(in_channels, out_channels, kernel_size=1))
