"""Settings of a training that change with its steps, [[first step, value], ...]: checked, read, cut at a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import InputError

PLANNED = ("condition_weights", "noisy_shares", "later_drops")
DROP_RATES = ("drop_all", "drop_each", "sparse_share")


def setting_at(step: int, planned: list, otherwise: Any) -> Any:
    """The value that holds at `step`, out of [[first step, value], ...] in the order of the steps, or `otherwise`."""
    held = [value for first, value in planned if first <= step]
    return held[-1] if held else otherwise


def planned_before(training: dict, steps: int) -> dict:
    """The section `training` without what is planned from step number `steps` on.

    Two sections of which this is the same have trained the first `steps` steps alike, whatever they plan for later
    ones. A list that is left empty is left out, as if it had not been given.
    """
    kept = dict(training)
    for name in PLANNED:
        if isinstance(training.get(name), list):
            kept[name] = [entry for entry in training[name] if entry[0] < steps]
            if not kept[name]:
                del kept[name]
    return kept


def check_control_settings(settings: dict, conditions: list[str]) -> None:
    """Raise `InputError` unless the rates of dropping masks and the planned settings are as they must be.

    `settings` are those of the section `control.training` with defaults, `conditions` the names of the model's.
    """
    for name in DROP_RATES:
        if not _is_share(settings[name]):
            raise InputError(f"{name} is {settings[name]}; it takes a share of the draws from 0 to 1.")
    _check_plan(
        "condition_weights",
        settings["condition_weights"],
        lambda weights: (
            isinstance(weights, dict)
            and all(name in conditions and _is_weight(weight) for name, weight in weights.items())
        ),
        f"[[first step, {{condition: weight}}], ...] with conditions of the model ({', '.join(conditions)}) and "
        "weights of at least 1",
    )
    _check_plan(
        "noisy_shares",
        settings["noisy_shares"],
        _is_share,
        "[[first step, share of the draws], ...] with shares from 0 to 1",
    )
    _check_plan(
        "later_drops",
        settings["later_drops"],
        lambda drops: (
            isinstance(drops, dict)
            and all(name in DROP_RATES and _is_share(rate) for name, rate in drops.items())
        ),
        f"[[first step, {{rate: value}}], ...] with the rates {', '.join(DROP_RATES)} and values from 0 to 1",
    )


def check_earlier_ends(settings: dict) -> None:
    """Raise `InputError` unless `earlier_ends`, where `settings` have them, are step numbers in their order."""
    ends = settings.get("earlier_ends", ())
    steps = list(ends) if isinstance(ends, (list, tuple)) else []
    if not isinstance(ends, (list, tuple)) or not all(map(_is_step, steps)) or steps != sorted(set(steps)):
        raise InputError(
            f"earlier_ends is {ends}; it takes the steps at which this training had ended before, in their order: "
            "[4500, 5300]."
        )


def _check_plan(name: str, planned: Any, is_right: Callable[[Any], bool], form: str) -> None:
    """Raise `InputError` unless `planned` is [[first step, value], ...], ordered by step, with right values.

    `form` says what a list and its values look like.
    """
    entries = planned if isinstance(planned, list) else [planned]
    steps = []
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) == 2 and _is_step(entry[0]) and is_right(entry[1])):
            raise InputError(f"{name} is {planned}; it takes {form}. Correct {entry}.")
        steps.append(entry[0])
    if steps != sorted(set(steps)):
        raise InputError(f"{name} is {planned}; it takes {form}. Order it by step, each step once.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= 0


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_weight(value: Any) -> bool:
    return _is_number(value) and value >= 1
