"""What a run puts into the scene: place, provenance, names, files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import vtk
from scene_building import add_chest, fingerprint, oblique_affine, put_under, scene_content

from medlord.conditions import Conditions
from medlord.errors import EngineError, InputError
from medlord.volume_files import load_volume
from medlord.volumes import Grid, Volume
from MedLoRDSlicerLib import results
from MedLoRDSlicerLib.arrays import set_volume, volume_from_node
from MedLoRDSlicerLib.headless import in_slicer_application
from MedLoRDSlicerLib.results import add_run, recipe_of, save_ct, save_segmentation, show_in_slices

RECIPE = {"model": "tiny", "seed": 5, "note": 'quotes " and ; : = % and é\n', "packed": "A" * 50_000}


def made() -> tuple[Volume, Conditions]:
    """A volume that has a value of its own at every voxel, on an oblique grid, and two overlapping masks."""
    grid = Grid((7, 6, 5), oblique_affine())
    array = np.arange(7 * 6 * 5, dtype=np.float32).reshape(7, 6, 5) - 1000
    lung = np.zeros(grid.shape, bool)
    lung[1:4, 2:5, 1:3] = True
    body = np.zeros(grid.shape, bool)
    body[1:6, 1:5, 1:4] = True
    masks = {"body": body, "lung": lung, "aorta": np.zeros(grid.shape, bool)}
    return Volume(array, grid, RECIPE), Conditions(grid, masks)


def add(scene, name="CT", beside=None):
    volume, conditions = made()
    return add_run(scene, volume, conditions, name, {"seed": "5", "model": "tiny"}, beside)


def test_voxels_lie_where_their_grid_says(scene):
    node, (volume, _) = add(scene).volume, made()
    assert node.GetImageData().GetScalarTypeAsString() == "short"
    assert node.GetImageData().GetDimensions() == volume.grid.shape
    assert node.GetParentTransformNode() is None
    to_ras = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(to_ras)
    for index in [(0, 0, 0), (6, 0, 0), (0, 5, 0), (0, 0, 4), (3, 2, 1)]:
        assert node.GetImageData().GetScalarComponentAsDouble(*index, 0) == volume.array[index]
        np.testing.assert_allclose(
            to_ras.MultiplyPoint((*index, 1.0))[:3], (volume.grid.affine @ (*index, 1))[:3], atol=1e-9
        )
    back = volume_from_node(node)
    np.testing.assert_array_equal(back.array, volume.array.astype(np.int16))
    assert back.grid.matches(volume.grid)
    # Slicer's own view of the same node: [k, j, i].
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(node)[1, 2, 3], volume.array[3, 2, 1])


def test_values_are_rounded_and_kept_in_the_range_of_a_ct(scene):
    volume, conditions = made()
    volume.array[0, 0, :4] = (0.6, -0.6, 40000, -40000)
    node = add_run(scene, volume, conditions, "CT", {}).volume
    assert volume_from_node(node).array[0, 0, :4].tolist() == [1, -1, 32767, -32768]


def test_provenance_and_the_synthetic_mark(scene):
    node = add(scene).volume
    assert json.loads(node.GetAttribute("MedLoRD.recipe")) == RECIPE == recipe_of(node)
    assert (node.GetAttribute("MedLoRD.seed"), node.GetAttribute("MedLoRD.model")) == ("5", "tiny")
    assert node.GetAttribute("MedLoRD.synthetic") == node.GetAttribute("synthetic") == "1"
    plain = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Real")
    with pytest.raises(InputError, match="'Real' carries no MedLoRD recipe"):
        recipe_of(plain)


def test_display_is_a_mediastinal_window(scene):
    display = add(scene).volume.GetDisplayNode()
    assert not display.GetAutoWindowLevel()
    assert 300 <= display.GetWindow() <= 450 and display.GetLevel() == 40


def test_the_conditions_are_segments_with_terminology(scene):
    nodes, (_, conditions) = add(scene), made()
    segmentation = nodes.conditions.GetSegmentation()
    assert list(segmentation.GetSegmentIDs()) == ["body", "lung"]
    for name in ("body", "lung"):
        found = slicer.vtkOrientedImageData()
        nodes.conditions.GetBinaryLabelmapRepresentation(name, found)
        from MedLoRDSlicerLib.arrays import array_from_image

        np.testing.assert_array_equal(array_from_image(found) != 0, conditions[name])
    tag = vtk.reference("")
    assert segmentation.GetSegment("lung").GetTag("TerminologyEntry", tag) and "SCT^39607008^Lung" in str(tag)
    reference = nodes.conditions.GetNodeReference(nodes.conditions.GetReferenceImageGeometryReferenceRole())
    assert reference is nodes.volume


def test_each_run_has_a_folder_beside_the_segmentation(scene):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    drawing = add_chest(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient")
    item = hierarchy.GetItemByDataNode(drawing) or hierarchy.CreateItem(patient, drawing)
    hierarchy.SetItemParent(item, patient)
    first, second = add(scene, beside=drawing), add(scene, beside=drawing)
    for nodes in (first, second):
        assert hierarchy.GetItemParent(nodes.folder_item) == patient
        for node in (nodes.volume, nodes.conditions):
            assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == nodes.folder_item
    names = [hierarchy.GetItemName(nodes.folder_item) for nodes in (first, second)]
    assert len(set(names)) == 2
    assert [nodes.volume.GetName() for nodes in (first, second)] == ["CT", "CT_1"]
    assert len({nodes.conditions.GetName() for nodes in (first, second)}) == 2


def test_when_the_last_step_fails_nothing_stays(scene, monkeypatch):
    before = scene_content(scene)

    def fail(*_):
        raise RuntimeError("no room")

    monkeypatch.setattr(results, "_put_into", fail)
    with pytest.raises(RuntimeError, match="no room"):
        add(scene)
    assert scene_content(scene) == before


def test_a_slicer_nrrd_file_keeps_recipe_and_mark(scene, tmp_path):
    node = add(scene).volume
    path = tmp_path / "été ct.nrrd"
    storage = node.GetStorageNode()
    storage.SetFileName(str(path))
    assert storage.WriteData(node)
    image = sitk.ReadImage(str(path))
    assert image.GetMetaData("synthetic") == "1"
    assert json.loads(image.GetMetaData("MedLoRD.recipe")) == RECIPE
    assert load_volume(path).grid.matches(made()[0].grid)


def test_an_exported_file_can_be_run_again(scene, tmp_path):
    node, (volume, _) = add(scene).volume, made()
    for name in ("ct.nrrd", "ct.nii.gz"):
        back = load_volume(save_ct(node, tmp_path / name))
        assert back.recipe == RECIPE and back.grid.matches(volume.grid)
        np.testing.assert_array_equal(back.array, volume.array.astype(np.int16))
    assert sitk.ReadImage(str(tmp_path / "ct.nrrd")).GetMetaData("medlord_synthetic") == "1"


def test_a_saved_segmentation_is_read_back_with_its_segments(scene, tmp_path):
    drawing = add_chest(scene)
    before = fingerprint(drawing)
    path = save_segmentation(drawing, tmp_path / "input.seg.nrrd")
    assert fingerprint(drawing) == before and drawing.GetStorageNode() is None
    again = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Again")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(again)
    from MedLoRDSlicerLib.segments import conditions_from_segmentation

    one, two = (
        conditions_from_segmentation(node, ["body", "lung", "bone"]).conditions for node in (drawing, again)
    )
    assert one.names == two.names and one.grid.matches(two.grid)
    for name in one.names:
        np.testing.assert_array_equal(one[name], two[name])


def test_saving_refuses_what_it_cannot_do(scene, tmp_path):
    with pytest.raises(InputError, match="saved as .seg.nrrd"):
        save_segmentation(add_chest(scene), tmp_path / "input.nii.gz")
    with pytest.raises(InputError, match="does not exist"):
        save_segmentation(add_chest(scene), tmp_path / "nowhere" / "input.seg.nrrd")
    assert list(tmp_path.iterdir()) == []


def test_a_scene_file_brings_the_recipe_back(scene, tmp_path):
    add(scene)
    path = tmp_path / "scene.mrml"
    volume_file = tmp_path / "CT.nrrd"
    node = scene.GetFirstNodeByName("CT")
    node.GetStorageNode().SetFileName(str(volume_file))
    node.GetStorageNode().WriteData(node)
    scene.SetURL(str(path))
    scene.SetRootDirectory(str(tmp_path))
    assert scene.Commit()
    scene.Clear()
    assert scene.GetFirstNodeByName("CT") is None
    scene.SetURL(str(path))
    assert scene.Connect()
    loaded = scene.GetFirstNodeByName("CT")
    assert recipe_of(loaded) == RECIPE and loaded.GetAttribute("synthetic") == "1"
    assert volume_from_node(loaded).grid.matches(made()[0].grid)


def test_slice_views_show_the_new_volume(scene):
    views = [scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode") for _ in range(2)]
    node = add(scene).volume
    show_in_slices(scene, node)
    assert {view.GetBackgroundVolumeID() for view in views} == {node.GetID()}


def test_a_volume_below_a_transform_is_read_in_world_space(scene):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Scan")
    with pytest.raises(InputError, match="holds no voxels"):
        volume_from_node(node)
    set_volume(node, made()[0].array.astype(np.int16), oblique_affine())
    move = np.eye(4)
    move[:3, 3] = (1, 2, 3)
    put_under(scene, node, move)
    np.testing.assert_allclose(volume_from_node(node).grid.affine, move @ oblique_affine(), atol=1e-9)


@pytest.mark.skipif(in_slicer_application(), reason="in Slicer there is an application")
def test_a_headless_scene_gives_back_what_it_replaced(scene, monkeypatch):
    from MedLoRDSlicerLib import headless

    with headless.HeadlessSlicer() as inner:
        assert slicer.mrmlScene is inner.scene is not scene
    assert slicer.mrmlScene is scene
    monkeypatch.setattr(headless, "in_slicer_application", lambda: True)
    with pytest.raises(EngineError, match="slicer.mrmlScene"):
        headless.HeadlessSlicer()
    assert slicer.mrmlScene is scene


@pytest.mark.skipif(in_slicer_application(), reason="in Slicer there is an application")
def test_these_tests_are_no_part_of_slicer():
    folder = Path(__file__).resolve().parent
    assert folder.parent not in [Path(entry).resolve() for entry in sys.path]
    assert folder not in [Path(entry).resolve() for entry in slicer.__path__]
