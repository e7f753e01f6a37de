"""Import of MedLoRD's files: every layout, strict names, and refusal of what no file says.

The files are written here, under MedLoRD's names, from networks of this engine; that the names are right is what the
interoperability folder shows.
"""

from __future__ import annotations

import json
import re

import pytest
import torch
from support.medlord_files import (
    AUTOENCODER,
    AUTOENCODER_YAML,
    CONTROL,
    CONTROL_YAML,
    DENOISER,
    DENOISER_YAML,
    randomised,
    saved,
    under_their_names,
    wrapped,
)

from medlord.bundles import medlord_networks
from medlord.bundles.medlord_settings import diffusion_settings
from medlord.errors import InputError, WeightsError
from medlord.networks.build import build_autoencoder, build_control, build_denoiser

LAYOUTS = {
    "trainer": lambda raw, average: {"model": raw, "optimizer": {"state": {}}, "ema": {"shadow": average}},
    "trainer, no average": lambda raw, average: {"epoch": 3, "best_loss": 0.1, "model": raw, "ema": None},
    "legacy": lambda raw, average: {"epoch": 3, "diffusion": wrapped(raw), "best_loss": 1.0},
    "bare": lambda raw, average: wrapped(raw),
    "average only": lambda raw, average: {"ema": {"decay": 0.9, "shadow": wrapped(average)}},
}


@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_denoisers_of_every_layout_and_generation(tmp_path, layout, activation):
    """The imported network predicts what the stored one does; unapplied projections are left out and listed."""
    networks = [
        randomised(build_denoiser({**DENOISER, "output_activation": activation}), seed) for seed in (1, 2)
    ]
    stored = [under_their_names(network, activation) for network in networks]
    path = saved(tmp_path / "best_model.pth", LAYOUTS[layout](*stored))
    weights = "ema" if layout in ("trainer", "average only") else "model"
    imported = medlord_networks.import_denoiser(path, DENOISER_YAML, weights)
    x, steps = torch.randn(1, 3, 4, 4, 4), torch.tensor([3])
    with torch.no_grad():
        expected = networks[weights == "ema"](x, steps)
        torch.testing.assert_close(imported.network(x, steps), expected)
    assert imported.description["config"] == {**DENOISER, "output_activation": activation}
    assert imported.description["weights"] == weights
    assert len(imported.description["left_out"]) == 4
    assert json.loads(json.dumps(imported.description)) == imported.description


def control_files(tmp_path):
    """(denoiser description's configuration, ControlNet file, network in it)."""
    network = randomised(build_control(CONTROL, DENOISER))
    return saved(tmp_path / "control.pth", {"model": under_their_names(network), "ema": None}), network


def test_control_with_its_conditions(tmp_path):
    """Widths, transformers and the order of the masks come back."""
    path, network = control_files(tmp_path)
    imported = medlord_networks.import_control(path, CONTROL_YAML, DENOISER)
    x, steps, masks = torch.randn(1, 3, 4, 4, 4), torch.tensor([3]), torch.rand(1, 2, 16, 16, 16)
    with torch.no_grad():
        got = imported.network(x, steps, imported.network.embed_condition(masks))
        expected = network(x, steps, network.embed_condition(masks))
    torch.testing.assert_close(got[1], expected[1])
    assert imported.description["conditions"] == ["lung", "heart"]
    assert imported.description["config"]["channels"] == [2, 4]
    again = build_control(json.loads(json.dumps(imported.description["config"])), DENOISER)
    again.load_state_dict(imported.network.state_dict(), strict=True)


def test_control_refuses_another_denoiser_and_missing_names(tmp_path):
    """It belongs to one U-Net; the order of masks and the first stride stand in no weight."""
    path, _ = control_files(tmp_path)
    with pytest.raises(WeightsError, match=r"serves a U-Net with channels \[4, 8\]"):
        medlord_networks.import_control(path, CONTROL_YAML, {**DENOISER, "channels": [8, 8]})
    unnamed = {"controlnet": {"params": CONTROL_YAML["controlnet"]["params"]}}
    with pytest.raises(InputError, match="condition_keys"):
        medlord_networks.import_control(path, unnamed, DENOISER)
    named = medlord_networks.import_control(path, unnamed, DENOISER, options={"condition_keys": ["a", "b"]})
    assert named.description["conditions"] == ["a", "b"]
    assert named.description["sources"]["condition_keys"] == "option"
    with pytest.raises(InputError, match="1 condition names stand for 2"):
        medlord_networks.import_control(path, unnamed, DENOISER, options={"condition_keys": ["a"]})
    without = {
        key: value for key, value in CONTROL_YAML["controlnet"]["params"].items() if key != "initial_stride"
    }
    with pytest.raises(InputError, match="initial_stride"):
        medlord_networks.import_control(
            path, {"controlnet": {"condition_keys": ["a", "b"], "params": without}}, DENOISER
        )


def test_contradictions_of_a_control_are_listed(tmp_path):
    """Shapes win, and every setting that says otherwise is named under its name in the configuration."""
    path, _ = control_files(tmp_path)
    stated = {
        "num_channels": [8, 16],
        "with_conditioning": False,
        "conditioning_embedding_num_channels": [2, 8],
        "conditioning_embedding_in_channels": 2,
    }
    section = {**CONTROL_YAML["controlnet"], "params": {**CONTROL_YAML["controlnet"]["params"], **stated}}
    imported = medlord_networks.import_control(path, {"controlnet": section}, DENOISER)
    assert sorted(imported.description["differences"]) == [
        "conditioning_embedding_num_channels: the configuration says [2, 8], the weights [2, 4]",
        "num_channels: the configuration says [8, 16], the weights [4, 8]",
        "with_conditioning: the configuration says False, the weights True",
    ]


def test_old_autoencoder_with_its_counter(tmp_path):
    """The counter of dead codes is ignored, one set of parameters serves all levels, shapes win over the YAML."""
    network = randomised(build_autoencoder(AUTOENCODER))
    stored = {**under_their_names(network), "quantizer.quantizer.dead_code_counter": torch.zeros(8)}
    content = {"epoch": 7, "state_dict": wrapped(stored), "ema_w": torch.ones(1)}
    path = saved(tmp_path / "checkpoint_epoch_7.pth", content)
    stated = {"stage1": {"params": {**AUTOENCODER_YAML["model"]["params"], "num_embeddings": 4096}}}
    imported = medlord_networks.import_autoencoder(path, stated)
    images = torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(imported.network(images)[0], network(images)[0])
    assert imported.description["left_out"] == ["quantizer.quantizer.dead_code_counter"]
    assert imported.description["differences"] == [
        "num_embeddings: the configuration says 4096, the weights 8"
    ]


@pytest.mark.parametrize(
    "name", ["conv_in.conv.bias", "middle_block.resnet_1.norm1.weight", "out.1.conv.weight"]
)
def test_missing_tensors_are_named(tmp_path, name):
    """Strict: nothing stays at its initial value."""
    stored = under_their_names(randomised(build_denoiser(DENOISER)), "none")
    del stored[name]
    path = saved(tmp_path / "model.pth", {"model": stored})
    with pytest.raises(WeightsError, match=re.escape(name.replace("out.1", "out.2"))):
        medlord_networks.import_denoiser(path, DENOISER_YAML)


@pytest.mark.parametrize("name", ["class_head.weight", "down_blocks.0.extra.bias", "encoder.weight"])
def test_unexpected_tensors_are_named(tmp_path, name):
    """Strict: nothing is dropped unless it is known to be never applied."""
    stored = {**under_their_names(randomised(build_denoiser(DENOISER)), "none"), name: torch.ones(2)}
    path = saved(tmp_path / "model.pth", {"model": stored})
    with pytest.raises(WeightsError, match=re.escape(name)):
        medlord_networks.import_denoiser(path, DENOISER_YAML)


def test_tensors_of_another_shape_are_named(tmp_path):
    """A damaged tensor is not broadcast."""
    stored = under_their_names(randomised(build_denoiser(DENOISER)), "none")
    stored["time_embed.2.bias"] = torch.ones(3)
    path = saved(tmp_path / "model.pth", {"model": stored})
    with pytest.raises(WeightsError, match=r"time_embed.2.bias of shape \(3,\).*\(16,\)"):
        medlord_networks.import_denoiser(path, DENOISER_YAML)


def test_values_that_are_not_finite_are_named(tmp_path):
    """A checkpoint of a training that diverged gives no model."""
    stored = under_their_names(randomised(build_denoiser(DENOISER)), "none")
    stored["time_embed.2.bias"][1] = float("nan")
    path = saved(tmp_path / "model.pth", {"model": stored})
    with pytest.raises(WeightsError, match=r"values in time_embed.2.bias that are not finite"):
        medlord_networks.import_denoiser(path, DENOISER_YAML)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num_head_channels", "four", "num_head_channels of the denoiser is 'four'"),
        ("num_head_channels", [4], "one for each of the 2 levels"),
        ("num_head_channels", 2.5, "num_head_channels of the denoiser is 2.5"),
        ("norm_num_groups", True, "norm_num_groups of the denoiser is True"),
        ("norm_eps", "small", "norm_eps of the denoiser is 'small', which is no number"),
        ("num_channels", 7.5, None),
    ],
)
def test_settings_of_another_kind_are_named(tmp_path, name, value, said):
    """A sentence instead of Python's own words, and nothing is made to fit; where shapes decide, they do."""
    path = saved(
        tmp_path / "m.pth", {"model": under_their_names(randomised(build_denoiser(DENOISER)), "none")}
    )
    config = {**DENOISER_YAML, "model": {"params": {**DENOISER_YAML["model"]["params"], name: value}}}
    if said is None:
        differences = medlord_networks.import_denoiser(path, config).description["differences"]
        assert differences == ["num_channels: the configuration says 7.5, the weights [4, 8]"]
        return
    with pytest.raises(InputError) as caught:
        medlord_networks.import_denoiser(path, config)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_odd_sections_and_names_of_masks_are_refused(tmp_path):
    """A word is not a list of one-letter names, and a section is a mapping."""
    path, _ = control_files(tmp_path)
    word = {"controlnet": {**CONTROL_YAML["controlnet"], "condition_keys": "ab"}}
    with pytest.raises(InputError, match="condition_keys is 'ab'; it must list a name"):
        medlord_networks.import_control(path, word, DENOISER)
    with pytest.raises(
        InputError, match=r"section controlnet.params of the configuration is \[1\], no mapping"
    ):
        medlord_networks.import_control(path, {"controlnet": {"params": [1]}}, DENOISER)
    with pytest.raises(InputError, match="section training of the configuration is 5"):
        diffusion_settings({**DENOISER_YAML, "training": 5})


def test_numbers_are_read_as_omegaconf_reads_them(tmp_path):
    """1e-5 is a text to YAML 1.1, and a number in MedLoRD's files."""
    network = randomised(build_autoencoder(AUTOENCODER))
    path = saved(tmp_path / "final_model.pth", under_their_names(network))
    config = tmp_path / "vqgan.yaml"
    config.write_text(
        "model:\n  params:\n    epsilon: 1e-4\n    downsample_parameters: [2, 4, 1, 1]\n"
        "    upsample_parameters: [2, 4, 1, 1, 0]\n"
    )
    assert medlord_networks.import_autoencoder(path, config).description["config"]["epsilon"] == 1e-4


@pytest.mark.parametrize(
    ("down", "said"),
    [
        ("every second", "downsample_parameters of the autoencoder are 'every second'"),
        ([2, 4], "need 4 numbers"),
    ],
)
def test_convolutions_that_are_none_are_refused(tmp_path, down, said):
    path = saved(tmp_path / "m.pth", under_their_names(randomised(build_autoencoder(AUTOENCODER))))
    config = {"model": {"params": {**AUTOENCODER_YAML["model"]["params"], "downsample_parameters": down}}}
    with pytest.raises(InputError, match=said):
        medlord_networks.import_autoencoder(path, config)


def test_what_no_weight_says_is_refused_or_taken_from_an_option(tmp_path):
    """Head width, norm groups, and which of two kinds of weights."""
    stored = under_their_names(randomised(build_denoiser(DENOISER)), "none")
    both = saved(tmp_path / "both.pth", {"model": stored, "ema": {"decay": 0.9, "shadow": stored}})
    one = saved(tmp_path / "one.pth", {"model": stored, "ema": None})
    with pytest.raises(
        InputError, match="both.pth holds raw weights and their moving average.*--diffusion-weights"
    ):
        medlord_networks.import_denoiser(both, DENOISER_YAML)
    with pytest.raises(WeightsError, match="has no 'ema' weights"):
        medlord_networks.import_denoiser(one, DENOISER_YAML, "ema")
    with pytest.raises(InputError, match="Weights 'raw'"):
        medlord_networks.import_denoiser(one, DENOISER_YAML, "raw")
    for name in ("num_head_channels", "norm_num_groups"):
        parameters = {key: value for key, value in DENOISER_YAML["model"]["params"].items() if key != name}
        with pytest.raises(InputError, match=name):
            medlord_networks.import_denoiser(one, {"model": {"params": parameters}})
        given = {name: DENOISER_YAML["model"]["params"][name]}
        imported = medlord_networks.import_denoiser(one, {"model": {"params": parameters}}, options=given)
        assert imported.description["sources"][name] == "option"
    with pytest.raises(InputError, match="unknown setting 'heads'"):
        medlord_networks.import_denoiser(one, DENOISER_YAML, options={"heads": 4})
    with pytest.raises(InputError, match="none of the sections"):
        medlord_networks.import_denoiser(one, {"training": {}})


@pytest.mark.parametrize("name", ["schedule", "num_train_timesteps", "prediction_type", "scale_factor"])
def test_the_noise_schedule_and_scale_are_never_guessed(name):
    """Each must stand in the configuration or be given."""
    complete = diffusion_settings(DENOISER_YAML)
    assert (complete["scale_factor"], complete["schedule"]["training_steps"]) == (1.5, 30)
    scheduler = {key: value for key, value in DENOISER_YAML["scheduler"].items() if key != name}
    training = {key: value for key, value in DENOISER_YAML["training"].items() if key != name}
    with pytest.raises(InputError, match=name):
        diffusion_settings({"scheduler": scheduler, "training": training})
    given = {**DENOISER_YAML["scheduler"], **DENOISER_YAML["training"]}[name]
    again = diffusion_settings({"scheduler": scheduler, "training": training}, {name: given})
    assert again["sources"][name] == "option"
    assert {**again, "sources": None} == {**complete, "sources": None}


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ({"schedule": "sigmoid"}, "sigmoid"),
        ({"prediction_type": "x"}, "'x'"),
        ({"scale_factor": 0}, "0"),
        ({"scale_factor": float("nan")}, "nan"),
        ({"scale_factor": True}, "True"),
        ({"schedule": ["cosine"]}, "cosine"),
        ({"clip_sample": False}, "unknown setting 'clip_sample'"),
    ],
)
def test_impossible_diffusion_settings_are_refused(option, named):
    """Unknown names and factors that are no factors."""
    with pytest.raises(InputError, match=named):
        diffusion_settings(DENOISER_YAML, option)


def test_schedules_that_do_something_else_are_refused():
    """Clipping and settings that nobody knows would change every sample."""
    with pytest.raises(InputError, match="clip_sample"):
        diffusion_settings(
            {"scheduler": {**DENOISER_YAML["scheduler"], "clip_sample": True}}, {"scale_factor": 1}
        )
    with pytest.raises(InputError, match="'rescale'"):
        diffusion_settings(
            {"scheduler": {**DENOISER_YAML["scheduler"], "rescale": True}}, {"scale_factor": 1}
        )
    linear = {**DENOISER_YAML["scheduler"], "schedule": "linear_beta", "beta_start": "1e-4"}
    assert diffusion_settings({"scheduler": linear}, {"scale_factor": 1})["schedule"]["beta_start"] == 1e-4
    with pytest.raises(InputError, match="beta_end of the noise schedule is '0,02', which is no number"):
        diffusion_settings({"scheduler": {**linear, "beta_end": "0,02"}}, {"scale_factor": 1})


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "no weight file"),
        (b"not a checkpoint", "cannot be read"),
        ([1, 2], "holds a list"),
        ({"epoch": 3}, "has the entries epoch"),
        ({}, "has the entries nothing"),
        ({"model": {"conv_in.conv.weight": "text"}}, "no tensor at 'conv_in.conv.weight'"),
        ({"model": {}, "ema": None}, "holds no weights: its model is empty"),
        ({"model": {3: torch.ones(1)}}, "no tensor at 3"),
        ({"model": {}, "discriminator": [1]}, "holds a list as discriminator"),
        (
            {"model": {"a": torch.ones(1)}, "ema": {"a": torch.ones(1)}},
            "moving average .* in an unknown form",
        ),
        ({"model": {"conv_in.conv.weight": torch.ones(1)}}, "is no denoising U-Net"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, content, named):
    """One line each, naming the file and the reason."""
    path = tmp_path / "best_model.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(WeightsError, match=named) as caught:
        medlord_networks.import_denoiser(path, DENOISER_YAML)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


class Harmful:
    """An object whose unpickling would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_a_file_is_not_run(tmp_path):
    """Only tensors and plain containers are read."""
    witness = tmp_path / "witness"
    path = saved(tmp_path / "best_model.pth", {"model": Harmful(witness)})
    with pytest.raises(WeightsError, match="cannot be read"):
        medlord_networks.import_denoiser(path, DENOISER_YAML)
    assert not witness.exists()
