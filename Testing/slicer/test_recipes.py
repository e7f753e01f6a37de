"""What a synthetic volume gives back: settings for the panel, masks as a segmentation; through files and scenes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slicer
from scene_building import AFFINE, SHAPE, add_chest, chest_masks, save_and_load, scene_content, synthetic

from medlord.errors import InputError
from medlord.recipe import Recipe
from medlord.volumes import Grid
from MedLoRDSlicerLib.compare import input_volume_of, result_conditions
from MedLoRDSlicerLib.recipes import is_synthetic, segmentation_from_recipe, settings_of
from MedLoRDSlicerLib.results import Origin, add_run, save_ct
from MedLoRDSlicerLib.segments import conditions_from_segmentation

GRID = Grid(SHAPE, AFFINE)


def add(scene, drawing=None, scan=None, by_hand=""):
    volume, conditions = synthetic(GRID, chest_masks(), 42)
    return add_run(scene, volume, conditions, "CT", {}, origin=Origin(drawing, scan, by_hand=by_hand))


def add_scan(scene):
    from MedLoRDSlicerLib.arrays import set_volume

    scan = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Scan")
    set_volume(scan, np.zeros(SHAPE, np.int16), AFFINE)
    return scan


def test_all_settings_come_back(scene):
    drawing, scan = add_chest(scene), add_scan(scene)
    nodes = add(scene, drawing, scan, json.dumps({"aorta": ["Segment_3"]}))
    settings = settings_of(nodes.volume)
    assert (settings.model, settings.model_version, settings.seed) == ("small", "1.0", 42)
    assert (settings.sampler, settings.steps, settings.control_scale) == ("unipc", 3, 1.0)
    assert settings.attributes == {"contrast_phase": "arterial"} and settings.precision == "float32"
    assert settings.conditions == ["body", "lung", "bone"]
    np.testing.assert_allclose(settings.center_ras_mm, GRID.center_ras_mm)
    assert settings.segmentation is drawing and settings.reference is scan
    assert settings.by_hand == {"aorta": ("Segment_3",)}
    assert input_volume_of(nodes.volume) is scan and result_conditions(nodes.volume) is nodes.conditions
    options = settings.options()
    assert options["seed"] == 42 and options["center_ras_mm"] == settings.center_ras_mm
    assert "device" not in options and "model" not in options


def test_without_the_drawing_the_masks_as_used_serve(scene):
    drawing = add_chest(scene)
    nodes = add(scene, drawing, by_hand=json.dumps({"aorta": ["Segment_3"]}))
    scene.RemoveNode(drawing)
    settings = settings_of(nodes.volume)
    assert settings.segmentation is nodes.conditions and settings.by_hand == {}
    scene.RemoveNode(nodes.conditions)
    assert settings_of(nodes.volume).segmentation is None
    again = segmentation_from_recipe(scene, nodes.volume)
    given = conditions_from_segmentation(again, ["body", "lung", "bone"]).conditions
    assert given.grid.matches(GRID)
    for name, mask in chest_masks().items():
        np.testing.assert_array_equal(given[name], mask)
    assert settings_of(nodes.volume).segmentation is again


def test_a_volume_from_a_file_brings_its_masks(scene, tmp_path):
    nodes = add(scene)
    storage = nodes.volume.GetStorageNode()
    storage.SetFileName(str(tmp_path / "ct.nrrd"))
    assert storage.WriteData(nodes.volume)
    scene.Clear()
    loaded = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Loaded")
    storage = slicer.vtkMRMLNRRDStorageNode()
    storage.SetFileName(str(tmp_path / "ct.nrrd"))
    assert storage.ReadData(loaded)
    assert is_synthetic(loaded) and settings_of(loaded).seed == 42
    given = conditions_from_segmentation(segmentation_from_recipe(scene, loaded), ["body", "lung", "bone"])
    np.testing.assert_array_equal(given.conditions["lung"], chest_masks()["lung"])


def test_a_saved_scene_brings_everything_back(scene, tmp_path):
    drawing, scan = add_chest(scene), add_scan(scene)
    nodes = add(scene, drawing, scan)
    table = [nodes.table.GetTable().GetColumnByName("Mean HU, seed 42").GetValue(row) for row in range(3)]
    save_and_load(scene, tmp_path / "scène.mrb")
    volume = scene.GetFirstNodeByName("CT")
    settings = settings_of(volume)
    assert settings.segmentation.GetName() == "Drawing" and settings.reference.GetName() == "Scan"
    assert result_conditions(volume).GetName() == "CT conditions"
    found = volume.GetNodeReference("MedLoRD.table").GetTable()
    assert [found.GetColumnByName("Mean HU, seed 42").GetValue(row) for row in range(3)] == pytest.approx(
        table
    )
    assert volume.GetAttribute("DICOM.SeriesDescription").startswith("SYNTHETIC CT")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(volume)
    assert hierarchy.GetItemName(hierarchy.GetItemParent(item)) == "CT run"
    assert hierarchy.GetItemAttribute(item, "DICOM.Manufacturer") == "MedLoRDSlicer (synthetic)"


def test_names_that_a_user_typed_stay_out_of_the_volumes_file(scene, tmp_path):
    nodes = add(scene, add_chest(scene), by_hand=json.dumps({"lung": ["Tumour Jane Doe"]}))
    storage = nodes.volume.GetStorageNode()
    storage.SetUseCompression(False)
    storage.SetFileName(str(tmp_path / "ct.nrrd"))
    assert storage.WriteData(nodes.volume)
    save_ct(nodes.volume, tmp_path / "export.nii")
    nodes.conditions.AddDefaultStorageNode()
    storage = nodes.conditions.GetStorageNode()
    storage.SetUseCompression(False)
    storage.SetFileName(str(tmp_path / "conditions.seg.nrrd"))
    assert storage.WriteData(nodes.conditions)
    assert [path.name for path in tmp_path.iterdir() if b"Jane" in path.read_bytes()] == []
    assert settings_of(nodes.volume).by_hand == {"lung": ("Tumour Jane Doe",)}


def test_dicom_marks_are_where_the_exporter_looks(scene):
    nodes = add(scene)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(nodes.volume)
    expected = {
        "SeriesDescription": "SYNTHETIC CT (small 1.0, seed 42)",
        "Modality": "CT",
        "Manufacturer": "MedLoRDSlicer (synthetic)",
        "Model": "small 1.0",
        "ImageType": "DERIVED\\SECONDARY\\OTHER",
        "SyntheticData": "YES",
    }
    for keyword, value in expected.items():
        assert hierarchy.GetItemAttribute(item, f"DICOM.{keyword}") == value
        assert nodes.volume.GetAttribute(f"DICOM.{keyword}") == value
    # New UIDs are the exporter's business: one that is set here would be exported twice.
    assert not [name for name in hierarchy.GetItemAttributeNames(item) if name.endswith("UID")]


def test_long_model_names_fit_a_dicom_text():
    from MedLoRDSlicerLib.dicom_markers import series_tags

    tags = series_tags({"model": "m" * 100, "model_version": "1", "seed": 2**62})
    assert len(tags["SeriesDescription"]) <= 64 and tags["SeriesDescription"].startswith("SYNTHETIC CT")
    assert len(tags["Model"]) <= 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "carries no MedLoRD recipe"),
        ({"seed": "seven"}, "seed"),
        ({"conditions": {"body": {"sha256": "0" * 64, "packed": ""}}}, "damaged|SHA-256"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_damaged_recipes_are_refused_and_add_nothing(scene, change, words):
    nodes = add(scene)
    if change is None:
        nodes.volume.RemoveAttribute("MedLoRD.recipe")
    else:
        recipe = {**json.loads(nodes.volume.GetAttribute("MedLoRD.recipe")), **change}
        nodes.volume.SetAttribute("MedLoRD.recipe", json.dumps(recipe))
    before = scene_content(scene)
    with pytest.raises(InputError, match=words) as refused:
        settings_of(nodes.volume)
        segmentation_from_recipe(scene, nodes.volume)
    assert "\n" not in str(refused.value) and scene_content(scene) == before


def test_the_recipe_of_a_result_is_valid(scene):
    assert Recipe.from_dict(json.loads(add(scene).volume.GetAttribute("MedLoRD.recipe"))).validate() == []
