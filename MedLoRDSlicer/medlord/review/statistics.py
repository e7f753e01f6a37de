"""What readers answered: distributions, share judged real, accuracy, artefacts and time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .estimate import FEWEST_CASES, Estimate, reach
from .readings import Readings, coded_options
from .resampling import mean_interval
from .rubric import Question

WILSON = "95 % Wilson interval"
_NO_ANSWER = "No value: there is no answer."


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share by Wilson's score (Newcombe 1998, doi 10.1002/(SICI)1097-0258(19980430)17:8<857)."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, trials, alpha=0.05, method="wilson")
    return float(low), float(high)


def distribution_estimates(readings: Readings) -> list[Estimate]:
    """How often each answer was given, per question, source and reader (reader "" is all of them)."""
    found = []
    for question in readings.questions:
        table = readings.values(question)
        for source in readings.sources:
            columns = readings.of_source(source)
            for reader in ("", *readings.readers):
                values = table[np.ix_(_rows(readings, reader), columns)]
                found += _distribution(question, values, source, reader)
    return found


def _distribution(question: Question, values: np.ndarray, source: str, reader: str) -> list[Estimate]:
    given = np.isfinite(values)
    common = Estimate(
        topic="distribution",
        measure="",
        against="all first readings of this source" + (" by this reader" if reader else ""),
        unit="share",
        question=question.id,
        source=source,
        reader=reader,
        cases=int(given.any(axis=0).sum()),
        readers=int(given.any(axis=1).sum()),
        readings=int(given.sum()),
        missing=int((~given).sum()),
        method="count of the answer over the readings that have one",
        note="" if given.any() else _NO_ANSWER,
    )
    found = []
    for code, label in coded_options(question):
        share = float((values == code).sum() / given.sum()) if given.any() else None
        found.append(replace(common, measure=f"Share of the answer '{label}'", value=share))
    return found


def verdict_estimates(readings: Readings, draws: int, generator: np.random.Generator) -> list[Estimate]:
    """Share judged real per source, then accuracy, sensitivity and specificity, per reader and over readers."""
    verdict = readings.rubric.with_role("verdict")
    judged_real = readings.values(verdict)
    synthetic = readings.is_synthetic
    correct = np.where(np.isfinite(judged_real), judged_real == ~synthetic[None, :], np.nan)
    everything = np.ones(len(readings.items), bool)
    found = []
    for source in readings.sources:
        against = f"the verdict 'synthetic'; these cases are {readings.kinds[source]}"
        found += _shares(
            readings,
            judged_real,
            readings.of_source(source),
            draws,
            generator,
            Estimate("judged_real", "Share judged real", against, "share", verdict.id, source),
        )
    for measure, columns, against in (
        ("Accuracy: share of right verdicts", everything, "the key; guessing by a coin gives 0.5"),
        (
            "Sensitivity: share of synthetic cases judged synthetic",
            synthetic,
            "synthetic cases of all sources",
        ),
        ("Specificity: share of real cases judged real", ~synthetic, "real cases"),
    ):
        found += _shares(
            readings,
            correct,
            columns,
            draws,
            generator,
            Estimate("accuracy", measure, against, "share", verdict.id),
        )
    return found


def preference_estimates(readings: Readings, draws: int, generator: np.random.Generator) -> list[Estimate]:
    """Of pairs: share in which the real case was found, with an exact test against guessing for each reader."""
    from scipy import stats

    question = readings.rubric.with_role("preference")
    table = readings.values(question)
    found = []
    for source in ("", *readings.synthetic_sources):
        columns = readings.of_source(source) if source else np.ones(len(readings.items), bool)
        common = Estimate(
            "preference",
            "Share of pairs in which the real case was chosen",
            "0.5, what guessing gives",
            "share",
            question.id,
            source,
        )
        for estimate in _shares(readings, table, columns, draws, generator, common):
            if estimate.reader and estimate.readings:
                right = round(estimate.value * estimate.readings)
                test = stats.binomtest(right, estimate.readings, 0.5)
                estimate = replace(
                    estimate,
                    p_value=float(test.pvalue),
                    method=f"{estimate.method}; exact binomial test against 0.5",
                )
            found.append(estimate)
    return found


def _shares(readings, table, columns, draws, generator, common: Estimate) -> list[Estimate]:
    """The share of ones in `columns` of `table` for all readers, then for each."""
    found = [_share_over_readers(table[:, columns], readings, columns, draws, generator, common)]
    for row, reader in enumerate(readings.readers):
        found.append(_share_of_reader(table[row, columns], replace(common, reader=reader)))
    return found


def _share_of_reader(values: np.ndarray, common: Estimate) -> Estimate:
    given = values[np.isfinite(values)]
    common = replace(common, cases=len(given), readings=len(given), missing=len(values) - len(given))
    if len(given) == 0:
        return replace(common, note=_NO_ANSWER)
    low, high = wilson_interval(int(given.sum()), len(given))
    return replace(
        common,
        readers=1,
        value=float(given.mean()),
        low=low,
        high=high,
        interval=WILSON,
        method="Wilson score, the cases as independent",
    )


def _share_over_readers(values, readings, columns, draws, generator, common: Estimate) -> Estimate:
    given = np.isfinite(values)
    answering, read = given.any(axis=1), given.any(axis=0)
    common = replace(
        common,
        cases=int(read.sum()),
        readers=int(answering.sum()),
        readings=int(given.sum()),
        missing=int((~given).sum()),
    )
    if not read.any():
        return replace(common, note=_NO_ANSWER)
    strata = np.array(readings.item_sources)[columns][read]
    interval = mean_interval(values[np.ix_(answering, read)], strata, draws, generator)
    averaged = "mean over readers of each reader's share" if common.readers > 1 else "share of the one reader"
    if common.cases >= FEWEST_CASES and interval.low is not None:
        return replace(
            common,
            value=interval.value,
            low=interval.low,
            high=interval.high,
            interval="95 % confidence interval",
            method=f"{averaged}; {interval.method}",
            note=reach("", common.readers),
        )
    # Too few cases to draw from, or all alike: Wilson with every case counted once, however many read it.
    low, high = wilson_interval(round(interval.value * common.cases), common.cases)
    return replace(
        common,
        value=interval.value,
        low=min(low, interval.value),
        high=max(high, interval.value),
        interval=WILSON,
        method="Wilson score, every case counted once",
        note=reach("", common.readers),
    )


def artefact_estimates(readings: Readings) -> list[Estimate]:
    """Share of first readings of a source in which an artefact was marked: any, and of every kind."""
    questions = [question for question in readings.rubric.questions if question.kind == "artefacts"]
    found = []
    for question in questions:
        marked = _marked_kinds(readings, question)
        read = np.isfinite(readings.seconds())
        kinds = sorted({kind for kinds in marked.values() for kind in kinds})
        for source in readings.sources:
            columns = np.flatnonzero(readings.of_source(source))
            for kind in ("", *kinds):
                for reader in ("", *readings.readers):
                    rows = np.flatnonzero(_rows(readings, reader))
                    seen = [(row, column) for row in rows for column in columns if read[row, column]]
                    hits = sum(
                        bool(marked.get(place)) if not kind else kind in marked.get(place, ())
                        for place in seen
                    )
                    what = f"an artefact of the kind '{kind}'" if kind else "an artefact"
                    common = Estimate(
                        "artefacts",
                        f"Share of readings with {what}",
                        "all first readings of this source" + (" by this reader" if reader else ""),
                        "share",
                        question.id,
                        source,
                        reader,
                        cases=len({column for _, column in seen}),
                        readers=len({row for row, _ in seen}),
                        readings=len(seen),
                        missing=len(rows) * len(columns) - len(seen),
                    )
                    found.append(_share_of_marks(common, hits))
    return found


def _share_of_marks(common: Estimate, hits: int) -> Estimate:
    if common.readings == 0:
        return replace(common, note=_NO_ANSWER)
    share = replace(common, value=hits / common.readings, method="count over readings")
    if common.readers > 1:
        return replace(share, note="No interval: several readers marked the same cases.")
    low, high = wilson_interval(hits, common.readings)
    return replace(share, low=low, high=high, interval=WILSON, note=reach(common.reader, common.readers))


def _marked_kinds(readings: Readings, question: Question) -> dict[tuple[int, int], set[str]]:
    """The kinds of artefact of every first reading, by (row of the reader, column of the item)."""
    return {
        (readings.readers.index(answer.reader), readings.items.index(answer.item)): {
            str(mark["kind"]) for mark in answer.value
        }
        for answer in readings.answers
        if answer.question == question.id and answer.repeat == 0 and answer.value
    }


def time_estimates(readings: Readings) -> list[Estimate]:
    """Median visible time of first readings in s with quartiles, per source and reader (source "" is all)."""
    table = readings.seconds()
    found = []
    for source in ("", *readings.sources):
        columns = readings.of_source(source) if source else np.ones(len(readings.items), bool)
        for reader in ("", *readings.readers):
            values = table[np.ix_(_rows(readings, reader), columns)]
            given = np.isfinite(values)
            common = Estimate(
                "time",
                "Median time per case that the case was visible",
                "nothing; low and high are the quartiles",
                "s",
                source=source,
                reader=reader,
                cases=int(given.any(axis=0).sum()),
                readers=int(given.any(axis=1).sum()),
                readings=int(given.sum()),
                missing=int((~given).sum()),
                note="" if given.any() else _NO_ANSWER,
            )
            if given.any():
                low, middle, high = (float(value) for value in np.quantile(values[given], [0.25, 0.5, 0.75]))
                common = replace(common, value=middle, low=low, high=high, interval="quartiles")
            found.append(common)
    return found


def _rows(readings: Readings, reader: str) -> np.ndarray:
    return np.array([reader in ("", name) for name in readings.readers], bool)
