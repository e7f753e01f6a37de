"""Whether to decode in plain tiles or level by level, and in which tiles."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..networks.autoencoder import VectorQuantizedAutoencoder
    from ..networks.tiling import Layout, Size

WORTH_IT = 0.9
"""Level by level is taken when it computes less than this share of what plain tiles compute."""


class LevelDecoding:
    """What decoding latents of `size` level by level takes and computes (`networks.level_decoding`).

    `always` are the bytes that any way of decoding holds beside its tile.
    """

    def __init__(self, autoencoder: VectorQuantizedAutoencoder, size: Size, device_type: str, always: int):
        self._autoencoder, self._size, self._device_type, self._always = (
            autoencoder,
            size,
            device_type,
            always,
        )
        self.bytes_of: Callable[[Size], int] = functools.cache(self._bytes_of)
        self._held_peak: Callable[[int, Size], int] = functools.cache(self._peak_of)

    @functools.cached_property
    def features(self) -> list[int]:
        """Bytes of the whole volume's features before each level, float32; the image is not among them."""
        layouts, channels = self._layouts(self._size), self._channels
        return [4 * math.prod(layout.size) * n for layout, n in zip(layouts, channels, strict=True)]

    @property
    def cpu_bytes(self) -> int:
        """Most bytes on the CPU at a time beside a GPU: the features before and after a level, or at last the image."""
        image = 4 * math.prod(self._size) * math.prod(self._autoencoder.downsampling_factors)
        return max(map(sum, pairwise([*self.features, image])))

    def computed(self, tile: Size) -> int:
        """Multiplications over all levels and tiles with their halos."""
        return sum(
            layout.computed * work for layout, work in zip(self._layouts(tile), self._work, strict=True)
        )

    def computed_plainly(self, plain: Layout) -> float:
        """Multiplications of plain tiles, halos included."""
        return self.computed(self._size) * plain.computed / math.prod(self._size)

    def tiles(self, smallest: int) -> list[Size]:
        """From the whole volume to tiles of `smallest` latent voxels a side: the longest side is cut once more each."""
        parts, tiles = [1, 1, 1], [self._size]
        while True:
            sides = [-(-n // count) for n, count in zip(self._size, parts, strict=True)]
            axis = sides.index(max(sides))
            if sides[axis] <= smallest:
                return tiles
            while -(-self._size[axis] // parts[axis]) == sides[axis]:
                parts[axis] += 1
            sides[axis] = -(-self._size[axis] // parts[axis])
            tiles.append(
                tuple(max(side, min(smallest, n)) for side, n in zip(sides, self._size, strict=True))
            )

    def fits(self, tile: Size, free: int) -> bool:
        """Whether `bytes_of(tile)` are at most `free`; each level's largest tile alone often tells, and sooner."""
        largest = (self._held_peak(level, layout.largest) for level, layout in enumerate(self._layouts(tile)))
        return all(held + self._always <= free for held in largest) and self.bytes_of(tile) <= free

    def _bytes_of(self, tile: Size) -> int:
        """Peak over the levels and all of their tiles."""
        peaks = []
        for level, layout in enumerate(self._layouts(tile)):
            held = functools.partial(self._held_peak, level)
            # Only a CPU has kernels of which a smaller tile takes more.
            peaks.append(layout.most(held) if self._device_type == "cpu" else held(layout.largest))
        return max(peaks) + self._always

    def _peak_of(self, level: int, cells: Size) -> int:
        """Peak of a tile of `cells` in one level; on a CPU with the whole features before and after the level."""
        from .accounting import peak_bytes

        beside = sum(self.features[level : level + 2]) if self._device_type == "cpu" else 0
        return beside + peak_bytes(self._pass(level, cells), self._device_type)

    def _pass(self, level: int, cells: Size) -> Callable[[], Any]:
        import torch

        channels = self._channels[level]
        return lambda: self._autoencoder.decode_level(torch.empty(1, channels, *cells, device="meta"), level)

    def _layouts(self, tile: Size) -> list[Layout]:
        from ..networks.level_decoding import level_layouts

        return level_layouts(self._autoencoder, self._size, tile)

    @functools.cached_property
    def _channels(self) -> list[int]:
        """Channels before each level."""
        _, *finer = reversed(self._autoencoder.decoder.channels)
        return [self._autoencoder.codebook.embedding_dim, *finer]

    @functools.cached_property
    def _work(self) -> list[int]:
        """Multiplications per voxel of each level's input: every one of its weights takes part once."""
        per_level = self._autoencoder.num_res_layers + 1
        work = [0] * self._autoencoder.decoder_levels
        for number, block in enumerate(self._autoencoder.decoder.blocks):
            weights = sum(weight.numel() for weight in block.parameters() if weight.dim() == 5)
            work[max(number - 1, 0) // per_level] += weights
        return work


def choose_by_level(
    levels: LevelDecoding, free: int, plain: tuple[Layout, int], smallest: int, wanted: Size | None = None
) -> tuple[Size, int] | None:
    """The largest tile that fits into `free` bytes and what it takes, or None where plain tiles are the better way.

    `plain` is how plain tiles would cut the volume and what they would take; they remain where they fit and compute
    little more (`WORTH_IT`). `wanted` is taken when it fits.
    """
    if wanted is not None and levels.bytes_of(wanted) <= free:
        return wanted, levels.bytes_of(wanted)
    layout, needed = plain
    if layout.count == 1 and needed <= free:
        return None
    # One by one: on a CPU a smaller tile may take more, when its volumes are small enough to be unfolded.
    tile = next((tile for tile in levels.tiles(smallest) if levels.fits(tile, free)), None)
    if tile is None:
        return None
    if needed <= free and levels.computed(tile) >= WORTH_IT * levels.computed_plainly(layout):
        return None
    return tile, levels.bytes_of(tile)
