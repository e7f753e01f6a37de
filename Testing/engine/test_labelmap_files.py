"""Labelmaps of masks that overlap: every combination has a value, and the table gives the masks back."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medlord.conditions import Conditions
from medlord.labelmap_files import combine_masks, write_labelmap
from medlord.segmentation_files import read_labels, read_segmentation
from medlord.volumes import Grid

GRID = Grid((4, 3, 5), np.array([[0, -2.0, 0, 30], [1.5, 0, 0, -20], [0, 0, 3.0, 400], [0, 0, 0, 1]]))


def test_the_masks_come_back_from_the_files(tmp_path):
    masks = {name: np.zeros(GRID.shape, bool) for name in ("body", "lung", "aorta", "spleen")}
    masks["body"][:, 1:] = True
    masks["lung"][1:3, 1:] = True
    masks["aorta"][0, 0] = True
    table = write_labelmap(tmp_path / "a.nii.gz", tmp_path / "a.json", GRID, masks)
    assert table == {"body": [1, 3], "lung": [3], "aorta": [2], "spleen": []}
    assert json.loads((tmp_path / "a.json").read_text()) == table
    labels = read_labels(tmp_path / "a.json")
    assert labels == {1: "body", 2: "aorta", 3: ("body", "lung")}
    read = read_segmentation(tmp_path / "a.nii.gz", labels)
    assert read.grid.matches(GRID) and read.layers.dtype == np.uint8 and read.unnamed_values() == []
    found = read.conditions(["body", "lung", "aorta"]).conditions
    assert all(np.array_equal(found[name], masks[name]) for name in found.names)


@settings(max_examples=40, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 6), *(st.just(n) for n in GRID.shape))))
def test_any_masks_are_the_unions_of_their_values(masks):
    named = {f"structure {number}": mask for number, mask in enumerate(masks)}
    labelmap, table = combine_masks(Conditions(GRID, named))
    for name, mask in named.items():
        assert np.array_equal(np.isin(labelmap, table[name]), mask)
    occurring = set(np.unique(labelmap).tolist()) - {0}
    assert occurring == {value for values in table.values() for value in values}
    assert occurring == set(range(1, len(occurring) + 1))
    assert len(occurring) == len(
        {column for column in map(tuple, masks.reshape(len(masks), -1).T) if any(column)}
    )
