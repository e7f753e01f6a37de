"""Several seeds of one mask: siblings in one folder, their standard deviation, the seeds themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scene_building import AFFINE, SHAPE, add_chest, chest_masks, folder_content, scene_content, synthetic

from medlord.errors import InputError
from medlord.volumes import Grid
from MedLoRDSlicerLib.arrays import volume_from_node, volume_grid
from MedLoRDSlicerLib.results import SampleSet, add_run
from MedLoRDSlicerLib.seeds import (
    HIGHEST_SEED,
    add_standard_deviation,
    random_seed,
    sibling_seeds,
    synthetic_siblings,
)

GRID = Grid(SHAPE, AFFINE)


def add(scene, seed, samples=None, masks=None, name="CT", **changes):
    volume, conditions = synthetic(GRID, masks or chest_masks(), seed, **changes)
    return add_run(scene, volume, conditions, f"{name} seed {seed}", {"seed": str(seed)}, samples=samples)


def test_seeds_of_one_mask_share_a_folder_segmentation_and_table(scene):
    samples = SampleSet("Four samples")
    runs = [add(scene, seed, samples) for seed in (7, 8, 9, 7)]
    assert len({run.folder_item for run in runs}) == 1
    assert len({run.conditions.GetID() for run in runs}) == len({run.table.GetID() for run in runs}) == 1
    content = folder_content(scene, runs[0].folder_item)
    assert len(content) == 6 and len(set(content)) == 6
    table = runs[0].table.GetTable()
    assert table.GetNumberOfRows() == 3
    titles = [table.GetColumnName(number) for number in range(table.GetNumberOfColumns())]
    expected = ["Mean HU, seed 7", "Mean HU, seed 8", "Mean HU, seed 9", "Mean HU, seed 7 (1)"]
    assert [title for title in titles if title.startswith("Mean HU")] == expected
    columns = [table.GetColumnByName(name) for name in ("Mean HU, seed 7", "Mean HU, seed 7 (1)")]
    assert columns[0].GetValue(0) == columns[1].GetValue(0)
    assert all(run.volume.GetNodeReference("MedLoRD.conditions") is runs[0].conditions for run in runs)


def test_other_masks_or_a_folder_that_is_gone_get_a_folder_of_their_own(scene):
    samples = SampleSet()
    first = add(scene, 1, samples)
    masks = chest_masks()
    masks["bone"][11:13, 14:16] = False
    other = add(scene, 2, samples, masks)
    assert other.folder_item != first.folder_item and other.conditions is not first.conditions
    scene.RemoveNode(other.conditions)
    third = add(scene, 3, samples, masks)
    assert third.folder_item not in (first.folder_item, other.folder_item)
    scene.Clear()
    fourth = add(scene, 4, samples)
    assert fourth.volume.GetScene() is scene and len(folder_content(scene, fourth.folder_item)) == 3


def test_the_standard_deviation_is_that_of_the_voxels(scene):
    samples = SampleSet()
    runs = [add(scene, seed, samples) for seed in (3, 4, 5)]
    node = add_standard_deviation(scene, [run.volume for run in runs])
    expected = np.std([volume_from_node(run.volume).array for run in runs], axis=0, ddof=1)
    found = volume_from_node(node)
    assert found.array.dtype == np.float32 and found.grid.matches(GRID)
    np.testing.assert_allclose(found.array, expected, rtol=1e-5, atol=1e-3)
    assert node.GetAttribute("MedLoRD.seeds") == "3, 4, 5" and node.GetAttribute("synthetic") == "1"
    assert node.GetAttribute("DICOM.SeriesDescription").startswith("SYNTHETIC SD")
    assert node.GetName() in folder_content(scene, runs[0].folder_item)
    display = node.GetDisplayNode()
    assert display.GetColorNode().GetNumberOfColors() == 256 and not display.GetAutoWindowLevel()
    low, high = (display.GetLevel() + sign * display.GetWindow() / 2 for sign in (-1, 1))
    assert low == pytest.approx(0.0) and np.median(expected) < high <= expected.max()
    again = add_standard_deviation(scene, [run.volume for run in runs[:2]])
    assert again.GetDisplayNode().GetColorNode() is display.GetColorNode()
    assert again.GetName() != node.GetName()


def test_the_colours_get_lighter_all_the_way(scene):
    node = add_standard_deviation(scene, [add(scene, seed).volume for seed in (1, 2)])
    colours, rgba, lightness = node.GetDisplayNode().GetColorNode(), [0.0] * 4, []
    for number in range(256):
        colours.GetColor(number, rgba)
        lightness.append(0.2126 * rgba[0] + 0.7152 * rgba[1] + 0.0722 * rgba[2])
    assert lightness == sorted(lightness) and lightness[0] == 0.0 and lightness[-1] > 0.9


def test_what_differs_in_more_than_its_seed_is_refused(scene):
    base = add(scene, 1).volume
    masks = chest_masks()
    masks["lung"][5:8] = False
    moved = Grid(SHAPE, GRID.affine @ np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    volume, conditions = synthetic(moved, chest_masks(), 5)
    others = {
        "steps": add(scene, 2, steps=4).volume,
        "attributes": add(scene, 3, attributes={"contrast_phase": "native"}).volume,
        "masks": add(scene, 4, masks=masks).volume,
        "grid": add_run(scene, volume, conditions, "Moved", {}).volume,
        "weights_sha256": add(scene, 6, weights_sha256={"models/denoiser.safetensors": "1" * 64}).volume,
    }
    plain = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Scan")
    twin = add(scene, 1).volume
    before = scene_content(scene)
    for word, other in others.items():
        with pytest.raises(InputError, match=word):
            add_standard_deviation(scene, [base, other])
    with pytest.raises(InputError, match="carries no MedLoRD recipe"):
        add_standard_deviation(scene, [base, plain])
    with pytest.raises(InputError, match="seeds 1, 1 are not all different"):
        add_standard_deviation(scene, [base, twin])
    with pytest.raises(InputError, match="at least 2 seeds"):
        add_standard_deviation(scene, [base])
    assert scene_content(scene) == before
    assert synthetic_siblings(base) == [base]


def test_siblings_are_found_in_the_scene(scene):
    runs = [add(scene, seed) for seed in (9, 2, 5)]
    add(scene, 6, steps=4)
    add_chest(scene)
    assert [node.GetName() for node in synthetic_siblings(runs[0].volume)] == [
        "CT seed 2",
        "CT seed 5",
        "CT seed 9",
    ]
    assert volume_grid(runs[0].volume).matches(GRID)


def test_of_two_with_the_same_seed_the_one_in_the_same_folder_is_a_sibling(scene):
    add(scene, 7)
    samples = SampleSet("Two samples")
    runs = [add(scene, seed, samples) for seed in (7, 8)]
    siblings = synthetic_siblings(runs[1].volume)
    assert siblings == [run.volume for run in runs]
    deviation = add_standard_deviation(scene, siblings)
    assert deviation.GetName() in folder_content(scene, runs[0].folder_item)


def test_seeds_fit_a_spin_box():
    assert all(0 <= random_seed() <= HIGHEST_SEED == 2**31 - 1 for _ in range(20))
    assert len({random_seed() for _ in range(20)}) > 1
    assert sibling_seeds(HIGHEST_SEED - 1, 3) == [HIGHEST_SEED - 1, HIGHEST_SEED, 0]


def test_the_table_says_what_was_measured(scene):
    volume, conditions = synthetic(GRID, chest_masks(), 11)
    nodes = add_run(scene, volume, conditions, "CT", {})
    table, node = nodes.table.GetTable(), nodes.table
    names = [table.GetColumnByName("Structure").GetValue(row) for row in range(table.GetNumberOfRows())]
    assert names == ["body", "lung", "bone"]
    for row, name in enumerate(names):
        values = volume.array[conditions[name]]
        assert table.GetColumnByName("Mean HU, seed 11").GetValue(row) == pytest.approx(
            values.mean(), abs=1e-3
        )
        assert table.GetColumnByName("SD HU, seed 11").GetValue(row) == pytest.approx(values.std(), abs=1e-3)
        expected = conditions[name].sum() * GRID.voxel_volume_ml
        assert table.GetColumnByName("Volume on the grid").GetValue(row) == pytest.approx(expected, abs=1e-3)
    assert table.GetColumnByName("Volume drawn") is None
    assert node.GetColumnUnitLabel("Volume on the grid") == "ml"
    assert "under the mask that was given" in node.GetColumnDescription("Mean HU, seed 11")
    assert json.loads(nodes.volume.GetAttribute("MedLoRD.recipe"))["seed"] == 11
