"""Numbers that differ look different; counted things and names read as words."""

from __future__ import annotations

import pytest

from medlord.evaluation.wording import counted, in_ml, spoken_first, three_digits, told_apart


@pytest.mark.parametrize(
    ("numbers", "options", "texts"),
    [
        ((12.0, 40.0), {}, ["12", "40"]),
        ((12.4, 12.1), {}, ["12.4", "12.1"]),
        ((12.04, 12.0, 300.0), {}, ["12.04", "12.00", "300.00"]),
        ((12.0, 12.0), {}, ["12", "12"]),
        ((-0.3, 5.0), {}, ["0", "5"]),
        ((0.7496, 0.75), {"decimals": 2}, ["0.7496", "0.7500"]),
        ((0.10001, 0.1), {"decimals": 2, "percent": True}, ["10.001%", "10.000%"]),
    ],
)
def test_as_many_digits_as_tell_a_value_from_its_limits(numbers, options, texts):
    assert told_apart(*numbers, **options) == texts


def test_words():
    assert [counted(number, "volume") for number in (0, 1, 2)] == ["0 volumes", "1 volume", "2 volumes"]
    assert spoken_first("heart_atrium_left") == "Heart atrium left"
    assert [in_ml(ml) for ml in (0.0, 0.04, 3.21, 384.4)] == ["0 ml", "0.04 ml", "3.2 ml", "384 ml"]
    assert [three_digits(*given) for given in ((-1100.0, 3.0), (12.0,), (0.5, 0.25), (0.0,))] == [0, 1, 3, 0]
