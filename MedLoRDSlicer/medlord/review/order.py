"""In which order a reader sees the cases: seeded per reader, in blocks, some of them twice.

Made from SHA-256 alone, so that the order of a reader is the same on every machine and with every version of any
library, and so that it tells nothing about the sources: the rules know item numbers only.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass

from ..errors import InputError
from .study import Study

LONGEST_NAME = 64


@dataclass(frozen=True)
class Reading:
    """One showing of an item to a reader.

    `position` counts from 1 over the whole order, training first; `cases` are in the order they are shown (pair:
    left, right); `repeat` is 0 the first time; `block` counts from 1 and is 0 in the training.
    """

    position: int
    item: str
    cases: tuple[str, ...]
    repeat: int = 0
    training: bool = False
    block: int = 1


def checked_reader(reader: str) -> str:
    """The reader's name in one spelling; raises `InputError` for names that files or tables cannot carry."""
    name = " ".join(unicodedata.normalize("NFC", str(reader)).split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise InputError(
            f"'{reader!s}' cannot name a reader: 1 to {LONGEST_NAME} printable characters are needed."
        )
    return name


def known_reader(study: Study, reader: str) -> str:
    """The reader's name as the study has it, where only capitals may differ; in a study that names no readers, any.

    Raises `InputError` that lists the readers for a name that is none of them: mistyped, it would begin the study anew.
    """
    name = checked_reader(reader)
    if not study.readers:
        return name
    found = next((known for known in study.readers if known.casefold() == name.casefold()), None)
    if found is None:
        raise InputError(
            f"'{name}' is no reader of this study; its readers are {', '.join(study.readers)}. Write one of them."
        )
    return found


def reading_order(study: Study, reader: str) -> tuple[Reading, ...]:
    """The readings of a reader: training cases in their order, then the items in the reader's own.

    `study.order.repeats` of the items come a second time, at least a third of the study after the first where the
    number of repeats allows it. The sides of a pair are drawn anew for each showing.
    """
    name = checked_reader(reader)

    def drawn(*what: object) -> int:
        words = "\n".join(str(word) for word in (study.order.seed, study.study_id, name, *what))
        return int.from_bytes(hashlib.sha256(words.encode("utf-8")).digest(), "big")

    items = {item.item: item.cases for item in study.items}
    first = sorted(items, key=lambda item: (drawn("order", item), item))
    gap = max(1, len(first) // 3)
    repeats = min(study.order.repeats, len(first))
    candidates = first[: max(repeats, len(first) - gap)]
    repeated = sorted(candidates, key=lambda item: (drawn("repeat", item), item))[:repeats]
    order: list[tuple[str, int]] = [(item, 0) for item in first]
    for item in repeated:
        earliest = order.index((item, 0)) + 1 + gap
        slots = max(1, len(order) - earliest + 1)
        order.insert(min(len(order), earliest + drawn("slot", item) % slots), (item, 1))
    readings = [
        Reading(number, entry.case, (entry.case,), training=True, block=0)
        for number, entry in enumerate(study.training, 1)
    ]
    blocks = min(study.order.blocks, len(order))
    for number, (item, repeat) in enumerate(order):
        cases = items[item]
        if len(cases) == 2 and drawn("side", item, repeat) % 2:
            cases = cases[::-1]
        block = number * blocks // len(order) + 1
        readings.append(Reading(len(study.training) + number + 1, item, cases, repeat, False, block))
    return tuple(readings)
