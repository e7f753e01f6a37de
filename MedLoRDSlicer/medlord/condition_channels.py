"""From named masks and attributes to the channels that a control network reads.

The channels are the model's conditions in order, then one constant channel per value of each attribute (for
example `contrast_phase=arterial`): a mask of ones where the value holds, zeros elsewhere. All channels of an
attribute at zero mean "not said".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .errors import InputError


def condition_channels(conditions: Sequence[str], attributes: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of all channels in order."""
    return [*conditions, *(f"{name}={value}" for name, values in attributes.items() for value in values)]


def fill_channels(
    masks: Mapping[str, np.ndarray],
    chosen: Mapping[str, str],
    conditions: Sequence[str],
    attributes: Mapping[str, Sequence[str]],
    dtype: type = np.float32,
) -> np.ndarray:
    """Channels (channel, i, j, k) of 0 and 1; conditions that `masks` lacks and attributes not chosen are 0.

    Raises `InputError` for an unknown attribute or value.
    """
    check_attributes(chosen, attributes)
    shape = next(iter(masks.values())).shape
    names = condition_channels(conditions, attributes)
    channels = np.zeros((len(names), *shape), dtype=dtype)
    for name, mask in masks.items():
        channels[names.index(name)] = mask
    for name, value in chosen.items():
        channels[names.index(f"{name}={value}")] = 1.0
    return channels


def check_attributes(chosen: Mapping[str, str], attributes: Mapping[str, Sequence[str]]) -> None:
    """Raise `InputError` for an attribute or value that the model does not know."""
    for name, value in chosen.items():
        if name not in attributes:
            known = f"use {', '.join(attributes)}" if attributes else "it has none, so leave it away"
            raise InputError(f"The model has no attribute '{name}'; {known}.")
        if value not in attributes[name]:
            raise InputError(
                f"'{value}' is no {name} of this model; choose one of {', '.join(attributes[name])}."
            )
