"""Tiny networks and made-up cases that the tests of the training stages share."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest

from medlord.conditions import Conditions
from medlord.training.cases import save_case
from medlord.training.config import write_origin
from medlord.training.pipeline import STAGES, TrainingPlan
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
    "decoder": {
        "training": {
            "steps": 12,
            "batch": 2,
            "crop": [16, 16, 8],
            "optimizer": "muon",
            "learning_rate": 0.005,
            "squared_weight": 1.0,
            "spectral_weight": 0.1,
            "condition_weights": {"lung": 4},
            "warmup": 2,
            "checkpoint_every": 4,
        }
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
    """Write `count` cases: a block of a body with a lung that grows from case to case."""
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
    write_origin(folder, {name: CONFIG[name] for name in ("grid", "data", "conditions")})


@pytest.fixture
def config():
    """The configuration of the tiny training, free to be changed."""
    return copy.deepcopy(CONFIG)


@pytest.fixture
def write_cases():
    """Function (folder) that writes four cases as the stage `prepare` would leave them."""
    return make_cases


@pytest.fixture
def plan(tmp_path, config):
    """A plan whose folder holds cases and nothing else."""
    make_cases(tmp_path / "cases")
    return TrainingPlan(config, tmp_path)


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    """A folder in which all stages have run; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    make_cases(folder / "cases")
    plan = TrainingPlan(copy.deepcopy(CONFIG), folder)
    for stage in STAGES[1:]:
        plan.run(stage)
    return folder


@pytest.fixture
def trained(trained_once, tmp_path, config):
    """A plan of its own copy of the trained folder."""
    return TrainingPlan(config, shutil.copytree(trained_once, tmp_path / "trained"))
