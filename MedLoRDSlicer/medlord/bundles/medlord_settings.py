"""What MedLoRD's YAML configurations and explicit options say where weights say nothing."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..sampling import PREDICTION_TYPES, NoiseSchedule
from ..training.config import load_config

Config = dict[str, Any] | str | Path

SECTIONS = {
    "autoencoder": (("model", "params"), ("stage1", "params")),
    "U-Net": (
        ("model", "params"),
        ("ldm", "params"),
        ("diffusion", "params"),
        ("pretrained_model", "params"),
    ),
    "ControlNet": (("controlnet", "params"),),
}
"""Where configurations of MedLoRD's trainers, old and new, describe a network; the first that exists counts."""
_SCHEDULER_KEYS = {
    "schedule",
    "num_train_timesteps",
    "prediction_type",
    "beta_start",
    "beta_end",
    "clip_sample",
}
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
_SCHEDULE_KINDS = {"cosine": "cosine", "linear_beta": "linear", "scaled_linear_beta": "scaled_linear"}


@dataclass
class Settings:
    """Values for `what` from options, else the configuration, else a default; `sources` remembers which."""

    what: str
    parameters: dict[str, Any]
    options: dict[str, Any]
    sources: dict[str, str] = field(default_factory=dict)

    def required(self, name: str, stands_as: str | None = None) -> Any:
        """The value of `name`, written `stands_as` in the configuration; InputError when nothing gives it."""
        value = self.optional(name, None, stands_as)
        if value is None:
            raise InputError(
                f"Nothing says {stands_as or name} of the {self.what}: neither the weights nor the configuration; "
                "add it to the configuration or give it as an option."
            )
        return value

    def optional(self, name: str, default: Any, stands_as: str | None = None) -> Any:
        """The value of `name`, or `default`; an entry without a value counts as absent."""
        for source, values in (("option", self.options), ("configuration", self.parameters)):
            if values.get(stands_as or name) is not None:
                self.sources[name] = source
                return _with_exponent(values[stands_as or name])
        self.sources[name] = "default"
        return default

    def number(self, name: str, default: float) -> float:
        """The finite number `name`, or `default`; InputError for anything else."""
        value = self.optional(name, default)
        if not is_number(value):
            raise InputError(f"{name} of the {self.what} is {value!r}, which is no number; correct it.")
        return value

    def whole_number(self, name: str) -> int:
        """The needed setting `name`, a whole number of at least 1; InputError for anything else."""
        value = self.required(name)
        if type(value) is not int or value < 1:
            raise InputError(
                f"{name} of the {self.what} is {value!r}; it must be a whole number above 0: correct it."
            )
        return value

    def per_level(self, name: str, levels: int) -> list[int]:
        """The needed setting `name`: one whole number for each level, where one for all of them may stand."""
        value = self.required(name)
        values = list(value) if isinstance(value, list | tuple) else [value] * levels
        if len(values) != levels or any(type(item) is not int or item < 0 for item in values):
            raise InputError(
                f"{name} of the {self.what} is {value!r}; it must be a whole number, or one for each of the {levels} "
                "levels: correct it."
            )
        return values


def _with_exponent(value: Any) -> Any:
    """1e-5 is a number: so OmegaConf reads it, with which MedLoRD reads its files, while to YAML 1.1 it is a text."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def is_number(value: Any) -> bool:
    """Whether it is a finite int or float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def network_settings(
    what: str,
    config: Config,
    sections: tuple[tuple[str, ...], ...],
    keys: set[str],
    options: dict[str, Any] | None,
    allowed_options: set[str],
) -> Settings:
    """Settings from the first of `sections` that the configuration has, such as one of `SECTIONS`.

    Raises InputError for a configuration without them, keys outside `keys` and options outside `allowed_options`.
    """
    parameters = mapping(read(config), sections)
    if parameters is None:
        names = ", ".join(".".join(place) for place in sections)
        raise InputError(
            f"The {what} configuration has none of the sections {names}; give the file it was trained with."
        )
    _known(what, parameters, keys)
    if parameters.get("spatial_dims", 3) != 3:
        raise InputError(
            f"The {what} has {parameters['spatial_dims']} spatial dimensions; only 3 are supported."
        )
    return Settings(what, parameters, _known(what, options or {}, allowed_options))


def read(config: Config) -> dict[str, Any]:
    """A configuration that is given as such or as the path of a YAML file."""
    return config if isinstance(config, dict) else load_config(config)


def mapping(config: dict[str, Any], paths: tuple[tuple[str, ...], ...]) -> dict[str, Any] | None:
    """The mapping at the first of `paths` that exists; None when none does, InputError where it is no mapping."""
    found = section(config, paths)
    if found is not None and not isinstance(found, dict):
        names = " or ".join(".".join(path) for path in paths)
        raise InputError(
            f"The section {names} of the configuration is {found!r:.60}, no mapping; correct it."
        )
    return found


def section(config: dict[str, Any], paths: tuple[tuple[str, ...], ...]) -> Any:
    """What stands at the first of `paths` that exists; None when none does."""
    for path in paths:
        found: Any = config
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        if found is not None:
            return found
    return None


def _known(what: str, values: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    unknown = sorted(set(values) - keys, key=str)
    if unknown:
        raise InputError(
            f"The {what} has the unknown setting {unknown[0]!r}; known are {', '.join(sorted(keys))}."
        )
    return values


def diffusion_settings(config: Config, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """Noise schedule, prediction type and latent scale factor from a diffusion trainer's configuration.

    Returns {"schedule": for `NoiseSchedule.from_dict`, "prediction_type", "scale_factor", "sources"}. `options` may
    give `schedule`, `num_train_timesteps`, `prediction_type`, `scale_factor`; none of them stands in a checkpoint.
    """
    parameters = stated_diffusion(config)
    allowed = {"schedule", "num_train_timesteps", "prediction_type", "scale_factor"}
    settings = Settings("diffusion model", parameters, _known("diffusion model", options or {}, allowed))
    name = settings.required("schedule")
    if not isinstance(name, str) or name not in _SCHEDULE_KINDS:
        raise InputError(
            f"Unknown noise schedule {name!r}; known are {', '.join(_SCHEDULE_KINDS)}: choose one."
        )
    prediction = settings.required("prediction_type")
    if prediction not in PREDICTION_TYPES:
        raise InputError(f"Unknown prediction type {prediction!r}; known are {', '.join(PREDICTION_TYPES)}.")
    scale = settings.required("scale_factor")
    if not is_number(scale) or scale <= 0:
        raise InputError(
            f"The scale factor is {scale!r}; it must be a positive number (1/std of the latents)."
        )
    return {
        "schedule": medlord_schedule(name, settings.required("num_train_timesteps"), parameters).to_dict(),
        "prediction_type": prediction,
        "scale_factor": float(scale),
        "sources": settings.sources,
    }


def stated_diffusion(config: Config) -> dict[str, Any]:
    """What a configuration says of noise schedule and scale factor, under MedLoRD's names; raises InputError for
    settings that MedLoRD does not have."""
    config = read(config)
    parameters = dict(mapping(config, (("scheduler",), ("ldm", "scheduler"))) or {})
    _known("noise schedule", parameters, _SCHEDULER_KEYS)
    if parameters.get("clip_sample"):
        raise InputError(
            "The noise schedule clips its samples (clip_sample), which MedLoRD does not; remove it."
        )
    training = mapping(config, (("training",),)) or {}
    parameters["scale_factor"] = training.get("scale_factor", section(config, (("ldm", "scale_factor"),)))
    return parameters


def medlord_schedule(
    name: str, training_steps: int, parameters: dict[str, Any] | None = None
) -> NoiseSchedule:
    """Schedule by MedLoRD's name ("cosine", "linear_beta", "scaled_linear_beta").

    Its cosine tables are float64, the others float32; `parameters` may give beta_start and beta_end.
    """
    stated = parameters or {}
    limits = {key: _with_exponent(stated[key]) for key in ("beta_start", "beta_end") if key in stated}
    odd = [key for key, value in limits.items() if not is_number(value)]
    if odd:
        raise InputError(
            f"{odd[0]} of the noise schedule is {limits[odd[0]]!r}, which is no number; correct it."
        )
    precision = "float64" if name == "cosine" else "float32"
    return NoiseSchedule(training_steps, _SCHEDULE_KINDS[name], table_precision=precision, **limits)
