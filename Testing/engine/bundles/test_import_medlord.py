"""Import of MedLoRD's checkpoints as a bundle: what it records, what it refuses, and that failures leave nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import nibabel
import numpy as np
import pytest
import torch
import yaml
from support.medlord_files import (
    AUTOENCODER_YAML,
    CONTROL_YAML,
    DENOISER_YAML,
    OPTIONS,
    SHAPE,
    write_medlord_files,
)

from medlord.bundles import import_medlord as module
from medlord.bundles.bundle import (
    check_new_id,
    delete_model,
    find_model,
    list_models,
    load_bundle,
    user_model_folder,
)
from medlord.bundles.description import OWN_RANGE, read_description
from medlord.bundles.import_medlord import import_medlord
from medlord.bundles.medlord_networks import import_autoencoder
from medlord.bundles.medlord_options import MedlordOptions
from medlord.bundles.medlord_preprocessing import crop_or_pad, resize_trilinear, scale_by_own_range
from medlord.errors import CancelledError, EngineError, InputError, WeightsError
from medlord.resources import BUNDLED_MODEL


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints and configurations of a model with control."""
    return write_medlord_files(tmp_path_factory.mktemp("files"))


@pytest.fixture
def out(tmp_path):
    """Where the bundle goes."""
    return tmp_path / "models" / "imported"


def changed(files, folder, **contents):
    """`files` with configurations of other content."""
    replaced = {}
    for name, content in contents.items():
        replaced[name] = folder / f"{name}.yaml"
        replaced[name].write_text(yaml.safe_dump(content), encoding="utf-8")
    return dataclasses.replace(files, **replaced)


def without(content, section, key):
    """A configuration without one of its entries."""
    return {**content, section: {name: value for name, value in content[section].items() if name != key}}


def test_the_bundle_holds_the_weights_and_says_where_everything_came_from(files, out):
    imported = import_medlord(files, "imported", OPTIONS, out=out, licence="CC-BY-4.0")
    assert imported.folder == out and read_description(out) == imported.description
    bundle = load_bundle(out)
    stored = torch.load(files.controlnet, weights_only=True)["model"]
    assert torch.equal(bundle.control.conv_in.conv.weight, stored["conv_in.conv.weight"])
    raw = torch.load(files.diffusion, weights_only=True)["model"]
    assert torch.equal(bundle.denoiser.out[2].conv.weight, raw["out.1.conv.weight"])
    description = bundle.description
    assert (description.scale_factor, description.schedule["training_steps"]) == (1.5, 30)
    assert (description.grid_shape, description.window_hu) == (SHAPE, (-1000, 1000))
    assert (description.conditions, description.attributes, description.takes_masks) == (
        ["lung", "heart"],
        {},
        True,
    )
    assert description.intensity_map == OWN_RANGE and description.preprocessing["padding_value"] == 0
    settings = description.provenance["settings"]
    assert settings["diffusion"]["scale_factor"] == {"value": 1.5, "source": "configuration"}
    assert settings["grid"]["spacing_mm"] == {"value": [20.0, 20.0, 30.0], "source": "option"}
    assert settings["denoiser"]["weights"] == {"value": "model", "source": "option"}
    assert settings["control"]["weights"] == {"value": "model", "source": "file"}
    assert settings["control"]["initial_stride"] == {"value": 2, "source": "configuration"}
    assert settings["autoencoder"]["channels"] == {"value": [4, 6], "source": "shapes"}
    assert settings["preparation"]["intensity_map"]["source"] == "family"
    entry = description.provenance["files"]["diffusion"]
    assert entry == {
        "file": "diffusion.pth",
        "sha256": hashlib.sha256(files.diffusion.read_bytes()).hexdigest(),
    }
    assert str(out.parent) not in json.dumps(description.provenance)
    card = (out / "docs" / "README.md").read_text()
    assert (
        "CC-BY-4.0" in card
        and "HU are relative" in card
        and "| diffusion scale_factor | 1.5 | configuration |" in card
        and f"| diffusion | diffusion.pth | {entry['sha256']} |" in card
        and "| diffusion-config | diffusion.yaml |" in card
        and str(files.diffusion.parent) not in card
    )
    assert "CC-BY-4.0" in (out / "LICENSE").read_text()
    assert any("relative" in warning for warning in imported.warnings)


def test_stored_at_half_precision_all_but_the_codebook(files, out):
    import_medlord(files, "imported", OPTIONS, out=out, half_precision=True)
    bundle = load_bundle(out)
    stored = torch.load(files.stage1, weights_only=True)["model"]
    name = "quantizer.quantizer.embedding.weight"
    assert torch.equal(bundle.autoencoder.state_dict()[name], stored[name])
    name = "encoder.blocks.0.conv.weight"
    assert torch.equal(bundle.autoencoder.state_dict()[name], stored[name].half().float())


def test_the_grid_of_a_control_comes_from_its_configuration(files, out, tmp_path):
    config = {**CONTROL_YAML, "training": {"roi_size": [24, 16, 8]}}
    options = dataclasses.replace(OPTIONS, shape=None)
    imported = import_medlord(
        changed(files, tmp_path, controlnet_config=config), "imported", options, out=out
    )
    assert imported.description.grid_shape == (24, 16, 8)
    assert imported.description.provenance["settings"]["grid"]["shape"]["source"] == "configuration"


def test_contradicting_configurations_need_a_decision(files, out, tmp_path):
    contradicting = changed(
        files, tmp_path, controlnet_config={**CONTROL_YAML, "training": {"scale_factor": 1.0}}
    )
    said = "--scale-factor .*1.5 in --diffusion-config .* and 1.0 in --controlnet-config .*U-Net was trained with"
    with pytest.raises(InputError, match=f"{said}; --check-scale-factor"):
        import_medlord(contradicting, "imported", OPTIONS, out=out)
    options = dataclasses.replace(OPTIONS, scale_factor=1.25)
    imported = import_medlord(contradicting, "imported", options, out=out)
    assert imported.description.scale_factor == 1.25
    served = {"params": {**DENOISER_YAML["model"]["params"], "num_head_channels": [0, 8]}}
    contradicting = changed(files, tmp_path, controlnet_config={**CONTROL_YAML, "pretrained_model": served})
    with pytest.raises(InputError, match="num_head_channels"):
        import_medlord(contradicting, "other", OPTIONS, out=out.with_name("other"))


REFUSED = {
    "everything of the grid at once": (
        {"window_hu": None, "shape": None, "spacing_mm": None, "orientation": None},
        r"--shape.*--spacing.*--orientation.*--window",
    ),
    "raw or averaged": ({"diffusion_weights": None}, "--diffusion-weights model or ema .*holds both"),
    "window": ({"window_hu": (1000.0, -1000.0)}, "HU window"),
    "shape": ({"shape": (16, 16, 0)}, "shape"),
    "shape that does not divide": ({"shape": (16, 16, 12)}, "16 x 16 x 12 does not divide by 8 x 8 x 8"),
    "spacing": ({"spacing_mm": (1.0, -1.0, 1.0)}, "spacing"),
    "orientation": ({"orientation": "XYZ"}, "Orientation 'XYZ'"),
    "intensity map": ({"intensity_map": "sigmoid"}, "Unknown intensity_map 'sigmoid'"),
    "volume fit": ({"volume_fit": "stretch"}, "Unknown volume_fit 'stretch'"),
    "padding": ({"padding_value": float("nan")}, "padding value"),
    "initial stride": ({"initial_stride": 1}, "1/2 of their size, the autoencoder volumes to 1/4"),
    "mask names": ({"condition_keys": ("lung", "lung")}, "a name of its own"),
    "strides": ({"strides": (2, 3)}, "strides"),
    "scale factor": ({"scale_factor": -1.0}, "scale factor"),
    "head width": ({"num_head_channels": 5}, "cannot be built"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_in_one_sentence_and_nothing_stays(files, out, case):
    options, words = REFUSED[case]
    with pytest.raises(InputError, match=words) as caught:
        import_medlord(files, "imported", dataclasses.replace(OPTIONS, **options), out=out)
    assert "\n" not in str(caught.value)
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("config", "content", "words"),
    [
        ("diffusion_config", without(DENOISER_YAML, "training", "scale_factor"), "scale_factor"),
        (
            "diffusion_config",
            without(DENOISER_YAML, "scheduler", "num_train_timesteps"),
            "num_train_timesteps",
        ),
        ("stage1_config", {"model": {"params": {}}}, "downsample_parameters"),
        ("controlnet_config", without(CONTROL_YAML, "controlnet", "condition_keys"), "condition_keys"),
    ],
)
def test_what_no_file_says_is_refused_or_stated(files, out, tmp_path, config, content, words):
    silent = changed(files, tmp_path, **{config: content})
    with pytest.raises(InputError, match=words):
        import_medlord(silent, "imported", OPTIONS, out=out)
    stated = {
        "scale_factor": {"scale_factor": 1.5},
        "num_train_timesteps": {"num_train_timesteps": 30},
        "downsample_parameters": {"strides": (2, 2)},
        "condition_keys": {"condition_keys": ("left", "right")},
    }[words]
    imported = import_medlord(silent, "imported", dataclasses.replace(OPTIONS, **stated), out=out)
    sources = [
        entry["source"] for part in imported.description.provenance["settings"].values()
        for name, entry in part.items() if name == words
    ]  # fmt: skip
    assert sources == ["option"]


def test_a_failure_at_the_end_leaves_nothing(files, tmp_path, monkeypatch):
    damaged = torch.load(files.stage1, weights_only=True)
    del damaged["model"]["encoder.blocks.0.conv.bias"]
    torch.save(damaged, tmp_path / "stage1.pth")
    broken = dataclasses.replace(files, stage1=tmp_path / "stage1.pth")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(WeightsError, match="lacks encoder.blocks.0.conv.bias"):
        import_medlord(broken, "imported", OPTIONS, out=tmp_path / "imported")
    phases = []
    with pytest.raises(CancelledError):
        import_medlord(
            files, "imported", OPTIONS, out=tmp_path / "imported",
            progress=lambda event: phases.append(event.phase), cancel=lambda: len(phases) >= 2,
        )  # fmt: skip

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_documents", full)
    with pytest.raises(EngineError, match="No space left"):
        import_medlord(files, "imported", OPTIONS, out=tmp_path / "imported")
    assert sorted(tmp_path.iterdir()) == before


def test_folders_and_ids_that_are_taken(files, out, tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path / "user"))
    with pytest.raises(InputError, match="is not empty"):
        import_medlord(files, "imported", OPTIONS, out=files.stage1.parent)
    for odd in ("", "../up", "a b", "-x", "a.b", "x" * 65):
        with pytest.raises(InputError, match="no id for a model"):
            check_new_id(odd)
    with pytest.raises(InputError, match="There is a model"):
        check_new_id(BUNDLED_MODEL)
    out.mkdir(parents=True)  # an empty folder is as good as none
    assert import_medlord(files, "imported", OPTIONS, out=out).folder == out
    folder = import_medlord(files, "mine", OPTIONS).folder
    assert folder == user_model_folder() / "mine" == find_model("mine")
    with pytest.raises(InputError, match="There is a model 'MINE' already"):
        check_new_id("MINE")
    with pytest.raises(InputError, match="shipped with the program"):
        delete_model(BUNDLED_MODEL)
    for other in ("imported", "../mine", ""):
        with pytest.raises(InputError, match="There is no model"):
            delete_model(other)
    assert delete_model("mine") == folder and "mine" not in list_models()
    assert list(user_model_folder().iterdir()) == []


@pytest.mark.parametrize("fit", ["resize", "centre-crop-and-pad"])
def test_the_scale_factor_is_checked_on_volumes(files, out, tmp_path, fit, monkeypatch):
    monkeypatch.setattr("medlord.bundles.scale_check._TILE_VOXELS", 8)  # several blocks, with halos
    generator = np.random.default_rng(3)
    paths, latents = [], []
    autoencoder = import_autoencoder(files.stage1, files.stage1_config).network
    for number in range(2):
        hu = generator.integers(-1200, 800, (20, 14, 9)).astype(np.int16)
        paths.append(tmp_path / f"{number}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(hu, np.eye(4)), paths[-1])
        scaled = scale_by_own_range(hu)[None]
        image = resize_trilinear(scaled, SHAPE) if fit == "resize" else crop_or_pad(scaled, SHAPE, 0.0)
        with torch.no_grad():
            latents.append(autoencoder.encode_to_latent(torch.from_numpy(image)[None], quantized=True))
    right = 1 / float(torch.cat(latents).double().std(correction=0))

    def imported(factor):
        options = dataclasses.replace(OPTIONS, volume_fit=fit, scale_factor=factor)
        return import_medlord(files, "imported", options, out=out, check_volumes=paths)

    with pytest.raises(InputError, match=r"cannot be right: 1/std of the latents of 2 volumes"):
        imported(1.4 * right)
    assert not out.exists()
    result = imported(right * 1.1)
    check = result.description.provenance["scale_factor_check"]
    assert check["measured"] == pytest.approx(right, rel=1e-4) and check["volumes"] == 2
    assert any("10% away" in warning for warning in result.warnings)


def test_a_volume_cut_short_is_named(files, out, tmp_path):
    whole = tmp_path / "whole.nii.gz"
    hu = np.random.default_rng(0).integers(-1000, 400, (20, 20, 10)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(hu, np.eye(4)), whole)
    short = tmp_path / "short.nii.gz"
    short.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(InputError, match="short.nii.gz cannot be read as NIfTI") as caught:
        import_medlord(files, "imported", OPTIONS, out=out, check_volumes=[short])
    assert "\n" not in str(caught.value) and not out.exists()


def test_missing_files_are_named(files, out, tmp_path):
    for name in ("stage1", "controlnet_config"):
        option = f"--{name.replace('_', '-')}"
        with pytest.raises(InputError, match=f"{option} {tmp_path / 'none.pth'}, where there is no file"):
            import_medlord(
                dataclasses.replace(files, **{name: tmp_path / "none.pth"}), "imported", OPTIONS, out=out
            )
    with pytest.raises(InputError, match="--controlnet-config FILE .*give both of its files"):
        import_medlord(dataclasses.replace(files, controlnet_config=None), "imported", OPTIONS, out=out)


def folders_of_trainers(files, folder):
    """The same files as MedLoRD's trainers name them: a folder each, with best_model.pth and config.yaml."""
    renamed = {}
    for name, path in vars(files).items():
        place = folder / name.removesuffix("_config")
        place.mkdir(exist_ok=True)
        renamed[name] = place / ("config.yaml" if name.endswith("_config") else "best_model.pth")
        renamed[name].write_bytes(path.read_bytes())
    return dataclasses.replace(files, **renamed)


def test_all_that_is_missing_is_said_at_once(files, out, tmp_path):
    named = folders_of_trainers(files, tmp_path)
    content = torch.load(named.controlnet, weights_only=True)
    torch.save({**content, "ema": {"decay": 0.9, "shadow": content["model"]}}, named.controlnet)
    settings = {"training": {}, "scheduler": {"schedule": "cosine"}}
    named.diffusion_config.write_text(yaml.safe_dump({**DENOISER_YAML, **settings}), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        import_medlord(dataclasses.replace(named, stage1=None), "imported", MedlordOptions(), out=out)
    said = str(caught.value)
    for words in (
        "--stage1 FILE", "--shape I J K", "the training volumes' spacing", "--orientation AXES", "--window LOW HIGH",
        f"--scale-factor (--diffusion-config {named.diffusion_config} has no scale_factor)", "--num-train-timesteps",
        "--prediction-type", f"--diffusion-weights model or ema (--diffusion {named.diffusion} holds both)",
        f"--controlnet-weights model or ema (--controlnet {named.controlnet} holds both)", "(10) ",
    ):  # fmt: skip
        assert words in said, said
    assert said.count("original scripts") == 1 and "\n" not in said and not out.exists()


def test_a_configuration_of_another_network_is_named(files, out, tmp_path):
    named = folders_of_trainers(files, tmp_path)
    swapped = dataclasses.replace(
        named,
        stage1_config=named.diffusion_config,
        diffusion_config=named.stage1_config,
        controlnet_config=named.stage1_config,
    )
    with pytest.raises(InputError) as caught:
        import_medlord(swapped, "imported", OPTIONS, out=out)
    for option, path, network in (
        ("stage1", named.diffusion_config, "a U-Net, not of the autoencoder"),
        ("diffusion", named.stage1_config, "an autoencoder, not of the U-Net"),
        ("controlnet", named.stage1_config, "an autoencoder, not of the ControlNet"),
    ):
        assert f"--{option}-config {path}, which looks like the configuration of {network}" in str(
            caught.value
        )
    stage1 = {"model": {"params": {**AUTOENCODER_YAML["model"]["params"]}}}
    stage1["model"]["params"]["downsample_parameters"] = [[2, 4, 1, 1]] * 3
    with pytest.raises(InputError, match=r"--stage1-config .*has 3 levels while --stage1 .*has 2"):
        import_medlord(changed(named, tmp_path, stage1_config=stage1), "imported", OPTIONS, out=out)
    silent = changed(named, tmp_path, controlnet_config={"controlnet": {"condition_keys": ["lung", "heart"]}})
    with pytest.raises(InputError, match="has no section controlnet.params"):
        import_medlord(silent, "imported", OPTIONS, out=out)


def test_what_is_wrong_in_a_file_is_said_with_its_option_and_path(files, out, tmp_path):
    named = folders_of_trainers(files, tmp_path)
    swapped = dataclasses.replace(named, diffusion=named.stage1)
    given = f"With --diffusion {named.stage1} and --diffusion-config {named.diffusion_config}: "
    with pytest.raises(WeightsError, match=f"{given}best_model.pth is no denoising"):
        import_medlord(swapped, "imported", OPTIONS, out=out)
    named.controlnet_config.write_text("a: [", encoding="utf-8")
    with pytest.raises(
        InputError, match=f"With --controlnet-config {named.controlnet_config}: .*no valid YAML"
    ):
        import_medlord(named, "imported", OPTIONS, out=out)
