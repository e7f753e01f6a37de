"""Answers and key put together: what each reader said of each case, and where the case came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .answers import Answer
from .key import Key
from .rubric import Question, Rubric
from .study import Study

REAL = "real"
SYNTHETIC = "synthetic"

# From worst to best, so that a larger number is the better match in every statistic.
MATCH_VALUES = ("not", "partial", "match")


@dataclass(frozen=True)
class Readings:
    """The answers of a study with the source of every item; training cases are left out.

    An item is what a reader sees at once: one case, or the two of a pair. `sources` are in the key's order with the
    real ones first, `kinds` says of each source "real" or "synthetic". `item_sources` has one source per item: the
    case's, or in a pair that of its synthetic case. `real_cases` names the real case of every pair. `silent` began, or
    were named by the study, and confirmed no case: they are not among the `readers`.
    """

    mode: str
    rubric: Rubric
    readers: tuple[str, ...]
    items: tuple[str, ...]
    item_sources: tuple[str, ...]
    sources: tuple[str, ...]
    kinds: Mapping[str, str]
    real_cases: Mapping[str, str]
    answers: tuple[Answer, ...]
    silent: tuple[str, ...] = ()

    @property
    def is_synthetic(self) -> np.ndarray:
        """Of every item whether its source is synthetic: bool (items,)."""
        return np.array([self.kinds[source] == SYNTHETIC for source in self.item_sources], bool)

    @property
    def synthetic_sources(self) -> tuple[str, ...]:
        """The sources that are not real."""
        return tuple(source for source in self.sources if self.kinds[source] == SYNTHETIC)

    @property
    def questions(self) -> tuple[Question, ...]:
        """The rubric's questions whose answers are one of a list of options."""
        return tuple(question for question in self.rubric.questions if question.kind in ("scale", "choice"))

    def of_source(self, source: str) -> np.ndarray:
        """Of every item whether it is of `source`: bool (items,)."""
        return np.array([name == source for name in self.item_sources], bool)

    def values(self, question: Question, repeat: int = 0) -> np.ndarray:
        """Coded answers of one round of reading: float (readers, items), NaN where there is no answer."""
        table = np.full((len(self.readers), len(self.items)), np.nan)
        for answer in self.answers:
            if answer.question == question.id and answer.repeat == repeat and answer.value is not None:
                table[self.readers.index(answer.reader), self.items.index(answer.item)] = self._code(
                    question, answer
                )
        return table

    def seconds(self) -> np.ndarray:
        """Visible time of first readings in s: float (readers, items), NaN where there is none."""
        table = np.full((len(self.readers), len(self.items)), np.nan)
        for answer in self.answers:
            if answer.repeat == 0:
                table[self.readers.index(answer.reader), self.items.index(answer.item)] = answer.visible_s
        return table

    def texts(self, kind: str) -> list[Answer]:
        """The answers to questions of `kind` ("text", "artefacts") that say something."""
        wanted = {question.id for question in self.rubric.questions if question.kind == kind}
        return [answer for answer in self.answers if answer.question in wanted and answer.value]

    def _code(self, question: Question, answer: Answer) -> float:
        codes = answer_codes(question)
        if answer.value not in codes:
            raise InputError(
                f"{answer.reader}'s answer {answer.value!r} to '{question.id}' of {answer.item} is none of "
                f"{', '.join(map(repr, codes))}; the database was changed from outside, restore it from a copy."
            )
        if question.role == "preference":
            chosen = answer.cases[0 if answer.value == "left" else 1]
            return float(chosen == self.real_cases[answer.item])
        return codes[answer.value]


def answer_codes(question: Question) -> dict[object, float]:
    """The number of every option: a scale's own; 1 for "real" and 0 for "synthetic"; else the place in the list.

    A match counts 0 (not), 1 (partial), 2 (match).
    """
    options = [option.value for option in question.options]
    if question.role == "verdict":
        return {value: float(value == REAL) for value in options}
    if question.role == "match":
        return {value: float(MATCH_VALUES.index(value)) for value in options}
    if question.kind == "scale":
        return {value: float(value) for value in options}
    return {value: float(place) for place, value in enumerate(options)}


def coded_options(question: Question) -> list[tuple[float, str]]:
    """(number, wording) of every answer that a statistic can meet, from the smallest number to the largest."""
    if question.role == "preference":
        return [(0.0, "chose the synthetic one"), (1.0, "chose the real one")]
    codes = answer_codes(question)
    return sorted((codes[option.value], option.label) for option in question.options)


def is_ordered(question: Question) -> bool:
    """Whether a larger number is better, so that differences between sources mean something."""
    return question.kind == "scale" or question.role in ("verdict", "match", "preference")


def join_readings(study: Study, key: Key, answers: Sequence[Answer], readers: Sequence[str]) -> Readings:
    """Put the answers and the key together; who of `readers` confirmed no case is left out of every number.

    Raises `InputError` when a reader answered on something that the study does not have, or a pair is not one real
    and one synthetic case.
    """
    kinds = {source.name: source.kind for source in key.sources}
    ordered = sorted(kinds, key=lambda name: kinds[name] != REAL)
    sources, real_cases = [], {}
    for item in study.items:
        cases = [key.case(case) for case in item.cases]
        if study.mode == "pair":
            if sorted(case.kind for case in cases) != [REAL, SYNTHETIC]:
                raise InputError(
                    f"{item.item} is not a pair of one real and one synthetic case; unblind with the study's own key."
                )
            real_cases[item.item] = next(case.case for case in cases if case.kind == REAL)
            cases = [case for case in cases if case.kind == SYNTHETIC]
        sources.append(cases[0].source)
    items = tuple(item.item for item in study.items)
    used = [answer for answer in answers if not answer.training]
    unknown = sorted({answer.item for answer in used} - set(items))
    if unknown:
        raise InputError(
            f"The answers name {unknown[0]}, which the study does not have; choose the study's own answers."
        )
    present = tuple(name for name in ordered if name in sources)
    answering = {answer.reader for answer in used}
    return Readings(
        mode=study.mode,
        rubric=study.rubric,
        readers=tuple(sorted(answering)),
        items=items,
        item_sources=tuple(sources),
        sources=present,
        kinds={name: kinds[name] for name in present},
        real_cases=real_cases,
        answers=tuple(used),
        silent=tuple(sorted(set(readers) - answering)),
    )
