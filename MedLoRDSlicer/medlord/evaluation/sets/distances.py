"""Distances of two sets in one plane and window: numbers, their spread over volumes, and what real sets differ by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .frechet import frechet_distance, in_common_coordinates
from .kernel import KernelSums

CENTRAL_SHARE = 95.0
"""Percent of the bootstrap's replicates within an interval."""

SMALLEST_BOOTSTRAP = 3
"""Of two volumes a bootstrap draws the same two, or one twice, which has no KID: that interval would have no width."""


@dataclass(frozen=True)
class Resampling:
    """Which volumes are drawn; the same draws serve all planes and windows, so that their means have intervals too.

    replicates   bootstrap: (how often each real volume is drawn, the same of the synthetic ones), one per replicate
    halves       floor: (numbers of one half of the real volumes, of the other half, of as many synthetic volumes)
    """

    replicates: list[tuple[np.ndarray, np.ndarray]]
    halves: list[tuple[np.ndarray, np.ndarray, np.ndarray]]

    @classmethod
    def draw(cls, real: int, synthetic: int, replicates: int, splits: int, seed: int) -> Resampling:
        """Draws for sets of so many volumes.

        There are no replicates of fewer than `SMALLEST_BOOTSTRAP` volumes, and no halves of fewer than two.
        """
        draws = np.random.default_rng(seed)
        size = min(real // 2, synthetic)
        boot = [
            (np.bincount(draws.integers(real, size=real), minlength=real),
             np.bincount(draws.integers(synthetic, size=synthetic), minlength=synthetic))
            for _ in range(replicates if min(real, synthetic) >= SMALLEST_BOOTSTRAP else 0)
        ]  # fmt: skip
        halves = []
        for _ in range(splits if size >= 2 else 0):
            order = draws.permutation(real)
            halves.append((order[:size], order[size : 2 * size], draws.permutation(synthetic)[:size]))
        return cls(boot, halves)


@dataclass(frozen=True)
class Distances:
    """FID and KID of one plane and window (or the mean of planes).

    `fid` and `kid` compare all volumes. Their intervals hold 95 % of bootstrap replicates over volumes (of both sets),
    moved so that the replicates' median lies on the value: drawing volumes twice raises both numbers. `fid_floor` is
    the FID of one half of the real volumes against the other, `fid_at_floor` that of a half against as many synthetic
    volumes: FID falls with the number of pictures, so only these two can be compared. Each is a mean over splits.
    None where there are too few volumes.
    """

    fid: float
    fid_low: float | None
    fid_high: float | None
    fid_floor: float | None
    fid_at_floor: float | None
    kid: float
    kid_low: float | None
    kid_high: float | None
    kid_floor: float | None

    def to_dict(self) -> dict:
        """JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class PlaneDistances:
    """The same with the single replicates, from which `mean_of` makes a mean of planes."""

    values: dict[str, float]
    replicates: dict[str, np.ndarray]
    real_slices: int
    synthetic_slices: int

    def summary(self) -> Distances:
        """The numbers with intervals."""
        return _summary(self.values, self.replicates)


def measure_distances(
    real: Sequence[np.ndarray],
    synthetic: Sequence[np.ndarray],
    resampling: Resampling,
    step: Callable[[], None] = lambda: None,
) -> PlaneDistances:
    """Distances of the features [slices, features] of each real and each synthetic volume.

    `step` is called after each distance and may raise to stop.
    """
    kernel = KernelSums(real, synthetic)
    kid = kernel.distance()
    starts = np.cumsum([len(features) for features in real])[:-1]
    starts_synthetic = np.cumsum([len(features) for features in synthetic])[:-1]
    ours, theirs = in_common_coordinates(np.concatenate(real), np.concatenate(synthetic))
    values = {"fid": frechet_distance(ours, theirs), "kid": kid}
    step()
    ours, theirs = np.split(ours, starts), np.split(theirs, starts_synthetic)
    replicates = {"fid": [], "kid": []}
    for times_real, times_synthetic in resampling.replicates:
        replicates["fid"].append(
            frechet_distance(_repeated(ours, times_real), _repeated(theirs, times_synthetic))
        )
        replicates["kid"].append(kernel.distance(times_real, times_synthetic))
        step()
    values.update(_floors(ours, theirs, real, resampling, step))
    counts = sum(map(len, real)), sum(map(len, synthetic))
    return PlaneDistances(values, {name: np.array(found) for name, found in replicates.items()}, *counts)


def mean_of(planes: Sequence[PlaneDistances]) -> Distances:
    """The mean of planes (2.5D), with intervals of the mean: replicates of one draw belong together."""
    values = {name: float(np.mean([plane.values[name] for plane in planes])) for name in planes[0].values}
    replicates = {
        name: np.mean([plane.replicates[name] for plane in planes], axis=0) for name in planes[0].replicates
    }
    return _summary(values, replicates)


def _floors(ours, theirs, real, resampling: Resampling, step: Callable[[], None]) -> dict[str, float]:
    """Means over the splits; nothing where there are none."""
    floor, at_floor, kid = [], [], []
    for one, other, made in resampling.halves:
        half = _joined(ours, one)
        floor.append(frechet_distance(half, _joined(ours, other)))
        at_floor.append(frechet_distance(half, _joined(theirs, made)))
        kid.append(KernelSums([real[n] for n in one], [real[n] for n in other]).distance())
        step()
    if not floor:
        return {}
    means = (float(np.mean(found)) for found in (floor, at_floor, kid))
    return dict(zip(("fid_floor", "fid_at_floor", "kid_floor"), means, strict=True))


def _summary(values: dict[str, float], replicates: dict[str, np.ndarray]) -> Distances:
    numbers = dict.fromkeys(("fid_floor", "fid_at_floor", "kid_floor"), None) | values
    for name, found in replicates.items():
        numbers[f"{name}_low"], numbers[f"{name}_high"] = _interval(values[name], found)
    if numbers["fid_low"] is not None:
        numbers["fid_low"] = max(numbers["fid_low"], 0.0)
    return Distances(**numbers)


def _interval(value: float, replicates: np.ndarray) -> tuple[float | None, float | None]:
    """Central percentiles of the replicates, moved to have their median at `value`."""
    known = replicates[np.isfinite(replicates)]
    if len(known) < 2:
        return None, None
    tail = (100 - CENTRAL_SHARE) / 2
    low, middle, high = np.percentile(known, (tail, 50, 100 - tail))
    return float(value + low - middle), float(value + high - middle)


def _repeated(volumes: Sequence[np.ndarray], times: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [np.tile(one, (count, 1)) for one, count in zip(volumes, times, strict=True) if count]
    )


def _joined(volumes: Sequence[np.ndarray], numbers: np.ndarray) -> np.ndarray:
    return np.concatenate([volumes[number] for number in numbers])
