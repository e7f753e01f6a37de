"""The vector-quantised autoencoder: CT intensities in [-1, 1] to a small latent volume and back."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import torch
from monai.networks.nets.vqvae import Decoder, Encoder
from torch import nn

from . import receptive_field
from .quantizer import DEFAULT_CHUNK_BYTES, ChunkedQuantizer
from .receptive_field import Layer

Axes = int | Sequence[int]


def parameters_of_stride(stride: Axes) -> tuple:
    """(stride, kernel, dilation, padding) of a down- or upsampling convolution with `stride` per axis (1 or 2).

    Stride 2 has kernel 4 and padding 1, stride 1 kernel 3 and padding 1: both keep sizes whole.
    """
    strides = per_axis(stride)
    if any(value not in (1, 2) for value in strides):
        raise ValueError(f"stride {stride} is not 1 or 2 along every axis")
    return strides, tuple(2 + value for value in strides), 1, 1


def per_axis(value: Axes) -> tuple[int, int, int]:
    """One number for every axis, or three numbers, as a tuple of three."""
    values = (value,) * 3 if isinstance(value, int) else tuple(value)
    if len(values) != 3 or not all(isinstance(item, int) for item in values):
        raise ValueError(f"{value!r} is neither one whole number nor three of them")
    return values


def _require_whole_scaling(down: Sequence[Sequence], up: Sequence[Sequence]) -> None:
    """Raise `ValueError` unless every level divides and multiplies sizes by exactly its strides, alike both ways.

    Tiles and grids rely on it: an image of `downsampling_factors` times n voxels has n latents, and they give it back.
    """
    for name, levels, count in (("downsample_parameters", down, 4), ("upsample_parameters", up, 5)):
        if any(len(level) != count for level in levels):
            raise ValueError(f"{name} need {count} numbers in every level")
    for level in down:
        for stride, kernel, dilation, padding in zip(*level, strict=True):
            # floor((n + surplus) / stride) + 1 is n / stride for every multiple n of the stride
            surplus = 2 * padding - dilation * (kernel - 1) - 1
            if stride < 1 or not -stride <= surplus < 0:
                raise ValueError(f"downsample_parameters {level} do not divide sizes by their stride exactly")
    for level in up:
        for stride, kernel, dilation, padding, extra in zip(*level, strict=True):
            if stride < 1 or dilation * (kernel - 1) - 2 * padding + extra + 1 != stride:
                raise ValueError(f"upsample_parameters {level} do not multiply sizes by their stride exactly")
    factors = [[math.prod(level[0][axis] for level in levels) for axis in range(3)] for levels in (down, up)]
    if factors[0] != factors[1]:
        raise ValueError(
            f"the encoder divides sizes by {factors[0]}, the decoder multiplies them by {factors[1]}"
        )


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """Autocast off; the device "meta", on which memory and operations are counted, knows none."""
    if device.type == "meta":
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


class VectorQuantizedAutoencoder(nn.Module):
    """MONAI's VQ-VAE with per-axis strides and the chunked quantiser; same state-dict names as MONAI's `VQVAE`.

    `channels`, `num_res_channels` and the parameters have one entry per level. `downsample_parameters` entries are
    (stride, kernel, dilation, padding), `upsample_parameters` entries (stride, kernel, dilation, padding,
    output_padding), listed in the order in which the decoder uses them; each number may be one per axis.
    Images are (batch, in_channels, i, j, k) with sizes that are multiples of `downsampling_factors`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        num_res_layers: int,
        num_res_channels: Sequence[int],
        downsample_parameters: Sequence[Sequence[Axes]],
        upsample_parameters: Sequence[Sequence[Axes]],
        num_embeddings: int,
        embedding_dim: int,
        commitment_cost: float = 0.25,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        act: str = "RELU",
        dropout: float = 0.0,
        revival_threshold: float = 0.0,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    ) -> None:
        super().__init__()
        shared = {
            "spatial_dims": 3,
            "channels": tuple(channels),
            "num_res_layers": num_res_layers,
            "num_res_channels": tuple(num_res_channels),
            "dropout": dropout,
            "act": act,
        }
        self.num_res_layers = num_res_layers
        self.downsample_parameters = [
            tuple(per_axis(value) for value in level) for level in downsample_parameters
        ]
        self.upsample_parameters = [
            tuple(per_axis(value) for value in level) for level in upsample_parameters
        ]
        _require_whole_scaling(self.downsample_parameters, self.upsample_parameters)
        self.encoder = Encoder(
            in_channels=in_channels,
            out_channels=embedding_dim,
            downsample_parameters=self.downsample_parameters,
            **shared,
        )
        self.decoder = Decoder(
            in_channels=embedding_dim,
            out_channels=out_channels,
            upsample_parameters=self.upsample_parameters,
            output_act=None,
            **shared,
        )
        # the doubled name is MONAI's: its quantiser sits inside a wrapper of the same name
        codebook = ChunkedQuantizer(
            num_embeddings, embedding_dim, commitment_cost, decay, epsilon, revival_threshold, chunk_bytes
        )
        self.quantizer = nn.ModuleDict({"quantizer": codebook})

    @property
    def codebook(self) -> ChunkedQuantizer:
        """The quantiser with its codes."""
        return self.quantizer["quantizer"]

    @property
    def downsampling_factors(self) -> tuple[int, int, int]:
        """Image voxels per latent voxel along each axis."""
        return tuple(receptive_field.downsampling(self._encoder_layers(axis)) for axis in range(3))

    @property
    def encoding_halo(self) -> tuple[int, int, int]:
        """Image voxels that a tile needs beyond its core, per axis, to be encoded exactly; multiples of the factor."""
        return tuple(receptive_field.encoding_halo(self._encoder_layers(axis)) for axis in range(3))

    @property
    def decoding_halo(self) -> tuple[int, int, int]:
        """Latent voxels that a tile needs beyond its core, per axis, to be decoded exactly."""
        return tuple(receptive_field.decoding_halo(self._decoder_layers(axis)) for axis in range(3))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images (batch, channel, i, j, k) -> unquantised latents (batch, embedding_dim, ...), float32."""
        return self.encoder(images.to(self._weight_dtype)).float()

    def quantize(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents -> (quantised latents, commitment loss, indices (batch, i, j, k)); see `ChunkedQuantizer`."""
        return self.codebook(latents)

    def decode(self, quantized: torch.Tensor) -> torch.Tensor:
        """Quantised latents -> images, float32.

        The last convolution runs in float32 under autocast too: bfloat16 has steps of 4 HU between 500 and 1000 HU
        from zero, where lung and air lie, and that layer is a small part of the work.
        """
        hidden = quantized.to(self._weight_dtype)
        *body, end = self.decoder.blocks
        for block in body:
            hidden = block(hidden)
        with without_autocast(hidden.device):
            return end(hidden.to(self._weight_dtype)).float()

    def decode_latent(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents as a diffusion model makes them -> images: quantise, then decode."""
        return self.decode(self.codebook.embed(self.codebook.indices(latents)))

    def encode_to_latent(self, images: torch.Tensor, quantized: bool = False) -> torch.Tensor:
        """Images -> latents for the diffusion model; `quantized` takes the nearest codes instead."""
        latents = self.encode(images)
        return self.codebook.embed(self.codebook.indices(latents)) if quantized else latents

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images -> (reconstruction, commitment loss, indices)."""
        quantized, loss, indices = self.quantize(self.encode(images))
        return self.decode(quantized), loss, indices

    @property
    def _weight_dtype(self) -> torch.dtype:
        return self.decoder.blocks[-1].conv.weight.dtype

    def _encoder_layers(self, axis: int) -> list[Layer]:
        layers = []
        for stride, kernel, dilation, padding in self.downsample_parameters:
            layers.append(Layer(kernel[axis], stride[axis], padding[axis], dilation[axis]))
            layers += [Layer(3, padding=1)] * 2 * self.num_res_layers
        return [*layers, Layer(3, padding=1)]

    def _decoder_layers(self, axis: int) -> list[Layer]:
        layers = [Layer(3, padding=1)]
        for stride, kernel, dilation, padding, _ in self.upsample_parameters:
            layers += [Layer(3, padding=1)] * 2 * self.num_res_layers
            layers.append(Layer(kernel[axis], stride[axis], padding[axis], dilation[axis], transposed=True))
        return layers
