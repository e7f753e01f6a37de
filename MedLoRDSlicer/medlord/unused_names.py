"""Why a segment or mask that was given makes no condition: one sentence per reason, for every way in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from .vocabulary import Plan, Vocabulary, load_vocabulary, normalized

_NEAREST, _SIMILARITY = 3, 0.7
_NAMES_SHOWN = 8


def why_unused(
    unused: Iterable[tuple[str, str | None]],
    plan: Plan,
    wanted: Sequence[str],
    taker: str = "the model",
    vocabulary: Vocabulary | None = None,
) -> list[str]:
    """Sentences about names that serve none of the `wanted` conditions of `taker`; none where nothing is unused.

    `unused`: (name as it was given, structure that it was recognised as, None for an unknown name); `plan`: what the
    conditions are made of. The reasons: its whole was given too, only its parts are taken, `taker` takes nothing of
    it, or nothing of that name is known (then with the nearest known names).
    """
    vocabulary = vocabulary or load_vocabulary()
    covered, in_parts, foreign, unknown = [], [], [], []
    for name, structure in dict.fromkeys(unused):
        if structure is None:
            near = nearest_names(name, wanted, vocabulary)
            unknown.append(f"'{name}'" + (f" (nearest: {', '.join(near)})" if near else ""))
        elif any(structure in vocabulary.parts_below(condition) for condition in plan.sources):
            covered.append(name)
        elif parts := [part for part in vocabulary.parts_below(structure) if part in wanted]:
            in_parts.append(f"{name} ({shortened(parts)})")
        else:
            foreign.append(name)
    sentences = {
        "their whole was given as well": covered,
        f"{taker} takes only parts of them": in_parts,
        f"{taker} takes no such structure": foreign,
        "no structure of that name is known": unknown,
    }
    return [f"Not used, since {why}: {shortened(names)}." for why, names in sentences.items() if names]


def nearest_names(name: str, wanted: Sequence[str] = (), vocabulary: Vocabulary | None = None) -> list[str]:
    """The at most three known structures whose name, title or alias is spelt most like `name`, the nearest first."""
    vocabulary = vocabulary or load_vocabulary()
    known = {normalized(text): text for text in wanted}
    for structure in vocabulary.structures.values():
        for text in (structure.name, structure.display, *structure.aliases):
            known.setdefault(normalized(text), structure.name)
    found = get_close_matches(normalized(name), list(known), n=3 * _NEAREST, cutoff=_SIMILARITY)
    return list(dict.fromkeys(known[text] for text in found))[:_NEAREST]


def shortened(items: Sequence[object], limit: int = _NAMES_SHOWN) -> str:
    """The first items in words, and how many more there are."""
    text = ", ".join(str(item) for item in items[:limit])
    return f"{text} and {len(items) - limit} more" if len(items) > limit else text
