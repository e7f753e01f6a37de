"""Synthetic CTs that come as a file alone: in Slicer they are what they were, and so is Slicer's file to the engine."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import slicer
from scene_building import AFFINE, SHAPE, chest_masks, scene_content, synthetic

from medlord.recipe import load_recipe
from medlord.recipe_headers import recipe_in_header
from medlord.volume_files import save_volume
from medlord.volumes import Grid, Volume
from MedLoRDSlicerLib.file_recipes import adopt_recipe
from MedLoRDSlicerLib.recipes import is_synthetic, segmentation_from_recipe, settings_of
from MedLoRDSlicerLib.results import add_run

GRID = Grid(SHAPE, AFFINE)


@pytest.fixture(scope="module")
def made():
    """A synthetic volume with its conditions; its recipe holds text that a header has to escape."""
    volume, conditions = synthetic(GRID, chest_masks(), 42, model_version="1.0 \\ \u00fc\nx")
    return volume, conditions


def load(scene, path):
    """Load a volume as Slicer's File menu does."""
    node = slicer.modules.volumes.logic().AddArchetypeVolume(str(path), path.name)
    assert node.GetScene() is scene and not node.GetAttribute("MedLoRD.recipe"), (
        "Slicer itself brings no attribute"
    )
    return node


@pytest.mark.parametrize("name", ["ct.nrrd", "ct.nii.gz", "ünï ct.nii"])
def test_a_file_of_the_engine_brings_recipe_and_marks(scene, made, tmp_path, name):
    volume, _conditions = made
    path = tmp_path / name
    save_volume(volume, path, recipe=volume.recipe, synthetic=True)
    assert recipe_in_header(path) == volume.recipe
    node = load(scene, path)
    assert adopt_recipe(node) and not adopt_recipe(node)
    assert is_synthetic(node) and settings_of(node).seed == 42
    assert node.GetAttribute("synthetic") == "1" and node.GetAttribute("MedLoRD.seed") == "42"
    assert node.GetAttribute("DICOM.SeriesDescription").startswith("SYNTHETIC CT (small 1.0")
    masks = segmentation_from_recipe(scene, node).GetSegmentation()
    assert sorted(masks.GetSegmentIDs()) == ["body", "bone", "lung"]


def test_a_file_that_slicer_saved_is_read_by_both(scene, made, tmp_path):
    node = add_run(scene, *made, "CT", {}).volume
    path = tmp_path / "saved.nrrd"
    storage = node.GetStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(node)
    assert recipe_in_header(path) == made[0].recipe == load_recipe(path).to_dict()
    scene.Clear()
    # Asking for its settings is enough.
    assert settings_of(load(scene, path)).seed == 42


def test_a_volume_without_a_recipe_stays_as_it_is(scene, tmp_path):
    path = tmp_path / "real.nii.gz"
    save_volume(Volume(np.zeros(SHAPE, np.int16), GRID), path, synthetic=False)
    node = load(scene, path)
    before = scene_content(scene)
    assert not adopt_recipe(node) and not is_synthetic(node) and scene_content(scene) == before
    assert not node.GetAttributeNames()
    assert not adopt_recipe(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "drawn here"))


def test_a_recipe_of_another_version_marks_its_volume_as_synthetic(scene, made, tmp_path):
    path = tmp_path / "newer.nrrd"
    save_volume(made[0], path, recipe={**made[0].recipe, "an entry to come": 1}, synthetic=True)
    node = load(scene, path)
    assert not adopt_recipe(node) and not is_synthetic(node) and node.GetAttribute("synthetic") == "1"
    assert node.GetAttribute("DICOM.SeriesDescription").startswith("SYNTHETIC CT (small 1.0")


def test_a_header_that_is_damaged_has_none(made, tmp_path):
    path = tmp_path / "ct.nii"
    save_volume(made[0], path, recipe=made[0].recipe, synthetic=True)
    whole = path.read_bytes()
    for name, content in (
        ("short.nii", whole[:100]),
        ("cut.nii", whole[:380]),
        ("size.nii", whole[:352] + b"\xff" * 8 + whole[360:]),
        ("mark.nii", whole.replace(b'"seed": 42', b'"seed"- 42')),
        ("empty.nrrd", b""),
        ("other.nrrd", b"no header\n"),
        ("list.nrrd", b"NRRD0004\nmedlord_recipe:=[1]\n\n"),
        ("cut.nii.gz", gzip.compress(whole)[:200]),
        ("ct.txt", whole),
    ):
        (tmp_path / name).write_bytes(content)
        assert recipe_in_header(tmp_path / name) is None, name
    assert recipe_in_header(tmp_path / "absent.nii") is None
    (tmp_path / "lines.nrrd").write_bytes(b"NRRD0004\nMedLoRD.recipe:=" + rb'{"a": "\\n\n"}' + b"\n\n")
    assert recipe_in_header(tmp_path / "lines.nrrd") is None, "a line break inside a JSON text"
    (tmp_path / "lines.nrrd").write_bytes(b"NRRD0004\nMedLoRD.recipe:=" + rb'{"a": "\\n"}' + b"\n\n")
    assert recipe_in_header(tmp_path / "lines.nrrd") == json.loads(r'{"a": "\n"}')
