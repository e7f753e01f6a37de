"""What MedLoRD's weights do not tell: the user's statements, and all that is missing or contradictory in them.

MedLoRD's trainers call every checkpoint best_model.pth, so messages name files by option and path as given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, WeightsError
from ..volumes import Grid
from .description import FIXED_WINDOW, OWN_RANGE
from .medlord_checkpoint import WHICH_WEIGHTS, chosen_weights, read_checkpoint
from .medlord_layout import Shapes, autoencoder_structure, renamed
from .medlord_settings import SECTIONS, mapping, read, section, stated_diffusion
from .scale_check import CROP_AND_PAD, RESIZE

INTENSITY_MAPS, VOLUME_FITS = (OWN_RANGE, FIXED_WINDOW), (RESIZE, CROP_AND_PAD)
DIFFUSION_OPTIONS = ("scale_factor", "schedule", "num_train_timesteps", "prediction_type")


@dataclass(frozen=True)
class MedlordFiles:
    """Checkpoints (.pth) of MedLoRD's trainers with the YAML configurations that they were trained with.

    All are needed but the ControlNet's, without which the model takes no masks.
    """

    stage1: Path | None
    stage1_config: Path | None
    diffusion: Path | None
    diffusion_config: Path | None
    controlnet: Path | None = None
    controlnet_config: Path | None = None


@dataclass(frozen=True)
class MedlordOptions:
    """What no weight holds. None means: take it from the configurations, refuse when they do not say it either.

    window_hu             HU of the network's -1 and 1: the limits to which volumes were clipped; always needed
    shape                 voxels (i, j, k) of the volumes; with a ControlNet its training.roi_size tells
    spacing_mm            distance of voxels along i, j, k; always needed, since training did not look at it
    orientation           where the voxel axes point, such as "LPS"; always needed, since training did not look at it
    scale_factor, schedule, num_train_timesteps, prediction_type    under MedLoRD's names
    diffusion_weights, controlnet_weights                           "model" (raw) or "ema", where a file has both
    condition_keys        names of the masks in the order of the ControlNet's channels
    strides               of the autoencoder, one per level
    norm_num_groups, num_head_channels                              of the U-Net; head width: one, or one per level
    control_norm_num_groups, control_num_head_channels, initial_stride    of the ControlNet
    intensity_map, volume_fit, padding_value    how volumes were prepared; what MedLoRD's code does when None
    """

    window_hu: tuple[float, float] | None = None
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    orientation: str | None = None
    scale_factor: float | None = None
    schedule: str | None = None
    num_train_timesteps: int | None = None
    prediction_type: str | None = None
    diffusion_weights: str | None = None
    controlnet_weights: str | None = None
    condition_keys: Sequence[str] | None = None
    strides: Sequence[int] | None = None
    norm_num_groups: int | None = None
    num_head_channels: int | Sequence[int] | None = None
    control_norm_num_groups: int | None = None
    control_num_head_channels: int | Sequence[int] | None = None
    initial_stride: int | None = None
    intensity_map: str | None = None
    volume_fit: str | None = None
    padding_value: float | None = None

    def given(self, *names: str, prefix: str = "") -> dict[str, Any]:
        """Those of the options `prefix` + name that are not None, by name."""
        values = {name: getattr(self, prefix + name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


_ROLES = {
    "stage1": "checkpoint of the autoencoder",
    "stage1_config": "configuration of the autoencoder",
    "diffusion": "checkpoint of the U-Net",
    "diffusion_config": "configuration of the U-Net",
    "controlnet": "checkpoint of the ControlNet; give both of its files, or neither",
    "controlnet_config": "configuration of the ControlNet; give both of its files, or neither",
}
_CONFIGURED = {"stage1_config": "autoencoder", "diffusion_config": "U-Net", "controlnet_config": "ControlNet"}
_TELLING = {
    "autoencoder": {"num_embeddings", "embedding_dim", "num_res_layers", "downsample_parameters"},
    "U-Net": {"num_head_channels", "attention_levels", "norm_num_groups"},
}
"""Settings that only configurations of this network have."""
_GRID = {
    "shape": "--shape I J K (voxels of the training volumes)",
    "spacing_mm": "--spacing I J K (the training volumes' spacing in mm)",
    "orientation": "--orientation AXES (where the axes of the training volumes point, for example LPS)",
    "window_hu": "--window LOW HIGH (HU to which the training volumes were clipped)",
}
_SETTINGS = {
    "stage1_config": (("strides", "downsample_parameters"), ("strides", "upsample_parameters")),
    "diffusion_config": (("norm_num_groups",) * 2, ("num_head_channels",) * 2),
    "controlnet_config": (
        ("control_norm_num_groups", "norm_num_groups"),
        ("control_num_head_channels", "num_head_channels"),
        ("initial_stride", "initial_stride"),
    ),
}
"""(option, setting that it stands for) of what networks need and weights do not tell."""


def option(name: str) -> str:
    """The command line's name of a file or setting: stage1_config -> --stage1-config."""
    return f"--{name.replace('_', '-')}"


@contextmanager
def told_by_option(files: MedlordFiles, *names: str) -> Iterator[None]:
    """Errors that arise within are about these files, and say by which options and paths they were given."""
    try:
        yield
    except (InputError, WeightsError) as error:
        given = " and ".join(_given(files, name) for name in names if getattr(files, name) is not None)
        raise type(error)(f"With {given}: {error}") from error


def _given(files: MedlordFiles, name: str) -> str:
    return f"{option(name)} {getattr(files, name)}"


def require_statements(files: MedlordFiles, options: MedlordOptions, volumes: Sequence[Path]) -> None:
    """Raise one `InputError` that lists all that is missing, misplaced or contradictory before weights are copied.

    `volumes` are those for the check of the scale factor. Raises `WeightsError` for a file that is no checkpoint.
    """
    problems = _missing_files(files, volumes)
    there = {name for name, path in vars(files).items() if path is not None and Path(path).is_file()}
    configs = {}
    for name in _CONFIGURED:
        if name in there:
            with told_by_option(files, name):
                configs[name] = read(getattr(files, name))
                misplaced = _misplaced(files, name, configs[name])
            if misplaced:
                problems.append(misplaced)
                there.discard(name)
                del configs[name]
    problems += _missing_grid(files, options, configs)
    problems += _missing_settings(files, options, configs)
    problems += _disagreements(files, options, configs)
    problems += _questions_on_weights(files, options, there)
    if problems:
        counted = [f"({number}) {text}" for number, text in enumerate(problems, 1)]
        raise InputError(f"The import needs {'; '.join(counted) if len(counted) > 1 else problems[0]}.")


def _missing_files(files: MedlordFiles, volumes: Sequence[Path]) -> list[str]:
    with_control = files.controlnet is not None or files.controlnet_config is not None
    problems = []
    for name, role in _ROLES.items():
        path = getattr(files, name)
        if path is not None and not Path(path).is_file():
            problems.append(f"another path than {_given(files, name)}, where there is no file")
        elif path is None and (with_control or "controlnet" not in name):
            problems.append(f"{option(name)} FILE ({role})")
    absent = [path for path in volumes if not Path(path).is_file()]
    return problems + [
        f"another path than --check-scale-factor {path}, where there is no file" for path in absent
    ]


def _misplaced(files: MedlordFiles, name: str, config: dict[str, Any]) -> str | None:
    """What to say of a configuration that looks like another network's; None when it looks right."""
    network = _CONFIGURED[name]
    parameters = mapping(config, SECTIONS[network])
    # The section of a ControlNet is like a U-Net's, but no other network has one of that name.
    found = network if parameters is not None and network == "ControlNet" else _network_of(parameters)
    if parameters is None:
        found = "ControlNet" if "controlnet" in config else _network_of(_any_parameters(config))
    if found not in (None, network):
        return (
            f"another file than {_given(files, name)}, which looks like the configuration of "
            f"{'an' if found == 'autoencoder' else 'a'} {found}, not of the {network}"
        )
    if parameters is None:
        places = " or ".join(".".join(place) for place in SECTIONS[network])
        return (
            f"another file than {_given(files, name)}, which has no section {places}: the one that the {network} was "
            "trained with"
        )
    return None


def _any_parameters(config: dict[str, Any]) -> Any:
    return section(config, tuple(place for places in SECTIONS.values() for place in places))


def _network_of(parameters: Any) -> str | None:
    if isinstance(parameters, Mapping):
        for network, telling in _TELLING.items():
            if telling & set(parameters):
                return network
    return None


def _missing_grid(files: MedlordFiles, options: MedlordOptions, configs: Mapping[str, dict]) -> list[str]:
    grid = {name: getattr(options, name) for name in _GRID}
    if files.controlnet_config is not None and grid["shape"] is None:
        # Unread or misplaced, the ControlNet's configuration may still tell.
        grid["shape"] = _shape_of(configs["controlnet_config"]) if "controlnet_config" in configs else "later"
    return [_GRID[name] for name, value in grid.items() if value is None]


def _shape_of(controlnet_config: dict[str, Any]) -> Any:
    # The size to which masks were cropped and padded, so the size of the volumes. In a diffusion trainer's
    # configuration the same entry is not used once latents are encoded, so it tells nothing there.
    return section(controlnet_config, (("training", "roi_size"),))


def _missing_settings(files: MedlordFiles, options: MedlordOptions, configs: Mapping[str, dict]) -> list[str]:
    """Settings that neither configurations nor options tell, by the option that would."""
    missing: dict[str, str] = {}
    for name, config in configs.items():
        stated = mapping(config, SECTIONS[_CONFIGURED[name]]) or {}
        needed = list(_SETTINGS[name])
        if name == "diffusion_config":
            with told_by_option(files, name):
                stated = {**stated, **stated_diffusion(config)}
            needed += [(setting, setting) for setting in DIFFUSION_OPTIONS]
        if name == "controlnet_config":
            stated = {**stated, "condition_keys": section(config, (("controlnet", "condition_keys"),))}
            needed.append(("condition_keys", "condition_keys"))
        for chosen, setting in needed:
            if getattr(options, chosen) is None and stated.get(setting) is None:
                missing.setdefault(chosen, f"{option(chosen)} ({_given(files, name)} has no {setting})")
    return list(missing.values())


def _disagreements(files: MedlordFiles, options: MedlordOptions, configs: Mapping[str, dict]) -> list[str]:
    """Where the ControlNet's configuration contradicts the U-Net's and no option decides.

    Both say what scale, schedule and U-Net they were trained with, and one of two different values must be wrong.
    """
    if not {"diffusion_config", "controlnet_config"} <= set(configs):
        return []
    unet, control = configs["diffusion_config"], configs["controlnet_config"]
    with told_by_option(files, "controlnet_config"):
        second = {**(mapping(control, (("pretrained_model", "params"),)) or {}), **stated_diffusion(control)}
    first = {**(mapping(unet, SECTIONS["U-Net"]) or {}), **stated_diffusion(unet)}
    problems = []
    for name in (*DIFFUSION_OPTIONS, "norm_num_groups", "num_head_channels"):
        a, b = first.get(name), second.get(name)
        if None not in (a, b) and a != b and getattr(options, name) is None:
            advice = (
                ": the one that the U-Net was trained with; --check-scale-factor with a training CT tells whether it "
                "fits (the original sampling scripts read neither, but an option of theirs, 1.0 unless given)"
                if name == "scale_factor"
                else ", to say which is right"
            )
            problems.append(
                f"{option(name)} ({name} is {a} in {_given(files, 'diffusion_config')} and {b} in "
                f"{_given(files, 'controlnet_config')}){advice}"
            )
    return problems


def _questions_on_weights(files: MedlordFiles, options: MedlordOptions, there: set[str]) -> list[str]:
    """Which of two kinds of weights, for both networks; and a stage-1 configuration of other levels."""
    problems = []
    for name in ("diffusion", "controlnet"):
        chosen = getattr(options, f"{name}_weights")
        if name in there:
            with told_by_option(files, name):
                checkpoint = read_checkpoint(getattr(files, name))
                if chosen is None and checkpoint.model and checkpoint.ema:
                    problems.append(f"--{name}-weights model or ema ({_given(files, name)} holds both)")
                else:
                    chosen_weights(checkpoint, chosen, f"--{name}-weights")
    if problems:
        problems[-1] += f": {WHICH_WEIGHTS}"
    if {"stage1", "stage1_config"} <= there and options.strides is None:
        with told_by_option(files, "stage1", "stage1_config"):
            stored = read_checkpoint(files.stage1)
            tensors, _ = renamed(chosen_weights(stored, "model")[1], stored.path)
            levels = len(autoencoder_structure(Shapes(tensors, stored.path))["channels"])
            stated = mapping(read(files.stage1_config), SECTIONS["autoencoder"]) or {}
        rows = stated.get("downsample_parameters")
        if isinstance(rows, list) and all(isinstance(row, list) for row in rows) and len(rows) != levels:
            problems.append(
                f"another file than {_given(files, 'stage1_config')}, which has {len(rows)} levels while "
                f"{_given(files, 'stage1')} has {levels}: the one that the autoencoder was trained with"
            )
    return problems


def stated_grid(files: MedlordFiles, options: MedlordOptions) -> tuple[dict[str, Any], dict[str, str]]:
    """(shape, spacing_mm, orientation and window_hu of the model's volumes, the source of each).

    All are stated, as `require_statements` makes sure. Raises `InputError` for values that make no grid or window.
    """
    shape, source = options.shape, "option"
    if shape is None:
        shape, source = _shape_of(read(files.controlnet_config)), "configuration"
    values = {
        "shape": shape,
        "spacing_mm": options.spacing_mm,
        "orientation": options.orientation,
        "window_hu": options.window_hu,
    }
    _require_grid(**values)
    values = {name: value if isinstance(value, str) else list(value) for name, value in values.items()}
    return values, {**dict.fromkeys(values, "option"), "shape": source}


def _require_grid(shape: Any, spacing_mm: Any, orientation: str, window_hu: Any) -> None:
    if not (_are_numbers(shape, 3, int) and min(shape) >= 1):
        raise InputError(f"The shape {shape} is not three whole numbers of voxels of at least 1; correct it.")
    if not (
        _are_numbers(spacing_mm, 3, (int, float)) and np.isfinite(spacing_mm).all() and min(spacing_mm) > 0
    ):
        raise InputError(f"The spacing {spacing_mm} is not three positive numbers in mm; correct it.")
    Grid.centered(tuple(shape), tuple(spacing_mm), orientation=orientation)
    in_range = _are_numbers(window_hu, 2, (int, float)) and -32768 <= window_hu[0] < window_hu[1] <= 32767
    if not in_range:
        raise InputError(
            f"The HU window {window_hu} is not two values within 16 bits, the lower first; correct it."
        )


def _are_numbers(values: Any, count: int, kind: type | tuple[type, ...]) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == count
        and all(isinstance(value, kind) and not isinstance(value, bool) for value in values)
    )


def stated_preparation(files: MedlordFiles, options: MedlordOptions) -> tuple[dict[str, Any], dict[str, str]]:
    """(how volumes were prepared for training, the source of each setting): MedLoRD's own way unless options differ.

    Its code resizes volumes for the unconditional model and crops or pads them, with zeros after scaling, where masks
    come with them.
    """
    fit = RESIZE if files.controlnet is None else CROP_AND_PAD
    family = {"intensity_map": OWN_RANGE, "volume_fit": fit, "padding_value": 0.0}
    given = options.given(*family)
    for name, known in (("intensity_map", INTENSITY_MAPS), ("volume_fit", VOLUME_FITS)):
        if given.get(name, known[0]) not in known:
            raise InputError(f"Unknown {name} {given[name]!r}; known are {', '.join(known)}: choose one.")
    if not np.isfinite(given.get("padding_value", 0.0)):
        raise InputError(
            f"The padding value {given['padding_value']} is no number; give one, usually -1 to 1."
        )
    values = {
        **family,
        **given,
        "clip_hu": list(options.window_hu),
        "condition_fit": CROP_AND_PAD,
        "orientation": "file",
        "spacing": "file",
    }
    return values, {name: "option" if name in (*given, "clip_hu") else "family" for name in values}
