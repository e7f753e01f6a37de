"""MedLoRD's checkpoints as a model bundle: `medlord models import --family medlord`.

What shapes tell is inferred (`medlord_networks`). What they do not tell comes from the YAML configurations or from
`MedlordOptions`, is recorded in the bundle with its source, and is refused rather than guessed.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checksums import sha256_of
from ..errors import InputError
from ..networks.autoencoder import VectorQuantizedAutoencoder, per_axis
from ..networks.receptive_field import Layer, downsampling
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from . import medlord_networks
from .bundle import (
    appearing_bundle,
    check_new_id,
    user_model_folder,
    write_documents,
    write_weights,
)
from .description import NETWORKS, OWN_RANGE, ModelDescription, weight_file
from .medlord_options import (
    DIFFUSION_OPTIONS,
    MedlordFiles,
    MedlordOptions,
    require_statements,
    stated_grid,
    stated_preparation,
    told_by_option,
)
from .medlord_settings import diffusion_settings
from .model_card import imported_model_card
from .monai_metadata import monai_metadata
from .scale_check import DOUBTFUL, check_scale_factor

_FILES_OF = {
    "autoencoder": ("stage1", "stage1_config"),
    "denoiser": ("diffusion", "diffusion_config"),
    "control": ("controlnet", "controlnet_config"),
}


@dataclass
class ImportedModel:
    """The bundle that an import made, and sentences for the user."""

    folder: Path
    description: ModelDescription
    warnings: list[str] = field(default_factory=list)


@dataclass
class _Statements:
    """All that is known before any weight is read: values, and where each came from."""

    grid: dict[str, Any]
    preparation: dict[str, Any]
    diffusion: dict[str, Any]
    settings: dict[str, dict[str, Any]]


def import_medlord(
    files: MedlordFiles,
    model_id: str,
    options: MedlordOptions | None = None,
    *,
    out: Path | None = None,
    title: str | None = None,
    licence: str = "not stated",
    licence_text: str | None = None,
    half_precision: bool = False,
    check_volumes: Sequence[Path] = (),
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> ImportedModel:
    """Turn MedLoRD's files into a bundle in the folder `out` (default: the user's model folder / `model_id`).

    Weights are stored as float32, without which the published numbers do not come out; `half_precision` halves the
    files, all but the codebook. `check_volumes` are NIfTI volumes in HU on which the scale factor is checked. One
    network at a time is in memory. When anything fails nothing is left behind.

    Raises `InputError` for what no file says, for contradictions and for a taken id; `WeightsError` naming a missing,
    unexpected or misshapen tensor; `EngineError` for a full disk; `CancelledError`.
    """
    options = options or MedlordOptions()
    check_new_id(model_id)
    require_statements(files, options, check_volumes)
    stated = _statements(files, options)
    folder = (out or user_model_folder() / model_id).absolute()
    with appearing_bundle(folder) as staging:
        networks, hashes, check = {}, {}, None
        # The autoencoder last: the check of its latents takes long and should not come before another refusal.
        names = ["denoiser", *(["control"] if files.controlnet else []), "autoencoder"]
        clock = PhaseClock("import", len(names), progress)
        for name in names:
            raise_if_cancelled(cancel, f"the import of the {name}")
            with told_by_option(files, *_FILES_OF[name]):
                imported = _import_network(name, files, options, networks)
            networks[name] = imported.description
            if name == "autoencoder":
                _require_fit(networks, stated.grid["shape"])
                check = _checked_scale(imported.network, stated, check_volumes, progress, cancel)
            hashes[weight_file(name)] = write_weights(staging, name, imported.network, half_precision)
            del imported
            gc.collect()
            clock.report(len(networks))
        networks = {name: networks[name] for name in NETWORKS if name in networks}
        provenance = _provenance(files, options, stated, networks, check)
        description = _description(model_id, title, licence, stated, networks, hashes, provenance)
        warnings = _warnings(description, check)
        _write_documents(staging, description, warnings, licence_text)
    return ImportedModel(folder, description, warnings)


def _statements(files: MedlordFiles, options: MedlordOptions) -> _Statements:
    grid, grid_sources = stated_grid(files, options)
    with told_by_option(files, "diffusion_config"):
        diffusion = diffusion_settings(files.diffusion_config, options.given(*DIFFUSION_OPTIONS))
    preparation, preparation_sources = stated_preparation(files, options)
    values = {
        "schedule": diffusion["schedule"]["kind"],
        "num_train_timesteps": diffusion["schedule"]["training_steps"],
        "prediction_type": diffusion["prediction_type"],
        "scale_factor": diffusion["scale_factor"],
    }
    settings = {
        "grid": _entries(grid, grid_sources),
        "preparation": _entries(preparation, preparation_sources),
        "diffusion": _entries(values, diffusion["sources"]),
    }
    return _Statements(grid, preparation, diffusion, settings)


def _entries(values: dict[str, Any], sources: dict[str, str]) -> dict[str, Any]:
    return {
        name: {"value": values[name], "source": source} for name, source in sources.items() if name in values
    }


def _checked_scale(
    autoencoder: VectorQuantizedAutoencoder,
    stated: _Statements,
    volumes: Sequence[Path],
    progress: Progress | None,
    cancel: Cancel | None,
) -> dict[str, Any] | None:
    if not volumes:
        return None
    return check_scale_factor(
        autoencoder,
        stated.diffusion["scale_factor"],
        volumes,
        stated.preparation,
        stated.grid["shape"],
        progress=progress,
        cancel=cancel,
    )


def _import_network(
    name: str, files: MedlordFiles, options: MedlordOptions, imported: dict[str, dict]
) -> medlord_networks.ImportedNetwork:
    """Network and description of one of the files; `imported` are the descriptions of those before it."""
    if name == "autoencoder":
        return medlord_networks.import_autoencoder(files.stage1, files.stage1_config, _convolutions(options))
    if name == "denoiser":
        return medlord_networks.import_denoiser(
            files.diffusion,
            files.diffusion_config,
            options.diffusion_weights,
            options.given("norm_num_groups", "num_head_channels"),
        )
    given = {
        **options.given("norm_num_groups", "num_head_channels", prefix="control_"),
        **options.given("initial_stride", "condition_keys"),
    }
    control = medlord_networks.import_control(
        files.controlnet,
        files.controlnet_config,
        imported["denoiser"]["config"],
        options.controlnet_weights,
        given,
    )
    names = control.description["conditions"]
    odd = [name for name in names if not isinstance(name, str) or not name.strip() or "=" in name]
    if odd or len(set(names)) < len(names):
        raise InputError(
            f"The masks are named {', '.join(map(str, names))}; every one needs a name of its own without '=': give "
            "--condition-keys."
        )
    return control


def _convolutions(options: MedlordOptions) -> dict[str, Any]:
    """The parameters of the autoencoder's convolutions that the option `strides` stands for."""
    if options.strides is None:
        return {}
    if any(stride not in (1, 2) for stride in options.strides):
        raise InputError(f"The strides {list(options.strides)} are not all 1 or 2; correct --strides.")
    # Kernel 4 with stride 2, kernel 3 with stride 1, as in `parameters_of_stride`.
    down = [[stride, stride + 2, 1, 1] for stride in options.strides]
    return {
        "downsample_parameters": down,
        "upsample_parameters": [[*level, 0] for level in reversed(down)],
    }


def _require_fit(networks: dict[str, dict], shape: Sequence[int]) -> None:
    """Raise `InputError` unless the networks fit each other and the volumes."""
    autoencoder, denoiser = networks["autoencoder"]["config"], networks["denoiser"]["config"]
    if (autoencoder["in_channels"], autoencoder["out_channels"]) != (1, 1):
        raise InputError(
            f"The autoencoder takes {autoencoder['in_channels']} and gives {autoencoder['out_channels']} channels; a "
            "CT has 1."
        )
    width = autoencoder["embedding_dim"]
    if (denoiser["in_channels"], denoiser["out_channels"]) != (width, width):
        raise InputError(
            f"The U-Net works on {denoiser['in_channels']} latent channels, the autoencoder has {width}; give files "
            "that belong together."
        )
    factors = [
        downsampling([Layer(3, per_axis(level[0])[axis]) for level in autoencoder["downsample_parameters"]])
        for axis in range(3)
    ]
    if "control" in networks:
        strides = networks["control"]["config"]["embedding_strides"]
        reached = [downsampling([Layer(3, per_axis(s)[axis]) for s in strides]) for axis in range(3)]
        if reached != factors:
            raise InputError(
                f"The ControlNet brings masks to 1/{reached[0]} of their size, the autoencoder volumes to "
                f"1/{factors[0]}; correct --initial-stride, or give files that belong together."
            )
    steps = [factor * 2 ** (len(denoiser["channels"]) - 1) for factor in factors]
    if any(size % step for size, step in zip(shape, steps, strict=True)):
        raise InputError(
            f"The shape {' x '.join(map(str, shape))} does not divide by {' x '.join(map(str, steps))}, as "
            "autoencoder and U-Net need; correct --shape."
        )


def _provenance(
    files: MedlordFiles,
    options: MedlordOptions,
    stated: _Statements,
    networks: dict[str, dict],
    check: dict | None,
) -> dict[str, Any]:
    """Where everything came from; JSON-able. Files by their names alone: their folders may tell of persons."""
    paths = {name: Path(path) for name, path in vars(files).items() if path is not None}
    chosen = {"denoiser": options.diffusion_weights, "control": options.controlnet_weights}
    settings = dict(stated.settings)
    for name, network in networks.items():
        values = {**network["config"], "condition_keys": network.get("conditions")}
        values["initial_stride"] = network["config"].get("embedding_strides", [None])[0]
        settings[name] = {
            "weights": {"value": network["weights"], "source": "option" if chosen.get(name) else "file"},
            **_entries(values, network["sources"]),
        }
    return {
        "family": "medlord",
        "files": {name: {"file": path.name, "sha256": sha256_of(path)} for name, path in paths.items()},
        "networks": {
            name: {key: network[key] for key in ("layout", "left_out", "differences")}
            for name, network in networks.items()
        },
        "settings": settings,
        "scale_factor_check": check,
    }


def _description(
    model_id: str,
    title: str | None,
    licence: str,
    stated: _Statements,
    networks: dict[str, dict],
    hashes: dict[str, str],
    provenance: dict[str, Any],
) -> ModelDescription:
    return ModelDescription(
        id=model_id,
        version="1",
        networks={name: network["config"] for name, network in networks.items()},
        weights_sha256=hashes,
        schedule=stated.diffusion["schedule"],
        prediction_type=stated.diffusion["prediction_type"],
        scale_factor=stated.diffusion["scale_factor"],
        grid_shape=tuple(stated.grid["shape"]),
        spacing_mm=tuple(stated.grid["spacing_mm"]),
        orientation=stated.grid["orientation"],
        conditions=networks["control"]["conditions"] if "control" in networks else [],
        attributes={},
        window_hu=tuple(stated.grid["window_hu"]),
        licence=licence,
        title=title or f"{model_id} (imported from MedLoRD's checkpoints)",
        preprocessing=stated.preparation,
        provenance=provenance,
    )


def _warnings(description: ModelDescription, check: dict | None) -> list[str]:
    """What the user should know of the import beyond that it worked."""
    warnings = []
    for name, network in description.provenance["networks"].items():
        warnings += [
            f"{name}, {difference}; the weights were believed." for difference in network["differences"]
        ]
    if check and check["difference"] > DOUBTFUL:
        warnings.append(
            f"The scale factor {description.scale_factor:g} is {check['difference']:.0%} away from "
            f"{check['measured']:.4g}, 1/std of the latents of {check['volumes']} volumes; check it."
        )
    if description.intensity_map == OWN_RANGE:
        warnings.append(
            "HU of this model are relative: its training scaled every volume by its own minimum and maximum."
        )
    return warnings


def _write_documents(
    folder: Path, description: ModelDescription, warnings: Sequence[str], licence_text: str | None
) -> None:
    metadata = monai_metadata(
        version=description.version,
        title=description.title,
        authors="not stated",
        shape=description.grid_shape,
        window_hu=description.window_hu,
        conditions=description.conditions,
        attributes={},
    )
    stated = f"Licence of these weights, as stated at their import: {description.licence}\n"
    card = imported_model_card(description, warnings)
    write_documents(folder, description, metadata, card=card, licence_text=licence_text or stated)
