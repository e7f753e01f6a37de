"""Learning rates, the two optimisers, weights of the loss, and a control stage that trains the denoiser on."""

from __future__ import annotations

import itertools
import shutil

import pytest
import torch
from safetensors.torch import load_file

from medlord.errors import CancelledError, InputError
from medlord.sampling.schedule import NoiseSchedule
from medlord.training.control import loss_weights
from medlord.training.diffusion import noisy_batch
from medlord.training.losses import l1_loss, smooth_l1_loss
from medlord.training.optimisation import Descent, generator_for, learning_rate, optimizers_of
from medlord.training.planned import setting_at

SETTINGS = {
    "steps": 100,
    "learning_rate": 0.01,
    "warmup": 10,
    "weight_decay": 0.0,
    "gradient_clip": 1.0,
    "average_decay": 0.9,
}
JOINT = {
    "train_denoiser": True,
    "optimizer": "muon",
    "cooldown": 4,
    "condition_weights": [[0, {"lung": 5}], [6, {}]],
    "noisy_shares": [[3, 0.5]],
    "later_drops": [[6, {"drop_all": 0.4}]],
    "drop_all": 0.5,
}


def test_rate_before_the_cooldown_does_not_depend_on_the_number_of_steps():
    short, long = ({**SETTINGS, "cooldown": 20, "steps": steps} for steps in (60, 100))
    assert [learning_rate(step, short) for step in range(41)] == [
        learning_rate(step, long) for step in range(41)
    ]
    assert learning_rate(0, short) == pytest.approx(0.001) and learning_rate(30, short) == 0.01
    assert learning_rate(50, short) == pytest.approx(0.01 * (0.02 + 0.98 / 2))
    assert learning_rate(60, short) == pytest.approx(0.0002)


def test_prolonged_training_keeps_the_rates_it_had():
    before, longer = (
        {**SETTINGS, "cooldown": 20},
        {**SETTINGS, "cooldown": 20, "steps": 110, "earlier_ends": [100]},
    )
    assert [learning_rate(step, before) for step in range(100)] == [
        learning_rate(step, longer) for step in range(100)
    ]
    assert learning_rate(100, longer) == pytest.approx(0.01 * (0.02 + 0.98 / 2))
    assert learning_rate(110, longer) == pytest.approx(0.0002)


def test_rate_without_cooldown_falls_as_a_cosine():
    rates = [learning_rate(step, SETTINGS) for step in range(101)]
    assert rates[10] == 0.01 and rates[100] == pytest.approx(0.0002) and rates[55] == pytest.approx(0.0051)
    assert all(later < earlier for earlier, later in zip(rates[10:], rates[11:], strict=False))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_descent_lowers_a_loss_and_leaves_weights_without_gradient(optimizer):
    torch.manual_seed(0)
    network = torch.nn.ModuleDict(
        {"used": torch.nn.Sequential(torch.nn.Conv3d(16, 16, 3, padding=1), torch.nn.Conv3d(16, 4, 1)),
         "unused": torch.nn.Linear(16, 16)}
    )  # fmt: skip
    descent = Descent(network, {**SETTINGS, "optimizer": optimizer})
    unused = network["unused"].weight.clone()
    images, target = torch.randn(2, 16, 6, 6, 6), torch.randn(2, 4, 6, 6, 6)
    losses = []
    for step in range(40):
        loss = (network["used"](images) - target).square().mean()
        losses.append(float(loss.detach()))
        descent.descend(loss, step)
    assert losses[-1] < 0.9 * losses[0]
    assert torch.equal(network["unused"].weight, unused)
    assert not torch.equal(descent.average.network["used"][0].weight, network["used"][0].weight)


def test_muon_takes_hidden_matrices_and_adamw_the_rest():
    network = torch.nn.Sequential(
        torch.nn.Conv3d(16, 32, 3), torch.nn.GroupNorm(4, 32), torch.nn.Conv3d(32, 8, 3)
    )
    optimizers, matrices = optimizers_of(network, {**SETTINGS, "optimizer": "muon"})
    ((weight, matrix),) = matrices
    assert weight is network[0].weight and matrix.shape == (32, 16 * 27)
    assert matrix.data_ptr() == weight.data_ptr()
    kept = {id(w) for w in optimizers["adamw"].param_groups[0]["params"]}
    assert kept == {id(w) for w in network.parameters()} - {id(weight)}
    with pytest.raises(InputError, match="adamw or muon"):
        optimizers_of(network, {**SETTINGS, "optimizer": "sgd"})


def test_losses_follow_their_weights():
    values, target = torch.tensor([[[1.0, 3.0]]]), torch.zeros(1, 1, 2)
    weights = torch.tensor([[[3.0, 1.0]]])
    assert l1_loss(values, target) == 2 and l1_loss(values, target, weights) == 1.5
    assert smooth_l1_loss(values, target, weights) == pytest.approx((3 * 0.5 + 2.5) / 4)


def test_small_structures_weigh_more_in_every_latent_voxel_that_they_touch():
    masks = torch.zeros(1, 3, 8, 8, 4)
    masks[0, 0] = 1
    masks[0, 1, 5, 2, 1] = 1
    weights = loss_weights(masks, ["body", "nodule"], {"nodule": 20.0}, (2, 2, 2))
    assert weights.shape == (1, 1, 2, 2, 2) and weights[0, 0, 1, 0, 0] == 20 and weights.sum() == 27


def test_planned_settings_hold_from_their_step_on():
    plan = [[0, {"lung": 2.0}], [10, {"body": 3.0}]]
    assert [setting_at(step, plan, {}) for step in (0, 9, 10)] == [
        {"lung": 2.0},
        {"lung": 2.0},
        {"body": 3.0},
    ]
    assert setting_at(0, [], {}) == {} and setting_at(3, plan[1:], {}) == {}
    assert [setting_at(step, [[6, 0.5]], 0.0) for step in (5, 6)] == [0.0, 0.5]


def test_noisy_shares_move_draws_to_noisy_time_steps_and_leave_the_others_as_they_are():
    schedule, latents = (
        NoiseSchedule.from_dict({"kind": "cosine", "training_steps": 300}),
        torch.ones(1, 1, 2, 2, 2),
    )

    def drawn(share):
        return torch.cat(
            [noisy_batch(latents, schedule, generator_for(0, step, "t"), share)[1] for step in range(2000)]
        )

    alike, some, noisy = drawn(0.0), drawn(0.5), drawn(1.0)
    assert float((alike >= 90).float().mean()) == pytest.approx(0.7, abs=0.04)
    assert float((some >= 90).float().mean()) == pytest.approx(0.85, abs=0.04)
    assert noisy.min() == 90 and noisy.max() == 299
    moved = some != alike
    assert torch.equal(some[moved], noisy[moved]) and 0.4 < float(moved.float().mean()) < 0.55


@pytest.mark.parametrize("name, value", [("noisy_shares", 1.0), ("later_drops", {"drop_all": 1.0})])
def test_a_planned_setting_changes_the_steps_from_its_own_on(trained, name, value):
    settings = trained.config["control"]["training"]
    folder = trained.folder / "control"

    def weights(steps, plan):
        shutil.rmtree(folder)
        settings.update({"steps": steps, "train_denoiser": True, "cooldown": 1, name: plan})
        settings["earlier_ends"] = []
        trained.run("control")
        return load_file(folder / "checkpoint" / "networks.safetensors")

    def alike(first, second):
        return all(torch.equal(first[key], second[key]) for key in first)

    # The rate of the third step is that before the descent in both, so only the plan can make a difference.
    assert alike(weights(3, []), weights(3, [[3, value]]))
    assert not alike(weights(5, []), weights(5, [[3, value]]))


def test_control_stage_can_train_the_denoiser_on(trained, tmp_path):
    alone = trained.trained_denoiser()
    shutil.rmtree(trained.folder / "control")
    trained.config["control"]["training"].update(JOINT)
    shutil.copytree(trained.folder, tmp_path / "interrupted")
    trained.run("control")
    trained.export(tmp_path / "bundle", "card", "licence")
    exported = load_file(tmp_path / "bundle" / "models" / "denoiser.safetensors")
    assert any(not torch.equal(exported[key].float(), value) for key, value in alone.state_dict().items())

    # Interrupted and resumed it ends the same: both networks, both averages, both optimisers.
    whole = load_file(trained.folder / "control" / "checkpoint" / "networks.safetensors")
    trained.folder = tmp_path / "interrupted"
    asked = itertools.count()
    with pytest.raises(CancelledError):
        trained.run("control", cancel=lambda: next(asked) >= 7)
    trained.run("control")
    resumed = load_file(trained.folder / "control" / "checkpoint" / "networks.safetensors")
    assert {key.split(".")[0] for key in whole} == {"control", "average", "denoiser", "denoiser_average"}
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)
