"""What the key tells that must be known before a report is believed: what "real" is, what could not be tested."""

from __future__ import annotations

from collections.abc import Sequence

from .key import Key, KeyCase
from .leaks import untested_contrasts


def real_in_words(key: Key) -> str:
    """What counts as real in a study, for the facts of its report; empty where nothing does."""
    cases = _real_cases(key)
    if not cases:
        return ""
    sources = ", ".join(dict.fromkeys(entry.source for entry in cases))
    named = f"{sources}, as the author of the study says"
    marked = _marked(key, cases)
    if marked is None:
        return f"{named}; what the headers of the files say of it was not recorded when the study was made"
    if not marked:
        return f"{named}; no header of a file says otherwise"
    return f"{named}; {marked} of {len(cases)} cases are synthetic by their own headers, as phantoms are"


def cautions(key: Key) -> list[str]:
    """Sentences for the head of the report: real cases that are not of patients, and what the leak test left open."""
    cases = _real_cases(key)
    found = []
    if marked := _marked(key, cases):
        found.append(
            f"Real does not mean patients here: {marked} of the {len(cases)} real cases are synthetic by the headers "
            "of their files, as phantoms are. No number of this report is a result on patients."
        )
    return found + [
        f"The leak test at the creation of the study had {contrast}; whether readers could judge by it is not known."
        for contrast in untested_contrasts(
            [entry.source for entry in key.cases], [entry.kind for entry in key.cases]
        )
    ]


def _real_cases(key: Key) -> list[KeyCase]:
    return [entry for entry in key.cases if entry.kind == "real" and not entry.training]


def _marked(key: Key, cases: Sequence[KeyCase]) -> int | None:
    """How many of the cases say of themselves that they are synthetic; None in a key that does not tell."""
    if key.marked_synthetic is None:
        return None
    return sum(entry.case in key.marked_synthetic for entry in cases)
