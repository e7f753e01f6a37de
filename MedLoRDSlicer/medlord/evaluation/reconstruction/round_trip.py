"""A CT through a model's autoencoder and back: encoded, quantised, decoded, in tiles that the memory holds."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...bundles.bundle import load_bundle
from ...bundles.description import OWN_RANGE, weight_file
from ...devices import choose_device, exact_kernels
from ...errors import InputError, InsufficientMemoryError
from ...generation import in_smaller_tiles
from ...memory.planner import halved
from ...progress import Cancel
from ...training.cases import to_network
from ...volumes import Grid, Volume, resample_volume
from .similarity import FLOATS_PER_VOXEL

if TYPE_CHECKING:
    from ...networks.tiling import Layout, Size, Warn

_FITS = 1e-6


class RoundTrip:
    """The autoencoder of a model on a device; called with a CT it answers what went in and what came out.

    `model` is an id or a folder, `device` "auto", "cpu", "cuda" or "cuda:N". Raises `InputError` for an unknown one,
    `WeightsError` for missing or damaged files.
    """

    def __init__(self, model: str | Path, device: str = "auto"):
        self.device = choose_device(device)
        bundle = load_bundle(model, "cpu")
        self.description = bundle.description
        self._autoencoder = bundle.autoencoder.to(self.device)
        self._factors = self._autoencoder.downsampling_factors

    @property
    def sha256(self) -> str:
        """Hash of the autoencoder's weights."""
        return self.description.weights_sha256[weight_file("autoencoder")]

    def grid_in(self, grid: Grid) -> Grid:
        """The model's grid around the middle of `grid`, without what lies outside it: sides of whole latent voxels.

        Air around a smaller CT would be easy for any autoencoder and make every number look better.
        Raises `InputError` for a CT that does not hold one latent voxel.
        """
        native = self.description.grid_at(grid.center_ras_mm)
        axes, others = (one.affine[:3, :3] / one.spacing_mm for one in (native, grid))
        extent = np.abs(axes.T @ others) @ (np.asarray(grid.shape) * grid.spacing_mm)
        voxels = np.floor(extent / native.spacing_mm + _FITS).astype(int)
        shape = [
            min(whole, int(held)) // factor * factor
            for whole, held, factor in zip(native.shape, voxels, self._factors, strict=True)
        ]
        if min(shape) == 0:
            raise InputError(
                f"The CT measures {_in_mm(extent)} along the model's axes; one latent voxel of "
                f"{_in_mm(np.asarray(self._factors) * native.spacing_mm)} does not fit. Give a larger one."
            )
        spacing = tuple(float(x) for x in native.spacing_mm)
        center = tuple(float(x) for x in grid.center_ras_mm)
        return Grid.centered(tuple(shape), spacing, center, self.description.orientation)

    def __call__(
        self, volume: Volume, cancel: Cancel | None = None, warn: Warn | None = None
    ) -> tuple[Volume, Volume, tuple[float, float]]:
        """A CT (HU) -> (what the autoencoder was given, what it made of it, the HU that it sees as -1 and 1).

        Both are float32 HU on the grid of `grid_in`, clipped to these HU. `warn` gets a sentence when tiles had to be
        blended. Raises `InsufficientMemoryError`, `CancelledError`, and `InputError` as `grid_in` and for a model that
        scales each volume by its own range when that is empty.
        """
        import torch

        from ...networks.tiling import decode_tiled, encode_tiled

        given = resample_volume(volume, self.grid_in(volume.grid))
        window = self._window_of(given.array)
        original = np.clip(given.array, *window).astype(np.float32)
        image = torch.from_numpy(to_network(original, window))[None, None]
        network = self._autoencoder

        def there_and_back(tile: Size) -> torch.Tensor:
            options = {"cancel": cancel, "warn": warn}
            latents = encode_tiled(network, image, tile, device=self.device, **options)
            return decode_tiled(network, latents, tile, **options)

        with torch.inference_mode(), exact_kernels():
            decoded, _ = in_smaller_tiles(there_and_back, self._tile(given.grid.shape), halved)
        low, high = window
        made = (decoded[0, 0].numpy().clip(-1, 1) + np.float32(1)) / 2 * np.float32(high - low) + np.float32(
            low
        )
        return Volume(original, given.grid), Volume(made, given.grid), window

    def _window_of(self, hu: np.ndarray) -> tuple[float, float]:
        """HU that become -1 and 1: the model's window, or the volume's own extremes for models that take those."""
        if self.description.intensity_map != OWN_RANGE:
            return tuple(float(limit) for limit in self.description.window_hu)
        clipped = np.clip(hu, *self.description.preprocessing.get("clip_hu", self.description.window_hu))
        low, high = float(clipped.min()), float(clipped.max())
        if not low < high:
            raise InputError(
                f"The CT is {low:g} HU everywhere on the model's grid; it needs contrast to scale."
            )
        return low, high

    def _tile(self, shape: Size) -> Size:
        """Latent voxels of one tile of both directions; `InsufficientMemoryError` where the smallest is too large."""
        from ...memory.free import budget_bytes
        from ...memory.planner import choose_tile
        from ...memory.sizes import in_words
        from ...networks.quantizer import search_bytes

        layout = self._layout(shape)
        codebook = self._autoencoder.codebook
        fixed = search_bytes(codebook.chunk_bytes, self.device.type)
        fixed += 3 * 4 * math.prod(layout.size) * codebook.embedding_dim
        compared = 4 * FLOATS_PER_VOXEL * math.prod(shape)
        if self.device.type == "cpu":
            fixed += 3 * 4 * math.prod(shape)
        tile, needed = choose_tile(layout, self._tile_bytes, budget_bytes(self.device) - fixed)
        for place, bytes_needed in ((self.device, needed + fixed), (choose_device("cpu"), compared)):
            free = budget_bytes(place)
            if bytes_needed > free:
                raise InsufficientMemoryError(
                    f"A volume of {' x '.join(map(str, shape))} voxels needs {in_words(bytes_needed)} of memory on "
                    f"{place} and {in_words(free)} are free; close other programs, or choose another device."
                )
        return tile

    def _layout(self, shape: Size) -> Layout:
        from ...networks.tiling import Layout

        size = tuple(n // factor for n, factor in zip(shape, self._factors, strict=True))
        there = (
            n // factor for n, factor in zip(self._autoencoder.encoding_halo, self._factors, strict=True)
        )
        halo = tuple(map(max, there, self._autoencoder.decoding_halo))
        return Layout(size, size, halo)

    @functools.cached_property
    def _without_data(self):
        """The autoencoder without weights, for the accounting."""
        import torch

        from ...networks.build import build_autoencoder

        with torch.device("meta"):
            network = build_autoencoder(self.description.networks["autoencoder"])
        return network.eval().requires_grad_(False)

    def _tile_bytes(self, size: Size) -> int:
        """Peak of encoding or decoding `size` latent voxels."""
        import torch

        from ...memory.accounting import peak_bytes

        network = self._without_data
        voxels = [n * factor for n, factor in zip(size, self._factors, strict=True)]

        def encode():
            return network.encode(torch.empty(1, 1, *voxels, device="meta"))

        def decode():
            return network.decode(torch.empty(1, network.codebook.embedding_dim, *size, device="meta"))

        return max(peak_bytes(run, self.device.type) for run in (encode, decode))


def _in_mm(lengths: np.ndarray) -> str:
    return " x ".join(f"{length:.0f}" for length in lengths) + " mm"
