"""Stages that were interrupted, killed, changed or left unfinished: they go on exactly, or are refused."""

from __future__ import annotations

import copy
import itertools
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from medlord.errors import CancelledError, InputError, WeightsError
from medlord.training import optimisation
from medlord.training.checkpoint import load_networks, read_state, save_checkpoint
from medlord.training.pipeline import STAGES, TrainingPlan


def weights(folder, stage):
    return load_file(folder / stage / "checkpoint" / "networks.safetensors")


def stop_after(steps):
    asked = itertools.count()
    return lambda: next(asked) >= steps


@pytest.mark.parametrize("stage", ["autoencoder", "decoder", "diffusion", "control"])
def test_interrupted_training_ends_like_an_uninterrupted_one(trained, trained_once, stage):
    shutil.rmtree(trained.folder / stage)
    with pytest.raises(CancelledError, match="checkpoint is kept"):
        trained.run(stage, cancel=stop_after(7))
    trained.run(stage)
    whole, resumed = weights(trained_once, stage), weights(trained.folder, stage)
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


@pytest.mark.parametrize(
    ("unfinished", "following"),
    [("autoencoder", "encode"), ("decoder", "export"), ("diffusion", "control"), ("control", "export")],
)
def test_unfinished_stages_are_refused_by_what_follows(trained, tmp_path, unfinished, following):
    shutil.rmtree(trained.folder / unfinished)
    with pytest.raises(CancelledError):
        trained.run(unfinished, cancel=stop_after(3))
    with pytest.raises(InputError, match=f"'{unfinished}' has done 3 of 12"):
        if following == "export":
            trained.export(tmp_path / "bundle", "card", "licence")
        else:
            trained.run(following)
    assert not (tmp_path / "bundle").exists()


def test_latents_and_networks_of_an_earlier_autoencoder_are_not_used(trained, tmp_path):
    before = load_file(trained.folder / "latents" / "case_000.safetensors")["latent"]
    trained.config["autoencoder"]["training"].update(steps=150, earlier_ends=[120])
    trained.run("autoencoder")
    with pytest.raises(InputError, match="autoencoder_sha256.*run the stage 'encode' again"):
        trained.run("diffusion")
    with pytest.raises(InputError, match="autoencoder_sha256"):
        trained.export(tmp_path / "bundle", "card", "licence")
    with pytest.raises(CancelledError):
        trained.run("encode", cancel=stop_after(2))
    with pytest.raises(InputError, match="run the stage 'encode' first"):
        trained.run("diffusion")
    trained.run("encode")
    after = load_file(trained.folder / "latents" / "case_000.safetensors")["latent"]
    assert (
        not torch.equal(before, after) and len(list((trained.folder / "latents").glob("*.safetensors"))) == 4
    )
    with pytest.raises(InputError, match="stage 'diffusion' belongs to other results.*autoencoder_sha256"):
        trained.run("diffusion")


def test_control_of_an_earlier_denoiser_is_not_used(trained):
    trained.config["diffusion"]["training"].update(steps=14, earlier_ends=[12])
    trained.run("diffusion")
    with pytest.raises(InputError, match="denoiser_sha256"):
        trained.run("control")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config["autoencoder"]["training"].update(learning_rate=0.1), "0.005 before, 0.1 now"),
        (
            lambda config: config["autoencoder"]["training"].update(seed=3),
            "training.seed: 0 before, 3 now",
        ),
        (
            lambda config: config["autoencoder"]["network"].update(num_res_layers=2),
            "num_res_layers: 1 before",
        ),
        (lambda config: config.update(window_hu=[-1000, 3000]), "window_hu:"),
    ],
)
def test_resume_with_another_configuration_is_refused(trained, change, message):
    change(trained.config)
    trained.config["autoencoder"]["training"]["steps"] = 140
    kept = weights(trained.folder, "autoencoder")
    with pytest.raises(InputError, match=message):
        TrainingPlan(trained.config, trained.folder).run("autoencoder")
    after = weights(trained.folder, "autoencoder")
    assert all(torch.equal(value, after[key]) for key, value in kept.items())


def test_resume_with_more_steps_and_other_checkpoints_goes_on(trained):
    trained.config["diffusion"]["training"].update(steps=14, earlier_ends=[12], checkpoint_every=5)
    trained.run("diffusion")
    assert read_state(trained.folder / "diffusion" / "checkpoint")["step"] == 14


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 14}, "other learning rates .*steps 12 before, 14 now.*write that end into earlier_ends"),
        ({"steps": 14, "earlier_ends": [11]}, "other learning rates"),
        ({"steps": 11}, "12 steps, more than the configuration asks for .*steps 12 before, 11 now"),
    ],
)
def test_steps_that_are_done_keep_their_learning_rates(trained, tmp_path, change, message):
    """A configuration that gave them others would not repeat the training that it is exported with."""
    settings = trained.config["control"]["training"]
    shutil.rmtree(trained.folder / "control")
    settings["warmup"] = 2
    trained.run("control")
    settings.update(change)
    with pytest.raises(InputError, match=message):
        trained.run("control")
    with pytest.raises(InputError, match="has done 12 "):
        trained.export(tmp_path / "bundle", "card", "licence")
    assert read_state(trained.folder / "control" / "checkpoint")["step"] == 12
    assert not (tmp_path / "bundle").exists()


def test_steps_of_the_warm_up_are_the_same_for_every_end(trained):
    """The stage's own warm-up of 100 steps: none of the 12 that are done depends on how many there are to be."""
    trained.config["diffusion"]["training"]["steps"] = 14
    trained.run("diffusion")
    assert read_state(trained.folder / "diffusion" / "checkpoint")["step"] == 14


def test_more_steps_at_a_constant_rate_need_no_earlier_end(trained):
    settings = trained.config["diffusion"]["training"]
    shutil.rmtree(trained.folder / "diffusion")
    settings.update(warmup=2, cooldown=4)
    with pytest.raises(CancelledError):
        trained.run("diffusion", cancel=stop_after(8))
    settings["steps"] = 14
    trained.run("diffusion")
    settings.update(steps=16, earlier_ends=[12])
    with pytest.raises(InputError, match="14 steps with other learning rates"):
        trained.run("diffusion")


def test_attributes_in_another_order_are_other_channels(trained, tmp_path):
    trained.config["attributes"] = {"contrast_phase": ["native", "arterial"], "kernel": ["soft", "sharp"]}
    shutil.rmtree(trained.folder / "control")
    plan = TrainingPlan(trained.config, trained.folder)
    plan.run("control")
    plan.config["attributes"] = dict(reversed(trained.config["attributes"].items()))
    swapped = TrainingPlan(plan.config, trained.folder)
    for following in (
        lambda: swapped.run("control"),
        lambda: swapped.export(tmp_path / "bundle", "card", "licence"),
    ):
        with pytest.raises(InputError, match="attributes: in the order .*contrast_phase.* before"):
            following()


PLANNED = {"noisy_shares": [[10, 0.5]], "later_drops": [[0, {"drop_all": 0.5}], [12, {"drop_all": 0.0}]]}


def test_what_is_planned_for_later_steps_may_change_and_what_is_past_may_not(trained, tmp_path):
    """Prolonged with other settings for the new steps, a training keeps its first ones (docs/adr/0011)."""
    shutil.rmtree(trained.folder / "control")
    settings = trained.config["control"]["training"]
    settings.update(copy.deepcopy(PLANNED), warmup=2, cooldown=2)
    with pytest.raises(CancelledError):
        trained.run("control", cancel=stop_after(10))
    settings["noisy_shares"] = [[9, 0.5]]
    with pytest.raises(
        InputError, match=r"in its 10 steps .*noisy_shares: nothing before, \[\[9, 0.5\]\] now"
    ):
        trained.run("control")
    settings["noisy_shares"] = [[11, 0.7]]
    settings["later_drops"][0][1]["drop_all"] = 0.4
    with pytest.raises(InputError, match="later_drops: .*0.5.* before, .*0.4.* now"):
        trained.run("control")
    settings["later_drops"] = [[0, {"drop_all": 0.5}], [10, {"drop_each": 0.0}]]
    trained.run("control")
    settings.update(steps=14, earlier_ends=[12], condition_weights=[[12, {"lung": 9}]])
    trained.run("control")
    trained.export(tmp_path / "bundle", "card", "licence")
    settings["condition_weights"] = [[13, {"lung": 9}]]
    for following in (
        lambda: trained.run("control"),
        lambda: trained.export(tmp_path / "b", "card", "licence"),
    ):
        with pytest.raises(InputError, match="condition_weights: "):
            following()


def test_a_folder_without_fingerprints_can_be_exported_and_nothing_else(trained, tmp_path):
    for folder in ("cases", "latents"):
        (trained.folder / folder / "made_from.json").unlink()
    for stage in ("autoencoder", "decoder", "diffusion", "control"):
        path = trained.folder / stage / "checkpoint" / "state.json"
        state = json.loads(path.read_text())
        for key in ("window_hu", "cases", "latents", "denoiser_sha256"):
            state["config"].pop(key, None)
        path.write_text(json.dumps(state))
    trained.export(tmp_path / "bundle", "card", "licence")
    assert (tmp_path / "bundle" / "models" / "control.safetensors").is_file()
    for stage in STAGES:
        with pytest.raises(InputError, match="nothing before"):
            trained.run(stage)
    trained.config["autoencoder"]["training"]["batch"] = 1
    with pytest.raises(InputError, match="training.batch: 2 before, 1 now"):
        trained.export(tmp_path / "other", "card", "licence")


def linear(value):
    network = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(network.weight, value)
    return network


def save(folder, value):
    network = linear(value)
    optimizer = torch.optim.AdamW(network.parameters())
    save_checkpoint(folder, {"it": network.state_dict()}, {"it": optimizer}, {"step": value})


@pytest.mark.parametrize("start", ["whole", "killed between the renames before"])
@pytest.mark.parametrize("survived", [0, 1])
def test_a_checkpoint_survives_a_kill_at_every_rename(tmp_path, monkeypatch, start, survived):
    place = tmp_path / "checkpoint"
    save(place, 1)
    if start != "whole":
        place.rename(tmp_path / "checkpoint.previous")
    asked, rename = itertools.count(), Path.rename

    def killed(path, target):
        if next(asked) >= survived:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "rename", killed)
        save(place, 2)
        raise KeyboardInterrupt  # after the last rename there is nothing left to be killed at
    step, network = read_state(place)["step"], linear(0)
    load_networks(place, {"it": network})
    assert network.weight[0, 0].item() == step
    save(place, 3)
    assert read_state(place)["step"] == 3 and [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_a_stage_that_was_killed_between_the_renames_counts_as_finished(trained):
    place = trained.folder / "autoencoder" / "checkpoint"
    place.rename(place.with_name("checkpoint.previous"))
    trained.trained_autoencoder()
    trained.run("autoencoder")
    trained.run("encode")


def test_files_are_flushed_before_the_checkpoint_gets_its_name(tmp_path, monkeypatch):
    done, flush, rename = [], os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda handle: done.append("flush") or flush(handle))
    monkeypatch.setattr(Path, "rename", lambda path, to: done.append("rename") or rename(path, to))
    save(tmp_path / "checkpoint", 1)
    assert done == ["flush", "flush", "flush", "rename"]


def test_the_last_step_is_saved_once(plan, monkeypatch):
    saved = []
    monkeypatch.setattr(
        optimisation,
        "save_checkpoint",
        lambda place, networks, optimizers, state: (
            saved.append(state["step"]) or save_checkpoint(place, networks, optimizers, state)
        ),
    )
    plan.config["autoencoder"]["training"].update(steps=4, checkpoint_every=2)
    plan.run("autoencoder")
    plan.run("autoencoder")
    assert saved == [2, 4]


def test_checkpoint_of_another_network_is_refused(tmp_path):
    save(tmp_path / "checkpoint", 1)
    for other in (torch.nn.Linear(2, 3), torch.nn.Linear(2, 2, bias=False)):
        with pytest.raises(WeightsError, match="does not fit"):
            load_networks(tmp_path / "checkpoint", {"it": other})
