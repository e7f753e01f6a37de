"""What the settings of the training stages must be, checked before the first stage runs.

A mistake in the last stage's section must not show after hours of training the first one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..errors import InputError
from .losses import DIFFUSION_LOSSES
from .planned import DROP_RATES

OPTIMIZERS = ("adamw", "muon")
PRECISIONS = ("float32", "bfloat16")
LARGEST_WEIGHT = 10_000.0
"""A weight in the loss may be this large: they are kept in float16."""

LARGEST_COUNT = 2**62


def is_number(value: Any) -> bool:
    """True for finite numbers; YAML's yes and no are none."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= LARGEST_COUNT
    return isinstance(value, float) and math.isfinite(value)


def is_count(value: Any) -> bool:
    """True for whole numbers from 0 on."""
    return is_number(value) and isinstance(value, int) and value >= 0


def is_share(value: Any) -> bool:
    """True for numbers from 0 to 1."""
    return is_number(value) and 0 <= value <= 1


def _is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


def _is_positive_count(value: Any) -> bool:
    return is_count(value) and value > 0


def _is_weight(value: Any) -> bool:
    return is_number(value) and value >= 0


def _is_one_of(names: tuple[str, ...]) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: value in names), f"one of {', '.join(names)}"


_COUNT = is_count, "a whole number from 0 on"
_POSITIVE_COUNT = _is_positive_count, "a whole number from 1 on"
_SHARE = is_share, "a number from 0 to 1"
_WEIGHT = _is_weight, "a number from 0 on"
_POSITIVE = _is_positive, "a number above 0"
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "steps": _POSITIVE_COUNT,
    "batch": _POSITIVE_COUNT,
    "crop": (
        lambda value: isinstance(value, list) and len(value) == 3 and all(map(_is_positive_count, value)),
        "three whole numbers of voxels",
    ),
    "seed": _COUNT,
    "warmup": _COUNT,
    "cooldown": (
        lambda value: value is None or _is_positive_count(value),
        "a whole number of steps from 1 on, or nothing for a cosine",
    ),
    "learning_rate": _POSITIVE,
    "weight_decay": _WEIGHT,
    "gradient_clip": (
        lambda value: _is_positive(value) or value == math.inf,
        "a number above 0, .inf for none",
    ),
    "average_decay": (lambda value: _is_positive(value) and value < 1, "a number between 0 and 1"),
    "optimizer": _is_one_of(OPTIMIZERS),
    "loss": _is_one_of(tuple(DIFFUSION_LOSSES)),
    "precision": _is_one_of(PRECISIONS),
    "checkpoint_every": _POSITIVE_COUNT,
    "squared_weight": _WEIGHT,
    "spectral_weight": _WEIGHT,
    "adversarial_weight": _WEIGHT,
    "adversarial_start": _COUNT,
    "discriminator_learning_rate": _POSITIVE,
    "body_share": _SHARE,
    "condition_share": _SHARE,
    **dict.fromkeys(DROP_RATES, _SHARE),
    "train_denoiser": (lambda value: isinstance(value, bool), "true or false"),
}


def check_settings(stage: str, settings: dict, conditions: list[str]) -> None:
    """Raise `InputError` for the first setting of a stage's section `training` that is not as it must be.

    `settings` have the stage's defaults filled in; `conditions` are the names of the model's.
    """
    where = f"{stage}.training"
    for name, value in settings.items():
        is_right, form = _RULES.get(name, (None, ""))
        if is_right and not is_right(value):
            raise InputError(f"{where}.{name} is {value!r}; it takes {form}{_hint(value)}.")
    _check_earlier_ends(where, settings)
    if settings.get("adversarial_weight") and not settings["discriminator"]:
        raise InputError(
            f"{where}.adversarial_weight is {settings['adversarial_weight']}, but there is no {where}.discriminator; "
            "describe the discriminator, or set the weight to 0."
        )
    if stage == "decoder" and not _are_weights(settings["condition_weights"], conditions):
        raise InputError(
            f"{where}.condition_weights is {settings['condition_weights']}; it takes {_weights_form(conditions)}."
        )
    if stage == "control":
        _check_planned(where, settings, conditions)


def _hint(value: Any) -> str:
    """Why a number can have been read as text."""
    try:
        float(value) if isinstance(value, str) else int("no")
    except ValueError:
        return ""
    return " (write 1.0e-3 or 0.001: YAML takes 1e-3 for text)"


def _check_earlier_ends(where: str, settings: dict) -> None:
    ends, steps = settings["earlier_ends"], settings["steps"]
    if (
        not isinstance(ends, (list, tuple))
        or not all(map(_is_positive_count, ends))
        or list(ends) != sorted(set(ends))
        or any(end > steps for end in ends)
    ):
        raise InputError(
            f"{where}.earlier_ends is {ends!r}; it takes the steps at which this training had ended before it was "
            f"prolonged, ascending, each once and none above steps ({steps}); [] where it was not."
        )


def _are_weights(weights: Any, conditions: list[str]) -> bool:
    return isinstance(weights, dict) and all(
        name in conditions and is_number(weight) and 1 <= weight <= LARGEST_WEIGHT
        for name, weight in weights.items()
    )


def _weights_form(conditions: list[str]) -> str:
    names = ", ".join(map(str, conditions))
    return f"{{condition: weight}} with conditions of the model ({names}) and weights from 1 to {LARGEST_WEIGHT:.0f}"


def _check_planned(where: str, settings: dict, conditions: list[str]) -> None:
    forms = {
        "condition_weights": (lambda value: _are_weights(value, conditions), _weights_form(conditions)),
        "noisy_shares": (is_share, "a share of the draws, from 0 to 1"),
        "later_drops": (
            lambda value: (
                isinstance(value, dict)
                and all(name in DROP_RATES and is_share(rate) for name, rate in value.items())
            ),
            f"{{rate: value}} with the rates {', '.join(DROP_RATES)} and values from 0 to 1",
        ),
    }
    for name, (is_right, form) in forms.items():
        planned = settings[name]
        told = f"{where}.{name} is {planned}; it takes [[first step, value], ...], a value being {form}."
        entries = planned if isinstance(planned, list) else [planned]
        for entry in entries:
            if not (
                isinstance(entry, list) and len(entry) == 2 and is_count(entry[0]) and is_right(entry[1])
            ):
                raise InputError(f"{told} Correct {entry}.")
        steps = [step for step, _ in entries]
        if steps != sorted(set(steps)):
            raise InputError(f"{told} Order it by step, each step once.")
