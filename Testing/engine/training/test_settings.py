"""A configuration with a mistake anywhere is refused before the first stage runs, with the place and what it takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from medlord.errors import InputError
from medlord.training.config import load_config
from medlord.training.pipeline import TRAINING_SECTIONS, TrainingPlan

BUNDLED = Path(__file__).resolve().parents[3] / "Resources" / "Training" / "thorax-phantom.yaml"


def refused(config, folder, stage, name, wrong):
    config[stage]["training"][name] = wrong
    with pytest.raises(InputError, match=re.escape(f"{stage}.training.{name} is ")) as caught:
        TrainingPlan(config, folder)
    assert "it takes" in str(caught.value)
    assert not any(folder.iterdir())


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
        ("precision", "double"),
        ("checkpoint_every", 0),
        ("earlier_ends", 6),
        ("earlier_ends", [8, 6]),
        ("earlier_ends", [6, 6]),
        ("earlier_ends", [6, 121]),
    ],
)
def test_wrong_settings_of_any_stage(tmp_path, config, stage, name, wrong):
    refused(config, tmp_path, stage, name, wrong)


@pytest.mark.parametrize("stage", TRAINING_SECTIONS)
def test_unknown_settings_of_any_stage(tmp_path, config, stage):
    config[stage]["training"]["learning_rat"] = 0.1
    with pytest.raises(InputError, match=rf"Section '{stage}.training' .*learning_rat'"):
        TrainingPlan(config, tmp_path)


def test_an_adversary_needs_its_network(tmp_path, config):
    config["autoencoder"]["training"]["adversarial_weight"] = 0.1
    with pytest.raises(InputError, match="there is no autoencoder.training.discriminator"):
        TrainingPlan(config, tmp_path)


def test_the_bundled_configuration_is_right(tmp_path):
    TrainingPlan(load_config(BUNDLED), tmp_path)
