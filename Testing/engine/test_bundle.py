"""Model bundles: found by id or folder, refused when damaged, loaded as they were written."""

from __future__ import annotations

import json

import pytest
import torch
from support.tiny_bundle import write_tiny_bundle

from medlord.bundles.bundle import find_model, load_bundle, verify_bundle, write_weights
from medlord.bundles.description import read_description
from medlord.errors import InputError, WeightsError


@pytest.fixture
def bundle(tmp_path):
    return write_tiny_bundle(tmp_path)


def change_metadata(bundle, change):
    path = bundle / "configs" / "metadata.json"
    content = json.loads(path.read_text())
    change(content["medlord"])
    path.write_text(json.dumps(content))


def test_loads_what_was_written(bundle):
    loaded = load_bundle(bundle)
    description = loaded.description
    assert description.conditions == ["body", "lung", "bone", "aorta"]
    assert description.default_attributes == {"contrast_phase": "native"}
    assert description.extent_mm.tolist() == [320, 320, 240]
    weight = loaded.autoencoder.codebook.embedding.weight
    assert weight.dtype == torch.float32 and not weight.requires_grad and not loaded.denoiser.training


def test_changed_weights_are_refused(bundle):
    path = bundle / "models" / "denoiser.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="models/denoiser.safetensors of model 'tiny' is damaged"):
        load_bundle(bundle)
    path.unlink()
    with pytest.raises(WeightsError, match="missing"):
        verify_bundle(bundle)


def test_every_weight_file_needs_its_hash(bundle):
    change_metadata(bundle, lambda content: content["weights_sha256"].pop("models/control.safetensors"))
    with pytest.raises(WeightsError, match="SHA-256 of models/control.safetensors"):
        load_bundle(bundle)


def test_values_beyond_float16_are_not_stored_as_infinite(tmp_path):
    network = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(network.weight, 1e5)
    with pytest.raises(WeightsError, match="weight of the denoiser holds values that float16 cannot hold"):
        write_weights(tmp_path, "denoiser", network, half_precision=True)
    assert not (tmp_path / "models").exists()
    write_weights(tmp_path, "denoiser", network, half_precision=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["networks"].pop("autoencoder"),
        lambda content: content.update(networks=[]),
        lambda content: content.pop("scale_factor"),
        lambda content: content["weights_sha256"].update({"../../secret": "0" * 64}),
        lambda content: content.update(format=99),
    ],
)
def test_damaged_descriptions_are_one_sentence(bundle, change):
    change_metadata(bundle, change)
    with pytest.raises(WeightsError) as caught:
        read_description(bundle)
    assert "\n" not in str(caught.value)


def test_an_installed_id_wins_over_a_folder_of_that_name(bundle, tmp_path, monkeypatch):
    resources = tmp_path / "resources"
    (resources / "Models").mkdir(parents=True)
    (resources / "vocabulary.json").write_text("{}")
    installed = write_tiny_bundle(resources / "Models")
    monkeypatch.setenv("MEDLORD_RESOURCES", str(resources))
    monkeypatch.chdir(tmp_path)
    assert find_model("tiny") == installed
    assert find_model("./tiny") == bundle.resolve()
    assert find_model(bundle) == bundle.resolve()
    with pytest.raises(InputError, match="no model 'other'; installed are .*tiny"):
        find_model("other")
