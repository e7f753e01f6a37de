"""Why something that was given is not used: each reason in a sentence of its own."""

from __future__ import annotations

from medlord.unused_names import nearest_names, why_unused
from medlord.vocabulary import load_vocabulary


def test_every_reason_has_its_own_sentence():
    vocabulary, wanted = load_vocabulary(), ["lung", "heart_myocardium"]
    given = ["lung", "lung_left", "heart", "Liver", "lnug", "qqqq"]
    plan = vocabulary.plan(given, wanted)
    recognised = {name: vocabulary.match(name=name, wanted=wanted) for name in plan.unused}
    unused = [(name, match and match.structure) for name, match in recognised.items()]
    assert why_unused([*unused, *unused], plan, wanted, "the check") == [
        "Not used, since their whole was given as well: lung_left.",
        "Not used, since the check takes only parts of them: heart (heart_myocardium).",
        "Not used, since the check takes no such structure: Liver.",
        "Not used, since no structure of that name is known: 'lnug' (nearest: lung), 'qqqq'.",
    ]
    assert why_unused([], plan, wanted) == []


def test_the_nearest_names_are_those_of_structures():
    assert nearest_names("aortaa")[0] == "aorta" and nearest_names("Segment_1") == []
    assert nearest_names("my tubee", ["my_tube"]) == ["my_tube"]
