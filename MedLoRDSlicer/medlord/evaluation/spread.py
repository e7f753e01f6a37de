"""Median and interquartile range over a set, the way papers' tables give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """One measure over a set.

    `count` values are known; their median, first and third quartile (the interquartile range, IQR), minimum and
    maximum, in the unit of the measure. None where no value is known, or where the number is infinite.
    """

    count: int
    median: float | None
    first_quartile: float | None
    third_quartile: float | None
    minimum: float | None
    maximum: float | None

    def to_dict(self) -> dict:
        """JSON form."""
        return asdict(self)


def spread_of(values: Sequence[float | None]) -> Spread:
    """The spread of the values that are numbers; quartiles by linear interpolation, as numpy's `percentile`."""
    known = np.array([value for value in values if value is not None], dtype=float)
    known = known[~np.isnan(known)]
    if not len(known):
        return Spread(0, None, None, None, None, None)
    with np.errstate(invalid="ignore"):  # between two infinite values
        found = [*np.percentile(known, (50, 25, 75)), known.min(), known.max()]
    return Spread(len(known), *(float(number) if np.isfinite(number) else None for number in found))
