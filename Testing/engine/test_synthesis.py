"""Synthesis with a tiny model: placement in space, repeatability, recipes, cancel, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from support.tiny_bundle import GRID_SHAPE, write_tiny_bundle

from medlord.conditions import Conditions
from medlord.errors import CancelledError, InputError, WeightsError
from medlord.recipe import Recipe, load_recipe
from medlord.synthesis import repeat_recipe, synthesize
from medlord.volume_files import load_volume, save_volume
from medlord.volumes import Grid, Volume

GRID = Grid.centered((40, 40, 30), (8.0, 8.0, 8.0), center_ras_mm=(30.0, -20.0, 100.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("models"))


def box(low, high, grid=GRID):
    mask = np.zeros(grid.shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


@pytest.fixture
def conditions():
    return Conditions(GRID, {"body": box((4, 4, 2), (36, 36, 28)), "lung": box((8, 10, 6), (18, 30, 24))})


def run(conditions, model, **options):
    return synthesize(conditions, model, **{"steps": 4, "device": "cpu", **options})


def test_the_volume_lies_where_the_masks_lie(conditions, model):
    result = run(conditions, model)
    assert result.volume.array.shape == GRID_SHAPE and result.volume.array.dtype == np.int16
    low, high = conditions.bounding_box_ras_mm()
    assert np.allclose(result.volume.grid.center_ras_mm, (low + high) / 2)
    inside = np.argwhere(result.conditions["lung"]).mean(axis=0)
    drawn = np.argwhere(conditions["lung"]).mean(axis=0)
    world = result.volume.grid.affine @ [*inside, 1]
    assert np.allclose(world, GRID.affine @ [*drawn, 1], atol=6)
    assert result.timings_s.keys() == {"condition", "load", "denoise", "decode", "total"}
    assert any("bone" in sentence for sentence in result.warnings)


def test_one_seed_one_volume_another_seed_another(conditions, model):
    first, second = run(conditions, model, seed=3), run(conditions, model, seed=3)
    assert np.array_equal(first.volume.array, second.volume.array)
    assert not np.array_equal(first.volume.array, run(conditions, model, seed=4).volume.array)


@pytest.mark.parametrize("change", ["masks", "phase", "scale"])
def test_what_steers_changes_the_volume(conditions, model, change):
    plain = run(conditions, model).volume.array
    if change == "masks":
        other = Conditions(GRID, {**conditions.masks, "lung": box((20, 10, 6), (34, 30, 24))})
        changed = run(other, model)
    elif change == "phase":
        changed = run(conditions, model, attributes={"contrast_phase": "arterial"})
    else:
        changed = run(conditions, model, control_scale=0.0)
    assert not np.array_equal(plain, changed.volume.array)


def test_a_recipe_makes_the_volume_again_from_its_file(conditions, model, tmp_path):
    result = run(conditions, model, seed=11, attributes={"contrast_phase": "venous"})
    for name in ("ct.nii.gz", "ct.nrrd"):
        save_volume(result.volume, tmp_path / name, synthetic=True)
        recipe = load_recipe(tmp_path / name)
        assert recipe == result.recipe
        again = repeat_recipe(recipe, model=model, device="cpu")
        assert np.array_equal(again.volume.array, load_volume(tmp_path / name).array)
        assert again.warnings == []


def test_a_repeated_volume_tells_its_own_device_and_versions(conditions, model):
    recipe = run(conditions, model).recipe
    old = replace(recipe, device="cuda:0", versions={**recipe.versions, "torch": "1.0"})
    again = repeat_recipe(old, model=model, device="cpu")
    assert again.recipe.device == "cpu" and again.recipe.versions == recipe.versions
    assert any("torch 1.0" in sentence for sentence in again.warnings)
    with pytest.raises(InputError, match="float16 is no precision for the CPU"):
        repeat_recipe(replace(recipe, precision="float16"), model=model, device="cpu")


def test_recipes_of_other_weights_are_refused(conditions, model):
    recipe = run(conditions, model).recipe
    changed = {name: "0" * 64 for name in recipe.weights_sha256}
    with pytest.raises(WeightsError, match="other weights .* models/autoencoder.safetensors, models/control"):
        repeat_recipe(replace(recipe, weights_sha256=changed), model=model)
    with pytest.raises(InputError, match=r"recipe's model 'absent' \(version 1.0\) is not installed"):
        repeat_recipe(replace(recipe, model="absent"))


def test_recipes_of_other_settings_are_refused(conditions, model, tmp_path):
    """The same weights imported with another scale factor make another volume."""
    recipe = run(conditions, model).recipe
    other = shutil.copytree(model, tmp_path / "other")
    metadata = other / "configs" / "metadata.json"
    content = json.loads(metadata.read_text(encoding="utf-8"))
    content["medlord"]["scale_factor"] = 1.11
    metadata.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(WeightsError, match="has the weights of .* but other settings"):
        repeat_recipe(recipe, model=other, device="cpu")
    older = replace(recipe, settings_sha256="")
    again = repeat_recipe(older, model=model, device="cpu")
    assert again.recipe.settings_sha256 == recipe.settings_sha256 != ""
    assert Recipe.from_dict({k: v for k, v in recipe.to_dict().items() if k != "settings_sha256"}) == older


def damaged_recipes(recipe):
    grid = recipe.grid
    packed = recipe.conditions["lung"]["packed"]
    lung = recipe.conditions["lung"]
    yield replace(recipe, grid={})
    yield replace(recipe, grid={**grid, "shape": [100000, 100000, 100000]})
    yield replace(recipe, control_scale="1")
    yield replace(recipe, control_scale=float("nan"))
    yield replace(recipe, sampler=["unipc"])
    yield replace(recipe, sampler="unknown")
    yield replace(recipe, steps=0)
    yield replace(recipe, seed=-1)
    yield replace(recipe, guidance=3)
    yield replace(recipe, conditions=[])
    yield replace(recipe, conditions={"lung": {"sha256": "0"}})
    yield replace(recipe, conditions={"lung": {**lung, "packed": packed[:-8]}})
    yield replace(recipe, conditions={"lung": {**lung, "sha256": "0" * 64}})
    yield replace(recipe, conditions={"unheard_of": lung})
    yield replace(recipe, attributes={"contrast_phase": "blue"})


def test_damaged_recipes_are_one_sentence_each(conditions, model, tmp_path):
    for recipe in damaged_recipes(run(conditions, model).recipe):
        with pytest.raises(InputError) as caught:
            repeat_recipe(recipe, model=model, device="cpu")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no valid JSON"):
        Recipe.from_json("{")
    with pytest.raises(InputError, match="lacks"):
        Recipe.from_json("{}")
    (tmp_path / "recipe.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="recipe.json cannot be read"):
        load_recipe(tmp_path / "recipe.json")


@pytest.mark.parametrize("steps_before", [0, 1, 3])
def test_cancel_takes_effect_within_one_step(conditions, model, steps_before):
    done = []

    def progress(event):
        if event.phase == "denoise":
            done.append(event.step)

    with pytest.raises(CancelledError):
        run(conditions, model, steps=20, progress=progress, cancel=lambda: len(done) >= steps_before)
    assert len(done) == steps_before


def test_a_reference_places_the_grid_only_where_the_masks_fit(conditions, model):
    air = np.full(GRID.shape, -1000, np.int16)
    air[10:30, 10:30] = 40
    near = Volume(air, Grid(GRID.shape, GRID.affine + np.array([[0, 0, 0, 10.0]] + [[0] * 4] * 3)))
    far = Volume(air, Grid(GRID.shape, GRID.affine + np.array([[0, 0, 0, 300.0]] + [[0] * 4] * 3)))
    small = Conditions(GRID, {"lung": conditions["lung"]})
    assert np.allclose(run(small, model, reference=near).volume.grid.center_ras_mm, near.grid.center_ras_mm)
    low, high = small.bounding_box_ras_mm()
    assert np.allclose(run(small, model, reference=far).volume.grid.center_ras_mm, (low + high) / 2)
    with pytest.raises(InputError, match="no CT in HU"):
        run(small, model, reference=Volume(np.zeros(GRID.shape, np.int16), GRID))


def test_parts_outside_and_thin_parts_are_told(model):
    long = Grid.centered((20, 20, 60), (8.0, 8.0, 8.0))
    result = run(Conditions(long, {"body": box((4, 4, 0), (16, 16, 60), long)}), model)
    assert any("50% of 'body' lies outside" in sentence for sentence in result.warnings)
    fine = Grid.centered((40, 40, 40), (2.0, 2.0, 2.0))
    result = run(Conditions(fine, {"aorta": box((20, 20, 2), (22, 22, 38), fine)}), model)
    assert result.conditions["aorta"].any() and any(
        "'aorta' is thin" in sentence for sentence in result.warnings
    )


def test_nodules_lie_in_the_lung_as_in_training(conditions, tmp_path):
    model = write_tiny_bundle(tmp_path, conditions=["body", "lung", "lung_nodules", "aorta"])
    nodule = box((11, 18, 12), (14, 22, 18))
    whole = {**conditions.masks, "lung_nodules": nodule}
    painted_over = {**whole, "lung": conditions["lung"] & ~nodule}
    first, second = (run(Conditions(GRID, masks), model) for masks in (whole, painted_over))
    assert first.conditions["lung_nodules"].any()
    assert np.array_equal(first.conditions["lung"], second.conditions["lung"])
    assert np.array_equal(first.volume.array, second.volume.array)
    alone = run(Conditions(GRID, {"body": whole["body"], "lung_nodules": nodule}), model)
    assert "lung" not in alone.conditions
    assert "Note: not given, so left to the model: lung, aorta." in alone.warnings


def test_bad_input_is_refused_in_one_sentence(conditions, model):
    empty = Conditions(GRID, {"lung": np.zeros(GRID.shape, bool)})
    cases = {
        "All masks are empty": lambda: run(empty, model),
        "holds no structure": lambda: run(Conditions(GRID, {}), model),
        "ask for an unconditional volume": lambda: run(None, model),
        "leave one away": lambda: run(conditions, model, unconditional=True),
        "contrast_phase has no effect": lambda: run(
            None, model, unconditional=True, attributes={"contrast_phase": "native"}
        ),
        "No segment matches": lambda: run(Conditions(GRID, {"left_boot": conditions["lung"]}), model),
        "There is no model": lambda: run(conditions, "unheard-of"),
        "Unknown sampler": lambda: run(conditions, model, sampler="magic"),
        "no device 'cuda:9'": lambda: run(conditions, model, device="cuda:9"),
        "precision 'half'": lambda: run(conditions, model, precision="half"),
        "no contrast_phase": lambda: run(conditions, model, attributes={"contrast_phase": "blue"}),
        "no attribute 'age'": lambda: run(conditions, model, attributes={"age": "7"}),
        "seed -1": lambda: run(conditions, model, seed=-1),
        "control scale is 7": lambda: run(conditions, model, control_scale=7),
        "lies within the model's field of view": lambda: run(conditions, model, center_ras_mm=(5000, 0, 0)),
        "no position of three numbers": lambda: run(conditions, model, center_ras_mm=(0, float("nan"), 0)),
    }
    for words, call in cases.items():
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
