"""All numbers of a study that was unblinded, and what must be known before they are believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from ..errors import EngineError, InputError
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from .agreement import agreement_estimates
from .comparison import comparison_estimates, equivalence_estimates
from .estimate import FEW_READERS, FEWEST_CASES, Estimate
from .readings import Readings
from .roc import roc_estimates
from .statistics import (
    artefact_estimates,
    distribution_estimates,
    preference_estimates,
    time_estimates,
    verdict_estimates,
)
from .study import check_margin

FEWEST_DRAWS = 100


_LIBRARIES = ("krippendorff", "scipy", "statsmodels")


@dataclass(frozen=True)
class Analysis:
    """`estimates` in the order of the report, `warnings` in words, and the settings they were made with."""

    readings: Readings
    estimates: tuple[Estimate, ...]
    warnings: tuple[str, ...]
    margin: float
    bootstrap: int
    seed: int


def check_settings(margin: float, bootstrap: int) -> None:
    """Raise `InputError` for a margin that is not a positive number of steps, and for too few draws."""
    check_margin(margin)
    if bootstrap < FEWEST_DRAWS:
        raise InputError(f"{bootstrap} draws are too few for an interval; give at least {FEWEST_DRAWS}.")


def check_libraries() -> None:
    """Raise `EngineError` unless the libraries of the statistics are installed."""
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        raise EngineError(
            f"The statistics of a review need {' and '.join(missing)}, not installed; install medlord-slicer with its "
            "extra 'review'."
        )


def analyse(
    readings: Readings,
    *,
    margin: float = 0.5,
    bootstrap: int = 2000,
    seed: int = 0,
    expected: Mapping[str, int] | None = None,
    leaks: Sequence[Mapping] = (),
    cautions: Sequence[str] = (),
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Analysis:
    """Compute every number of the report.

    `margin` is the difference from real, in steps of a scale, below which a source counts as equivalent (for the share
    judged real the same part of its range as of a four-point scale's). `bootstrap` draws with `seed`: the same answers
    give the same numbers. `expected` is how many readings, repeats included, each reader should have confirmed;
    `leaks` are the findings of the leak test that was made when the study was created, `cautions` what else the key
    tells that must be known first.

    Raises `InputError` for a bad margin or too few draws, `EngineError` without the libraries of the extra "review",
    `CancelledError` between two parts.
    """
    check_settings(margin, bootstrap)
    check_libraries()
    rubric, generator = readings.rubric, np.random.default_rng(seed)
    parts = [("distributions", lambda: distribution_estimates(readings))]
    if rubric.with_role("verdict") is not None:
        parts.append(("verdicts", lambda: verdict_estimates(readings, bootstrap, generator)))
        parts.append(("ROC curves", lambda: roc_estimates(readings, bootstrap, generator)))
    if rubric.with_role("preference") is not None:
        parts.append(("pairs", lambda: preference_estimates(readings, bootstrap, generator)))
    parts += [
        ("agreement", lambda: agreement_estimates(readings, bootstrap, generator)),
        ("comparisons", lambda: comparison_estimates(readings)),
        ("equivalence", lambda: equivalence_estimates(readings, margin)),
        ("artefacts", lambda: artefact_estimates(readings)),
        ("time", lambda: time_estimates(readings)),
    ]
    clock = PhaseClock("statistics", len(parts), progress)
    estimates: list[Estimate] = []
    for step, (name, part) in enumerate(parts, 1):
        raise_if_cancelled(cancel, f"statistics ({name})")
        estimates += part()
        clock.report(step, message=name)
    warnings = (*cautions, *_warnings(readings, expected or {}), *_leak_warnings(leaks))
    return Analysis(readings, tuple(estimates), warnings, margin, bootstrap, seed)


def _warnings(readings: Readings, expected: Mapping[str, int]) -> list[str]:
    found = []
    confirmed = {(answer.reader, answer.item, answer.repeat) for answer in readings.answers}
    done = Counter(reader for reader, _, _ in confirmed)
    for reader in readings.readers:
        if reader in expected and done[reader] < expected[reader]:
            found.append(
                f"{reader} confirmed {done[reader]} of {expected[reader]} readings; what is missing is left out of "
                "every number and counted beside it, not guessed."
            )
    active = [reader for reader in readings.readers if done[reader]]
    if len(active) < 2:
        found.append(
            "One reader: there is no agreement between readers, and nothing is said of other readers."
        )
    elif len(active) < FEW_READERS:
        found.append(
            f"{len(active)} readers: intervals over readers rest on few people and are uncertain themselves."
        )
    for source in readings.sources:
        count = int(readings.of_source(source).sum())
        if count < FEWEST_CASES:
            found.append(
                f"{source} has {count} cases: fewer than {FEWEST_CASES}, so it gets neither bootstrap intervals nor "
                "tests."
            )
    for kind in ("real", "synthetic"):
        if kind not in readings.kinds.values() and readings.mode != "pair":
            found.append(f"No case of the study is {kind}: nothing can be compared with {kind} ones.")
    return found


def _leak_warnings(leaks: Sequence[Mapping]) -> list[str]:
    """The leak test's findings: what a reader could have told the sources by without looking at the anatomy."""
    return [
        f"The leak test at the creation of the study found that {leak['feature']} alone tells {leak['contrast']} apart "
        f"({100 * leak['accuracy']:.0f} % right, chance is 50 %); readers may have judged by it."
        for leak in leaks
    ]
