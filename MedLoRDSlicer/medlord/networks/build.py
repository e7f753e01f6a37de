"""Networks from plain dictionaries, as they stand in a model bundle's JSON.

Argument names are MONAI's. Every function raises `InputError` for a key that it does not know, a key that is
missing and a value that the network refuses. See `AUTOENCODER`, `DENOISER`, `CONTROL` and `DISCRIMINATOR` for the
keys; `REQUIRED` marks those without a default.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import InputError
from .autoencoder import VectorQuantizedAutoencoder, parameters_of_stride
from .control import ControlNetwork
from .denoiser import DenoisingUNet
from .discriminator import PatchDiscriminator
from .quantizer import DEFAULT_CHUNK_BYTES

REQUIRED = object()

AUTOENCODER = {
    "in_channels": 1,
    "out_channels": 1,
    "channels": REQUIRED,
    "num_res_layers": REQUIRED,
    "num_res_channels": None,  # one per level or one for all; the level's channels when not given
    "strides": None,  # per level, 1 or 2, one number or three; or both parameter lists below
    "downsample_parameters": None,
    "upsample_parameters": None,
    "num_embeddings": REQUIRED,
    "embedding_dim": REQUIRED,
    "commitment_cost": 0.25,
    "decay": 0.99,
    "epsilon": 1e-5,
    "act": "RELU",
    "dropout": 0.0,
    "revival_threshold": 0.0,
    "chunk_bytes": DEFAULT_CHUNK_BYTES,
}
DENOISER = {
    "in_channels": REQUIRED,
    "out_channels": REQUIRED,
    "channels": REQUIRED,
    "num_res_blocks": REQUIRED,
    "attention_levels": REQUIRED,
    "num_head_channels": REQUIRED,
    "norm_num_groups": REQUIRED,
    "norm_eps": 1e-6,
    "resblock_updown": False,
    "include_fc": True,
    "output_activation": "silu",
}
CONTROL = {
    "condition_channels": REQUIRED,
    "embedding_channels": REQUIRED,
    "embedding_strides": REQUIRED,  # one entry per embedding channel entry; one number or three
    "width_ratio": 0.5,
    "channels": None,  # max(1, int(width_ratio * the denoiser's)) when not given
    "attention_levels": None,  # the denoiser's when not given
    "norm_num_groups": None,  # the denoiser's when not given
    "norm_eps": None,  # the denoiser's when not given
    "num_head_channels": None,  # max(1, int(width_ratio * the denoiser's)) when not given
    "with_transformers": False,
    "include_fc": True,
}
DISCRIMINATOR = {
    "in_channels": 1,
    "out_channels": 1,
    "channels": REQUIRED,
    "num_layers_d": 3,
    "norm": "INSTANCE",
}


def build_autoencoder(config: dict[str, Any]) -> VectorQuantizedAutoencoder:
    """Autoencoder with random weights from `config` (keys of `AUTOENCODER`)."""
    settings = _settings("autoencoder", config, AUTOENCODER)
    channels = settings["channels"]
    residual = settings["num_res_channels"]
    settings["num_res_channels"] = (
        channels if residual is None else _per_level("num_res_channels", residual, channels)
    )
    strides = settings.pop("strides")
    explicit = (settings["downsample_parameters"], settings["upsample_parameters"])
    if (strides is None) == (None in explicit):
        raise InputError(
            "The autoencoder configuration needs either strides or both downsample_parameters and "
            "upsample_parameters, not none and not a mixture; correct it."
        )
    if strides is not None:
        strides = _per_level("strides", strides, channels)
        down = [_checked("autoencoder", parameters_of_stride, stride) for stride in strides]
        settings["downsample_parameters"] = down
        settings["upsample_parameters"] = [(*level, 0) for level in reversed(down)]
    for name in ("downsample_parameters", "upsample_parameters"):
        _per_level(name, settings[name], channels)
    return _checked("autoencoder", VectorQuantizedAutoencoder, **settings)


def build_denoiser(config: dict[str, Any]) -> DenoisingUNet:
    """Denoiser with random weights from `config` (keys of `DENOISER`)."""
    settings = _settings("denoiser", config, DENOISER)
    return _checked("denoiser", DenoisingUNet, **settings)


def build_control(config: dict[str, Any], denoiser_config: dict[str, Any]) -> ControlNetwork:
    """Control adapter for the denoiser of `denoiser_config`, from `config` (keys of `CONTROL`).

    Levels, residual blocks per level and latent channels are always the denoiser's.
    """
    settings = _settings("control", config, CONTROL)
    denoiser = _settings("denoiser", denoiser_config, DENOISER)
    levels = denoiser["channels"]
    ratio = settings.pop("width_ratio")
    for key in ("channels", "num_head_channels"):
        if settings[key] is None:
            full_width = _per_level(key, denoiser[key], levels)
            settings[key] = [max(1, int(ratio * width)) for width in full_width]
        settings[key] = _per_level(key, settings[key], levels)
    for key in ("attention_levels", "norm_num_groups", "norm_eps"):
        settings[key] = denoiser[key] if settings[key] is None else settings[key]
    _per_level("attention_levels", settings["attention_levels"], levels)
    _per_level("embedding_strides", settings["embedding_strides"], settings["embedding_channels"])
    settings.update(
        in_channels=denoiser["in_channels"],
        denoiser_channels=levels,
        num_res_blocks=_per_level("num_res_blocks", denoiser["num_res_blocks"], levels),
        resblock_updown=denoiser["resblock_updown"],
    )
    return _checked("control", ControlNetwork, **settings)


def build_discriminator(config: dict[str, Any]) -> PatchDiscriminator:
    """Discriminator with random weights from `config` (keys of `DISCRIMINATOR`)."""
    settings = _settings("discriminator", config, DISCRIMINATOR)
    return _checked("discriminator", PatchDiscriminator, spatial_dims=3, **settings)


def count_parameters(network: nn.Module) -> int:
    """Number of weights, trained or not, without buffers."""
    return sum(parameter.numel() for parameter in network.parameters())


def _settings(what: str, config: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise InputError(
            f"The {what} configuration has the unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}."
        )
    settings = {**known, **config}
    missing = [key for key, value in settings.items() if value is REQUIRED]
    if missing:
        raise InputError(f"The {what} configuration lacks {missing[0]!r}; add it.")
    return settings


def _per_level(name: str, value: Any, levels: list) -> list:
    values = [value] * len(levels) if isinstance(value, int) else list(value)
    if len(values) != len(levels):
        raise InputError(f"{name} has {len(values)} entries for {len(levels)} levels; give one per level.")
    return values


def _checked(what: str, make: Any, *arguments: Any, **settings: Any) -> Any:
    try:
        return make(*arguments, **settings)
    except (ValueError, TypeError, KeyError, ArithmeticError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise InputError(
            f"The {what} configuration cannot be built: {first_line}; correct the value."
        ) from error
