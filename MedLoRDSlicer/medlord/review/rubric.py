"""What a reader is asked: questions, the wording of their scales, and which values count as an answer.

A rubric is JSON, so that a study can bring its own; three are built in, one for each mode of reading.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InputError

FORMAT = "medlord-rubric"
VERSION = 1
MODES = ("rating", "pair", "match")
"""rating: one case at a time; pair: which of two is real (two-alternative forced choice); match: case and mask."""

KINDS = ("choice", "scale", "artefacts", "text")
ROLES = {
    "verdict": ("real", "synthetic"),
    "preference": ("left", "right"),
    "match": ("match", "partial", "not"),
    "confidence": None,
    "": None,
}
"""What a question means to the statistics, and the values it must then offer."""

LONGEST_TEXT = 10_000
MOST_ARTEFACTS = 500


@dataclass(frozen=True)
class Option:
    """One answer that may be chosen: what is stored, and what the reader sees."""

    value: str | int
    label: str


@dataclass(frozen=True)
class Question:
    """One question; `options` are those of a choice, the steps of a scale (worst first) or the kinds of artefacts."""

    id: str
    text: str
    kind: str
    options: tuple[Option, ...] = ()
    required: bool = True
    role: str = ""

    def check(self, value: object) -> None:
        """Raise `InputError` unless `value` answers this question."""
        if self.kind == "text":
            if not isinstance(value, str) or len(value) > LONGEST_TEXT:
                raise InputError(f"'{self.id}' takes text of at most {LONGEST_TEXT} characters.")
        elif self.kind == "artefacts":
            self._check_artefacts(value)
        elif isinstance(value, bool) or value not in self.values:
            raise InputError(f"'{self.id}' is {value!r}; it takes one of {', '.join(map(str, self.values))}.")

    @property
    def values(self) -> tuple[str | int, ...]:
        """What may be stored, in the order of the options."""
        return tuple(option.value for option in self.options)

    def parse(self, text: str) -> object:
        """The value that typed `text` stands for: a number where the options are numbers, JSON for artefacts."""
        if self.kind == "text":
            return text
        if self.kind == "artefacts":
            try:
                return json.loads(text)
            except ValueError as error:
                raise InputError(
                    f"'{self.id}' is no JSON list of artefacts ({error}); give for example [].".replace(
                        "\n", " "
                    )
                ) from error
        return next((value for value in self.values if str(value) == text.strip()), text)

    def _check_artefacts(self, value: object) -> None:
        if not isinstance(value, list) or len(value) > MOST_ARTEFACTS:
            raise InputError(f"'{self.id}' takes a list of at most {MOST_ARTEFACTS} artefacts.")
        for entry in value:
            if not isinstance(entry, dict) or set(entry) != {"kind", "position_ras_mm"}:
                raise InputError(
                    f"An artefact of '{self.id}' has a kind and a position_ras_mm, not {entry!r}."
                )
            if entry["kind"] not in self.values:
                raise InputError(
                    f"'{entry['kind']}' is no kind of '{self.id}'; it takes one of {', '.join(map(str, self.values))}."
                )
            position = entry["position_ras_mm"]
            numbers = isinstance(position, list) and all(type(x) in (int, float) for x in position)
            if position is not None and not (
                numbers and len(position) == 3 and all(math.isfinite(x) for x in position)
            ):
                raise InputError(
                    f"The position of an artefact of '{self.id}' is {position!r}; it takes three numbers in mm "
                    "(right, anterior, superior), or null where none was clicked."
                )

    def to_dict(self) -> dict:
        """JSON form."""
        return {
            "id": self.id, "kind": self.kind, "text": self.text, "required": self.required, "role": self.role,
            "options": [{"value": option.value, "label": option.label} for option in self.options],
        }  # fmt: skip


@dataclass(frozen=True)
class Rubric:
    """The questions of a study in the order they are asked."""

    title: str
    questions: tuple[Question, ...]
    instructions: str = ""
    _by_id: dict[str, Question] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "_by_id", {question.id: question for question in self.questions})

    def question(self, name: str) -> Question:
        """The question of that id; raises `InputError` that lists the ids when there is none."""
        if name not in self._by_id:
            raise InputError(f"The rubric has no question '{name}'; it has {', '.join(self._by_id)}.")
        return self._by_id[name]

    def with_role(self, role: str) -> Question | None:
        """The question of a role ("verdict", "confidence", "preference", "match"), or None."""
        return next((question for question in self.questions if question.role == role), None)

    def check(self, values: Mapping[str, object]) -> None:
        """Raise `InputError` when a value is unknown to the rubric or out of its range."""
        for name, value in values.items():
            self.question(name).check(value)

    def missing(self, values: Mapping[str, object]) -> list[str]:
        """Ids of the required questions that `values` leaves open."""
        return [q.id for q in self.questions if q.required and values.get(q.id) in (None, "")]

    def to_dict(self) -> dict:
        """JSON form; `rubric_from_dict` reads it."""
        return {
            "format": FORMAT, "version": VERSION, "title": self.title, "instructions": self.instructions,
            "questions": [question.to_dict() for question in self.questions],
        }  # fmt: skip


def rubric_from_dict(data: object, mode: str | None = None, name: str = "The rubric") -> Rubric:
    """Read what `Rubric.to_dict` wrote; with `mode`, also check that it has what this mode of reading needs.

    Raises `InputError` naming the question that is wrong.
    """
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("version") != VERSION:
        raise InputError(f'{name} is no rubric: it needs "format": "{FORMAT}" and "version": {VERSION}.')
    entries = data.get("questions")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{name} asks nothing; give a list of questions.")
    questions = tuple(_question(entry, name) for entry in entries)
    for attribute in ("id", "role"):
        found = [getattr(question, attribute) for question in questions if getattr(question, attribute)]
        if twice := next((value for value in found if found.count(value) > 1), None):
            raise InputError(f"{name} has two questions with the {attribute} '{twice}'; one is allowed.")
    rubric = Rubric(str(data.get("title", "")), questions, str(data.get("instructions", "")))
    if mode is not None:
        _check_mode(rubric, mode, name)
    return rubric


def load_rubric(path: str | Path, mode: str | None = None) -> Rubric:
    """Read a rubric from a JSON file; raises `InputError` when it is missing, no JSON or no rubric."""
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The rubric {path} cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise InputError(f"{path.name} is no JSON ({error}); correct it.") from error
    return rubric_from_dict(data, mode, path.name)


def _check_mode(rubric: Rubric, mode: str, name: str) -> None:
    if mode not in MODES:
        raise InputError(f"'{mode}' is no mode of reading; use {', '.join(MODES)}.")
    needed = {"pair": "preference", "match": "match"}.get(mode)
    if needed and rubric.with_role(needed) is None:
        raise InputError(f"{name} has no question with the role '{needed}', which the mode {mode} needs.")
    foreign = {"rating": ("preference", "match"), "pair": ("verdict", "match"), "match": ("preference",)}[
        mode
    ]
    if wrong := next((role for role in foreign if rubric.with_role(role)), None):
        raise InputError(f"{name} has a question with the role '{wrong}', which the mode {mode} cannot ask.")


def _question(entry: object, name: str) -> Question:
    """One question of JSON, checked."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str) or not entry["id"].isidentifier():
        raise InputError(f"A question of {name} has no id of letters, digits and _: {entry!r}.")
    identifier, kind, role = entry["id"], entry.get("kind"), entry.get("role", "")
    if kind not in KINDS:
        raise InputError(f"Question '{identifier}' has the kind {kind!r}; use {', '.join(KINDS)}.")
    if role not in ROLES:
        raise InputError(
            f"Question '{identifier}' has the role {role!r}; use {', '.join(filter(None, ROLES))}."
        )
    options = tuple(_option(option, identifier) for option in entry.get("options", []))
    values = [option.value for option in options]
    if kind != "text" and (len(values) < 2 or len(set(values)) < len(values)):
        raise InputError(f"Question '{identifier}' needs two or more options with different values.")
    if kind == "scale" and values != list(range(1, len(values) + 1)):
        raise InputError(
            f"The scale of '{identifier}' has the values {values}; it counts 1, 2, 3 from the worst to the best."
        )
    if ROLES[role] and (kind != "choice" or set(values) != set(ROLES[role])):
        raise InputError(f"'{identifier}' has the role {role}: its choices must be {', '.join(ROLES[role])}.")
    if role == "confidence" and kind != "scale":
        raise InputError(f"'{identifier}' has the role confidence, which takes a scale.")
    text = entry.get("text")
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"Question '{identifier}' has no text for the reader.")
    return Question(identifier, text, kind, options, bool(entry.get("required", True)), role)


def _option(option: object, identifier: str) -> Option:
    if (
        not isinstance(option, dict)
        or type(option.get("value")) not in (str, int)
        or not isinstance(option.get("label"), str)
    ):
        raise InputError(f"An option of '{identifier}' needs a value and a label: {option!r}.")
    return Option(option["value"], option["label"])


def default_rubric(mode: str = "rating") -> Rubric:
    """The built-in rubric of a mode (rubric_MODE.json beside this module)."""
    if mode not in MODES:
        raise InputError(f"'{mode}' is no mode of reading; use {', '.join(MODES)}.")
    return load_rubric(Path(__file__).with_name(f"rubric_{mode}.json"), mode)
