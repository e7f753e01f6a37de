"""How far a chain of convolutions looks, in whole voxels: the arithmetic behind exact tiling.

A network is described along one axis as a list of `Layer`s from input to output. Walking from an output range
back to the input gives the input range on which it depends; what sticks out of the tile is the halo. A tile
with that halo gives the same values as the whole volume, because zero padding at the tile's inner faces then
touches only what is cut away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Layer:
    """One convolution along one axis; `transposed` ones go from coarse to fine by `stride`."""

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    transposed: bool = False

    def input_range(self, first: int, last: int) -> tuple[int, int]:
        """First and last input voxel on which the output voxels `first`..`last` (inclusive) depend."""
        reach = (self.kernel - 1) * self.dilation
        if not self.transposed:
            return first * self.stride - self.padding, last * self.stride - self.padding + reach
        # output = input * stride - padding + tap * dilation, solved for the input over all taps
        lowest = -((reach - self.padding - first) // self.stride)
        return lowest, (last + self.padding) // self.stride


def input_range(layers: Sequence[Layer], first: int, last: int) -> tuple[int, int]:
    """Input voxels on which the output voxels `first`..`last` (inclusive) of the whole chain depend."""
    for layer in reversed(layers):
        first, last = layer.input_range(first, last)
    return first, last


def downsampling(layers: Sequence[Layer]) -> int:
    """Input voxels per output voxel along the axis (chain without transposed layers)."""
    factor = 1
    for layer in layers:
        factor *= layer.stride
    return factor


def encoding_halo(layers: Sequence[Layer]) -> int:
    """Input voxels beyond a block of whole latent voxels that its encoding needs, rounded up to whole latents.

    Rounded up so that the tile with its halo still starts on a multiple of the downsampling factor.
    """
    factor = downsampling(layers)
    first, last = input_range(layers, 0, 0)
    reach = max(-first, last - (factor - 1), 0)
    return -(-reach // factor) * factor


def decoding_halo(layers: Sequence[Layer]) -> int:
    """Latent voxels beyond a block of latents that the decoding of its output voxels needs."""
    factor = downsampling(layers)
    first, last = input_range(layers, 0, factor - 1)
    return max(-first, last, 0)
