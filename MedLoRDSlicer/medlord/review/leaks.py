"""The leak test: can anything but the anatomy tell a reader, or a curious program, where a case came from?

From each case's file come nuisance features: header, size, time, range, gaps in the histogram, padding, air. A
classifier that sees one of them, or all, must not tell real from synthetic, nor one source from the others, better
than it does when the labels are shuffled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from math import comb, sqrt
from pathlib import Path

import numpy as np

from ..volume_files import load_volume
from .cases import histogram_step

PERMUTATIONS = 999
SIGNIFICANCE = 0.05
"""Share of studies without a leak that get a warning all the same; halved between the two questions that are asked."""

FEWEST_WAYS = 400
"""A contrast needs so many ways to share the labels out: every feature has its own best one, and about ten are tested.

Simulated, a feature that tells every case beside twelve that tell nothing was found in 2 of 20 studies of 5 and 5 cases
(126 ways) and in 20 of 20 of 6 and 6 (462).
"""

TOGETHER = "all features together"
_RIDGE = 1e-2


@dataclass(frozen=True)
class Leak:
    """A feature that tells `contrast` apart: balanced accuracy (leave one out, chance 0.5) and corrected p value."""

    feature: str
    contrast: str
    accuracy: float
    p_value: float

    def to_dict(self) -> dict:
        """JSON form, for the key."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.feature} tells {self.contrast} apart: {100 * self.accuracy:.0f} % right by it alone, where chance "
            f"is 50 % (p = {self.p_value:.3f})"
        )


@dataclass(frozen=True)
class Untested:
    """A contrast that the study has too few cases for, and how many it would take in the same proportions."""

    contrast: str
    cases: int
    needed: int

    def __str__(self) -> str:
        return (
            f"too few cases to be sure whether anything but the anatomy tells {self.contrast} apart, {self.cases} of "
            f"{self.needed} needed"
        )


def measure_case(path: Path) -> dict[str, float | str]:
    """The nuisance features of a case's file; text stands for categories (fields of the header)."""
    header = _header(path)
    features: dict[str, float | str] = {f"header: {name}": value for name, value in header.items()}
    stat = path.stat()
    features |= {
        "header: length": float(sum(len(name) + len(value) for name, value in header.items())),
        "file size": float(stat.st_size),
        "modification time": float(stat.st_mtime_ns // 1_000_000),
    }
    return features | measure_voxels(load_volume(path).array)


def measure_voxels(array: np.ndarray) -> dict[str, float]:
    """The nuisance features of voxels [i, j, k] in HU: range, gaps, zeros, padding, constant slices, air."""
    low, high = int(array.min()), int(array.max())
    counts = np.bincount((array.astype(np.int32) - low).ravel())
    voxels = float(array.size)

    def share(value: int) -> float:
        return counts[value - low] / voxels if low <= value <= high else 0.0

    around_zero = np.mean([share(value) for value in (-3, -2, -1, 1, 2, 3)])
    constant = sum(
        int((array.min(axis=others) == array.max(axis=others)).sum()) for others in ((1, 2), (0, 2), (0, 1))
    )
    faces = np.concatenate([array[[0, -1]].ravel(), array[:, [0, -1]].ravel(), array[:, :, [0, -1]].ravel()])
    _, repeated = np.unique(faces, return_counts=True)
    mean, noise = _air_in_corners(array)
    return {
        "lowest value": float(low),
        "highest value": float(high),
        "share of the lowest value": share(low),
        "share of the highest value": share(high),
        "gaps in the histogram": histogram_step(array),
        "exact zeros": float(share(0) - around_zero),
        "padding at the border": float(repeated.max() / faces.size),
        "constant slices": float(constant),
        "level of the air": mean,
        "noise of the air": noise,
    }


def find_leaks(
    features: Sequence[Mapping[str, float | str]], sources: Sequence[str], kinds: Sequence[str], seed: int = 0
) -> list[Leak]:
    """The features of the cases that tell real from synthetic, or one source from the others, better than chance.

    `sources` and `kinds` are those of each case. A linear classifier on the ranks of a feature and on their squares
    (so that a middle position tells too) is judged by leave-one-out and compared with how it does under 999
    shufflings of the labels; the p value counts the best feature of each shuffling, so testing many features raises
    no false alarm. Of too few cases nothing is found (`untested_contrasts`), of a few more not everything.
    """
    columns = _columns(features)
    found: list[Leak] = []
    for number, family in enumerate(_families(sources, kinds)):
        contrasts = [contrast for contrast in family if _needed(contrast, family, fewest_ways=0) is None]
        found += _tested(columns, contrasts, seed + number)
    return found


def untested_contrasts(sources: Sequence[str], kinds: Sequence[str]) -> list[Untested]:
    """What the leak test cannot tell of a study with these sources and kinds of its cases, since they are too few.

    Of few cases one shuffling of the labels in every forty or so is the true one, or its mirror image: not even a
    feature that tells every case can be told from chance then.
    """
    found = []
    for family in _families(sources, kinds):
        needed = {contrast[0]: _needed(contrast, family) for contrast in family}
        few = {name: cases for name, cases in needed.items() if cases is not None}
        if len(few) == len(family) > 1:
            few = {"each source and the rest": max(few.values())}
        found += [Untested(name, len(sources), cases) for name, cases in few.items()]
    return found


def _families(sources: Sequence[str], kinds: Sequence[str]) -> list[list[tuple[str, np.ndarray]]]:
    """The contrasts that are tested together: name, and of each case whether it is of the first of the two."""
    families = []
    if len(set(kinds)) == 2:
        families.append([("real and synthetic", np.array(kinds) == "real")])
    if len(set(sources)) > 2:
        families.append(
            [(f"{name} and the rest", np.array(sources) == name) for name in sorted(set(sources))]
        )
    return families


def _needed(
    contrast: tuple[str, np.ndarray], family: list[tuple[str, np.ndarray]], fewest_ways: int = FEWEST_WAYS
) -> int | None:
    """How many cases it takes to find a feature that tells every one of them; None where there are enough."""
    cases, first = len(contrast[1]), int(contrast[1].sum())
    # Each contrast of the same size may be the one that a shuffling brings out.
    alike = sum(int(is_first.sum()) == first for _, is_first in family)
    for larger in count(cases):
        part = max(1, round(first * larger / cases))
        ways = comb(larger, part) / (2 if 2 * part == larger else 1)
        # Shufflings that do as well as the truth, with two standard deviations of their number on top.
        as_good = PERMUTATIONS * min(1.0, alike / ways)
        rare = 1 + as_good + 2 * sqrt(as_good) <= (PERMUTATIONS + 1) * SIGNIFICANCE / 2
        if rare and ways >= fewest_ways:
            return None if larger == cases else larger


def _tested(columns: dict[str, np.ndarray], contrasts: list[tuple[str, np.ndarray]], seed: int) -> list[Leak]:
    """Leaks among `columns` (features by name, each (cases, terms)) for one family of contrasts."""
    if not columns or not contrasts:
        return []
    generator = np.random.default_rng(seed)
    cases = len(contrasts[0][1])
    shuffles = np.stack([np.arange(cases), *(generator.permutation(cases) for _ in range(PERMUTATIONS))])
    hats = {name: _hat(matrix) for name, matrix in columns.items()}
    names, accuracies, explained = [], [], []
    for contrast, is_first in contrasts:
        labels = is_first[shuffles].T
        for name, hat in hats.items():
            judged = _left_out(hat, labels)
            names.append((name, contrast))
            accuracies.append(judged[0][0])
            explained.append(judged[1])
    scores = np.array(explained)
    null = scores[:, 1:]
    scaled = (scores - null.mean(axis=1, keepdims=True)) / np.maximum(null.std(axis=1, keepdims=True), 1e-3)
    best = scaled[:, 1:].max(axis=0)
    result = []
    for (name, contrast), score, accuracy in zip(names, scaled[:, 0], accuracies, strict=True):
        p_value = (1 + int((best >= score - 1e-9).sum())) / (PERMUTATIONS + 1)
        if p_value <= SIGNIFICANCE / 2:
            result.append(Leak(name, contrast, float(accuracy), p_value))
    alone = {leak.contrast for leak in result if leak.feature != TOGETHER}
    # All together tell wherever one does; said only where it is news.
    return [leak for leak in result if leak.feature != TOGETHER or leak.contrast not in alone]


def _hat(matrix: np.ndarray) -> np.ndarray:
    """The matrix (cases, cases) that turns targets into fitted values of a ridge regression with intercept."""
    penalty = _RIDGE * len(matrix) * np.eye(matrix.shape[1])
    return matrix @ np.linalg.solve(matrix.T @ matrix + penalty, matrix.T) + 1 / len(matrix)


def _left_out(hat: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How well each case is told from the others by leave-one-out, for each column of `labels` (cases, shufflings).

    Balanced accuracy, and the share of the targets' squares that is explained, which has finer steps and is what is
    tested. Regression on the targets n/n1 and -n/n0 is Fisher's discriminant (Hastie, Tibshirani and Friedman, The
    Elements of Statistical Learning, 2nd edition, exercise 4.2); left out, a case has the residual y - fit over
    1 - leverage (equation 7.52).
    """
    total, first = len(labels), labels.sum(axis=0)
    targets = np.where(labels, total / first, -total / (total - first))
    leverage = np.minimum(np.diag(hat), 0.999)[:, None]
    residuals = (targets - hat @ targets) / (1 - leverage)
    predicted = targets - residuals
    right = np.where(labels, predicted > 0, predicted < 0)
    accuracy = ((right & labels).sum(axis=0) / first + (right & ~labels).sum(axis=0) / (total - first)) / 2
    return accuracy, 1 - (residuals**2).sum(axis=0) / (targets**2).sum(axis=0)


def _columns(features: Sequence[Mapping[str, float | str]]) -> dict[str, np.ndarray]:
    """Per feature that differs between cases: centred ranks and their squares; and all of them together."""
    from scipy.stats import rankdata

    columns = {}
    for name in dict.fromkeys(name for entry in features for name in entry):
        values = [entry.get(name, "") for entry in features]
        if any(isinstance(value, str) for value in values):
            order = sorted({str(value) for value in values})
            values = [order.index(str(value)) for value in values]
        ranks = rankdata(values)
        if np.ptp(ranks) == 0:
            continue
        linear = (ranks - ranks.mean()) / ranks.std()
        terms = [linear]
        bent = linear**2 - (linear**2).mean()
        if bent.std() > 1e-6:
            terms.append(bent / bent.std())
        columns[name] = np.stack(terms, axis=1)
    if len(columns) > 1:
        columns[TOGETHER] = np.concatenate(list(columns.values()), axis=1)
    return columns


def _air_in_corners(array: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation in HU of the air in the four edges along the body; 0 and -1 where there is none."""
    wide, high = max(1, array.shape[0] // 12), max(1, array.shape[1] // 12)
    edges = [
        array[i, j].ravel()
        for i in (slice(0, wide), slice(-wide, None))
        for j in (slice(0, high), slice(-high, None))
    ]
    values = np.concatenate(edges)
    values = values[values < -900]
    return (float(values.mean()), float(values.std())) if len(values) >= 50 else (0.0, -1.0)


def _header(path: Path) -> dict[str, str]:
    """The fields of an NRRD header."""
    with path.open("rb") as stream:
        start = stream.read(2**16).split(b"\n\n", 1)[0].decode("utf-8", errors="replace")
    fields = {}
    for number, line in enumerate(start.splitlines()):
        name, separator, value = line.partition(":")
        fields[name if separator else f"line {number}"] = value.strip()
    return fields
