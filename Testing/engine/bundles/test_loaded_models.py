"""Models that stay in memory between runs: found again, replaced when their files change, freed for others."""

from __future__ import annotations

import functools
import os
import shutil
from dataclasses import replace

import pytest
import torch
from support.engine_clients import box_conditions
from support.tiny_bundle import write_tiny_bundle

from medlord.bundles.description import read_description
from medlord.bundles.loaded_models import LoadedModels
from medlord.errors import InsufficientMemoryError
from medlord.memory import planner
from medlord.memory.free import budget_bytes, held_bytes
from medlord.synthesis import synthesize

CPU = torch.device("cpu")


@pytest.fixture
def folders(tmp_path):
    return [write_tiny_bundle(tmp_path, model_id=name) for name in ("first", "second", "third")]


def run(model, models, **options):
    return synthesize(box_conditions(), model, steps=1, device="cpu", models=models, **options)


def test_a_model_is_loaded_once_until_its_files_change(folders):
    models, events = LoadedModels(), []
    for expected in ([0, 1], []):
        events.clear()
        run(folders[0], models, progress=events.append)
        assert [event.step for event in events if event.phase == "load"] == expected
    kept = models.get(folders[0], CPU)
    assert kept is not None and models.get(folders[0], CPU) is kept
    os.utime(folders[0] / "models" / "control.safetensors", (1, 1))
    assert models.get(folders[0], CPU) is None
    assert models.load(folders[0], CPU) is not kept and len(models) == 1


def test_a_copy_of_the_same_size_and_time_is_not_taken_for_the_model(folders, tmp_path):
    models, weights = LoadedModels(), folders[0] / "models" / "control.safetensors"
    models.load(folders[0], CPU)
    other = shutil.copy2(weights, tmp_path / "other")
    os.replace(other, weights)
    assert models.get(folders[0], CPU) is None


def test_other_settings_have_another_hash(folders):
    """The order of the attributes among them: it is that of the channels."""
    described = replace(
        read_description(folders[0]), attributes={"phase": ["native"], "dose": ["low", "full"]}
    )
    changed = [
        {"attributes": dict(reversed(described.attributes.items()))},
        {"attributes": {**described.attributes, "dose": ["full", "low"]}},
        {"conditions": described.conditions[::-1]},
        {"scale_factor": described.scale_factor * 2},
        {"window_hu": (-1000.0, 999.0)},
    ]
    hashes = {described.settings_sha256, *(replace(described, **one).settings_sha256 for one in changed)}
    assert len(hashes) == 1 + len(changed)
    assert replace(described, title="other").settings_sha256 == described.settings_sha256


def test_two_models_are_kept_and_the_one_that_was_used_last_stays(folders):
    models = LoadedModels()
    first, second = (models.load(folder, CPU) for folder in folders[:2])
    assert models.get(folders[0], CPU) is first
    models.load(folders[2], CPU)
    assert models.places == [(folders[0], "cpu"), (folders[2], "cpu")]
    weights = sum(
        weight.numel() * weight.element_size()
        for network in second.networks.values()
        for weight in network.state_dict().values()
    )
    assert models.bytes_beside(folders[0], CPU) == weights
    assert models.bytes_beside(folders[0], torch.device("cuda:0")) == 0
    assert models.clear() == 2 and len(models) == 0


def test_other_models_go_when_a_run_needs_their_memory(folders, monkeypatch):
    """And stay when the run would not fit without them either."""
    models = LoadedModels()
    for folder in (folders[2], folders[0]):
        models.load(folder, CPU)
    with pytest.raises(InsufficientMemoryError):
        run(folders[1], models, memory_limit=1)
    assert models.places == [(folders[2], "cpu"), (folders[0], "cpu")]
    plans = []

    def one_byte_short(plan_run, *arguments, **options):
        free = 10**9 if not models.places or options["returnable"] else 0
        plans.append((len(models), free))
        return plan_run(*arguments, **{**options, "free": free})

    monkeypatch.setattr(planner, "plan_run", functools.partial(one_byte_short, planner.plan_run))
    run(folders[1], models)
    assert plans[:3] == [(2, 0), (2, 10**9), (0, 10**9)]
    assert models.places == [(folders[1], "cpu")]


def test_what_would_be_given_back_counts_as_free():
    limit = held_bytes(CPU) + 10**7
    assert budget_bytes(CPU, limit) < 2 * 10**7 < 9 * 10**7 < budget_bytes(CPU, limit, 10**8) < 12 * 10**7
