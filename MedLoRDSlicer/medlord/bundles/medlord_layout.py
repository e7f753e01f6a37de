"""From MedLoRD's names to ours, and what the shapes of its weights say about the networks.

MedLoRD's networks come from MONAI GenerativeModels; MONAI core, and with it `medlord.networks`, names some layers
differently. MONAI's own converter is not used: it maps `proj_attn`, which is stored but never applied, to a layer that
is applied, and drops `out.1.conv`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from .medlord_checkpoint import Tensors

_RENAMES = (
    (re.compile(r"((?:^|\.)(?:attentions\.\d+|attention))\.(to_[qkv]\.)"), r"\1.attn.\2"),
    (re.compile(r"\.to_out\.0\."), ".out_proj."),
    (re.compile(r"\.upsampler\.conv\.conv\."), ".upsampler.postconv.conv."),
    (re.compile(r"^out\.1\.conv\."), "out.2.conv."),
)
_NEVER_APPLIED = re.compile(r"((?:^|\.)(?:attentions\.\d+|attention))\.proj_attn\.")
_COUNTER = "quantizer.quantizer.dead_code_counter"


def renamed(tensors: Tensors, path: Path) -> tuple[Tensors, list[str]]:
    """(tensors under the names of `medlord.networks`, names left out because the original never applies them)."""
    result: Tensors = {}
    left_out = []
    for name, tensor in tensors.items():
        if name == _COUNTER or _NEVER_APPLIED.search(name):
            left_out.append(name)
            continue
        new_name = name
        for pattern, replacement in _RENAMES:
            new_name = pattern.sub(replacement, new_name)
        if new_name in result:
            raise WeightsError(f"{path.name} has {new_name} under two names; it is of no known generation.")
        result[new_name] = tensor
    return result, left_out


class Shapes:
    """Questions to a state dict; a tensor that is needed for an answer and missing raises WeightsError naming it."""

    def __init__(self, tensors: Tensors, path: Path) -> None:
        self._tensors, self._path = tensors, path

    def size(self, name: str, axis: int) -> int:
        """Length of one axis of a tensor."""
        if name not in self._tensors or self._tensors[name].ndim <= axis:
            raise WeightsError(
                f"{self._path.name} lacks {name}; it is no complete checkpoint of this network."
            )
        return self._tensors[name].shape[axis]

    def count(self, prefix: str) -> int:
        """1 + the largest number that follows `prefix.`; 0 when there is none."""
        pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
        return max((int(match[1]) + 1 for name in self._tensors if (match := pattern.match(name))), default=0)

    def has(self, fragment: str) -> bool:
        """Whether some name starts with `fragment`."""
        return any(name.startswith(fragment) for name in self._tensors)

    def fail(self, reason: str) -> WeightsError:
        """An error about the file as a whole."""
        return WeightsError(f"{self._path.name} {reason}; check that it is the file that was meant.")


def autoencoder_structure(shapes: Shapes) -> dict[str, Any]:
    """Levels, widths, residual units and codebook of a VQ-VAE, as `build_autoencoder` takes them."""
    if not shapes.has("encoder.blocks.") or not shapes.has("quantizer."):
        raise shapes.fail("is no vector-quantised autoencoder")
    blocks = range(shapes.count("encoder.blocks"))
    plain = [i for i in blocks if shapes.has(f"encoder.blocks.{i}.conv.")]
    units = {later - earlier - 1 for earlier, later in zip(plain, plain[1:], strict=False)}
    if len(plain) < 2 or len(units) != 1 or plain[-1] != blocks[-1]:
        raise shapes.fail("has encoder blocks that do not repeat level by level")
    levels, last = plain[:-1], plain[-1]
    channels = [shapes.size(f"encoder.blocks.{i}.conv.weight", 0) for i in levels]
    units_per_level = units.pop()
    residual = [
        shapes.size(f"encoder.blocks.{i + 1}.conv1.conv.weight", 0) if units_per_level else width
        for i, width in zip(levels, channels, strict=True)
    ]
    return {
        "in_channels": shapes.size("encoder.blocks.0.conv.weight", 1),
        "out_channels": shapes.size(f"decoder.blocks.{shapes.count('decoder.blocks') - 1}.conv.weight", 1),
        "channels": channels,
        "num_res_layers": units_per_level,
        "num_res_channels": residual,
        "num_embeddings": shapes.size("quantizer.quantizer.embedding.weight", 0),
        "embedding_dim": shapes.size(f"encoder.blocks.{last}.conv.weight", 0),
    }


def denoiser_structure(shapes: Shapes, has_activation: bool) -> dict[str, Any]:
    """Widths, blocks and attention levels of a U-Net, as `build_denoiser` takes them.

    `has_activation`: the checkpoint stored its output convolution as `out.2.conv`.
    """
    if not shapes.has("up_blocks."):
        raise shapes.fail("is no denoising U-Net")
    structure = _encoder_structure(shapes)
    if shapes.has("class_embedding.") or structure.pop("with_transformers"):
        raise shapes.fail("is a U-Net with class or cross-attention conditioning, which is not supported")
    return {
        **structure,
        "out_channels": shapes.size("out.2.conv.weight", 0),
        "include_fc": False,
        "output_activation": "silu" if has_activation else "none",
    }


def control_structure(shapes: Shapes) -> dict[str, Any]:
    """Widths, blocks and condition embedding of a ControlNet; `denoiser_channels` are the widths that it serves."""
    if not shapes.has("controlnet_cond_embedding."):
        raise shapes.fail("is no ControlNet")
    structure = _encoder_structure(shapes)
    embedding = "controlnet_cond_embedding"
    pairs = range(1, shapes.count(f"{embedding}.blocks"), 2)
    served, position = [], 1
    for i, blocks in enumerate(structure["num_res_blocks"]):
        served.append(shapes.size(f"controlnet_down_blocks.{position}.weight", 0))
        position += blocks + (i < len(structure["channels"]) - 1)
    return {
        **structure,
        "include_fc": structure["with_transformers"],
        "denoiser_channels": served,
        "condition_channels": shapes.size(f"{embedding}.conv_in.conv.weight", 1),
        "embedding_channels": [
            shapes.size(f"{embedding}.conv_in.conv.weight", 0),
            *(shapes.size(f"{embedding}.blocks.{i}.conv.weight", 0) for i in pairs),
        ],
    }


def _encoder_structure(shapes: Shapes) -> dict[str, Any]:
    levels = range(shapes.count("down_blocks"))
    return {
        "in_channels": shapes.size("conv_in.conv.weight", 1),
        "channels": [shapes.size(f"down_blocks.{i}.resnets.0.conv1.conv.weight", 0) for i in levels],
        "num_res_blocks": [shapes.count(f"down_blocks.{i}.resnets") for i in levels],
        "attention_levels": [shapes.has(f"down_blocks.{i}.attentions.") for i in levels],
        "resblock_updown": shapes.has("down_blocks.0.downsampler.conv1."),
        "with_transformers": shapes.has("middle_block.attention.transformer_blocks."),
    }
