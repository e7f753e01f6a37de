"""One number of a report, with what it measures, on how much, and against what."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace

CONFIDENCE = 0.95

# Below these an interval or a test would be arithmetic without meaning; the report says so instead.
FEWEST_CASES = 5
FEW_READERS = 5


@dataclass(frozen=True)
class Estimate:
    """A number that a reviewer can check.

    `topic` groups the numbers of one section, `measure` says in words what is measured, `against` what it is compared
    with. `value` with `low` and `high` (what they are says `interval`) is None where it cannot be had, and `note` then
    says why. `p_value` is as tested, `p_corrected` after Holm's correction over the family that `method` names.
    Empty `question`, `source` or `reader` means that the number is about all of them or none in particular.
    `cases`, `readers` and `readings` are how many of each the number rests on, `missing` the readings that should be
    there and are not. `unit` is "share" (0 to 1), "s", "steps" of the rating's scale, "readings", or "" (no unit).
    """

    topic: str
    measure: str
    against: str
    unit: str = ""
    question: str = ""
    source: str = ""
    reader: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    interval: str = ""
    p_value: float | None = None
    p_corrected: float | None = None
    cases: int = 0
    readers: int = 0
    readings: int = 0
    missing: int = 0
    method: str = ""
    note: str = ""

    def row(self) -> dict:
        """The fields by name; numbers that are not finite are None, for JSON knows no other."""
        return {name: _finite(value) for name, value in asdict(self).items()}


COLUMNS = tuple(field.name for field in fields(Estimate))


def _finite(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


def with_note(estimate: Estimate, note: str) -> Estimate:
    """The same number with one more sentence in its note."""
    return replace(estimate, note=" ".join(part for part in (estimate.note, note) if part))


def about(estimates: Iterable[Estimate], topic: str, **wanted: str) -> list[Estimate]:
    """Those of `topic` whose fields have the `wanted` values."""
    return [
        estimate
        for estimate in estimates
        if estimate.topic == topic and all(getattr(estimate, name) == value for name, value in wanted.items())
    ]


def reach(reader: str, readers: int) -> str:
    """In words how far an interval over `readers` speaks when they are few; empty for one `reader`'s own number."""
    if reader or readers >= FEW_READERS:
        return ""
    if readers == 1:
        return "One reader: the interval says nothing about other readers."
    return f"{readers} readers only: what they say of other readers is uncertain."
