"""What the review mode says to the reader, and which letter stands for which answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from medlord.review.rubric import Question, Rubric

from ..translation import _
from .states import BREAK, FEEDBACK, FINISHED, INTRODUCTION, PAUSED

if TYPE_CHECKING:
    from medlord.review.study import Study

    from .session import ReviewSession

LAYOUT_TITLES = {
    "axial": _("Axial"),
    "two-planes": _("Axial and coronal"),
    "three-planes": _("Three planes"),
}

_KEYS = _(
    "Keys: 1 to 9 answer the open question, Tab opens the next, N next case, B back, P pause, Up and Down slices (Page "
    "Up and Page Down ten), Left and Right choose the view, W window, V views, A artefacts, Backspace takes the last "
    "artefact back, C comment."
)
_KEYS_OF_MODE = {
    "rating": _("R real, S synthetic."),
    "pair": _("L left, R right."),
    "match": _("M match, O shows and hides the mask."),
}

_LETTERS = {
    "verdict": {"real": "R", "synthetic": "S"},
    "preference": {"left": "L", "right": "R"},
    "match": {"match": "M"},
}


def keys_in_words(study: Study) -> str:
    """What the keys do in a study."""
    return f"{_KEYS} {_KEYS_OF_MODE[study.mode]}"


def letters_of(rubric: Rubric) -> Iterator[tuple[str, Question, str]]:
    """(letter, question, value) of the answers that have a key of their own."""
    for role, letters in _LETTERS.items():
        question = rubric.with_role(role)
        if question is not None:
            yield from ((letter, question, value) for value, letter in letters.items())


def message_of(session: ReviewSession) -> str:
    """What is to be done in the present state."""
    if session.state == INTRODUCTION:
        rubric = session.study.rubric
        begin = _("Press N to begin.")
        return "\n\n".join(
            part for part in (rubric.title, rubric.instructions, _on_a_new_name(session), begin) if part
        )
    if session.state == FEEDBACK:
        return _feedback(session)
    if session.state == BREAK and session.sitting.current.block == 1:
        return _("The training is over. Press N to begin with the study.")
    return {
        PAUSED: _("Paused; the clock stands still. Press N or P to go on."),
        BREAK: _("Time for a break: a block is done. Press N when you are ready for the next one."),
        FINISHED: _("You have read everything; your answers are stored. Thank you."),
    }.get(session.state, "")


def _on_a_new_name(session: ReviewSession) -> str:
    """A mistyped name begins a study anew where it names no readers; empty where that cannot be."""
    if not session.others_begun:
        return ""
    return _(
        'Nothing is answered yet by "{reader}"; {count} under other names have begun. If you have read here before, '
        "leave now and give your name as you wrote it then."
    ).format(reader=session.sitting.store.reader, count=session.others_begun)


def _feedback(session: ReviewSession) -> str:
    words = {"real": _("real"), "synthetic": _("synthetic")}
    truth = words[session.truth]
    if not session.said:
        return _("This training case is {truth}. Press N to go on.").format(truth=truth)
    return _("This training case is {truth}; you said {said}. Press N to go on.").format(
        truth=truth, said=words.get(session.said, session.said)
    )
