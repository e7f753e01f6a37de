"""Exact decoding slab by slab: hardly a voxel is computed twice, and only a few planes are in memory at a time.

A tile carries a halo, computes it and throws it away. Slabs that follow one another along one axis need none: every
convolution keeps the last planes of what it was given, and goes on from there when the next slab comes. What comes out
lags a few planes behind what went in, until the last slab flushes it. So the decoder holds, beside the image, as many
planes at every resolution as a slab is thick and two more per convolution, whatever the length of the volume. Only an
upsampling computes something again, the border plane of its input: some percent of the work, more for slabs of one or
two planes (docs/adr/0009).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from monai.networks.blocks import Convolution
from monai.networks.nets.vqvae import VQVAEResidualUnit
from torch import nn
from torch.nn import functional

from ..errors import InputError
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from .autoencoder import VectorQuantizedAutoencoder, without_autocast
from .tiling import Size, is_local


def decodes_in_slabs(autoencoder: VectorQuantizedAutoencoder) -> bool:
    """Whether the decoder is a chain of the blocks that can go on from slab to slab, all of convolutions."""
    return is_local(autoencoder.decoder) and all(
        isinstance(block, (Convolution, VQVAEResidualUnit)) for block in autoencoder.decoder.blocks
    )


def slab_axis(size: Size) -> int:
    """The axis (0, 1 or 2) along which latents of `size` are cut into slabs: the longest, so that planes are small."""
    return size.index(max(size))


def decode_in_slabs(
    autoencoder: VectorQuantizedAutoencoder,
    latents: torch.Tensor,
    slab: Size,
    *,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> torch.Tensor:
    """What `tiling.decode_tiled` gives: latents (batch, embedding_dim, i, j, k) -> images float32 on the CPU.

    `slab` is in latent voxels: as large as the volume but along its longest axis (see `slab_axis`). One slab at a time
    is worked on, on the device of `latents`. `progress` gets events of the phase "decode" that count the planes of the
    image, and `cancel` is asked at each of them.

    Equal to the whole pass to the last bit, but for kernels that a library chooses by size (see `tiling`).

    Raises `InputError` for a slab that is none and for a decoder that cannot go in slabs (see `decodes_in_slabs`),
    `CancelledError`.
    """
    size = tuple(latents.shape[2:])
    axis = _checked_axis(autoencoder, size, slab)
    indices = autoencoder.codebook.indices(latents)
    decoder = SlabDecoder(autoencoder, axis, slab[axis])
    factors = autoencoder.downsampling_factors
    clock, image, done = PhaseClock("decode", size[axis] * factors[axis], progress), None, 0
    for start in range(0, size[axis], slab[axis]):
        length = min(slab[axis], size[axis] - start)
        given = autoencoder.codebook.embed(indices.narrow(axis + 1, start, length))
        raise_if_cancelled(cancel, f"decode (plane {done + 1} of {clock.total})")
        for planes in decoder.push(given, last=start + length == size[axis]):
            if image is None:
                shape = (*planes.shape[:2], *(n * by for n, by in zip(size, factors, strict=True)))
                image = torch.empty(shape, dtype=planes.dtype)
            count = planes.shape[axis + 2]
            image.narrow(axis + 2, done, count).copy_(planes)
            # Or they would lie on the device while the next ones are computed.
            del planes
            done += count
            clock.report(done)
            raise_if_cancelled(cancel, f"decode (plane {done} of {clock.total})")
    return image


class SlabDecoder:
    """A decoder on its way through one volume, slab by slab along `axis` (0, 1 or 2). For one volume only.

    No block of it is given more than `thickness` planes at a time: where an upsampling makes more, the next block gets
    them in several slabs, one after the other.
    """

    def __init__(self, autoencoder: VectorQuantizedAutoencoder, axis: int, thickness: int) -> None:
        self._stages = [_stage(block, axis) for block in autoencoder.decoder.blocks]
        self._dim, self._thickness = axis + 2, thickness
        self._weight = autoencoder.decoder.blocks[-1].conv.weight

    def push(self, planes: torch.Tensor, last: bool) -> Iterator[torch.Tensor]:
        """The next planes of quantised latents -> the image planes that they complete, float32, in order."""
        return self._push(planes.to(self._weight.dtype), last, 0)

    def _push(self, planes: torch.Tensor, last: bool, number: int) -> Iterator[torch.Tensor]:
        if number < len(self._stages) - 1:
            made = self._stages[number].push(planes, last)
            slabs = () if made is None else made.split(self._thickness, self._dim)
            for position, slab in enumerate(slabs, start=1):
                yield from self._push(slab, last and position == len(slabs), number + 1)
            return
        # The last convolution in float32 under autocast too: see `VectorQuantizedAutoencoder.decode`.
        with without_autocast(self._weight.device):
            image = self._stages[number].push(planes.to(self._weight.dtype), last)
        if image is not None:
            yield image.float()


class _Stage(Protocol):
    """One block of the decoder, with the planes that it keeps from one slab to the next."""

    def push(self, planes: torch.Tensor, last: bool) -> torch.Tensor | None:
        """The next planes, at least one -> those that can be computed now; None for none yet, never with `last`."""


def _stage(block: nn.Module, axis: int) -> _Stage:
    if isinstance(block, VQVAEResidualUnit):
        return _Residual(block, axis)
    return _Upsampling(block, axis) if block.conv.transposed else _Convolution(block, axis)


def _joined(dim: int, *parts: torch.Tensor | None) -> torch.Tensor:
    """The parts one after the other along `dim`; those that are None or empty are passed over."""
    given = [part for part in parts if part is not None and part.shape[dim]]
    return torch.cat(given, dim) if len(given) > 1 else given[0]


class _Convolution:
    """A convolution of stride 1, with what MONAI puts after it (an activation)."""

    def __init__(self, block: Convolution, axis: int) -> None:
        self._conv, self._after, self._dim = block.conv, getattr(block, "adn", None), axis + 2
        self._reach = self._conv.dilation[axis] * (self._conv.kernel_size[axis] - 1)
        self._front = self._conv.padding[axis]
        self._padding = tuple(0 if n == axis else by for n, by in enumerate(self._conv.padding))
        self._kept: torch.Tensor | None = None
        self._started = False

    def push(self, planes: torch.Tensor, last: bool) -> torch.Tensor | None:
        front = None if self._started else self._zeros(planes, self._front)
        back = self._zeros(planes, self._reach - self._front) if last else None
        self._started = True
        given = _joined(self._dim, front, self._kept, planes, back)
        ready = given.shape[self._dim] - self._reach
        if ready <= 0:
            self._kept = given
            return None
        self._kept = None if last else given.narrow(self._dim, ready, self._reach).clone()
        conv = self._conv
        made = functional.conv3d(given, conv.weight, conv.bias, 1, self._padding, conv.dilation, conv.groups)
        return made if self._after is None else self._after(made)

    def _zeros(self, like: torch.Tensor, count: int) -> torch.Tensor:
        return like.new_zeros([count if n == self._dim else side for n, side in enumerate(like.shape)])


class _Upsampling:
    """A transposed convolution, with what MONAI puts after it.

    Input plane i reaches the output planes i * stride + tap * dilation, before `padding` planes are cut off in front.
    """

    def __init__(self, block: Convolution, axis: int) -> None:
        self._conv, self._after, self._dim = block.conv, getattr(block, "adn", None), axis + 2
        self._stride = self._conv.stride[axis]
        self._reach = self._conv.dilation[axis] * (self._conv.kernel_size[axis] - 1)
        self._cut = self._conv.padding[axis]
        self._padding = tuple(0 if n == axis else by for n, by in enumerate(self._conv.padding))
        self._kept: torch.Tensor | None = None
        self._first = 0  # input plane with which `_kept` begins
        self._next = self._cut  # output plane that comes next
        self._count = 0  # input planes so far

    def push(self, planes: torch.Tensor, last: bool) -> torch.Tensor | None:
        given = _joined(self._dim, self._kept, planes)
        self._count += planes.shape[self._dim]
        # Later input planes reach no output plane before this one.
        end = self._count * self._stride + (self._cut if last else 0)
        if end <= self._next:
            self._kept = given
            return None
        conv = self._conv
        made = functional.conv_transpose3d(
            given,
            conv.weight,
            conv.bias,
            conv.stride,
            self._padding,
            conv.output_padding,
            conv.groups,
            conv.dilation,
        )
        made = made.narrow(self._dim, self._next - self._first * self._stride, end - self._next)
        needed = max(-((self._reach - end) // self._stride), self._first)
        self._kept = None
        if not last and needed < self._count:
            self._kept = given.narrow(self._dim, needed - self._first, self._count - needed).clone()
        self._first, self._next = needed, end
        return made if self._after is None else self._after(made)


class _Residual:
    """MONAI's residual unit: relu(x + second(first(x))); x waits for its branch."""

    def __init__(self, block: VQVAEResidualUnit, axis: int) -> None:
        self._branch = [_Convolution(block.conv1, axis), _Convolution(block.conv2, axis)]
        self._dim = axis + 2
        self._waiting: torch.Tensor | None = None

    def push(self, planes: torch.Tensor, last: bool) -> torch.Tensor | None:
        waiting = _joined(self._dim, self._waiting, planes)
        first, second = self._branch
        branch = first.push(planes, last)
        branch = None if branch is None else second.push(branch, last)
        self._waiting = waiting if branch is None else None
        if branch is None:
            return None
        ready = branch.shape[self._dim]
        made = functional.relu(waiting.narrow(self._dim, 0, ready) + branch, inplace=True)
        if ready < waiting.shape[self._dim]:
            self._waiting = waiting.narrow(self._dim, ready, waiting.shape[self._dim] - ready).clone()
        return made


def _checked_axis(autoencoder: VectorQuantizedAutoencoder, size: Size, slab: Size) -> int:
    axis = slab_axis(size)
    if not decodes_in_slabs(autoencoder):
        raise InputError("This decoder has layers that see the whole volume; decode it in tiles.")
    whole = len(slab) == 3 and all(
        side == n for number, (side, n) in enumerate(zip(slab, size)) if number != axis
    )
    if not whole or not isinstance(slab[axis], int) or slab[axis] < 1:
        raise InputError(
            f"The slab {tuple(slab)} is none for latents of {size} voxels; it takes all of them but along axis {axis}, "
            "and there at least 1."
        )
    return axis
