"""LPIPS: how far two pictures lie apart in the features of a network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ..sets.extractors import FeatureExtractor, load_radimagenet

if TYPE_CHECKING:
    import torch

RADIMAGENET_LAYERS = ("layer1", "layer2", "layer3", "layer4")
_EPSILON = 1e-10


@dataclass(frozen=True)
class PerceptualNetwork:
    """Any extractor (see `sets.extractors`), and which of its maps are compared.

    layers   names of parts of the extractor's module, as torch's `get_submodule` takes them, each with maps
             [pictures, channels, rows, columns] as output
    weights  for every layer one number per channel, not below 0: the learned linear layers of LPIPS; None counts every
             channel once, which is the paper's baseline and what MONAI does for RadImageNet's networks

    Raises `InputError` for a layer that the module does not have, for none, and for weights that are not one list of
    numbers per layer.
    """

    extractor: FeatureExtractor
    layers: tuple[str, ...]
    weights: tuple[np.ndarray, ...] | None = None

    def __post_init__(self):
        known = {name for name, _ in self.extractor.module.named_modules()} - {""}
        unknown = [layer for layer in self.layers if layer not in known]
        if unknown or not self.layers:
            raise InputError(
                f"{self.extractor.name} has no layer '{next(iter(unknown), '')}' to compare; choose some of "
                f"{', '.join(sorted(known)[:12])}."
            )
        if self.weights is None:
            return
        weights = tuple(np.asarray(weight, dtype=np.float32) for weight in self.weights)
        if len(weights) != len(self.layers) or any(one.ndim != 1 or not (one >= 0).all() for one in weights):
            raise InputError(
                f"The weights of {self.extractor.name} do not fit its {len(self.layers)} layers; give each one list of "
                "numbers from 0 up, one per channel."
            )
        object.__setattr__(self, "weights", weights)

    def to_dict(self) -> dict:
        """What the distances are made of, in JSON form; `sha256` is that of the extractor's weights."""
        digest = None
        if self.weights is not None:
            digest = hashlib.sha256(b"".join(one.astype("<f4").tobytes() for one in self.weights)).hexdigest()
        return {
            "name": self.extractor.name,
            "sha256": self.extractor.sha256,
            "layers": list(self.layers),
            "channel_weights_sha256": digest,
        }

    def distances(self, pictures: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Distances float64 [n] of grey pictures [n, rows, columns] from 0 to 1; 0 for equal ones.

        Zhang et al. 2018 (arXiv 1801.03924), equation 1: in each layer the vectors of channels are scaled to length
        one at every place, their squared differences are weighed and added over the channels and averaged over the
        places; the layers are added up. Raises `InputError` when a layer answers with something else than maps.
        """
        import torch

        module, found = self.extractor.module, []

        def compare(number: int, maps: torch.Tensor) -> None:
            found.append(self._in_layer(number, maps))

        hooks = [
            module.get_submodule(layer).register_forward_hook(
                lambda _module, _inputs, output, number=number: compare(number, output)
            )
            for number, layer in enumerate(self.layers)
        ]
        try:
            with torch.inference_mode():
                both = np.ascontiguousarray(np.concatenate([pictures, others]), dtype=np.float32)
                grey = torch.from_numpy(both)[:, None].to(self.extractor.device)
                module(self.extractor.prepare(grey))
        finally:
            for hook in hooks:
                hook.remove()
        return np.sum(found, axis=0)

    def _in_layer(self, number: int, maps: torch.Tensor) -> np.ndarray:
        """Distances [n] in one layer; `maps` [2n, ...] holds those of the pictures, then those of the others."""
        if maps.ndim != 4:
            raise InputError(
                f"The layer {self.layers[number]} of {self.extractor.name} answers with an array of shape "
                f"{tuple(maps.shape)}; maps [pictures, channels, rows, columns] are needed."
            )
        maps = maps.float()
        one, other = (maps / (maps.pow(2).sum(dim=1, keepdim=True).sqrt() + _EPSILON)).chunk(2)
        squares = (one - other).pow(2)
        if self.weights is not None:
            squares = squares * self._weights_of(number, squares)
        return squares.sum(dim=1).mean(dim=(1, 2)).double().cpu().numpy()

    def _weights_of(self, number: int, squares: torch.Tensor) -> torch.Tensor:
        weights = squares.new_tensor(self.weights[number])
        if len(weights) != squares.shape[1]:
            raise InputError(
                f"The layer {self.layers[number]} of {self.extractor.name} has {squares.shape[1]} channels, but "
                f"{len(weights)} weights were given."
            )
        return weights[None, :, None, None]


def load_radimagenet_perceptual(
    path: str | Path, device: str = "cpu", layers: Sequence[str] = RADIMAGENET_LAYERS
) -> PerceptualNetwork:
    """RadImageNet's ResNet50 from a file, its four stages compared, every channel counted once.

    The file is the one of the FID; raises as `load_radimagenet`.
    """
    return PerceptualNetwork(load_radimagenet(path, device), tuple(layers))
