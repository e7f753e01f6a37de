"""Settings of the control's training that change with its steps: [[first step, value], ...]."""

from __future__ import annotations

from typing import Any

PLANNED = ("condition_weights", "noisy_shares", "later_drops")
"""Settings of the control's training that may be planned."""

DROP_RATES = ("drop_all", "drop_each", "sparse_share")
"""How often masks are left out of a training step: see `control.dropped_channels`."""


def setting_at(step: int, planned: list, otherwise: Any) -> Any:
    """The value that holds at `step`, out of [[first step, value], ...] in the order of the steps, or `otherwise`."""
    held = [value for first, value in planned if first <= step]
    return held[-1] if held else otherwise


def planned_before(training: dict, steps: int) -> dict:
    """A section `training` without what it plans from step number `steps` on.

    A list that is left empty is left out, as if it had not been given. The decoder's `condition_weights`, which hold
    for all of its steps, stay as they are.
    """
    kept = dict(training)
    for name in PLANNED:
        if isinstance(training.get(name), list):
            kept[name] = [[first, value] for first, value in training[name] if first < steps]
            if not kept[name]:
                del kept[name]
    return kept
