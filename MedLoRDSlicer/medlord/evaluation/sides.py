"""Left and right: is every side where it was drawn, and does the mirror image fit the masks better?

Chests are nearly symmetric, so a volume with swapped sides can have a high Dice. What was found is therefore mirrored
and compared with the drawn masks again, and each half of the patient has a Dice of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from ..conditions import Conditions
from .orientation import AnatomicalFrame
from .surfaces import dice

PAIRED = ("lung", "bone", "body")
"""Structures that every patient has on both sides."""


@dataclass(frozen=True)
class Sides:
    """Dice (0 to 1) of found against drawn masks, for each side and for the mirror image.

    left, right      structure -> Dice of that half of the patient, for the paired structures
    as_found         structure -> Dice of the whole structure
    mirrored         structure -> the same after what was found was mirrored; mid-planes of both bodies on each other
    """

    left: dict[str, float]
    right: dict[str, float]
    as_found: dict[str, float]
    mirrored: dict[str, float]

    @property
    def mirror_gain(self) -> float:
        """By how much the mean Dice rises when the result is mirrored; above zero, the mirror image fits better."""
        if not self.as_found:
            return 0.0
        return float(np.mean([self.mirrored[name] - self.as_found[name] for name in self.as_found]))

    @property
    def mirror_fit(self) -> float:
        """Mean Dice of the mirror image; 0 without structures."""
        return float(np.mean(list(self.mirrored.values()))) if self.mirrored else 0.0

    def to_dict(self) -> dict:
        """JSON form."""
        return {**asdict(self), "mirror_gain": self.mirror_gain}


def measure_sides(found: Conditions, drawn: Mapping[str, np.ndarray]) -> Sides:
    """Compare masks that were found with `drawn` ones (boolean [i, j, k], all on the grid of `found`).

    Only structures that both have are compared; the mid-plane is that of the body where there is one, else that of
    all masks together.
    """
    frame = AnatomicalFrame.of(found.grid)
    names = [name for name in found.names if name in drawn and drawn[name].any()]
    if not names:
        return Sides({}, {}, {}, {})
    turned_found = {name: frame.to_anatomy(found[name]) for name in names}
    turned_drawn = {name: frame.to_anatomy(drawn[name]) for name in names}
    middle_drawn, middle_found = _middle(turned_drawn), _middle(turned_found)
    # Index i of what was found goes to (middle of the found) + (middle of the drawn) - i.
    shift = round(middle_found + middle_drawn)
    split = round(middle_drawn)
    left, right, as_found, mirrored = {}, {}, {}, {}
    for name in names:
        seen, wanted = turned_found[name], turned_drawn[name]
        as_found[name] = dice(seen, wanted)
        mirrored[name] = dice(_mirror(seen, shift), wanted)
        if name in PAIRED:
            left[name] = dice(seen[:split], wanted[:split])
            right[name] = dice(seen[split:], wanted[split:])
    return Sides(left, right, as_found, mirrored)


def _middle(masks: Mapping[str, np.ndarray]) -> float:
    """Index along axis 0 of the mid-plane: halfway between the outermost voxels of the body, or of all masks."""
    chosen = [masks["body"]] if "body" in masks and masks["body"].any() else list(masks.values())
    line = np.logical_or.reduce([mask.any(axis=(1, 2)) for mask in chosen])
    ends = np.flatnonzero(line)
    return float(ends[0] + ends[-1]) / 2 if len(ends) else (len(line) - 1) / 2


def _mirror(mask: np.ndarray, shift: int) -> np.ndarray:
    """The voxel i of `mask` at `shift` - i along axis 0; what falls outside is lost."""
    count = len(mask)
    mirrored = np.zeros_like(mask)
    first, last = max(0, shift - count + 1), min(count - 1, shift)
    mirrored[first : last + 1] = mask[shift - last : shift - first + 1][::-1]
    return mirrored
