"""Decoding, encoding and embedding in tiles: the values of the whole pass, in the memory of one tile.

A chain of convolutions looks only so far (`receptive_field`). A tile that carries that halo gives the values of the
whole pass in its core, and at the true border of the volume it is not padded further, so the network's own zero padding
acts there as it does in the whole pass. Equal means: to the last bit, but for kernels that a library chooses by size
(float32 then differs by some 1e-6; below float32 by one rounding step).

Sizes and tiles are counted in cells, which are latent voxels; a tile is the size of its core along i, j and k.
Networks with a normalisation layer or attention see the whole volume at once and cannot be cut exactly: their tiles
are cross-faded over half the halo, with a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn

from ..errors import InputError
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from .autoencoder import VectorQuantizedAutoencoder
from .control import ControlNetwork

Size = tuple[int, int, int]
Warn = Callable[[str], None]

# Modules that work on each voxel alone, or are the convolutions of which the halo takes account.
_LOCAL_MODULES = (
    "torch.nn.modules.conv",
    "torch.nn.modules.activation",
    "torch.nn.modules.dropout",
    "torch.nn.modules.container",
    "monai.networks.blocks.activation",
)


@dataclass(frozen=True)
class Span:
    """One tile along one axis: core cells `first`..`last`, cells `low`..`high` with the halo (ends exclusive).

    `fade_in` and `fade_out` are the cells on each side of the core's ends over which it is cross-faded with its
    neighbour; 0 where the halo is simply cut away.
    """

    first: int
    last: int
    low: int
    high: int
    fade_in: int = 0
    fade_out: int = 0


@dataclass(frozen=True)
class Layout:
    """How a volume of `size` cells is cut: tiles of `tile` cells, `halo` cells around them, faded or cut off."""

    size: Size
    tile: Size
    halo: Size
    blended: bool = False

    def __post_init__(self) -> None:
        if len(self.tile) != 3 or not all(isinstance(n, int) and n > 0 for n in self.tile):
            raise InputError(f"The tile {self.tile} is not three whole numbers of latent voxels above 0.")

    def spans(self, axis: int) -> list[Span]:
        """The tiles along one axis, in order."""
        size, core, halo = self.size[axis], self.tile[axis], self.halo[axis]
        starts = list(range(0, size, core))
        cores = [min(core, size - start) for start in starts]
        # Half the halo fades, the other half keeps the network's own border effect out of sight. Never more than half
        # a core: no voxel belongs to three tiles then.
        fades = [min(halo, a, b) // 2 if self.blended else 0 for a, b in zip(cores, cores[1:], strict=False)]
        return [
            Span(start, start + core, max(0, start - halo), min(size, start + core + halo), before, after)
            for start, core, before, after in zip(starts, cores, [0, *fades], [*fades, 0], strict=True)
        ]

    def __iter__(self) -> Iterator[tuple[Span, Span, Span]]:
        return product(*(self.spans(axis) for axis in range(3)))

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.spans(0)) * len(self.spans(1)) * len(self.spans(2))

    @property
    def largest(self) -> Size:
        """Cells along i, j and k of the largest tile with its halo: what the memory must hold."""
        return tuple(max(span.high - span.low for span in self.spans(axis)) for axis in range(3))

    def most(self, bytes_of: Callable[[Size], int]) -> int:
        """Bytes of the tile that takes most, where `bytes_of(size)` are those of a tile of `size` cells, halo included.

        That is not always the largest: torch unfolds small volumes on a CPU, so a small tile at the border may take
        more. The last axis does not matter to it (`memory.accounting`), so only its longest tile is looked at.
        """
        first, second = ({span.high - span.low for span in self.spans(axis)} for axis in range(2))
        return max(bytes_of((i, j, self.largest[2])) for i, j in product(first, second))

    @property
    def computed(self) -> int:
        """Cells over all tiles with their halos: what the time goes into."""
        total = 1
        for axis in range(3):
            total *= sum(span.high - span.low for span in self.spans(axis))
        return total


def is_local(network: nn.Module) -> bool:
    """True when all parts of `network` are convolutions or act on each voxel alone, so that tiles are exact."""
    leaves = [module for module in network.modules() if not any(True for _ in module.children())]
    return all(type(m).__module__ in _LOCAL_MODULES or isinstance(m, nn.Identity) for m in leaves)


def decoding_layout(autoencoder: VectorQuantizedAutoencoder, size: Size, tile: Size | None) -> Layout:
    """How latents of `size` are cut for decoding; None is one tile."""
    return Layout(size, tile or size, autoencoder.decoding_halo, not is_local(autoencoder.decoder))


def condition_layout(control: ControlNetwork, size: Size, tile: Size | None) -> Layout:
    """How masks for latents of `size` are cut for their embedding; None is one tile."""
    halo = _in_cells(control.condition_halo, control.condition_factors)
    return Layout(size, tile or size, halo, not is_local(control.controlnet_cond_embedding))


def decode_tiled(
    autoencoder: VectorQuantizedAutoencoder,
    latents: torch.Tensor,
    tile: Size | None = None,
    *,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
    warn: Warn | None = None,
) -> torch.Tensor:
    """Latents (batch, embedding_dim, i, j, k) -> images (batch, channel, i, j, k) float32 on the CPU.

    What `autoencoder.decode_latent` gives, of which only one tile at a time lies on the device of `latents`. The
    nearest codes are sought once, for all latents. `progress` gets one event of the phase "decode" per tile, and
    `cancel` is asked before each. `warn` gets the sentence about blended tiles; without it, that is a Python warning.

    Raises `InputError` for a tile that is none, `CancelledError`.
    """
    layout = decoding_layout(autoencoder, tuple(latents.shape[2:]), tile)
    _warn_if_blended(layout, "decoder", warn)
    indices = autoencoder.codebook.indices(latents)

    def decode(place: tuple[slice, ...]) -> torch.Tensor:
        return autoencoder.decode(autoencoder.codebook.embed(indices[(slice(None), *place)]))

    clock = PhaseClock("decode", layout.count, progress)
    return run_tiles(decode, layout, autoencoder.downsampling_factors, torch.device("cpu"), clock, cancel)


def encode_tiled(
    autoencoder: VectorQuantizedAutoencoder,
    images: torch.Tensor,
    tile: Size | None = None,
    *,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
    warn: Warn | None = None,
) -> torch.Tensor:
    """Images (batch, channel, i, j, k) in -1..1 -> unquantised latents (batch, embedding_dim, ...) float32.

    What `autoencoder.encode` gives; `tile` is in latent voxels. `images` may stay on the CPU: a tile at a time goes to
    `device` (default: that of `images`), where the latents come into being. `progress`, `cancel` and `warn` as for
    `decode_tiled`, in the phase "encode".

    Raises `InputError` for a size that is no multiple of the downsampling factors and for a tile that is none.
    """
    factors, target = autoencoder.downsampling_factors, torch.device(device or images.device)
    size = _cells(images, factors)
    halo = _in_cells(autoencoder.encoding_halo, factors)
    layout = Layout(size, tile or size, halo, not is_local(autoencoder.encoder))
    _warn_if_blended(layout, "encoder", warn)
    clock = PhaseClock("encode", layout.count, progress)

    def encode(place: tuple[slice, ...]) -> torch.Tensor:
        return autoencoder.encode(_voxels(images, place, factors).to(target))

    return run_tiles(encode, layout, (1, 1, 1), target, clock, cancel)


def embed_tiled(
    control: ControlNetwork,
    masks: torch.Tensor,
    tile: Size | None = None,
    *,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
    warn: Warn | None = None,
) -> torch.Tensor:
    """Masks (batch, conditions, i, j, k), any type -> the features of `ControlNetwork.embed_condition`, on `device`.

    Masks may be uint8 or bool on the CPU; one tile at a time becomes a tensor of the network's type on `device`
    (default: that of `masks`). `progress`, `cancel` and `warn` as for `decode_tiled`, in the phase "embed". Raises
    as `encode_tiled`, and `InputError` for a wrong number of channels.
    """
    factors, target = control.condition_factors, torch.device(device or masks.device)
    layout = condition_layout(control, _cells(masks, factors), tile)
    _warn_if_blended(layout, "condition embedding", warn)

    def embed(place: tuple[slice, ...]) -> torch.Tensor:
        return control.embed_condition(_voxels(masks, place, factors).to(target))

    clock = PhaseClock("embed", layout.count, progress)
    return run_tiles(embed, layout, (1, 1, 1), target, clock, cancel)


def run_tiles(
    network: Callable[[tuple[slice, ...]], torch.Tensor],
    layout: Layout,
    scale: Size,
    device: torch.device,
    clock: PhaseClock,
    cancel: Cancel | None,
    done: int = 0,
) -> torch.Tensor:
    """Put the outputs of all tiles together on `device`; `scale` is output voxels per cell along each axis.

    `network` gets the cells of a tile with its halo as slices and returns (batch, channel, i, j, k). `clock` gets one
    report per tile, of which it had `done` before. Raises `CancelledError`.
    """
    output = None
    for number, spans in enumerate(layout, start=done + 1):
        raise_if_cancelled(cancel, f"{clock.phase} (tile {number} of {clock.total})")
        piece = network(tuple(slice(span.low, span.high) for span in spans))
        if layout.count == 1:
            output = piece.to(device)
        else:
            if output is None:
                shape = (*piece.shape[:2], *(n * f for n, f in zip(layout.size, scale, strict=True)))
                make = torch.zeros if layout.blended else torch.empty
                output = make(shape, dtype=piece.dtype, device=device)
            _put(output, piece, spans, scale, layout.blended)
        del piece
        clock.report(number)
    return output


def _put(
    output: torch.Tensor, piece: torch.Tensor, spans: tuple[Span, ...], scale: Size, blended: bool
) -> None:
    """Write the core of a tile into the output, or add its faded part."""
    target, source = [slice(None)] * 2, [slice(None)] * 2
    for span, factor in zip(spans, scale, strict=True):
        first, last = span.first - span.fade_in, span.last + span.fade_out
        target.append(slice(first * factor, last * factor))
        source.append(slice((first - span.low) * factor, (last - span.low) * factor))
    part = piece[tuple(source)]
    if not blended:
        output[tuple(target)] = part
        return
    for axis, (span, factor) in enumerate(zip(spans, scale, strict=True), start=2):
        weights = _fading(span, factor).to(part)
        part = part * weights.view([-1 if n == axis else 1 for n in range(5)])
    output[tuple(target)] += part.to(output.device)


def _fading(span: Span, factor: int) -> torch.Tensor:
    """Weights of a tile's output voxels along one axis; those of all tiles add up to one everywhere."""
    weights = torch.ones((span.last + span.fade_out - span.first + span.fade_in) * factor)
    if span.fade_in:
        length = 2 * span.fade_in * factor
        weights[:length] = (torch.arange(length) + 0.5) / length
    if span.fade_out:
        length = 2 * span.fade_out * factor
        weights[-length:] = 1 - (torch.arange(length) + 0.5) / length
    return weights


def _warn_if_blended(layout: Layout, what: str, warn: Warn | None) -> None:
    if not layout.blended or layout.count == 1:
        return
    sentence = (
        f"The {what} has layers that see the whole volume, such as normalisation, so its {layout.count} tiles are "
        "blended and differ a little from the volume in one piece; give the run more memory to avoid tiles."
    )
    if warn is None:
        warnings.warn(sentence, stacklevel=3)
    else:
        warn(sentence)


def _in_cells(halo: Size, factors: Size) -> Size:
    """A halo in image voxels, which is a multiple of the factors, in cells."""
    return tuple(voxels // factor for voxels, factor in zip(halo, factors, strict=True))


def _cells(volume: torch.Tensor, factors: Size) -> Size:
    sizes = tuple(volume.shape[2:])
    if len(sizes) != 3 or any(size % factor for size, factor in zip(sizes, factors, strict=True)):
        raise InputError(
            f"The volume has {sizes} voxels, the network needs multiples of {factors}; crop or pad it."
        )
    return tuple(size // factor for size, factor in zip(sizes, factors, strict=True))


def _voxels(volume: torch.Tensor, place: Sequence[slice], factors: Size) -> torch.Tensor:
    """The part of a volume (batch, channel, i, j, k) that a tile's cells cover."""
    cut = [slice(p.start * factor, p.stop * factor) for p, factor in zip(place, factors, strict=True)]
    return volume[(slice(None), slice(None), *cut)]
