"""The order of a reader: their own, the same every time, with repeats, blocks and training in their places."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.simulated_review import write_study

from medlord.errors import InputError
from medlord.review.order import checked_reader, reading_order
from medlord.review.study import Item, OrderRules, Study, TrainingCase


@pytest.fixture
def study(tmp_path) -> Study:
    """A study of 18 items."""
    return write_study(tmp_path)[0]


def with_rules(study: Study, **rules) -> Study:
    """The study with other rules of order."""
    return replace(study, order=replace(study.order, **rules))


def test_every_item_comes_once_in_an_order_of_the_readers_own(study):
    anna, bert = reading_order(study, "Anna"), reading_order(study, "Bert")
    for order in (anna, bert):
        assert sorted(reading.item for reading in order) == sorted(item.item for item in study.items)
        assert [reading.position for reading in order] == list(range(1, 19))
    assert [r.item for r in anna] != [r.item for r in bert]
    assert [r.item for r in anna] != [item.item for item in study.items]
    assert reading_order(study, " Anna ") == anna
    assert reading_order(with_rules(study, seed="another"), "Anna") != anna


def test_orders_are_fair_over_readers(study):
    # The first place of 360 readers: each of 18 items about 20 times (four standard deviations are 17).
    first = [reading_order(study, f"reader {number}")[0].item for number in range(360)]
    counts = [first.count(item.item) for item in study.items]
    assert 3 <= min(counts) and max(counts) <= 37


@pytest.mark.parametrize("repeats", [1, 6, 18, 40])
def test_repeats_come_well_after_the_first_reading(study, repeats):
    order = reading_order(with_rules(study, repeats=repeats), "Anna")
    second = [reading for reading in order if reading.repeat == 1]
    assert len(second) == min(repeats, 18) and len(order) == 18 + len(second)
    assert len({reading.item for reading in second}) == len(second)
    place = {(reading.item, reading.repeat): reading.position for reading in order}
    gaps = [place[reading.item, 1] - place[reading.item, 0] for reading in second]
    assert min(gaps) > (6 if repeats <= 12 else 0)


def test_blocks_are_even_and_training_comes_first(study):
    training = tuple(TrainingCase(f"training_000{n}", "0" * 64, "real") for n in (1, 2))
    order = reading_order(replace(with_rules(study, blocks=4), training=training), "Anna")
    assert [reading.item for reading in order[:2]] == ["training_0001", "training_0002"]
    assert [reading.training for reading in order] == [True] * 2 + [False] * 18
    blocks = [reading.block for reading in order[2:]]
    assert blocks == sorted(blocks) and {blocks.count(n) for n in (1, 2, 3, 4)} == {4, 5}
    assert {reading.block for reading in order[:2]} == {0}
    assert [reading.position for reading in order] == list(range(1, 21))


def test_sides_of_a_pair_are_drawn_for_every_showing(study):
    items = tuple(Item(f"item_{n}", ("case_0001", "case_0002")) for n in range(400))
    pairs = replace(study, items=items, order=OrderRules("seed", repeats=100))
    order = reading_order(pairs, "Anna")
    swapped = sum(reading.cases == ("case_0002", "case_0001") for reading in order)
    assert 200 < swapped < 300
    side = {(reading.item, reading.repeat): reading.cases for reading in order}
    assert len({side[item, 0] == side[item, 1] for item, repeat in side if repeat}) == 2


@pytest.mark.parametrize("name", ["", "   ", "a\nb" * 40, "x" * 65, "tab\x00"])
def test_names_that_no_file_can_carry_are_refused(name):
    with pytest.raises(InputError, match="cannot name a reader"):
        checked_reader(name)
