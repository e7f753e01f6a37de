"""The training stages on tiny networks and made-up cases: they learn, resume exactly, stop when asked, and export."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medlord.conditions import Conditions
from medlord.errors import CancelledError, InputError, WeightsError
from medlord.synthesis import synthesize
from medlord.training.cases import load_case, prepare_files, save_case
from medlord.training.control import dropped_channels
from medlord.training.optimisation import generator_for
from medlord.training.pipeline import TrainingPlan
from medlord.volume_files import save_volume
from medlord.volumes import Grid, Volume

SHAPE, SPACING = (16, 16, 8), (20.0, 20.0, 30.0)
CONFIG = {
    "id": "trained",
    "version": "1.0",
    "title": "Test",
    "licence": "Apache-2.0",
    "grid": {"shape": list(SHAPE), "spacing_mm": list(SPACING), "orientation": "RAS"},
    "window_hu": [-1000, 1000],
    "conditions": ["body", "lung"],
    "attributes": {"contrast_phase": ["native", "arterial"]},
    "schedule": {"kind": "cosine", "training_steps": 50},
    "prediction_type": "v_prediction",
    "data": {"first_seed": 0, "cases": 4},
    "autoencoder": {
        "network": {
            "channels": [8, 8],
            "num_res_layers": 1,
            "strides": [2, [2, 2, 1]],
            "num_embeddings": 64,
            "embedding_dim": 4,
            "revival_threshold": 0.05,
        },
        "training": {
            "steps": 120,
            "warmup": 5,
            "batch": 2,
            "crop": [16, 16, 8],
            "learning_rate": 0.005,
            "checkpoint_every": 40,
        },
    },
    "diffusion": {
        "network": {
            "in_channels": 4,
            "out_channels": 4,
            "channels": [8, 16],
            "num_res_blocks": [1, 1],
            "attention_levels": [False, True],
            "num_head_channels": 8,
            "norm_num_groups": 4,
        },
        "training": {"steps": 12, "batch": 2, "learning_rate": 0.002, "checkpoint_every": 4},
    },
    "control": {
        "network": {"embedding_channels": [4, 8], "embedding_strides": [2, [2, 2, 1]]},
        "training": {
            "steps": 12,
            "batch": 2,
            "learning_rate": 0.002,
            "checkpoint_every": 4,
            "sparse_share": 0.3,
        },
    },
}


def make_cases(folder, count=4):
    folder.mkdir(parents=True)
    grid = Grid.centered(SHAPE, SPACING)
    for number in range(count):
        draw = np.random.default_rng(number)
        body = np.zeros(SHAPE, bool)
        body[3:13, 3:13] = True
        lung = np.zeros(SHAPE, bool)
        lung[5 : 7 + number, 5:11, 2:6] = True
        hu = np.where(lung, -850, np.where(body, 40, -1000)) + draw.normal(0, 10, SHAPE)
        phase = ["native", "arterial"][number % 2]
        save_case(
            folder / f"case_{number:03d}.npz",
            Volume(hu.astype(np.float32), grid),
            Conditions(grid, {"body": body, "lung": lung}),
            {"contrast_phase": phase},
        )


@pytest.fixture
def plan(tmp_path):
    make_cases(tmp_path / "cases")
    return TrainingPlan(copy.deepcopy(CONFIG), tmp_path)


def losses(plan, stage):
    return [json.loads(line) for line in (plan.folder / stage / "log.jsonl").read_text().splitlines()]


def weights(plan, stage):
    return load_file(plan.folder / stage / "checkpoint" / "networks.safetensors")


def test_cases_keep_voxels_masks_and_attributes(tmp_path):
    make_cases(tmp_path / "cases", count=2)
    case = load_case(tmp_path / "cases" / "case_001.npz")
    assert case.image_hu.shape == SHAPE and case.conditions == ["body", "lung"]
    assert case.masks[1].sum() == 3 * 6 * 4 and abs(case.image_hu[case.masks[1]].mean() + 850) < 5
    assert case.attributes == {"contrast_phase": "arterial"}


def test_an_engineers_own_files_become_cases(tmp_path):
    grid = Grid.centered((32, 32, 16), (10.0, 10.0, 15.0))
    hu = np.full(grid.shape, -1000, np.int16)
    hu[8:24, 8:24, 4:12] = 50
    ct = save_volume(Volume(hu, grid), tmp_path / "ct.nii.gz")
    body = save_volume(Volume(hu > 0, grid), tmp_path / "body.nii.gz")
    entry = {"ct": str(ct), "conditions": {"body": str(body)}, "attributes": {"contrast_phase": "native"}}
    prepare_files(tmp_path / "cases", [entry], Grid.centered(SHAPE, SPACING), ["body", "lung"])
    case = load_case(tmp_path / "cases" / "case_000001.npz")
    assert case.masks[0].sum() == 8 * 8 * 4 and not case.masks[1].any()
    with pytest.raises(InputError, match="unknown conditions"):
        entry["conditions"] = {"liver": str(body)}
        prepare_files(tmp_path / "more", [entry], Grid.centered(SHAPE, SPACING), ["body"])


def test_whole_training_learns_and_its_bundle_synthesizes(plan, tmp_path):
    for stage in ("autoencoder", "encode", "diffusion", "control"):
        plan.run(stage)
    first, last = losses(plan, "autoencoder")[0], losses(plan, "autoencoder")[-1]
    assert last["l1"] < 0.8 * first["l1"]
    latents = torch.stack(
        [load_file(path)["latent"] for path in sorted((tmp_path / "latents").glob("*.safetensors"))]
    )
    assert plan.scale_factor() == pytest.approx(1 / float(latents.double().std()), rel=1e-6)
    started = plan.trained_control().controlnet_cond_embedding.conv_out.weight
    assert started.abs().max() > 0, "the zero-initialised projection has learned nothing"
    plan.export(tmp_path / "bundle", "card", "licence")
    case = load_case(tmp_path / "cases" / "case_000.npz")
    conditions = Conditions(
        Grid.centered(SHAPE, SPACING), dict(zip(["body", "lung"], case.masks, strict=True))
    )
    result = synthesize(conditions, tmp_path / "bundle", steps=5, device="cpu")
    assert result.volume.array.shape == SHAPE and result.volume.array.dtype == np.int16
    with pytest.raises(InputError, match="holds a model already"):
        plan.export(tmp_path / "bundle", "card", "licence")


@pytest.mark.parametrize("stage", ["autoencoder", "diffusion", "control"])
def test_interrupted_training_ends_like_an_uninterrupted_one(tmp_path, stage):
    before = {"autoencoder": [], "diffusion": ["autoencoder", "encode"]}
    before["control"] = [*before["diffusion"], "diffusion"]
    results = []
    for name in ("whole", "killed"):
        make_cases(tmp_path / name / "cases")
        plan = TrainingPlan(copy.deepcopy(CONFIG), tmp_path / name)
        for earlier in before[stage]:
            plan.run(earlier)
        if name == "killed":
            asked = iter([False] * 7 + [True] * 99)
            with pytest.raises(CancelledError, match="checkpoint is kept"):
                plan.run(stage, cancel=lambda: next(asked))  # noqa: B023
        plan.run(stage)
        results.append(weights(plan, stage))
    assert results[0].keys() == results[1].keys()
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key]), key


def test_same_seed_same_weights_other_seed_other_weights(tmp_path):
    results = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_cases(tmp_path / name / "cases")
        config = copy.deepcopy(CONFIG)
        config["autoencoder"]["training"].update(seed=seed, steps=4)
        plan = TrainingPlan(config, tmp_path / name)
        plan.run("autoencoder")
        results.append(weights(plan, "autoencoder")["autoencoder.encoder.blocks.0.conv.weight"])
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_adversary_takes_part_when_switched_on(tmp_path):
    make_cases(tmp_path / "cases")
    config = copy.deepcopy(CONFIG)
    config["autoencoder"]["training"].update(
        steps=20,
        adversarial_weight=0.01,
        spectral_weight=0.1,
        squared_weight=1.0,
        crop=[16, 16, 8],
        discriminator={"channels": 4, "num_layers_d": 1},
    )
    plan = TrainingPlan(config, tmp_path)
    plan.run("autoencoder")
    assert {"adversarial", "discriminator", "spectral", "squared"} <= set(losses(plan, "autoencoder")[-1])
    config["autoencoder"]["training"]["discriminator"] = None
    make_cases(tmp_path / "other" / "cases")
    with pytest.raises(InputError, match="discriminator is missing"):
        TrainingPlan(config, tmp_path / "other").run("autoencoder")


def test_checkpoint_of_other_networks_is_refused(plan):
    plan.run("autoencoder")
    config = copy.deepcopy(CONFIG)
    config["autoencoder"]["network"]["num_res_layers"] = 2
    config["autoencoder"]["training"]["steps"] = 140
    with pytest.raises(WeightsError, match="does not fit"):
        TrainingPlan(config, plan.folder).run("autoencoder")


def test_stages_out_of_order_and_unknown_keys_are_refused(plan):
    with pytest.raises(InputError, match="run it first"):
        plan.run("encode")
    with pytest.raises(InputError, match="Unknown stage"):
        plan.run("everything")
    plan.config["autoencoder"]["training"]["stepz"] = 3
    with pytest.raises(InputError, match="stepz"):
        plan.run("autoencoder")


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
