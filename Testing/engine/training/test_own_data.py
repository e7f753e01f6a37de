"""A model trained on files of one's own: made from them, exported without their names, under the licence stated."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from medlord.bundles.bundle import load_bundle, verify_bundle
from medlord.errors import InputError
from medlord.training.commands import export_model, train
from medlord.training.config import load_config
from medlord.volume_files import save_volume
from medlord.volumes import Grid, Volume

PATIENT = "DOE_JANE_19700101"


@pytest.fixture
def own(tmp_path, config):
    """Path of a configuration with two CTs in an archive whose folders name patients; few steps."""
    grid = Grid.centered((16, 16, 8), (20.0, 20.0, 30.0), (30.0, -20.0, 400.0))
    files = []
    for number in range(2):
        folder = tmp_path / "archive" / f"{PATIENT}_{number}"
        folder.mkdir(parents=True)
        hu = np.full(grid.shape, -1000, np.int16)
        hu[3:13, 3 : 12 + number, 1:7] = 50
        ct = save_volume(Volume(hu, grid), folder / "ct.nii.gz")
        body = save_volume(Volume(hu > 0, grid), folder / "body.nii.gz")
        files.append({"ct": str(ct), "conditions": {"body": str(body)}})
    files[0]["attributes"] = {"contrast_phase": "native"}
    config.update(data={"files": files}, licence="Hospital, not to be passed on")
    del config["decoder"]
    for stage in ("autoencoder", "diffusion", "control"):
        config[stage]["training"].update(steps=2)
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(config))
    path.with_suffix(".md").write_text("# Own\n")
    return path


def test_a_model_of_own_files_names_none_of_them(own, tmp_path):
    train(own, None, tmp_path / "work")
    bundle = export_model(own, tmp_path / "work", tmp_path / "model")
    verify_bundle(bundle)
    assert load_bundle(bundle, "cpu").description.conditions == ["body", "lung"]
    for path in bundle.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert PATIENT.encode() not in content and b".nii" not in content, path.name
    exported = load_config(bundle / "configs" / "train.yaml")
    given = load_config(own)
    assert exported.pop("data") == {"own_cases": 2} and given.pop("data")
    assert exported == given
    assert "Hospital, not to be passed on" in (bundle / "LICENSE").read_text()
    assert "Apache" not in (bundle / "LICENSE").read_text()
    with pytest.raises(InputError, match="own_cases"):
        train(bundle / "configs" / "train.yaml", ["prepare"], tmp_path / "again")


def test_files_that_do_not_exist_are_found_before_the_first_case_is_made(own, tmp_path):
    content = load_config(own)
    content["data"]["files"][1]["conditions"]["lung"] = str(tmp_path / "lung.nii.gz")
    own.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"1 files of the cases do not exist, the first is .*lung.nii.gz"):
        train(own, ["prepare"], tmp_path / "work")
    assert not list((tmp_path / "work").rglob("*.npz"))
