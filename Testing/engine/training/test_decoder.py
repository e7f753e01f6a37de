"""The stage that trains the decoder on: latents and encoder stay, what is weighted gets nearer to the image."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medlord.bundles.bundle import load_bundle
from medlord.conditions import Conditions
from medlord.errors import InputError
from medlord.training.cases import list_cases, load_case, save_case, to_network
from medlord.training.decoder import DecodingCases, voxel_weights
from medlord.training.optimisation import generator_for
from medlord.training.pipeline import TrainingPlan
from medlord.training.stages import STAGES, stages_of
from medlord.volumes import Grid, Volume


def test_what_is_weighted_is_decoded_better_and_the_encoder_stays(trained, tmp_path):
    trained.config["decoder"]["training"].update(steps=80, earlier_ends=[12])
    trained.run("decoder")
    trained.export(tmp_path / "bundle", "card", "licence")
    before, after = trained.trained_autoencoder(), load_bundle(tmp_path / "bundle", "cpu").autoencoder

    def error(network):
        differences = []
        for path in list_cases(trained.folder / "cases"):
            case = load_case(path)
            image = torch.from_numpy(to_network(case.image_hu, (-1000, 1000)))[None, None]
            lung = torch.from_numpy(case.masks[case.conditions.index("lung")])
            with torch.no_grad():
                decoded = network.decode_latent(before.encode(image))
            differences.append((decoded - image)[0, 0][lung].abs().mean())
        return float(torch.stack(differences).mean())

    assert error(after) < 0.9 * error(before)
    kept = {key: value for key, value in after.state_dict().items() if key.startswith("encoder.")}
    assert kept and all(
        torch.equal(before.state_dict()[key].half().float(), kept[key].float()) for key in kept
    )


def test_later_stages_do_not_depend_on_the_decoder(trained):
    shutil.rmtree(trained.folder / "decoder")
    shutil.rmtree(trained.folder / "control")
    trained.run("control")


def test_a_configuration_without_the_stage_has_a_whole_model(trained, tmp_path):
    assert stages_of(trained.config) == list(STAGES)
    del trained.config["decoder"]
    assert stages_of(trained.config) == [stage for stage in STAGES if stage != "decoder"]
    plan = TrainingPlan(trained.config, trained.folder)
    plan.export(tmp_path / "bundle", "card", "licence")
    exported = load_file(tmp_path / "bundle" / "models" / "autoencoder.safetensors")
    plain = plan.trained_autoencoder().state_dict()
    decoders = [key for key in exported if key.startswith("decoder.")]
    assert decoders and all(torch.equal(plain[key].half().float(), exported[key].float()) for key in decoders)
    with pytest.raises(InputError, match="no section 'decoder'"):
        plan.run("decoder")


def test_weights_reach_one_voxel_beyond_a_condition():
    masks = np.zeros((2, 5, 5, 5), bool)
    masks[0, 2, 2, 2] = masks[1, 0, 0, 0] = True
    weights = voxel_weights(masks, ["bone", "aorta"], {"bone": 4.0, "aorta": 2.0})
    assert (weights[1:4, 1:4, 1:4] == 4).sum() == 27 and weights[0, 0, 0] == 2 and weights[4, 4, 4] == 1
    for wrong in ({"liver": 2.0}, {"bone": 0.5}):
        with pytest.raises(InputError, match="condition_weights"):
            voxel_weights(masks, ["bone", "aorta"], wrong)


def cropped(tmp_path, crop):
    """Source whose only case is 64 x 32 x 8 voxels in latents of 16 x 8 x 8."""
    grid = Grid.centered((64, 32, 8), (2.0, 2.0, 5.0))
    (tmp_path / "cases").mkdir(exist_ok=True)
    (tmp_path / "latents").mkdir(exist_ok=True)
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32)[:, None, None] * 10, grid.shape)
    lung = np.zeros(grid.shape, bool)
    lung[30:34] = True
    save_case(tmp_path / "cases" / "a.npz", Volume(ramp.copy(), grid), Conditions(grid, {"lung": lung}), {})
    latent = torch.arange(16.0).reshape(1, 16, 1, 1).expand(1, 16, 8, 8).contiguous()
    save_file({"latent": latent}, tmp_path / "latents" / "a.safetensors")
    settings = {"crop": crop, "condition_weights": {"lung": 3.0}, "condition_share": 0.5}
    return DecodingCases(tmp_path / "cases", tmp_path / "latents", {"window_hu": (-1000, 1000)}, settings)


def test_crops_of_latent_and_image_belong_together_and_cut_sides_do_not_count(tmp_path):
    source = cropped(tmp_path, [32, 32, 8])
    starts = set()
    for step in range(40):
        latents, images, weights = source.batch(1, generator_for(0, step, "test"))
        first = int(latents[0, 0, 0, 0, 0])
        starts.add(first)
        assert images[0, 0, 0, 0, 0] * 1000 == pytest.approx(first * 4 * 10)
        counted = (weights[0, 0] > 0).any(dim=-1).any(dim=-1)
        assert counted[:8].all() == (first == 0) and counted[-8:].all() == (first == 8)
        assert counted[8:-8].all() and (weights[0, 0] > 0).any(dim=0).all()
    assert len(starts) > 3 and min(starts) >= 0 and max(starts) <= 8


@pytest.mark.parametrize("crop", [[30, 32, 8], [16, 32, 8], [128, 32, 8]])
def test_impossible_crops_are_refused(tmp_path, crop):
    with pytest.raises(InputError, match="training crop"):
        cropped(tmp_path, crop)
