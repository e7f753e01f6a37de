"""The plan of a run's memory: an upper bound for each of its parts, and the tiles that make it fit."""

from __future__ import annotations

import bisect
import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from ..condition_channels import condition_channels
from ..errors import InputError, InsufficientMemoryError
from .free import budget_bytes, held_bytes
from .sizes import in_words

if TYPE_CHECKING:
    import torch

    from ..bundles.description import ModelDescription
    from ..networks.tiling import Layout, Size
    from ..recipe import Recipe
    from .slabs import SlabCosts

IN_TILES, IN_SLABS = "decode", "decode_in_slabs"
"""Under which of these a recipe records the tile or the slab of its decoding."""

SMALLEST_TILE = 4
"""Latent voxels along an axis below which a tile is mostly halo."""

# The chain keeps the latent, its estimate of the clean one, a noise, a prediction and up to three earlier ones.
_LATENTS_OF_A_CHAIN = 8
# While a file of weights is read, its stored and its converted form exist beside the network.
_LOADING = 1.5
# Buffers of threads and libraries, which do not grow with the volume.
_FIXED_BYTES = 100 * 10**6
# A limit that a message advises is rounded up to whole steps.
_LIMIT_STEP = 10**8


@dataclass(frozen=True)
class MemoryPlan:
    """What a run takes at most, in bytes beyond what the process holds already, and in which tiles it works.

    weights, loading     the networks that are still to be loaded, and what their loading takes on top
    embedding            masks and the condition embedding; denoising; decoding: each phase beside the weights
    condition_tile       latent voxels (i, j, k) of one tile of the embedding, None without control
    decode_tile          latent voxels (i, j, k) of one tile or slab of the decoding
    in_slabs             whether the decoder goes through the volume slab by slab
    free                 what the run may take; `limit` is the user's, or None
    held                 what the process holds already and the limit counts as well; 0 without a limit
    """

    device: str
    weights: int
    loading: int
    embedding: int
    denoising: int
    decoding: int
    condition_tile: Size | None
    decode_tile: Size
    free: int
    limit: int | None = None
    held: int = 0
    in_slabs: bool = False

    @property
    def needed(self) -> int:
        """Peak over the whole run."""
        return self.weights + max(self.loading, self.embedding, self.denoising, self.decoding)

    @property
    def fits(self) -> bool:
        """Whether the run needs no more than it may take."""
        return self.needed <= self.free

    def require_enough(self) -> None:
        """Raise `InsufficientMemoryError` with what is needed and what is free."""
        if self.fits:
            return
        phases = {name: getattr(self, name) for name in ("loading", "embedding", "denoising", "decoding")}
        largest = max(phases, key=phases.get)
        raise InsufficientMemoryError(
            f"The run needs {in_words(self.needed)} of memory on {self.device} (weights {in_words(self.weights)}, "
            f"{largest} {in_words(phases[largest])}) and {self.free_in_words}; {self.way_out}."
        )

    @property
    def free_in_words(self) -> str:
        """What is free, and why when the user's limit is the reason."""
        words = f"{in_words(self.free)} are free"
        if self.limit is None:
            return words
        return (
            f"{words} (memory limit {in_words(self.limit)}, the program itself holds {in_words(self.held)})"
        )

    @property
    def way_out(self) -> str:
        """What the user can do; where the limit is in the way and not the machine, which limit would do."""
        way = "close other programs"
        if self.limit is not None and self.limit - self.held <= self.free:
            # What a program holds differs a little from one start to the next.
            enough = math.ceil((self.held + self.needed) / _LIMIT_STEP + 0.5) * _LIMIT_STEP
            way = f"raise the memory limit to {in_words(enough)} or more"
        return f"{way}, or choose another device or a model with a smaller grid"


def plan_run(
    description: ModelDescription,
    recipe: Recipe,
    device: torch.device,
    *,
    loaded: bool,
    limit: int | None = None,
    free: int | None = None,
    returnable: int = 0,
) -> MemoryPlan:
    """Plan the memory of `recipe` on `device` before anything is loaded; see `MemoryPlan.require_enough`.

    The tiles are those that the recipe records, where they fit, else the ones with the least to compute that fit into
    what is free; the smallest ones where none fit. `loaded` says that the networks are on the device already.
    `free` (bytes) plans with that much instead of looking: for a device that is not in this machine. `returnable`
    bytes that the process holds would be given back if the run needs them.

    Raises `InputError` for a recorded tiling that is none.
    """
    costs = _costs(
        json.dumps(description.networks),
        tuple(description.grid_shape),
        len(condition_channels(description.conditions, description.attributes)),
        device.type,
        recipe.precision,
        recipe.control_scale,
    )
    # Only now: the libraries that the accounting loads are part of what the process holds.
    free = budget_bytes(device, limit, returnable) if free is None else free
    held = 0 if limit is None else max(held_bytes(device) - returnable, 0)
    weights = 0 if loaded else costs.weights
    recorded = recorded_tiles(recipe.tiling)
    left = free - weights
    condition_tile, embedding = None, 0
    if costs.condition_layout is not None:
        condition_tile, embedding = choose_tile(
            costs.condition_layout, costs.embedding, left, recorded.get("condition")
        )
    decode_tile, in_slabs, decoding = _choose_decoding(costs, left, recorded)
    return MemoryPlan(
        str(device), weights, 0 if loaded else costs.loading, embedding, costs.denoising, decoding,
        condition_tile, decode_tile, free, limit, held, in_slabs,
    )  # fmt: skip


def _choose_decoding(costs: _Costs, free: int, recorded: dict[str, Size]) -> tuple[Size, bool, int]:
    """(tile or slab, whether it is a slab, bytes): in one piece where that fits, else in slabs, else in tiles.

    What the recipe records is taken where it fits.
    """
    whole, slabs = costs.latent_layout.size, costs.slabs
    recorded_tile, recorded_slab = recorded.get(IN_TILES), recorded.get(IN_SLABS)
    if slabs is None:
        return _in_tiles(costs, free, recorded_tile)
    recorded_slab = recorded_slab if recorded_slab and slabs.is_slab(recorded_slab) else None
    wanted = [tile for tile in (recorded_tile, None if recorded_slab else whole) if tile is not None]
    if any(replace(costs.latent_layout, tile=tile).most(costs.decoding) <= free for tile in wanted):
        return _in_tiles(costs, free, recorded_tile)
    found = slabs.choose(free, recorded_slab)
    if found is not None:
        return found[0], True, found[1]
    in_tiles, thinnest = _in_tiles(costs, free, recorded_tile), slabs.slabs()[-1]
    # Where nothing fits, what takes least, so that nobody is told to find more memory than it takes.
    if in_tiles[2] <= max(free, slabs.bytes_of(thinnest)):
        return in_tiles
    return thinnest, True, slabs.bytes_of(thinnest)


def _in_tiles(costs: _Costs, free: int, recorded: Size | None) -> tuple[Size, bool, int]:
    tile, needed = choose_tile(costs.latent_layout, costs.decoding, free, recorded)
    return tile, False, needed


def choose_tile(
    layout: Layout, bytes_of: Callable[[Size], int], free: int, wanted: Size | None = None
) -> tuple[Size, int]:
    """The tile with the least to compute, halos included, among those that fit, and the bytes that it takes.

    `layout` is any cut of the volume; `bytes_of(size)` is the peak of one tile of `size` cells with its halo, which on
    the whole grows with the number of cells. `wanted` is taken when it fits. Where nothing fits, the smallest tile.
    """
    for tile in (wanted, layout.size):
        if tile is not None:
            needed = replace(layout, tile=tile).most(bytes_of)
            if needed <= free:
                return tile, needed
    cuts = [_Cut.of(parts) for parts in product(*(_axis_cuts(layout, axis) for axis in range(3)))]
    cuts.sort(key=lambda cut: cut.cells)
    fitting = cuts[: bisect.bisect_right(cuts, free, key=lambda cut: bytes_of(cut.largest))]
    for cut in sorted(fitting, key=lambda cut: (cut.computed, cut.count)):
        if bytes_of(cut.largest) <= free:
            needed = replace(layout, tile=cut.tile).most(bytes_of)
            if needed <= free:
                return cut.tile, needed
    return cuts[0].tile, replace(layout, tile=cuts[0].tile).most(bytes_of)


@dataclass(frozen=True)
class _Cut:
    """One way to cut a volume: side of the tiles, largest one with halo, cells to compute and number of tiles."""

    tile: Size
    largest: Size
    computed: int
    count: int

    @classmethod
    def of(cls, parts: tuple[tuple[int, int, int, int], ...]) -> _Cut:
        tile, largest, computed, count = zip(*parts, strict=True)
        return cls(tile, largest, math.prod(computed), math.prod(count))

    @property
    def cells(self) -> int:
        """Cells of the largest tile with its halo."""
        return math.prod(self.largest)


def _axis_cuts(layout: Layout, axis: int) -> list[tuple[int, int, int, int]]:
    """(side, longest with halo, cells to compute, count) of every way to cut one axis into equal parts."""
    size, cuts = layout.size[axis], []
    for side in {-(-size // count) for count in range(1, size + 1)}:
        if side >= min(SMALLEST_TILE, size):
            lengths = [span.high - span.low for span in replace(layout, tile=(side,) * 3).spans(axis)]
            cuts.append((side, max(lengths), sum(lengths), len(lengths)))
    return cuts


def halved(tile: Size) -> Size | None:
    """The tile with every side halved, down to the smallest side; None when it is the smallest already."""
    smaller = tuple(min(side, max(-(-side // 2), SMALLEST_TILE)) for side in tile)
    return None if smaller == tuple(tile) else smaller


def recorded_tiles(tiling: dict | None) -> dict[str, Size]:
    """Tiles by phase out of a recipe; raises `InputError` when they are none."""
    if tiling is None:
        return {}
    if not isinstance(tiling, dict) or not all(_is_tile(tile) for tile in tiling.values()):
        raise InputError(
            f"The recipe's tiling {tiling!r:.60} is no table of three whole numbers per phase; it was changed."
        )
    return {phase: tuple(tile) for phase, tile in tiling.items()}


def _is_tile(value: Any) -> bool:
    three = isinstance(value, list | tuple) and len(value) == 3
    return three and all(type(side) is int and side > 0 for side in value)


@functools.lru_cache(maxsize=4)
def _networks(configs: str) -> dict[str, Any]:
    """The networks of a description (JSON) without data, for accounting."""
    import torch

    from ..networks.attention import set_attention
    from ..networks.build import build_autoencoder, build_control, build_denoiser

    given = json.loads(configs)
    with torch.device("meta"):
        networks = {
            "autoencoder": build_autoencoder(given["autoencoder"]),
            "denoiser": build_denoiser(given["denoiser"]),
        }
        if "control" in given:
            networks["control"] = build_control(given["control"], given["denoiser"])
    for network in networks.values():
        # Every kind takes about as much, but only this one is known to work without data.
        set_attention(network.eval().requires_grad_(False), "sdpa")
    return networks


@functools.lru_cache(maxsize=16)
def _costs(*settings: Any) -> _Costs:
    """Kept, since a worker plans the same run again and again."""
    return _Costs(*settings)


class _Costs:
    """Bytes of the parts of one run; every pass is that of `generation`."""

    def __init__(
        self,
        configs: str,
        grid: Size,
        channels_of_conditions: int,
        device_type: str,
        precision: str,
        control_scale: float,
    ):
        from ..networks.tiling import condition_layout, decoding_layout

        networks = _networks(configs)
        self.autoencoder, self.denoiser = networks["autoencoder"], networks["denoiser"]
        self.control = networks.get("control") if control_scale > 0 else None
        self.factors, self.grid = self.autoencoder.downsampling_factors, grid
        size = tuple(n // factor for n, factor in zip(grid, self.factors, strict=True))
        self.channels = self.autoencoder.codebook.embedding_dim
        self.condition_channels = channels_of_conditions
        self._device_type, self._precision, self._control_scale = device_type, precision, control_scale
        self.embedding = functools.cache(self._embedding)
        self.decoding = functools.cache(self._decoding)
        self.latent_shape = (1, self.channels, *size)
        self.latent_layout = decoding_layout(self.autoencoder, size, None)
        self.condition_layout = None if self.control is None else condition_layout(self.control, size, None)
        bytes_of = {name: stored_bytes(network) for name, network in networks.items()}
        self.weights = sum(bytes_of.values())
        self.loading = int(_LOADING * max(bytes_of.values()))

    @property
    def latent(self) -> int:
        """Bytes of one latent volume in float32."""
        return 4 * math.prod(self.latent_shape)

    @property
    def features(self) -> int:
        """Bytes of the embedded conditions in float32."""
        return (
            0 if self.control is None else self.latent // self.channels * self.control.block_out_channels[0]
        )

    def _embedding(self, size: Size) -> int:
        """Peak of embedding a tile of `size` cells with its halo."""
        import torch

        shape = [n * factor for n, factor in zip(size, self.factors, strict=True)]

        def embed():
            masks = torch.empty(1, self.condition_channels, *shape, dtype=torch.uint8, device="meta")
            return self.control.embed_condition(masks)

        masks = math.prod(self.grid) * self.condition_channels if self._device_type == "cpu" else 0
        return self._peak(embed, self._precision) + masks + self.features + _FIXED_BYTES

    @functools.cached_property
    def denoising(self) -> int:
        """Peak of one step of the chain."""
        import torch

        def step():
            latent = torch.empty(self.latent_shape, device="meta")
            steps = torch.empty(1, dtype=torch.int64, device="meta")
            if self.control is None:
                return self.denoiser(latent, steps)
            width = self.control.block_out_channels[0]
            embedded = torch.empty(1, width, *self.latent_shape[2:], device="meta")
            residuals = self.control(latent, steps, embedded, self._control_scale)
            return self.denoiser(latent, steps, *residuals)

        return self._peak(step, self._precision) + _LATENTS_OF_A_CHAIN * self.latent + _FIXED_BYTES

    def _decoding(self, size: Size) -> int:
        """Peak of decoding a tile of `size` cells with its halo, in float32 whatever the precision of the chain."""
        import torch

        def decode():
            return self.autoencoder.decode(torch.empty(1, self.channels, *size, device="meta"))

        return self._peak(decode, "float32") + self._beside_decoding

    @property
    def _beside_decoding(self) -> int:
        """The latent, its scaled and its flattened copy, the codes' numbers; on a CPU the image and its HU as well."""
        from ..networks.quantizer import search_bytes

        distances = search_bytes(self.autoencoder.codebook.chunk_bytes, self._device_type)
        search = 3 * self.latent + 2 * self.latent // self.channels + distances
        image = (4 + 2) * math.prod(self.grid) if self._device_type == "cpu" else 0
        return search + image + _FIXED_BYTES

    @functools.cached_property
    def slabs(self) -> SlabCosts | None:
        """Decoding in slabs, where the decoder can."""
        from ..networks.slab_decoding import decodes_in_slabs
        from .slabs import SlabCosts

        if not decodes_in_slabs(self.autoencoder):
            return None
        return SlabCosts(self.autoencoder, self.latent_layout.size, self._device_type, self._beside_decoding)

    def _peak(self, run: Callable[[], Any], precision: str) -> int:
        from .accounting import peak_bytes

        return peak_bytes(run, self._device_type, precision)


def stored_bytes(network: Any) -> int:
    """Bytes of a network's weights and buffers."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
