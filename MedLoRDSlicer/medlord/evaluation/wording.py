"""Words for people: names of structures, counted things, and numbers that do not hide a difference."""

from __future__ import annotations

import math

# Values that differ by less than a millionth of what is shown are told apart by nobody.
_MOST_MORE_DIGITS = 6


def spoken(name: str) -> str:
    """The name of a structure or measure within a sentence: `heart_atrium_left` is "heart atrium left"."""
    return name.replace("_", " ")


def spoken_first(name: str) -> str:
    """The same at the beginning of a sentence."""
    return spoken(name).capitalize()


def counted(count: int, thing: str) -> str:
    """ "1 volume", "2 volumes": `thing` is a word whose plural ends in s."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def told_apart(value: float, *limits: float, decimals: int = 0, percent: bool = False) -> list[str]:
    """`value` and its `limits` in words, with as many decimals, at least `decimals`, as tell it from each of them.

    A finding that says "12 HU, limit 12 HU" says nothing. `percent` shows shares (0 to 1) as percentages.
    """
    scale, sign = (100.0, "%") if percent else (1.0, "")
    numbers = [scale * number for number in (value, *limits)]
    texts: list[str] = []
    for places in range(decimals, decimals + _MOST_MORE_DIGITS + 1):
        # Adding zero makes the minus of a rounded -0.3 go.
        texts = [f"{round(number, places) + 0.0:.{places}f}{sign}" for number in numbers]
        if all(text != texts[0] or limit == value for text, limit in zip(texts[1:], limits)):
            break
    return texts


def three_digits(*numbers: float) -> int:
    """How many decimals show three digits of the largest of `numbers`; none from 100 on."""
    largest = max(abs(number) for number in numbers)
    return max(0, 2 - math.floor(math.log10(largest))) if largest > 0 else 0


def in_ml(ml: float) -> str:
    """A volume in ml: whole ml from 10 on, two digits below, so that a few voxels are not "0 ml"."""
    if 0 < ml < 0.01:
        return "less than 0.01 ml"
    return f"{ml:.0f} ml" if ml >= 10 else f"{ml:.2g} ml"
