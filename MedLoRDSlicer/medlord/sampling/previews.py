"""Pictures of a volume that is still being denoised, at next to no cost.

A whole decoding per picture would cost more than the steps between two of them. Instead a linear map takes the
3 x 3 x 3 latent vectors around a place to the image voxels that it stands for, and it is applied to three slices only.
The map is fitted once per model, by ridge regression on the autoencoder's own decodings of random codes in blocks: it
needs no images, and on the bundled model it follows the decoded volume with a correlation of 0.98.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from ..evaluation.orientation import AnatomicalFrame
from ..evaluation.pictures import PLANES, Plane, Slicer2D, Window
from ..volumes import Grid
from .loop import Preview

if TYPE_CHECKING:
    import torch

    from ..bundles.bundle import ModelBundle
    from ..networks.autoencoder import VectorQuantizedAutoencoder

WINDOW = Window("preview", 1400.0, -300.0)
"""Lung, soft tissue and bone in one grey scale."""

MOST_PIXELS = 256
"""Rows or columns of one plane of a picture, at most."""

_FIELD_SIZE, _BLOCKS = 12, (1, 3)
"""Random codes for the fit: cubes of 12 latent voxels, one with a code per voxel and one with blocks of 3 alike.

The first shows what each neighbour does, the second what even tissue looks like.
"""

_RIDGE = 1e-2
_SEED = 20_251_120


@dataclass
class LatentMap:
    """Latent vectors -> image voxels, linear.

    weights   (features + 1, voxels): features are the latent's channels at `reach`**3 places, the last row is the
              constant; voxels are those of one latent voxel, in the order of `factors`
    factors   image voxels per latent voxel along i, j, k
    reach     3, or 1 for latents with too many channels to fit 27 places
    """

    weights: torch.Tensor
    factors: tuple[int, int, int]
    reach: int

    def slab(self, latent: torch.Tensor, axis: int) -> torch.Tensor:
        """The middle of an unscaled latent (1, channel, i, j, k) as an image [i, j, k], one voxel thick along `axis`.

        Intensities are about -1 .. 1, averaged over the latent voxel along `axis`.
        """
        margin = self.reach // 2
        middle = latent.shape[2 + axis] // 2
        # one latent voxel thick, with its neighbours; at the faces of the volume those are repeated
        index = [slice(None)] * 5
        index[2 + axis] = [
            min(max(middle + offset, 0), latent.shape[2 + axis] - 1) for offset in range(-margin, margin + 1)
        ]
        features = _features(latent[tuple(index)], self.reach, padded=[a != axis for a in range(3)])
        blocks = features @ self.weights.to(features)
        return _image(blocks, self.factors).mean(dim=axis, keepdim=True)


def make_preview(bundle: ModelBundle) -> Preview:
    """The preview function of a model: scaled estimate of the clean latent -> picture (rows, columns) uint8.

    The picture shows the middle axial, coronal and sagittal slab side by side, true to scale, each centred over the
    height of the highest, black at -1000 HU and white at 400 HU. Of a batch the first sample is shown. The map behind
    it is fitted at the first call for a model (a few percent of one decoding) and kept as long as its autoencoder is.
    """
    import torch

    description = bundle.description
    latent_map = _fitted_map(bundle.autoencoder)
    low, high = description.window_hu
    scale = description.scale_factor

    def preview(estimate: torch.Tensor) -> np.ndarray:
        with torch.inference_mode(), torch.autocast(estimate.device.type, enabled=False):
            latent = estimate[:1].float() / scale
            slabs = [latent_map.slab(latent, axis) for axis in range(3)]
            slabs = [((slab.clamp(-1, 1) + 1) / 2 * (high - low) + low).cpu().numpy() for slab in slabs]
        return picture_of_slabs(slabs, description.grid_at((0.0, 0.0, 0.0)))

    return preview


def picture_of_slabs(slabs_hu: list[np.ndarray], grid: Grid) -> np.ndarray:
    """Axial, coronal and sagittal picture side by side, uint8 (rows, columns), as radiologists look at them.

    `slabs_hu[axis]` is an array [i, j, k] in HU that is one voxel thick along the voxel axis `axis` of `grid`.
    """
    panels = []
    for plane in PLANES:
        axis = _axis_across(grid, plane)
        shape = tuple(1 if n == axis else size for n, size in enumerate(grid.shape))
        slicer = Slicer2D(Grid(shape, grid.affine), plane)
        panels.append((slicer.cut(slabs_hu[axis], 0), *slicer.size_mm))
    pixel_mm = max(max(width, height) for _, width, height in panels) / MOST_PIXELS
    pixel_mm = max(pixel_mm, float(min(grid.spacing_mm)))
    low, high = WINDOW.limits_hu
    scaled = []
    for cut, width, height in panels:
        rows, columns = max(1, round(height / pixel_mm)), max(1, round(width / pixel_mm))
        grey = np.clip((_resized(cut, rows, columns) - low) / (high - low), 0, 1)
        scaled.append(np.rint(grey * 255).astype(np.uint8))
    rows = max(len(panel) for panel in scaled)
    return np.hstack([_centred(panel, rows) for panel in scaled])


_maps: WeakKeyDictionary[VectorQuantizedAutoencoder, LatentMap] = WeakKeyDictionary()


def _fitted_map(autoencoder: VectorQuantizedAutoencoder) -> LatentMap:
    if autoencoder not in _maps:
        _maps[autoencoder] = fit_latent_map(autoencoder)
    return _maps[autoencoder]


def fit_latent_map(autoencoder: VectorQuantizedAutoencoder) -> LatentMap:
    """Fit the map to decodings of random codes; the same numbers at every call, on the autoencoder's device."""
    import torch

    codes = autoencoder.codebook.embedding.weight
    factors = autoencoder.downsampling_factors
    samples = len(_BLOCKS) * _FIELD_SIZE**3
    reach = 3 if 4 * 27 * codes.shape[1] <= samples else 1
    generator = torch.Generator().manual_seed(_SEED)
    products, targets = 0.0, 0.0
    with torch.inference_mode(), torch.autocast(codes.device.type, enabled=False):
        for block in _BLOCKS:
            drawn = torch.randint(len(codes), (1, *[_FIELD_SIZE // block] * 3), generator=generator)
            for axis in (1, 2, 3):
                drawn = drawn.repeat_interleave(block, axis)
            field = autoencoder.codebook.embed(drawn.to(codes.device))
            image = autoencoder.decode(field)[0, 0].clamp(-1, 1)
            features = _features(field, reach, padded=[True] * 3).flatten(0, 2).double()
            products = products + features.T @ features
            targets = targets + features.T @ _blocks(image, factors).flatten(0, 2).double()
        damping = _RIDGE * products.diagonal().mean() * torch.eye(len(products)).to(products)
        weights = torch.linalg.solve(products + damping, targets).float()
    return LatentMap(weights.clone(), factors, reach)


def _features(latent: torch.Tensor, reach: int, padded: list[bool]) -> torch.Tensor:
    """Latent (1, channel, i, j, k) -> (i, j, k, features + 1): the vectors around each place, and a one.

    Along axes that are not `padded` only places with all neighbours remain.
    """
    import torch

    margin = reach // 2
    padding = [margin if padded[axis] else 0 for axis in (2, 2, 1, 1, 0, 0)]
    around = torch.nn.functional.pad(latent, padding, mode="replicate")[0]
    for axis in (1, 2, 3):
        around = around.unfold(axis, reach, 1)
    features = around.permute(1, 2, 3, 0, 4, 5, 6).flatten(3)
    return torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)


def _blocks(image: torch.Tensor, factors: tuple[int, int, int]) -> torch.Tensor:
    """Image [i, j, k] -> (latent i, j, k, voxels of one latent voxel)."""
    for axis, factor in enumerate(factors):
        image = image.unflatten(2 * axis, (-1, factor))
    return image.permute(0, 2, 4, 1, 3, 5).flatten(3)


def _image(blocks: torch.Tensor, factors: tuple[int, int, int]) -> torch.Tensor:
    """The inverse of `_blocks`."""
    apart = blocks.unflatten(3, factors).permute(0, 3, 1, 4, 2, 5)
    return apart.flatten(4, 5).flatten(2, 3).flatten(0, 1)


def _axis_across(grid: Grid, plane: Plane) -> int:
    """The voxel axis that `plane` is across."""
    return AnatomicalFrame.of(grid).order[plane.axis]


def _resized(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The picture (rows, columns) at another size, bilinear, averaged where it shrinks."""
    import torch

    source = torch.from_numpy(np.ascontiguousarray(picture, dtype=np.float32))[None, None]
    scaled = torch.nn.functional.interpolate(source, (rows, columns), mode="bilinear", antialias=True)
    return scaled[0, 0].numpy()


def _centred(panel: np.ndarray, rows: int) -> np.ndarray:
    """The panel in the middle of a black one of that many rows."""
    above = (rows - len(panel)) // 2
    return np.pad(panel, ((above, rows - len(panel) - above), (0, 0)))
