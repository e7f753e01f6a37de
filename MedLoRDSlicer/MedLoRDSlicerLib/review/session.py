"""One reader at work: what is on the screen, what comes next, when the time runs. No widget is needed for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from medlord.errors import InputError
from medlord.review.answers import others_begun
from medlord.review.order import Reading
from medlord.review.rubric import Question
from medlord.review.sitting import Sitting
from medlord.review.study import Study, load_study

from ..translation import _
from .loading import CaseLoader
from .marks import ArtefactMarks
from .room import ReadingRoom
from .states import BREAK, FEEDBACK, FINISHED, INTRODUCTION, PAUSED, READING


class ReviewSession:
    """A reader's sitting in front of a `ReadingRoom`.

    study, reader, answers   as in `medlord.review.sitting.Sitting`
    room_for                 makes the room: (number of sides, names of the masks' labels) -> ReadingRoom
    changed                  called after everything that changes what is to be drawn

    `state` is INTRODUCTION until `go_on` is called the first time. Raises `InputError` for a folder that is no study, a
    study that is unblinded, a reader who has it open elsewhere, and a program without views; nothing is changed then.
    """

    def __init__(
        self,
        study: Study | str | Path,
        reader: str,
        answers: str | Path | None,
        room_for: Callable[[int, tuple[str, ...]], ReadingRoom],
        *,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.study = load_study(study)
        self.sitting = Sitting(self.study, reader, answers, clock)
        self._loader = CaseLoader(self.study)
        self._changed = changed
        self.state = INTRODUCTION
        # After a training case: what it is, and what the reader took it for.
        self.truth: str | None = None
        self.said = ""
        self._shown: Reading | None = None
        self._break_taken = 0
        self._armed = ""
        labels = self.study.content.get("mask_labels", {})
        self.room = room_for(
            2 if self.study.mode == "pair" else 1, tuple(labels[key] for key in sorted(labels, key=int))
        )
        self.marks = ArtefactMarks(self.room.scene)
        try:
            # Of a reader who is new, where any name is taken: how many have begun under other names.
            self.others_begun = others_begun(self.sitting.store, answers)
            self.room.enter()
            self.room.set_layout(self.study.layout)
        except BaseException:
            self.close()
            raise
        self._loader.prefetch(self.sitting.current)

    def close(self) -> None:
        """Store the time, leave the room, end the thread; what was answered is on the disk already."""
        try:
            self.sitting.close()
        finally:
            self._loader.close()
            self.marks.leave()
            self.room.leave()

    @property
    def shown(self) -> Reading | None:
        """The reading whose case is in the views."""
        return self._shown

    @property
    def case_is_visible(self) -> bool:
        """Whether the views show a case now."""
        return self.state in (READING, FEEDBACK)

    @property
    def armed(self) -> str:
        """The kind of artefact that a click marks; empty for none."""
        return self._armed

    @property
    def title(self) -> str:
        """The number of the reading on the screen, or the state in a word. The number is the reader's own: a case that
        comes a second time has another one, so that it is not known again by its number."""
        if self.state == FINISHED:
            return _("Finished")
        reading = self._shown or self.sitting.current
        return self._title_of(reading) if reading is not None else _("Finished")

    @property
    def progress(self) -> tuple[int, int]:
        """Confirmed readings, and all: of the training while it lasts, then of the study, as the title counts."""
        done, total = self.sitting.progress
        training = len(self.study.training)
        reading = self._shown or self.sitting.current
        if reading is not None and reading.training:
            return min(done, training), training
        return done - training, total - training

    @property
    def can_go_back(self) -> bool:
        """Whether there is a case to go back to, and the study allows it."""
        current = self.sitting.current
        return self.study.order.going_back and (current is None or current.position > 1)

    def values(self) -> dict[str, object]:
        """What is answered of the reading on the screen."""
        return self.sitting.values() if self.state == READING else {}

    def missing(self) -> list[Question]:
        """The required questions that are still open."""
        open_ids = self.study.rubric.missing(self.values())
        return [question for question in self.study.rubric.questions if question.id in open_ids]

    def go_on(self) -> None:
        """The key N: begin, confirm the case, leave the feedback, the pause or the break.

        Raises `InputError` while required questions are open, or when the next case cannot be read.
        """
        if self.state == READING:
            self._confirm()
        elif self.state == PAUSED:
            self._resume()
        elif self.state != FINISHED:
            if self.state == BREAK:
                self._break_taken = self.sitting.current.position
            self._show_current()
        self._changed()

    def back(self) -> None:
        """The case before; raises `InputError` where there is none or the study does not allow it."""
        if self.state in (INTRODUCTION, PAUSED):
            raise InputError(_("Go on with the reading first."))
        self.sitting.back()
        self._show_current()
        self._changed()

    def pause(self) -> None:
        """Cover the case and stop the clock; `go_on` ends the pause."""
        if self.state == READING:
            self.sitting.pause()
            self.state = PAUSED
            self.room.cover()
            self.marks.show([])
            self._changed()

    def set_visible(self, visible: bool) -> None:
        """The window is in front of the reader or not: time runs only while the case can be seen."""
        if self.state == READING and visible:
            self.sitting.show()
        elif self.state == READING:
            self.sitting.hide()

    def set_layout(self, layout: str) -> None:
        """Arrange the views otherwise, until the next case; raises `InputError` for an unknown layout."""
        self.room.set_layout(layout)
        self.room.fit()
        self._changed()

    def answer(self, question: str, value: object) -> None:
        """Store an answer at once; raises `InputError` for one that the rubric does not allow."""
        self._require_reading()
        self.sitting.set(question, value)
        self._changed()

    def choose_artefact(self, question: Question, kind: str | int) -> None:
        """A kind of artefact was seen: note it without a place, and let clicks mark it.

        Chosen again, it is what clicks mark, and once more, it is taken back with all its places.
        """
        entries = self._artefacts(question)
        of_kind = [entry for entry in entries if entry["kind"] == kind]
        if of_kind and self._armed == kind:
            self._armed = ""
            self.answer(question.id, [entry for entry in entries if entry["kind"] != kind])
        else:
            self._armed = kind
            if not of_kind:
                entries = [*entries, {"kind": kind, "position_ras_mm": None}]
            self.answer(question.id, entries)
        self._show_marks()

    def mark(self, position_ras_mm: list[float]) -> None:
        """A click in the image: the place (RAS mm of the case) of an artefact of the chosen kind.

        Raises `InputError` while no kind is chosen; without a question for artefacts nothing happens.
        """
        question = self._artefact_question()
        if question is None or self.state != READING:
            return
        if not self._armed:
            raise InputError(_("Choose the kind of artefact first (key A), then click in the image."))
        place = [round(float(x), 2) for x in position_ras_mm]
        entries = [dict(entry) for entry in self._artefacts(question)]
        waiting = [e for e in entries if e["kind"] == self._armed and e["position_ras_mm"] is None]
        if waiting:
            waiting[0]["position_ras_mm"] = place
        else:
            entries.append({"kind": self._armed, "position_ras_mm": place})
        self.answer(question.id, entries)
        self._show_marks()

    def take_back_mark(self) -> None:
        """Remove the artefact that was noted last."""
        question = self._artefact_question()
        if question is not None and self.state == READING and self._artefacts(question):
            self.answer(question.id, self._artefacts(question)[:-1])
            self._show_marks()

    def _require_reading(self) -> None:
        if self.state != READING:
            raise InputError(_("No case is open; go on with the reading first."))

    def _artefact_question(self) -> Question | None:
        return next((q for q in self.study.rubric.questions if q.kind == "artefacts"), None)

    def _artefacts(self, question: Question) -> list[dict]:
        return list(self.values().get(question.id) or [])

    def _show_marks(self) -> None:
        question = self._artefact_question()
        entries = self._artefacts(question) if question is not None else []
        self.marks.show([entry["position_ras_mm"] for entry in entries if entry["position_ras_mm"]])

    def _confirm(self) -> None:
        reading, verdict = self.sitting.current, self.study.rubric.with_role("verdict")
        self.said = str(self.values().get(verdict.id, "")) if verdict is not None else ""
        self.sitting.confirm()
        self.truth = self.sitting.feedback(reading)
        if self.truth is not None:
            # The case stays on the screen, so that it can be looked at again with what is known now.
            self.state = FEEDBACK
            self._loader.prefetch(self.sitting.current)
        else:
            self._show_current()

    def _resume(self) -> None:
        if self._shown is None:  # its file could not be read
            self._show_current()
            return
        self.room.uncover()
        self.state = READING
        self._show_marks()
        self.sitting.show()

    def _show_current(self) -> None:
        """Put the current reading on the screen, as every case begins; a break comes first where one is due."""
        reading, self.truth, self._armed = self.sitting.current, None, ""
        if reading is None:
            self.state, self._shown = FINISHED, None
            self._empty()
        elif self.sitting.break_due and self._break_taken != reading.position:
            self.state, self._shown = BREAK, None
            self._empty()
            self._loader.prefetch(reading)
        else:
            self._put_on_screen(reading)

    def _put_on_screen(self, reading: Reading) -> None:
        try:
            cases = self._loader.take(reading)
        except InputError:
            # The case before must not stay under the new number.
            self._shown, self.state = None, PAUSED
            self._empty()
            raise
        self._shown, self.state = reading, READING
        self.room.set_window(*self.study.window)
        self.room.show(self._title_of(reading, short=True), cases)
        if self.room.layout != self.study.layout:
            self.room.set_layout(self.study.layout)
        self.room.fit()
        self._show_marks()
        self.sitting.show()
        self._loader.prefetch(self.sitting.upcoming)

    def _empty(self) -> None:
        self.room.cover()
        self.marks.show([])

    def _title_of(self, reading: Reading, short: bool = False) -> str:
        """ "Case 5 of 14"; short: "Case 5"."""
        training = len(self.study.training)
        number = reading.position if reading.training else reading.position - training
        total = training if reading.training else len(self.sitting.store.order) - training
        if short:
            text = _("Training case {number}") if reading.training else _("Case {number}")
        elif reading.training:
            text = _("Training case {number} of {total}")
        else:
            text = _("Case {number} of {total}")
        return text.format(number=number, total=total)
