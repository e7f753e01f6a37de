"""Exact decoding level by level, in tiles: far less halo than one tile through the whole decoder.

The halo of a decoder adds up over its levels, and what it costs is paid at the finest one: 9 latent voxels at factor 8
are 72 image voxels on every side of a tile. Between two levels the features can be put together again on the CPU. Then
each level needs only a halo of its own, and in its own, finer voxels. The price is memory of the CPU for the features
of the whole volume (for 512 x 512 x 256 voxels and the published networks at factor 8: 5.4 GB at most).
"""

from __future__ import annotations

import torch

from ..errors import InputError
from ..progress import Cancel, PhaseClock, Progress
from .autoencoder import VectorQuantizedAutoencoder
from .tiling import Layout, Size, is_local, run_tiles

CPU = torch.device("cpu")


def decodes_by_level(autoencoder: VectorQuantizedAutoencoder) -> bool:
    """Whether the decoder has several levels, all of convolutions, so that going level by level is exact and helps."""
    return autoencoder.decoder_levels > 1 and is_local(autoencoder.decoder)


def level_layouts(autoencoder: VectorQuantizedAutoencoder, size: Size, tile: Size) -> list[Layout]:
    """How each level cuts latents of `size`, in its own voxels; `tile` (latent voxels) is the same place in all."""
    layouts = []
    for level in range(autoencoder.decoder_levels):
        layouts.append(Layout(size, tile, autoencoder.level_halo(level)))
        strides = autoencoder.upsample_parameters[level][0]
        size, tile = (tuple(n * by for n, by in zip(of, strides, strict=True)) for of in (size, tile))
    return layouts


def decode_by_level(
    autoencoder: VectorQuantizedAutoencoder,
    latents: torch.Tensor,
    tile: Size,
    *,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> torch.Tensor:
    """What `tiling.decode_tiled` gives: latents (batch, embedding_dim, i, j, k) -> images float32 on the CPU.

    `tile` is in latent voxels; every level works on one tile at a time, on the device of `latents`. `progress` gets one
    event of the phase "decode" per tile of every level, and `cancel` is asked before each.

    Raises `InputError` for a tile that is none and for a decoder that cannot go by level (see `decodes_by_level`),
    `CancelledError`.
    """
    if not decodes_by_level(autoencoder):
        raise InputError(
            "This decoder has one level only, or layers that see the whole volume; decode it in plain tiles."
        )
    layouts = level_layouts(autoencoder, tuple(latents.shape[2:]), tile)
    clock = PhaseClock("decode", sum(layout.count for layout in layouts), progress)
    features, done = autoencoder.codebook.embed(autoencoder.codebook.indices(latents)), 0
    for level, layout in enumerate(layouts):
        strides = autoencoder.upsample_parameters[level][0]
        features = run_tiles(
            _one_level(autoencoder, features, level, latents.device),
            layout,
            strides,
            CPU,
            clock,
            cancel,
            done,
        )
        done += layout.count
    return features


def _one_level(
    autoencoder: VectorQuantizedAutoencoder, features: torch.Tensor, level: int, device: torch.device
):
    def decode(place: tuple[slice, ...]) -> torch.Tensor:
        return autoencoder.decode_level(features[(slice(None), slice(None), *place)].to(device), level)

    return decode
