"""A configuration with a mistake anywhere is refused before the first stage runs, with the place and what it takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from medlord.errors import InputError
from medlord.training.commands import train
from medlord.training.config import load_config
from medlord.training.pipeline import TRAINING_SECTIONS, TrainingPlan

BUNDLED = Path(__file__).resolve().parents[3] / "Resources" / "Training" / "thorax-phantom.yaml"


def refused(config, folder, stage, name, wrong):
    config[stage]["training"][name] = wrong
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=re.escape(f"{stage}.training.{name} is ")) as caught:
        train(folder / "config.yaml", None, folder / "work")
    assert "it takes" in str(caught.value)
    assert not (folder / "work").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("noisy_shares", 0.5),
        ("noisy_shares", [6, 0.6]),
        ("noisy_shares", [["6", 0.6]]),
        ("noisy_shares", [[6, "0.6"]]),
        ("noisy_shares", [[6, 0.6], [6, 0.7]]),
        ("noisy_shares", [[0, 1.5]]),
        ("noisy_shares", [[0, -0.1]]),
        ("noisy_shares", [[5, 0.5], [0, 0.1]]),
        ("later_drops", {6: {"drop_each": 0.1}}),
        ("later_drops", [[0, 0.1]]),
        ("later_drops", [[0, {"drop_everything": 0.1}]]),
        ("later_drops", [[0, {"drop_each": 1.1}]]),
        ("later_drops", [[5, {"drop_each": 0.1}], [0, {}]]),
        ("condition_weights", [[0, {"liver": 2}]]),
        ("condition_weights", [[0, {"lung": 0.5}]]),
        ("condition_weights", [[0, {"lung": float("inf")}]]),
        ("condition_weights", [[5, {"lung": 2}], [0, {}]]),
        ("condition_weights", {"lung": 2}),
        ("drop_all", 1.5),
        ("drop_each", "0.1"),
        ("sparse_share", None),
        ("train_denoiser", "no"),
        ("loss", "l3"),
    ],
)
def test_wrong_settings_of_the_control(tmp_path, config, name, wrong):
    refused(config, tmp_path, "control", name, wrong)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("condition_weights", ["lung"]),
        ("condition_weights", {"liver": 2}),
        ("condition_weights", [[5, {"lung": 2}]]),
        ("condition_weights", {"lung": 70000}),
        ("crop", [64, 64]),
        ("condition_share", 2),
    ],
)
def test_wrong_settings_of_the_decoder(tmp_path, config, name, wrong):
    refused(config, tmp_path, "decoder", name, wrong)


@pytest.mark.parametrize("stage", TRAINING_SECTIONS)
@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("steps", "10"),
        ("steps", True),
        ("batch", 0),
        ("seed", -1),
        ("warmup", None),
        ("cooldown", 0),
        ("cooldown", "4"),
        ("learning_rate", "1e-3"),
        ("gradient_clip", 0),
        ("seed", 10**400),
        ("weight_decay", float("nan")),
        ("precision", "double"),
        ("precision", "float16"),
        ("checkpoint_every", 0),
        ("earlier_ends", 6),
        ("earlier_ends", [8, 6]),
        ("earlier_ends", [6, 6]),
        ("earlier_ends", [6, 121]),
    ],
)
def test_wrong_settings_of_any_stage(tmp_path, config, stage, name, wrong):
    refused(config, tmp_path, stage, name, wrong)


def test_a_number_that_yaml_takes_for_text_is_explained(tmp_path, config):
    assert "YAML takes 1e-3 for text" in refused(config, tmp_path, "control", "weight_decay", "1e-2")
    assert "YAML" not in refused(config, tmp_path, "control", "weight_decay", "little")


@pytest.mark.parametrize("stage", TRAINING_SECTIONS)
def test_unknown_settings_of_any_stage(tmp_path, config, stage):
    config[stage]["training"]["learning_rat"] = 0.1
    with pytest.raises(InputError, match=rf"Section '{stage}.training' .*learning_rat'"):
        TrainingPlan(config, tmp_path)


def test_an_adversary_needs_its_network(tmp_path, config):
    config["autoencoder"]["training"]["adversarial_weight"] = 0.1
    with pytest.raises(InputError, match="there is no autoencoder.training.discriminator"):
        TrainingPlan(config, tmp_path)


ENTRY = {"ct": "ct.nii.gz", "conditions": {"lung": "lung.nii.gz"}, "attributes": {"contrast_phase": "native"}}


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("conditions", None, "conditions is None"),
        ("conditions", "body", "conditions is 'body'"),
        ("conditions", ["body", "body"], "conditions is "),
        ("conditions", ["body", False], "conditions is "),
        ("attributes", None, "attributes is None"),
        ("attributes", {"contrast_phase": "native"}, "attributes is "),
        ("grid", {"shape": 16, "spacing_mm": [1, 1, 1], "orientation": "RAS"}, "grid.shape is 16"),
        ("grid", {"shape": [8, 8, 8], "spacing_mm": [1, 0, 1], "orientation": "RAS"}, "grid.spacing_mm is "),
        ("data", None, "no section 'data'"),
        ("window_huu", [0, 1], "does not know 'window_huu' .meant is window_hu"),
        ("later", 1, "does not know 'later'"),
        ("data", {"first_seed": "a", "cases": 2}, "data is "),
        ("data", {"first_seed": 0, "cases": 0}, "data is "),
        ("data", {"files": None}, "data.files is None"),
        ("data", {"files": []}, r"data.files is \[\]"),
        ("data", {"own_cases": 12}, "own_cases"),
        ("data", {"files": ["ct.nii.gz"]}, "Case 1 of data.files is 'ct.nii.gz'"),
        ("data", {"files": [ENTRY, {"conditions": {}}]}, "Case 2 of data.files is "),
        ("data", {"files": [{**ENTRY, "masks": {}}]}, "Case 1 of data.files has masks"),
        ("data", {"files": [{**ENTRY, "conditions": ["lung"]}]}, "has conditions "),
        ("data", {"files": [{**ENTRY, "conditions": {"liver": "a"}}]}, "unknown conditions .'liver'"),
        (
            "data",
            {"files": [{**ENTRY, "attributes": {"contrast_phase": "arteriel"}}]},
            "Case 1 of data.files: 'arteriel' is no contrast_phase",
        ),
    ],
)
def test_wrong_data_and_names(tmp_path, config, name, wrong, message):
    config[name] = wrong
    with pytest.raises(InputError, match=message):
        TrainingPlan(config, tmp_path)


def test_every_key_that_is_missing_is_named(tmp_path, config):
    config["window"] = config.pop("window_hu")
    del config["id"], config["control"]
    with pytest.raises(InputError, match="'window' .meant is window_hu.*lacks 'id'.*'window_hu'.*'control'"):
        TrainingPlan(config, tmp_path)


def test_entries_may_leave_out_conditions_and_attributes(tmp_path, config):
    config["data"] = {"files": [ENTRY, {"ct": "a.nii.gz"}, {**ENTRY, "conditions": None, "attributes": None}]}
    TrainingPlan(config, tmp_path)


def test_the_bundled_configuration_is_right(tmp_path):
    TrainingPlan(load_config(BUNDLED), tmp_path)
