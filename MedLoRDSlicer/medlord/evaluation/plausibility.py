"""Are the HU of every structure those of its tissue: against published ranges, and against a reference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from .adherence import Adherence
from .tissue_ranges import TissueRange, tissue_range
from .volume_measures import VolumeMeasures


@dataclass(frozen=True)
class TissueHu:
    """HU of one structure against the published range of its tissue.

    `where` says which mask was taken: "drawn" or "found". `median_hu` and `spread_hu` are those of `hu_samples`,
    `expected` the published range, None where there is none.
    """

    name: str
    where: str
    median_hu: float
    spread_hu: float
    expected: TissueRange | None

    @property
    def off_hu(self) -> float:
        """How far the median lies outside the range, HU (negative: below it); 0 within it or without one."""
        if self.expected is None:
            return 0.0
        return min(self.median_hu - self.expected.low_hu, 0.0) + max(
            self.median_hu - self.expected.high_hu, 0.0
        )

    @property
    def excess_spread(self) -> float:
        """The spread as a multiple of the largest that is expected; 0 where none is stated."""
        if self.expected is None or self.expected.spread_hu is None:
            return 0.0
        return self.spread_hu / self.expected.spread_hu

    def to_dict(self) -> dict:
        """JSON form."""
        return {**asdict(self), "off_hu": self.off_hu, "excess_spread": self.excess_spread}


def tissue_plausibility(
    adherence: Adherence | None, measures: VolumeMeasures, contrast_phase: str | None
) -> list[TissueHu]:
    """The HU inside every drawn mask, and inside what was found of the structures that nobody drew.

    The drawn mask says where a tissue must be, so a structure that is absent shows there; `adherence` is None where
    nothing was drawn.
    """
    rows = []
    drawn = {row.name: row for row in adherence.structures} if adherence else {}
    for name, row in drawn.items():
        if row.median_hu is not None and row.spread_hu is not None:
            rows.append(_row(name, "drawn", row.median_hu, row.spread_hu, contrast_phase))
    for name, values in measures.structures.items():
        if name not in drawn and values["median_hu"] is not None:
            rows.append(_row(name, "found", values["median_hu"], values["spread_hu"], contrast_phase))
    return rows


def with_range(rows: Iterable[TissueHu]) -> list[TissueHu]:
    """The rows whose tissue has a published range."""
    return [row for row in rows if row.expected is not None]


def _row(name: str, where: str, median_hu: float, spread_hu: float, phase: str | None) -> TissueHu:
    return TissueHu(name, where, median_hu, spread_hu, tissue_range(name, phase))
