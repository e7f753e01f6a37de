"""What turns pictures into features: RadImageNet's ResNet50 from a file, or any torch module."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError, WeightsError

if TYPE_CHECKING:
    import torch

WHERE_TO_GET = (
    "RadImageNet's ResNet50 is published at github.com/BMEII-AI/RadImageNet (ResNet50.pt) and, converted, at "
    "github.com/Warvito/radimagenet-models (RadImageNet-ResNet50_notop.pth), under their own terms; nothing is "
    "downloaded by this program"
)

# The mean of RadImageNet's pictures in the order blue, green, red, as MONAI's tutorials subtract it.
_MEAN_BGR = (0.406, 0.456, 0.485)
_KERAS_EPSILON = 1.001e-5
# Torchvision's ResNet50 as the list of its parts: convolution, norm, relu, pooling, four layers.
_NUMBERED_PARTS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


@dataclass
class FeatureExtractor:
    """A network from pictures [n, channels, rows, columns] to features [n, d] or maps [n, d, rows, columns].

    Maps are averaged over their places. `prepare` turns grey pictures [n, 1, rows, columns] from 0 to 1 into what the
    network takes. `name` and `sha256` (of the weights) say in results what the features are.
    """

    module: torch.nn.Module
    name: str
    sha256: str
    prepare: Callable[[torch.Tensor], torch.Tensor]
    device: torch.device

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """Features float32 [n, d] of grey pictures [n, rows, columns] from 0 to 1.

        Raises `InputError` when the network answers with something else.
        """
        import torch

        with torch.inference_mode():
            grey = torch.from_numpy(np.ascontiguousarray(pictures, dtype=np.float32))[:, None].to(self.device)
            found = self.module(self.prepare(grey))
            if found.ndim > 2:
                found = found.flatten(2).mean(dim=2)
        if found.ndim != 2 or len(found) != len(pictures):
            raise InputError(
                f"{self.name} answers {len(pictures)} pictures with an array of shape {tuple(found.shape)}; features "
                "[pictures, features] are needed."
            )
        return found.float().cpu().numpy()


def extractor_of(
    module: torch.nn.Module,
    name: str,
    prepare: Callable[[torch.Tensor], torch.Tensor] | None = None,
    device: str = "cpu",
) -> FeatureExtractor:
    """Any torch module as an extractor; grey pictures become three equal channels unless `prepare` says otherwise."""
    import torch

    from ...devices import choose_device

    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        # As bytes, since numpy has no bfloat16.
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    place = choose_device(device)
    return FeatureExtractor(
        module.to(place).eval(), name, digest.hexdigest(), prepare or _three_channels, place
    )


def load_radimagenet(path: str | Path, device: str = "cpu") -> FeatureExtractor:
    """RadImageNet's ResNet50 (Mei et al. 2022, doi:10.1148/ryai.210315) with weights from a file; 2048 features.

    Three layouts are known: torchvision's names, the same parts numbered within `backbone` (BMEII-AI/RadImageNet), and
    the conversion from Keras (Warvito/radimagenet-models). The last has convolutions with a bias, strides in the first
    convolution of a block and pictures in the order blue, green, red with a mean subtracted; the others see pictures
    from -1 to 1. The classifier's weights are passed over.
    Raises `WeightsError` when the file is missing, no weights, or those of another network.
    """
    from ...checksums import sha256_of
    from ...devices import choose_device

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There are no weights {path.name} in {path.parent}; {WHERE_TO_GET}.")
    weights = _read_weights(path)
    from_keras = "conv1.bias" in weights
    module = _resnet50(from_keras)
    try:
        missing, unexpected = module.load_state_dict(_without_biases(weights), strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise WeightsError(f"{path.name} is no ResNet50 ({reason}); {WHERE_TO_GET}.") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        found = f"{len(missing)} weights are missing and {len(unexpected)} are unknown"
        raise WeightsError(f"{path.name} is no ResNet50 ({found}); {WHERE_TO_GET}.")
    place = choose_device(device)
    prepare = _blue_green_red if from_keras else _around_zero
    name = f"RadImageNet ResNet50 ({'from Keras' if from_keras else 'torchvision layout'})"
    return FeatureExtractor(module.to(place).eval(), name, sha256_of(path), prepare, place)


def _read_weights(path: Path) -> dict[str, Any]:
    """The tensors of a file by torchvision's names."""
    import torch

    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(
            f"{path.name} cannot be read as weights ({reason[0][:120]}); give a .safetensors, .pt or .pth file that "
            "holds tensors only."
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        raise WeightsError(f"{path.name} holds no table of weights; {WHERE_TO_GET}.")
    named = {_torchvision_name(key): value for key, value in content.items()}
    return {key: value for key, value in named.items() if not key.startswith("fc.")}


def _torchvision_name(key: str) -> str:
    key = key.removeprefix("module.").removeprefix("backbone.")
    part, _, rest = key.partition(".")
    return f"{_NUMBERED_PARTS[part]}.{rest}" if part in _NUMBERED_PARTS else key


def _resnet50(from_keras: bool) -> torch.nn.Module:
    """ResNet50 (He et al. 2016) without its classifier, with torchvision's names of weights."""
    import torch
    from monai.networks.nets import resnet50

    module = resnet50(
        spatial_dims=2, n_input_channels=3, conv1_t_size=7, conv1_t_stride=2, feed_forward=False,
        shortcut_type="B", bias_downsample=False,
    )  # fmt: skip
    if from_keras:
        for layer in (module.layer2, module.layer3, module.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.eps = _KERAS_EPSILON
    return module


def _without_biases(weights: dict[str, Any]) -> dict[str, Any]:
    """The same network without the biases of its convolutions: the norm that follows subtracts them from its mean."""
    plain = dict(weights)
    for key in weights:
        name, _, kind = key.rpartition(".")
        norm = _norm_after(name)
        if kind == "bias" and norm and f"{norm}.running_mean" in plain:
            plain[f"{norm}.running_mean"] = plain[f"{norm}.running_mean"] - plain.pop(key)
    return plain


def _norm_after(convolution: str) -> str | None:
    """Name of the norm after a convolution; None for what is no convolution."""
    start, _, last = convolution.rpartition(".")
    if last.startswith("conv"):
        return f"{start}.{last.replace('conv', 'bn')}".lstrip(".")
    return f"{start}.1" if last == "0" and start.endswith("downsample") else None


def _three_channels(grey: torch.Tensor) -> torch.Tensor:
    return grey.expand(-1, 3, -1, -1)


def _around_zero(grey: torch.Tensor) -> torch.Tensor:
    return _three_channels(grey) * 2 - 1


def _blue_green_red(grey: torch.Tensor) -> torch.Tensor:
    return _three_channels(grey) - grey.new_tensor(_MEAN_BGR)[None, :, None, None]
