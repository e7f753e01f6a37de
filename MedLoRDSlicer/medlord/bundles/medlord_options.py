"""What MedLoRD's weights do not tell: the user's statements, and where they and the configurations contradict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..volumes import Grid
from .description import FIXED_WINDOW, OWN_RANGE
from .medlord_settings import mapping, read, section, stated_diffusion
from .scale_check import CROP_AND_PAD, RESIZE

INTENSITY_MAPS, VOLUME_FITS = (OWN_RANGE, FIXED_WINDOW), (RESIZE, CROP_AND_PAD)
DIFFUSION_OPTIONS = ("scale_factor", "schedule", "num_train_timesteps", "prediction_type")


@dataclass(frozen=True)
class MedlordFiles:
    """Checkpoints (.pth) of MedLoRD's trainers with the YAML configurations that they were trained with."""

    stage1: Path
    stage1_config: Path
    diffusion: Path
    diffusion_config: Path
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


def require_files(files: MedlordFiles, volumes: Sequence[Path]) -> None:
    """Raise `InputError` unless every file is there and the ControlNet has both checkpoint and configuration."""
    if (files.controlnet is None) != (files.controlnet_config is None):
        raise InputError("A ControlNet needs its checkpoint and its configuration; give both, or neither.")
    for path in (*vars(files).values(), *volumes):
        if path is not None and not Path(path).is_file():
            raise InputError(f"There is no file {Path(path).name} in {Path(path).parent}; check the path.")


def stated_grid(files: MedlordFiles, options: MedlordOptions) -> tuple[dict[str, Any], dict[str, str]]:
    """(shape, spacing_mm, orientation and window_hu of the model's volumes, the source of each).

    Raises one `InputError` that names all of them that nothing tells, and for values that make no grid or window.
    """
    shape, source = options.shape, "option"
    if shape is None and files.controlnet_config is not None:
        # The size to which masks were cropped and padded, so the size of the volumes. In a diffusion trainer's
        # configuration the same entry is not used once latents are encoded, so it tells nothing there.
        shape = section(read(files.controlnet_config), (("training", "roi_size"),))
        source = "configuration"
    values = {
        "shape": shape,
        "spacing_mm": options.spacing_mm,
        "orientation": options.orientation,
        "window_hu": options.window_hu,
    }
    words = {
        "shape": "the voxels of the volumes (--shape I J K)",
        "spacing_mm": "their spacing in mm (--spacing I J K)",
        "orientation": "where their axes point (--orientation, for example LPS)",
        "window_hu": "the HU of -1 and 1 (--window LOW HIGH)",
    }
    missing = [words[name] for name, value in values.items() if value is None]
    if missing:
        raise InputError(f"Neither weights nor configurations say {', '.join(missing)}; give these options.")
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


def require_agreement(files: MedlordFiles, options: MedlordOptions) -> None:
    """Raise `InputError` where the ControlNet's configuration contradicts the U-Net's and no option decides.

    Both say what scale, schedule and U-Net they were trained with, and one of two different values must be wrong.
    """
    if files.controlnet_config is None:
        return
    control = read(files.controlnet_config)
    first, second = stated_diffusion(files.diffusion_config), stated_diffusion(control)
    unet = mapping(
        read(files.diffusion_config), tuple((name, "params") for name in ("model", "ldm", "diffusion"))
    )
    served = mapping(control, (("pretrained_model", "params"),))
    names = ("norm_num_groups", "num_head_channels")
    for one, other, compared in ((first, second, DIFFUSION_OPTIONS), (unet or {}, served or {}, names)):
        for name in compared:
            a, b = one.get(name), other.get(name)
            if None not in (a, b) and a != b and getattr(options, name) is None:
                raise InputError(
                    f"{name} is {a} in {Path(files.diffusion_config).name} and {b} in "
                    f"{Path(files.controlnet_config).name}; say which is right with the option "
                    f"--{name.replace('_', '-')}."
                )
