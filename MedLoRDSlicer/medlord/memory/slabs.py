"""How thick the slabs are in which a decoder goes through a volume, and what they take."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..networks.autoencoder import VectorQuantizedAutoencoder
    from ..networks.tiling import Size


FEWEST_SLABS = 4
"""Fewer and thicker ones would take more memory and be no faster."""


class SlabCosts:
    """What decoding latents of `size` in slabs takes (`networks.slab_decoding`).

    `always` are the bytes that any way of decoding holds beside its tile or slab.
    """

    def __init__(self, autoencoder: VectorQuantizedAutoencoder, size: Size, device_type: str, always: int):
        from ..networks.slab_decoding import slab_axis

        self._autoencoder, self._size, self._axis = autoencoder, size, slab_axis(size)
        self._device_type, self._always = device_type, always
        self.bytes_of: Callable[[Size], int] = functools.cache(self._bytes_of)

    def slabs(self) -> list[Size]:
        """Every way to cut the volume into slabs of about one thickness, from `FEWEST_SLABS` to those of one plane."""
        planes = self._size[self._axis]
        counts = range(min(FEWEST_SLABS, planes), planes + 1)
        thicknesses = sorted({-(-planes // count) for count in counts}, reverse=True)
        return [self._slab(thickness) for thickness in thicknesses]

    def choose(self, free: int, wanted: Size | None = None) -> tuple[Size, int] | None:
        """The thickest slab that fits into `free` bytes (`wanted` where that fits) and what it takes; None for none.

        Thin ones cost hardly more work, but have more calls and smaller kernels.
        """
        if wanted is not None and self.is_slab(wanted) and self.bytes_of(wanted) <= free:
            return wanted, self.bytes_of(wanted)
        slabs = self.slabs()
        # The bytes fall with the thickness, but for kernels that a library chooses by size.
        first = bisect.bisect_left(slabs, -free, key=lambda slab: -self.bytes_of(slab))
        ordered = (*slabs[first:], *slabs[:first])
        slab = next((slab for slab in ordered if self.bytes_of(slab) <= free), None)
        return None if slab is None else (slab, self.bytes_of(slab))

    def is_slab(self, tile: Size) -> bool:
        """Whether `tile` is a slab of this volume."""
        return self._slab(min(tile[self._axis], self._size[self._axis])) == tuple(tile)

    def _slab(self, thickness: int) -> Size:
        return tuple(thickness if axis == self._axis else n for axis, n in enumerate(self._size))

    def _bytes_of(self, slab: Size) -> int:
        from .accounting import peak_bytes

        return self._always + peak_bytes(functools.partial(self._pass, slab[self._axis]), self._device_type)

    def _pass(self, thickness: int) -> None:
        """All slabs of a volume just long enough that every convolution has once had all that it keeps."""
        import torch

        from ..networks.slab_decoding import SlabDecoder

        channels = self._autoencoder.codebook.embedding_dim
        decoder = SlabDecoder(self._autoencoder, self._axis, thickness)
        filled = -(-2 * self._autoencoder.decoding_halo[self._axis] // thickness) + 2
        left = min(self._size[self._axis], filled * thickness + self._size[self._axis] % thickness)
        while left:
            length = min(thickness, left)
            left -= length
            given = torch.empty(1, channels, *self._slab(length), device="meta")
            for planes in decoder.push(given, last=not left):
                del planes


def thinner(slab: Size, size: Size) -> Size | None:
    """The slab of latents of `size` with half the thickness, for when memory did not suffice; None for one plane."""
    from ..networks.slab_decoding import slab_axis

    axis = slab_axis(size)
    half = tuple(-(-side // 2) if number == axis else side for number, side in enumerate(slab))
    return None if half == tuple(slab) else half
