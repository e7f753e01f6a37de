"""MedLoRD's checkpoints as networks of this engine, with a description of where each value came from.

Shapes decide what shapes can tell (widths, levels, codebook, generation). What they cannot tell - head width, norm
groups, strides, order of the masks, raw or averaged weights, noise schedule, scale factor - comes from the
configuration or from an explicit option, and is refused when neither has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError, WeightsError
from ..networks import build
from . import medlord_layout as layout
from .medlord_checkpoint import Checkpoint, Tensors, chosen_weights, load_strictly, read_checkpoint
from .medlord_settings import SECTIONS, Config, Settings, network_settings, read, section

_AUTOENCODER_KEYS = set(build.AUTOENCODER) - {"channels", "strides", "revival_threshold", "chunk_bytes"} | {
    "spatial_dims",
    "num_channels",
    "embedding_init",
    "output_act",
    "ddp_sync",
    "use_checkpointing",
}
_DENOISER_KEYS = {
    "spatial_dims",
    "in_channels",
    "out_channels",
    "num_res_blocks",
    "num_channels",
    "attention_levels",
    "norm_num_groups",
    "norm_eps",
    "resblock_updown",
    "num_head_channels",
    "with_conditioning",
    "transformer_num_layers",
    "cross_attention_dim",
    "num_class_embeds",
    "upcast_attention",
    "use_flash_attention",
    "dropout_cattn",
}
_CONTROL_KEYS = _DENOISER_KEYS - {"out_channels"} | {
    "r",
    "conditioning_embedding_in_channels",
    "conditioning_embedding_num_channels",
    "initial_stride",
}


@dataclass(frozen=True)
class ImportedNetwork:
    """A network with its weights (float32, on the CPU, evaluation mode) and a JSON-able description.

    The description has `kind`, `config` (for the `build` function of that kind), `layout` and `weights` of the file,
    `sources` (where each value of the configuration came from: shapes, configuration, option or default), `left_out`
    (stored tensors that the original never applies) and `differences` (where the YAML contradicts the shapes; the
    shapes win). A ControlNet also has `conditions`, the order of its masks.
    """

    network: nn.Module
    description: dict[str, Any]


def import_autoencoder(
    checkpoint: str | Path, config: Config, options: dict[str, Any] | None = None
) -> ImportedNetwork:
    """VQ-VAE from a VQ-GAN trainer's file. `options` may give `downsample_parameters` and `upsample_parameters`.

    Raises WeightsError naming a missing or unexpected tensor, InputError for what nothing says.
    """
    source = read_checkpoint(checkpoint)
    settings = network_settings(
        "autoencoder", config, SECTIONS["autoencoder"], _AUTOENCODER_KEYS, options, _AUTOENCODER_KEYS
    )
    if settings.optional("output_act", None) is not None:
        raise InputError("The autoencoder has an output activation (output_act), which is not supported.")
    tensors, left_out = layout.renamed(chosen_weights(source, "model")[1], source.path)
    structure = layout.autoencoder_structure(layout.Shapes(tensors, source.path))
    levels = len(structure["channels"])
    network_config = {
        **structure,
        "downsample_parameters": _convolutions(settings, "downsample_parameters", levels),
        "upsample_parameters": _convolutions(settings, "upsample_parameters", levels),
        "act": settings.optional("act", build.AUTOENCODER["act"]),
        **{key: settings.number(key, build.AUTOENCODER[key]) for key in _TRAINING_SETTINGS},
    }
    network = _loaded(build.build_autoencoder, network_config, tensors, source.path, "autoencoder")
    return _imported("autoencoder", network, network_config, source, "model", settings, structure, left_out)


_TRAINING_SETTINGS = ("commitment_cost", "decay", "epsilon", "dropout")


def import_discriminator(checkpoint: str | Path, config: Config) -> ImportedNetwork:
    """Patch discriminator that a VQ-GAN trainer's file holds beside the autoencoder.

    Its normalisation is batch norm when the configuration names none, as in the class that the trainers use.
    """
    source = read_checkpoint(checkpoint)
    keys = set(build.DISCRIMINATOR) - {"channels"} | {"spatial_dims", "num_channels"}
    settings = network_settings("discriminator", config, (("discriminator", "params"),), keys, None, set())
    if source.discriminator is None:
        raise WeightsError(f"{source.path.name} holds no discriminator; give the trainer's full checkpoint.")
    network_config = {
        "channels": settings.required("channels", "num_channels"),
        "norm": settings.optional("norm", "BATCH"),
        **{key: settings.required(key) for key in ("in_channels", "out_channels", "num_layers_d")},
    }
    network = _loaded(
        build.build_discriminator, network_config, source.discriminator, source.path, "discriminator"
    )
    return _imported("discriminator", network, network_config, source, "model", settings, {}, [])


def import_denoiser(
    checkpoint: str | Path, config: Config, weights: str | None = None, options: dict[str, Any] | None = None
) -> ImportedNetwork:
    """U-Net from a diffusion trainer's file, of either generation. `options` may give `norm_num_groups`,
    `num_head_channels` (one number or one per level) and `norm_eps`.

    `weights` is "model" or "ema"; needed when the file has both. Errors as in `import_autoencoder`.
    """
    source = read_checkpoint(checkpoint)
    allowed = {"norm_num_groups", "num_head_channels", "norm_eps"}
    settings = network_settings("denoiser", config, SECTIONS["U-Net"], _DENOISER_KEYS, options, allowed)
    kind, stored = chosen_weights(source, weights, "--diffusion-weights")
    tensors, left_out = layout.renamed(stored, source.path)
    has_activation = not any(name.startswith("out.1.conv.") for name in stored)
    structure = layout.denoiser_structure(layout.Shapes(tensors, source.path), has_activation)
    network_config = {
        **structure,
        "norm_num_groups": settings.whole_number("norm_num_groups"),
        "num_head_channels": settings.per_level("num_head_channels", len(structure["channels"])),
        "norm_eps": settings.number("norm_eps", build.DENOISER["norm_eps"]),
    }
    network = _loaded(build.build_denoiser, network_config, tensors, source.path, "denoiser")
    return _imported("denoiser", network, network_config, source, kind, settings, structure, left_out)


def import_control(
    checkpoint: str | Path,
    config: Config,
    denoiser_config: dict[str, Any],
    weights: str | None = None,
    options: dict[str, Any] | None = None,
) -> ImportedNetwork:
    """ControlNet for the U-Net of `denoiser_config` (`description["config"]` of `import_denoiser`).

    `options` may give `norm_num_groups`, `num_head_channels`, `norm_eps`, `initial_stride` (of the first convolution of
    the condition embedding) and `condition_keys` (names of the masks in channel order). Errors as in
    `import_denoiser`; also WeightsError when the ControlNet serves a U-Net of other widths.
    """
    source = read_checkpoint(checkpoint)
    allowed = {"norm_num_groups", "num_head_channels", "norm_eps", "initial_stride", "condition_keys"}
    settings = network_settings("control", config, SECTIONS["ControlNet"], _CONTROL_KEYS, options, allowed)
    kind, stored = chosen_weights(source, weights, "--controlnet-weights")
    tensors, left_out = layout.renamed(stored, source.path)
    structure = layout.control_structure(layout.Shapes(tensors, source.path))
    _refuse_other_denoiser(source.path, structure, denoiser_config)
    conditions = _condition_names(config, settings, structure["condition_channels"])
    inherited = ("in_channels", "num_res_blocks", "resblock_updown", "denoiser_channels")
    own = {key: value for key, value in structure.items() if key not in inherited}
    network_config = {
        **own,
        "embedding_strides": [
            settings.required("initial_stride"),
            *[2] * (len(own["embedding_channels"]) - 1),
        ],
        "norm_num_groups": settings.whole_number("norm_num_groups"),
        "num_head_channels": settings.per_level("num_head_channels", len(own["channels"])),
        "norm_eps": settings.number("norm_eps", build.DENOISER["norm_eps"]),
    }
    network = _loaded(
        lambda values: build.build_control(values, denoiser_config),
        network_config,
        tensors,
        source.path,
        "control",
    )
    imported = _imported("control", network, network_config, source, kind, settings, structure, left_out)
    imported.description["conditions"] = conditions
    return imported


def _convolutions(settings: Settings, name: str, levels: int) -> list:
    """Parameters of one convolution per level, also where the configuration gives one set for all levels."""
    parameters = settings.required(name)
    rows = parameters if isinstance(parameters, list | tuple) else [parameters]
    if all(isinstance(value, int) for value in rows):
        rows = [rows] * levels
    if not all(isinstance(row, list | tuple) for row in rows):
        raise InputError(
            f"{name} of the autoencoder are {parameters!r}; give stride, kernel, dilation and padding of every level."
        )
    return [list(row) for row in rows]


def _condition_names(config: Config, settings: Settings, channels: int) -> list[str]:
    stated = section(read(config), (("controlnet", "condition_keys"),))
    settings.parameters = {**settings.parameters, "condition_keys": stated}
    names = settings.required("condition_keys")
    if not isinstance(names, list | tuple):
        raise InputError(
            f"condition_keys is {names!r}; it must list a name for every mask channel, in order."
        )
    if len(names) != channels:
        raise InputError(
            f"{len(names)} condition names stand for {channels} mask channels; name every channel in order."
        )
    return list(names)


def _refuse_other_denoiser(path: Path, control: dict[str, Any], denoiser_config: dict[str, Any]) -> None:
    served = {
        "in_channels": control["in_channels"],
        "channels": control["denoiser_channels"],
        "num_res_blocks": control["num_res_blocks"],
        "resblock_updown": control["resblock_updown"],
    }
    for key, value in served.items():
        if denoiser_config.get(key) != value:
            raise WeightsError(
                f"{path.name} serves a U-Net with {key} {value}, this U-Net has {denoiser_config.get(key)}; "
                "give the U-Net that it was trained with."
            )


def _loaded(make: Callable, config: dict[str, Any], tensors: Tensors, path: Path, what: str) -> nn.Module:
    with torch.device("meta"):
        network = make(config)
    load_strictly(network, tensors, path, what)
    return network.eval()


_THEIR_NAMES = {
    "channels": "num_channels",
    "embedding_channels": "conditioning_embedding_num_channels",
    "condition_channels": "conditioning_embedding_in_channels",
    "with_transformers": "with_conditioning",
}


def _imported(
    kind: str,
    network: nn.Module,
    config: dict[str, Any],
    source: Checkpoint,
    weights: str,
    settings: Settings,
    structure: dict[str, Any],
    left_out: list[str],
) -> ImportedNetwork:
    sources = {**settings.sources, **dict.fromkeys(structure, "shapes")}
    differences = []
    # What a ControlNet's configuration calls num_channels are the widths that it serves.
    told_widths = structure.get("denoiser_channels", structure.get("channels"))
    for ours, told in {**structure, "channels": told_widths}.items():
        theirs = _THEIR_NAMES.get(ours, ours)
        stated = settings.parameters.get(theirs)
        if None not in (stated, told) and not _same(stated, told):
            differences.append(f"{theirs}: the configuration says {stated}, the weights {told}")
    description = {
        "kind": kind,
        "config": config,
        "layout": source.layout,
        "weights": weights,
        "sources": sources,
        "left_out": left_out,
        "differences": differences,
    }
    return ImportedNetwork(network, description)


def _same(stated: Any, told: Any) -> bool:
    if not isinstance(told, list):
        return stated == told
    values = list(stated) if isinstance(stated, list | tuple) else [stated] * len(told)
    return values == told
