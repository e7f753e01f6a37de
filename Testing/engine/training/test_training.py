"""The training stages on tiny networks and made-up cases: they learn, depend on the seed, and export."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medlord.conditions import Conditions
from medlord.errors import InputError
from medlord.networks.build import build_control
from medlord.sampling.schedule import NoiseSchedule
from medlord.synthesis import synthesize
from medlord.training.cases import load_case
from medlord.training.control import PackedMasks, dropped_channels
from medlord.training.diffusion import noisy_batch
from medlord.training.latents import load_latents
from medlord.training.optimisation import generator_for
from medlord.training.pipeline import TrainingPlan
from medlord.volumes import Grid


def losses(folder, stage):
    return [json.loads(line) for line in (folder / stage / "log.jsonl").read_text().splitlines()]


def test_autoencoder_learns_and_the_scale_factor_is_measured(trained):
    first, last = losses(trained.folder, "autoencoder")[0], losses(trained.folder, "autoencoder")[-1]
    assert last["l1"] < 0.8 * first["l1"]
    latents = torch.stack(
        [load_file(path)["latent"] for path in sorted((trained.folder / "latents").glob("*.safetensors"))]
    )
    assert trained.scale_factor() == pytest.approx(1 / float(latents.double().std()), rel=1e-6)


def test_control_lowers_the_loss_of_the_denoiser_it_steers(trained):
    trained.config["control"]["training"].update(steps=150, learning_rate=0.01)
    shutil.rmtree(trained.folder / "control")
    trained.run("control")
    names, latents = load_latents(trained.folder / "latents")
    masks = PackedMasks(trained.folder / "cases", names, trained.conditions, trained.attributes)
    condition = torch.cat([masks.tensor(index) for index in range(len(names))])
    denoiser = trained.trained_denoiser()
    noisy, timesteps, velocity = noisy_batch(
        (latents * trained.scale_factor()).repeat(16, 1, 1, 1, 1),
        NoiseSchedule.from_dict(trained.config["schedule"]),
        generator_for(0, 0, "fixed noise"),
    )

    @torch.no_grad()
    def loss(control):
        embedded = control.embed_condition(condition.repeat(16, 1, 1, 1, 1))
        down, middle = control(noisy, timesteps, embedded)
        return float((denoiser(noisy, timesteps, down, middle) - velocity).abs().mean())

    torch.manual_seed(0)
    untrained = build_control(trained.control_config, trained.denoiser_config).eval()
    before, after = loss(untrained), loss(trained.trained_control())
    assert after < 0.99 * before, (before, after)


def test_bundle_of_a_training_synthesizes(trained, tmp_path):
    trained.export(tmp_path / "bundle", "card", "licence")
    case = load_case(trained.folder / "cases" / "case_000.npz")
    masks = dict(zip(["body", "lung"], case.masks, strict=True))
    conditions = Conditions(Grid.centered(case.image_hu.shape, (20.0, 20.0, 30.0)), masks)
    result = synthesize(conditions, tmp_path / "bundle", steps=5, device="cpu")
    assert result.volume.array.shape == case.image_hu.shape and result.volume.array.dtype == np.int16
    with pytest.raises(InputError, match="holds a model already"):
        trained.export(tmp_path / "bundle", "card", "licence")


def test_same_seed_same_weights_other_seed_other_weights(tmp_path, config, write_cases):
    results = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_cases(tmp_path / name / "cases")
        config["autoencoder"]["training"].update(seed=seed, steps=4)
        plan = TrainingPlan(config, tmp_path / name)
        plan.run("autoencoder")
        results.append(plan.trained_autoencoder().encoder.blocks[0].conv.weight)
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_adversary_takes_part_when_switched_on(tmp_path, plan):
    settings = plan.config["autoencoder"]["training"]
    settings.update(steps=20, adversarial_weight=0.01, spectral_weight=0.1, squared_weight=1.0)
    settings["discriminator"] = {"channels": 4, "num_layers_d": 1}
    plan.run("autoencoder")
    assert {"adversarial", "discriminator", "spectral", "squared"} <= set(losses(tmp_path, "autoencoder")[-1])


def test_stages_out_of_order_and_unknown_keys_are_refused(plan):
    with pytest.raises(InputError, match="run it first"):
        plan.run("encode")
    with pytest.raises(InputError, match="Unknown stage"):
        plan.run("everything")
    plan.config["autoencoder"]["training"]["stepz"] = 3
    with pytest.raises(InputError, match="stepz"):
        plan.run("autoencoder")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("prediction_type", "epsilon", "prediction_type is 'epsilon'"),
        ("window_hu", [1000, -1000], "the lower first"),
        ("window_hu", 1000, "two HU values"),
    ],
)
def test_what_training_cannot_do_is_refused_at_once(tmp_path, config, key, value, message):
    config[key] = value
    with pytest.raises(InputError, match=message):
        TrainingPlan(config, tmp_path)


def test_condition_dropout_has_the_stated_rates():
    draws = torch.stack(
        [dropped_channels(10, 0.1, 0.1, 0.0, generator_for(0, n, "test")) for n in range(4000)]
    )
    assert (~draws.any(dim=1)).float().mean() == pytest.approx(0.1, abs=0.015)
    assert draws.float().mean() == pytest.approx(0.9 * 0.9, abs=0.01)
    sparse = torch.stack(
        [dropped_channels(10, 0.0, 0.1, 1.0, generator_for(1, n, "test")) for n in range(2000)]
    )
    kept = sparse.sum(dim=1)
    assert kept.float().mean() == pytest.approx(5, abs=0.3) and (kept <= 2).float().mean() > 0.15
