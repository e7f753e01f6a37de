"""The rating form, made from the rubric: one question open at a time, the others with their answer in one line."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping

import qt

from medlord.review.rubric import Question, Rubric

from ..translation import _

_OPEN, _FOLDED = "▾", "▸"
# Characters per line of an option; a radio button cannot wrap its text.
_LINE = 52
_INDENT = 18


class QuestionWidget:
    """One question: its text, its answer in words while folded, its options or a line for text while open.

    `chosen(question, value)` is called with an option's value, or with the text when it is complete.
    """

    def __init__(
        self,
        parent,
        question: Question,
        opened: Callable[[Question], None],
        chosen: Callable[[Question, object], None],
    ):
        self.question, self._chosen = question, chosen
        self.widget = qt.QWidget(parent)
        self.widget.objectName = f"question_{question.id}"
        column = qt.QVBoxLayout(self.widget)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._header(opened))
        self.answer_label = _label(self.widget, f"answer_{question.id}", _("What you answered."))
        self.answer_label.setContentsMargins(_INDENT, 0, 0, 0)
        column.addWidget(self.answer_label)
        self.body = qt.QWidget(self.widget)
        self.body.objectName = f"options_{question.id}"
        rows = qt.QVBoxLayout(self.body)
        rows.setContentsMargins(_INDENT, 0, 0, 0)
        self.buttons: list = []
        self._texts: list[str] = []
        self.line = None
        if question.kind == "text":
            self.line = self._text_line()
            rows.addWidget(self.line)
        for number, option in enumerate(question.options, 1):
            rows.addWidget(self._option(number, option.label))
        column.addWidget(self.body)

    def show(self, value: object, is_open: bool, armed: str | int = "") -> None:
        """Draw the stored value; `armed` is the kind of artefact that a click marks."""
        self.body.visible = is_open
        self.fold_button.text = _OPEN if is_open else _FOLDED
        words = self._in_words(value)
        self.answer_label.text = words
        self.answer_label.visible = bool(words) and not is_open
        for button, text, option in zip(self.buttons, self._texts, self.question.options):
            if self.question.kind == "artefacts":
                button.checked = any(entry["kind"] == option.value for entry in value or [])
                places = sum(
                    entry["kind"] == option.value and entry["position_ras_mm"] is not None
                    for entry in value or []
                )
                button.text = _with_count(text, places, option.value == armed)
            else:
                button.checked = value == option.value
        if self.line is not None and not self.line.focus:
            self.line.text = value or ""

    def press(self, number: int) -> bool:
        """Choose the option of that number (from 1); False when there is none."""
        if not 1 <= number <= len(self.buttons):
            return False
        self._chosen(self.question, self.question.options[number - 1].value)
        return True

    def _header(self, opened: Callable[[Question], None]):
        header = qt.QWidget(self.widget)
        row = qt.QHBoxLayout(header)
        row.setContentsMargins(0, 0, 0, 0)
        self.fold_button = qt.QToolButton(header)
        self.fold_button.objectName = f"open_{self.question.id}"
        self.fold_button.autoRaise = True
        self.fold_button.focusPolicy = qt.Qt.NoFocus
        self.fold_button.toolTip = _("Open this question (Tab: the next one).")
        self.fold_button.connect("clicked(bool)", lambda checked=False: opened(self.question))
        row.addWidget(self.fold_button)
        label = _label(header, f"text_{self.question.id}", self.question.text)
        label.text = self.question.text if self.question.required else _optional(self.question.text)
        row.addWidget(label, 1)
        return header

    def _text_line(self):
        line = qt.QLineEdit(self.body)
        line.objectName = f"line_{self.question.id}"
        line.toolTip = _("Free text; Return ends it.")
        line.placeholderText = _("Key C, then type; Return ends it")
        line.connect("editingFinished()", self.store_text)
        return line

    def store_text(self) -> None:
        """Pass on what was typed."""
        self._chosen(self.question, self.line.text)

    def _option(self, number: int, label: str):
        kind = qt.QCheckBox if self.question.kind == "artefacts" else qt.QRadioButton
        text = textwrap.fill(f"{number}  {label}", _LINE, subsequent_indent="    ")
        button = kind(text, self.body)
        button.objectName = f"option_{self.question.id}_{number}"
        button.toolTip = text
        button.focusPolicy = qt.Qt.NoFocus
        if kind is qt.QRadioButton:
            # What is checked follows what is stored.
            button.autoExclusive = False
        button.connect("clicked(bool)", lambda checked=False: self.press(number))
        self.buttons.append(button)
        self._texts.append(text)
        return button

    def _in_words(self, value: object) -> str:
        if value in (None, "", []):
            return ""
        labels = {option.value: option.label for option in self.question.options}
        if self.question.kind == "artefacts":
            kinds = [entry["kind"] for entry in value]
            return "; ".join(f"{labels[kind]} ({kinds.count(kind)})" for kind in dict.fromkeys(kinds))
        if self.question.kind == "scale":
            return f"{value}  {labels[value]}"
        return str(labels.get(value, value))


class RatingForm:
    """All questions of a rubric below each other in `container`; `chosen(question, value)` as in `QuestionWidget`.

    `active` is the question that is open, which the digits answer.
    """

    def __init__(self, container, rubric: Rubric, chosen: Callable[[Question, object], None]):
        self.rubric, self._values, self._armed = rubric, {}, ""
        self.active = rubric.questions[0]
        self._column = qt.QVBoxLayout(container)
        self._column.setContentsMargins(0, 0, 0, 0)
        self.widgets = {
            question.id: QuestionWidget(container, question, self.open, chosen)
            for question in rubric.questions
        }
        for widget in self.widgets.values():
            self._column.addWidget(widget.widget)
        self.show({})

    @property
    def typing(self) -> bool:
        """True while the reader writes into a line of text."""
        return any(widget.line is not None and widget.line.focus for widget in self.widgets.values())

    def stop_typing(self) -> None:
        """Store the text, give the keys back to the form."""
        for widget in self.widgets.values():
            if widget.line is not None and widget.line.focus:
                widget.line.clearFocus()

    def show(self, values: Mapping[str, object], armed: str | int = "") -> None:
        """Draw what is stored."""
        self._values, self._armed = dict(values), armed
        for identifier, widget in self.widgets.items():
            widget.show(self._values.get(identifier), identifier == self.active.id, armed)

    def open(self, question: Question) -> None:
        """Unfold a question and fold the others; a line of text gets the keys."""
        self.stop_typing()
        self.active = question
        self.show(self._values, self._armed)
        line = self.widgets[question.id].line
        if line is not None:
            line.setFocus()

    def open_first_missing(self) -> None:
        """Unfold the first required question without an answer, else the first."""
        missing = self.rubric.missing(self._values)
        self._open_quietly(self.rubric.question(missing[0]) if missing else self.rubric.questions[0])

    def open_next_missing(self) -> None:
        """After an answer: the next required question without one, from here on and then from the start."""
        questions = self.rubric.questions
        here = questions.index(self.active)
        missing = set(self.rubric.missing(self._values))
        for question in (*questions[here + 1 :], *questions[: here + 1]):
            if question.id in missing:
                self._open_quietly(question)
                return

    def step(self, steps: int) -> None:
        """Unfold the question `steps` further on, around the end."""
        questions = self.rubric.questions
        self._open_quietly(questions[(questions.index(self.active) + steps) % len(questions)])

    def press(self, number: int) -> bool:
        """A digit: choose that option of the open question; False when it has none."""
        return self.widgets[self.active.id].press(number)

    def _open_quietly(self, question: Question) -> None:
        self.stop_typing()
        self.active = question
        self.show(self._values, self._armed)


def _label(parent, name: str, tooltip: str):
    label = qt.QLabel(parent)
    label.objectName = name
    label.wordWrap = True
    label.textFormat = qt.Qt.PlainText
    label.toolTip = tooltip
    return label


def _optional(text: str) -> str:
    return _("{question} (optional)").format(question=text)


def _with_count(text: str, places: int, armed: bool) -> str:
    if armed:
        return _("{kind}\n    {count} marked; click in the image").format(kind=text, count=places)
    return _("{kind}\n    {count} marked").format(kind=text, count=places) if places else text
