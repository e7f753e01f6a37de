"""Segmentations on disk: Slicer's .seg.nrrd with layers, labelmaps, tables of names."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from medlord.errors import InputError
from medlord.segmentation_files import Segmentation, read_labels, read_segmentation, write_segmentation
from medlord.vocabulary import load_vocabulary
from medlord.volume_files import save_volume
from medlord.volumes import Grid, Volume

AFFINE = np.array([[0, -2.0, 0, 30], [1.5, 0, 0, -20], [0, 0, 3.0, 400], [0, 0, 0, 1]])
GRID = Grid((6, 7, 8), AFFINE)


def block(low: int, high: int) -> np.ndarray:
    """A cube of voxels."""
    mask = np.zeros(GRID.shape, bool)
    mask[low:high, low:high, low:high] = True
    return mask


MASKS = {
    "body": block(0, 6),
    "lung": block(1, 4),
    "my lesion": block(2, 3),
    "liver": block(4, 6),
    "aorta": block(0, 0),
}


def test_masks_survive_with_their_overlaps(tmp_path):
    path = write_segmentation(tmp_path / "a.seg.nrrd", GRID, MASKS)
    found = read_segmentation(path)
    assert found.grid.matches(GRID)
    assert [segment.name for segment in found.segments] == list(MASKS)
    assert all(np.array_equal(found.mask(segment), MASKS[segment.name]) for segment in found.segments)
    # Liver and lung meet nothing of each other, so they share a layer.
    assert len(found.layers) == 3
    tags = {segment.name: segment.terminology for segment in found.segments}
    assert tags["my lesion"] is None and tags["liver"] == load_vocabulary()["liver"].terminology
    assert found.unnamed_values() == []


def test_another_reader_sees_the_layers(tmp_path):
    path = write_segmentation(tmp_path / "a.seg.nrrd", GRID, MASKS)
    image = sitk.ReadImage(str(path))
    assert image.GetNumberOfComponentsPerPixel() == 3
    lps = np.array(image.TransformIndexToPhysicalPoint((1, 2, 3)))
    assert np.allclose(lps * [-1, -1, 1], (AFFINE @ [1, 2, 3, 1])[:3])
    assert image[2, 2, 2] == (1, 1, 1) and image[5, 5, 5] == (1, 2, 0)
    assert image.GetMetaData("Segment1_Name") == "lung" and image.GetMetaData("Segment3_LabelValue") == "2"


def test_conditions_are_built_and_accounted_for(tmp_path):
    masks = {
        "lung_left": block(0, 1),
        "Right Lung": block(3, 4),
        "BODY": block(0, 6),
        "spleen": block(4, 5),
        "what": block(5, 6),
    }
    found = read_segmentation(write_segmentation(tmp_path / "a.seg.nrrd", GRID, masks))
    assembled = found.conditions(["body", "lung", "bone"])
    assert assembled.conditions.names == ["body", "lung"]
    assert np.array_equal(assembled.conditions["lung"], block(0, 1) | block(3, 4))
    assert assembled.unused == ["spleen", "what"] and assembled.plan.missing == ["bone"]
    with pytest.raises(InputError, match="'lung_left', 'Right Lung'.*wanted is one of bone"):
        found.conditions(["bone"])


def slicer_file(path, array: np.ndarray, keys: dict[str, str]) -> None:
    """An NRRD with keys, as 3D Slicer writes it; `array` is [k, j, i] or [k, j, i, layer]."""
    image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
    for key, value in keys.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(path), useCompression=True)


def test_a_file_of_slicer_with_one_layer(tmp_path):
    array = np.zeros((4, 5, 6), np.uint8)
    array[0, 0, 0], array[1, 2, 3], array[3, 4, 5] = 1, 3, 9
    aorta = load_vocabulary()["aorta"].terminology
    slicer_file(
        tmp_path / "a.seg.nrrd",
        array,
        {
            "Segment0_ID": "Segment_1", "Segment0_Name": "Segment_1", "Segment0_LabelValue": "1", "Segment0_Layer": "0",
            "Segment0_Tags": f"Segmentation.Status:inprogress|TerminologyEntry:{aorta}|",
            "Segment1_ID": "lung_left", "Segment1_Name": "renamed", "Segment1_LabelValue": "3", "Segment1_Layer": "0",
            "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        },
    )  # fmt: skip
    found = read_segmentation(tmp_path / "a.seg.nrrd")
    assert [(s.name, s.value, s.identifier) for s in found.segments] == [
        ("Segment_1", 1, "Segment_1"),
        ("renamed", 3, "lung_left"),
    ]
    assembled = found.conditions(["aorta", "lung"])
    assert [match.how for match in assembled.matches.values()] == ["terminology", "id"]
    assert np.argwhere(assembled.conditions["aorta"]).tolist() == [[0, 0, 0]]
    assert np.argwhere(assembled.conditions["lung"]).tolist() == [[3, 2, 1]]
    assert found.unnamed_values() == [9]


def test_an_older_file_of_slicer_has_one_layer_per_segment(tmp_path):
    array = np.zeros((4, 5, 6, 2), np.uint8)
    array[1, 2, 3, 0] = array[1, 2, 3, 1] = array[0, 0, 0, 1] = 1
    slicer_file(
        tmp_path / "old.seg.nrrd",
        array,
        {"Segment0_ID": "s0", "Segment0_Name": "Lung", "Segment1_ID": "s1", "Segment1_Name": "Body"},
    )
    conditions = read_segmentation(tmp_path / "old.seg.nrrd").conditions(["lung", "body"]).conditions
    assert [int(mask.sum()) for mask in conditions.masks.values()] == [1, 2]


def labelmap_file(path) -> Segmentation:
    """A labelmap without names: 1 lung, 2 heart, 5 nothing known."""
    array = np.zeros(GRID.shape, np.uint8)
    array[block(0, 2)], array[block(2, 4)], array[block(5, 6)] = 1, 2, 5
    save_volume(Volume(array, GRID), path)
    return path


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_labelmaps_take_their_names_from_a_table(tmp_path, ending):
    path = labelmap_file(tmp_path / f"map{ending}")
    found = read_segmentation(path, {1: "Lungs", 2: "heart"})
    assert found.grid.matches(GRID) and found.unnamed_values() == [5]
    assembled = found.conditions(["lung"])
    assert assembled.conditions["lung"].sum() == 8 and assembled.unused == ["heart"]
    with pytest.raises(InputError, match="no names for its label values; give them with --labels"):
        read_segmentation(path)


def test_files_of_totalsegmentator_bring_their_names(shared):
    found = read_segmentation(shared / "data" / "ct" / "ts_abdomen_sm_seg117.nii.gz")
    assert len(found.segments) == 117 and found.unnamed_values() == []
    assembled = found.conditions(["lung", "bone", "liver", "heart_atrium_left"])
    assert assembled.conditions.names == ["lung", "bone", "liver"]
    lobes = [s for s in found.segments if s.name.startswith("lung_")]
    expected = np.logical_or.reduce([found.mask(segment) for segment in lobes])
    assert expected.any() and np.array_equal(assembled.conditions["lung"], expected)
    assert "spleen" in assembled.unused and "liver" not in assembled.unused


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"1": "lung", "20": "aorta"}'),
        ("b.json", '{"lung": 1, "aorta": 20}'),
        ("c.csv", "value,name\n1,lung\n20,aorta\n"),
        ("d.csv", "\ufeffname;value\r\nlung;1\r\naorta;20\r\n"),
        ("e.csv", "1\tlung\n\n20\taorta"),
        ("f.csv", "1, lung , ff0000\n20, aorta, 00ff00"),
    ],
)
def test_tables_of_names(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / name) == {1: "lung", 20: "aorta"}


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.json", "[1, 2]", "JSON object"),
        ("b.json", "{", "no table"),
        ("c.json", '{"x": {"1": "lung"}}', "no value and name"),
        ("d.json", '{"1": "lung", "1": "liver"}', r"\[1\] twice"),
        ("i.json", '{"lung": 1, "liver": 1}', r"\[1\] twice"),
        ("j.json", '{"lung": [1, "2x"]}', "no value and name"),
        ("k.json", '{"lung": []}', "no value"),
        ("e.csv", "", "no value"),
        ("f.csv", "lung,heart\na,b", "no value and name"),
        ("g.csv", "0,background\n1,lung", "below 1"),
        ("h.csv", "1\n2\n", "no value and name"),
    ],
)
def test_bad_tables_say_why(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=reason) as error:
        read_labels(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="no label table none.csv"):
        read_labels(tmp_path / "none.csv")


def test_bad_files_say_why(tmp_path, shared):
    with pytest.raises(InputError, match="There is no file"):
        read_segmentation(tmp_path / "none.seg.nrrd")
    with pytest.raises(InputError, match="no whole numbers"):
        read_segmentation(shared / "data" / "ct" / "sts002_pet.nii.gz", {1: "lung"})
    (tmp_path / "junk.seg.nrrd").write_bytes(b"NRRD0004\njunk")
    with pytest.raises(InputError, match="cannot be read as NRRD"):
        read_segmentation(tmp_path / "junk.seg.nrrd")
    layered = write_segmentation(tmp_path / "layers.seg.nrrd", GRID, MASKS)
    with pytest.raises(InputError, match="3 layers"):
        read_segmentation(layered, {1: "lung"})
    array = np.zeros((3, 3, 3), np.uint8)
    slicer_file(tmp_path / "odd.seg.nrrd", array, {"Segment0_ID": "a", "Segment0_Layer": "4"})
    with pytest.raises(InputError, match="layer 4"):
        read_segmentation(tmp_path / "odd.seg.nrrd")
    sheared = AFFINE.copy()
    sheared[0, 0] = 0.5
    nibabel.save(nibabel.Nifti1Image(array, sheared), tmp_path / "sheared.nii")
    with pytest.raises(InputError, match="sheared"):
        read_segmentation(tmp_path / "sheared.nii", {1: "lung"})
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())).count("seg.nrrd") == 3


def test_segmentations_are_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(InputError, match="use .seg.nrrd"):
        write_segmentation(tmp_path / "a.nrrd", GRID, MASKS)
    with pytest.raises(InputError, match="does not exist"):
        write_segmentation(tmp_path / "none" / "a.seg.nrrd", GRID, MASKS)
    with pytest.raises(InputError, match="shape"):
        write_segmentation(tmp_path / "a.seg.nrrd", GRID, {"lung": np.zeros((2, 2, 2), bool)})
    assert list(tmp_path.iterdir()) == []
