"""The rows of the conditions table: what matched, how large, what is wrong, what the user chose."""

from __future__ import annotations

import numpy as np
import pytest
from scene_building import (
    AFFINE,
    SHAPE,
    add_chest,
    add_segmentation,
    box,
    fingerprint,
    oblique_affine,
    put_under,
    small_model,
)

from medlord.errors import InputError
from medlord.vocabulary import load_vocabulary
from medlord.volumes import Grid, resample_mask
from MedLoRDSlicerLib import geometry, mask_volumes
from MedLoRDSlicerLib.arrays import array_from_image, set_volume
from MedLoRDSlicerLib.conditions_table import (
    Measurement,
    build_conditions_table,
    by_hand_from_text,
    by_hand_to_text,
)
from MedLoRDSlicerLib.segments import conditions_from_segmentation

VOXEL_ML = 10 * 12 * 14 / 1000


def rows_of(table) -> dict:
    return {row.condition: row for row in table.rows}


def kinds(row) -> list[str]:
    return [warning.kind for warning in row.warnings]


def segment_id(node, name: str) -> str:
    return node.GetSegmentation().GetSegmentIdBySegmentName(name)


def test_every_condition_has_a_row_with_what_matched_it(scene):
    node = add_chest(scene)
    node.GetSegmentation().GetSegment(segment_id(node, "body")).SetColor(0.1, 0.2, 0.3)
    before = fingerprint(node)
    table = build_conditions_table(node, small_model())
    assert [row.condition for row in table.rows] == ["body", "lung", "bone", "aorta"]
    rows = rows_of(table)
    assert rows["body"].segment_names == ("body",) and rows["body"].how == "name"
    assert rows["lung"].segment_names == ("lungs",) and rows["lung"].how == "alias"
    assert rows["body"].color == pytest.approx((0.1, 0.2, 0.3))
    assert rows["lung"].title == load_vocabulary()["lung"].display
    assert rows["body"].volume_ml == pytest.approx(22 * 18 * 16 * VOXEL_ML)
    assert rows["body"].model_volume_ml == pytest.approx(rows["body"].volume_ml, rel=0.1)
    aorta = rows["aorta"]
    assert (aorta.segment_ids, aorta.how, kinds(aorta), aorta.volume_ml) == ((), "", ["absent"], None)
    assert table.reason == "" and table.unused == []
    assert [choice.name for choice in table.segments] == ["body", "lungs", "bone"]
    assert fingerprint(node) == before


def test_a_model_without_conditions_is_said(scene):
    table = build_conditions_table(add_chest(scene), small_model(conditions=[]))
    assert table.rows == [] and "follows no structures" in table.reason


def test_parts_make_a_condition_and_what_lacks_is_said(scene):
    mask = box((4, 4, 4), (12, 14, 12))
    node = add_segmentation(scene, {"body": mask, "lung_upper_lobe_left": mask, "liver": mask})
    table = build_conditions_table(node, small_model())
    lung = rows_of(table)["lung"]
    assert lung.how == "parts" and lung.segment_names == ("lung_upper_lobe_left",)
    assert kinds(lung) == ["incomplete"]
    assert "right" in lung.warnings[0].text.lower()
    assert [match.segment_name for match in table.unused] == ["liver"]


def test_what_the_user_chose_wins(scene):
    one, other = box((2, 2, 2), (12, 12, 12)), box((4, 4, 4), (18, 16, 14))
    node = add_segmentation(scene, {"body": one, "my scribble": other, "lungs": one})
    scribble = segment_id(node, "my scribble")
    by_hand = {"aorta": (scribble,), "lung": (), "body": (segment_id(node, "body"), scribble)}
    table = build_conditions_table(node, small_model(), by_hand)
    rows = rows_of(table)
    assert [rows[name].how for name in ("aorta", "lung", "body", "bone")] == ["by hand"] * 3 + [""]
    assert rows["aorta"].volume_ml == pytest.approx(14 * 12 * 10 * VOXEL_ML)
    assert kinds(rows["lung"]) == [] and kinds(rows["bone"]) == ["absent"], "leaving it empty was a choice"
    assert rows["lung"].segment_ids == () and rows["body"].segment_names == ("body", "my scribble")
    assert rows["body"].volume_ml == pytest.approx((one | other).sum() * VOXEL_ML)
    assert [match.segment_name for match in table.unused] == ["lungs"]
    given = conditions_from_segmentation(node, small_model().conditions, by_hand=by_hand)
    assert given.conditions.names == ["body", "aorta"] and given.missing == ["lung", "bone"]
    np.testing.assert_array_equal(given.conditions["aorta"], other)
    hows = {match.segment_name: match.how for match in given.matches}
    assert hows == {"body": "by hand", "my scribble": "by hand", "lungs": "alias"}


def test_a_choice_that_is_gone_is_said_and_matched_again(scene):
    node = add_chest(scene)
    by_hand = {"lung": ("no such segment",), "bone": (segment_id(node, "bone"), "gone too")}
    rows = rows_of(build_conditions_table(node, small_model(), by_hand))
    assert kinds(rows["lung"])[0] == "gone" and rows["lung"].how == "alias"
    assert kinds(rows["bone"])[0] == "gone" and rows["bone"].segment_names == ("bone",)


def test_empty_outside_and_thin_are_warned_of(scene):
    tube = np.zeros((200, 60, 60), bool)
    tube[:, 30, 30] = True
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-201, -60, -60)
    body = np.zeros_like(tube)
    body[60:140, 5:55, 5:55] = True
    node = add_segmentation(scene, {"body": body, "aorta": tube, "bone": np.zeros_like(tube)}, affine)
    rows = rows_of(build_conditions_table(node, small_model(), center_ras_mm=(0.0, 0.0, 0.0)))
    assert kinds(rows["bone"]) == ["empty"] and rows["bone"].volume_ml == 0.0
    assert kinds(rows["aorta"]) == ["outside"] and rows["body"].warnings == ()
    assert "20%" in rows["aorta"].warnings[0].text  # 80 of 400 mm
    short = tube.copy()
    short[:60], short[140:] = False, False
    node = add_segmentation(scene, {"body": body, "aorta": short}, affine)
    thin = rows_of(build_conditions_table(node, small_model()))["aorta"]
    assert kinds(thin) == ["thin"] and thin.model_volume_ml > 4 * thin.volume_ml
    assert f"{thin.volume_ml:.1f} ml drawn" in thin.warnings[0].text


def test_the_reference_places_the_grid_that_is_judged(scene):
    node = add_segmentation(scene, {"body": box((1, 1, 0), (20, 18, 15))})
    scan = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Scan")
    set_volume(scan, np.zeros(SHAPE, np.int16), AFFINE)
    far = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Region")
    far.SetCenter(0.0, 0.0, 150.0)
    far.SetSize(100, 100, 100)
    assert rows_of(build_conditions_table(node, small_model(), reference=scan))["body"].warnings == ()
    body = rows_of(build_conditions_table(node, small_model(), region=far))["body"]
    assert kinds(body) == ["outside"]


def test_transforms_count(scene):
    node = add_chest(scene)
    double = np.diag([2.0, 2.0, 2.0, 1.0])
    put_under(scene, node, double)
    body = rows_of(build_conditions_table(node, small_model()))["body"]
    assert body.volume_ml == pytest.approx(8 * 22 * 18 * 16 * VOXEL_ML) and kinds(body) == ["outside"]


def test_matching_alone_reads_no_voxel(scene, monkeypatch):
    node = add_chest(scene)

    def fail(*_):
        raise AssertionError("voxels were read")

    monkeypatch.setattr(geometry, "array_from_image", fail)
    table = build_conditions_table(node, small_model(), measure=False)
    assert rows_of(table)["lung"].segment_names == ("lungs",)
    assert all(row.volume_ml is None for row in table.rows)
    with pytest.raises(AssertionError):
        build_conditions_table(node, small_model())


def test_a_measurement_goes_piece_by_piece_on_a_copy(scene):
    node = add_chest(scene)
    measurement = Measurement(node, small_model())
    volumes, steps = [], 0
    image = node.GetSegmentation().GetSegment(segment_id(node, "bone")).GetRepresentation("Binary labelmap")
    array_from_image(image)[:] = 0  # drawn away after the measurement began
    while not measurement.done:
        measurement.step()
        steps += 1
        volumes.append(sum(row.volume_ml is not None for row in measurement.table.rows))
    assert volumes == sorted(volumes) and volumes[-1] == 3 and steps > 6
    assert rows_of(measurement.table)["bone"].volume_ml == pytest.approx(2 * 3 * 16 * VOXEL_ML)


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ({}, "has no segments"),
        ({"my scribble": box((1, 1, 1), (5, 5, 5))}, "No segment is a structure that the model takes"),
        ({"lung": np.zeros(SHAPE, bool)}, "are empty"),
    ],
)
def test_what_cannot_run_says_why(scene, masks, words):
    table = build_conditions_table(add_segmentation(scene, masks), small_model())
    assert words in table.reason and "\n" not in table.reason
    assert [row.condition for row in table.rows] == small_model().conditions


def test_no_segmentation_and_no_geometry(scene):
    table = build_conditions_table(None, small_model())
    assert "Choose a segmentation" in table.reason and len(table.rows) == 4 and table.segments == []
    node = add_segmentation(scene, {})
    node.GetSegmentation().AddEmptySegment("lung", "lung")
    assert "has no geometry" in build_conditions_table(node, small_model()).reason


def test_choices_survive_as_text():
    by_hand = {"lung": ("Segment_1", "Segmént 2"), "bone": ()}
    assert by_hand_from_text(by_hand_to_text(by_hand)) == by_hand
    assert by_hand_to_text({}) == "" and by_hand_from_text("") == {}
    for text in ("{", "[]", '{"lung": "Segment_1"}', '{"lung": [1]}'):
        with pytest.raises(InputError, match="choose the segments in the table again"):
            by_hand_from_text(text)


@pytest.mark.parametrize("affine", [AFFINE, oblique_affine()], ids=["axis-aligned", "oblique"])
@pytest.mark.parametrize("spacing", [(20.0, 20.0, 30.0), (4.0, 4.0, 6.0)], ids=["coarser", "finer"])
def test_volumes_in_pieces_are_those_of_the_whole(affine, spacing, monkeypatch):
    monkeypatch.setattr(mask_volumes, "_TARGET_VOXELS", 700)
    source = Grid(SHAPE, affine)
    target = Grid.centered((60, 60, 40), spacing, tuple(source.center_ras_mm))
    thick, thin = box((3, 4, 2), (21, 17, 15)), np.zeros(SHAPE, bool)
    thin[2:22, 9, 8] = True
    for mask, tolerance in ((thick, 0.02), (thin, 0.05)):
        pieces = list(mask_volumes.volume_in_pieces(mask, source, target))
        whole = resample_mask(mask, source, target).sum() * target.voxel_volume_ml
        assert (len(pieces) > 1 or mask is thin) and sum(pieces) == pytest.approx(whole, rel=tolerance)
    assert list(mask_volumes.volume_in_pieces(np.zeros(SHAPE, bool), source, target)) == []
    far = Grid.centered((8, 8, 8), (5.0, 5.0, 5.0), (2000.0, 0.0, 0.0))
    assert sum(mask_volumes.volume_in_pieces(thick, source, far)) == 0.0


def test_the_grid_of_the_table_is_that_of_the_engine(scene):
    """Without a centre the engine takes the middle of all masks; the table must judge the same grid."""
    node = add_segmentation(scene, {"body": box((1, 1, 0), (23, 19, 16))})
    conditions = conditions_from_segmentation(node, ["body"]).conditions
    low, high = conditions.bounding_box_ras_mm()
    placed = conditions.resampled(small_model().grid_at((low + high) / 2))
    row = rows_of(build_conditions_table(node, small_model()))["body"]
    assert row.model_volume_ml == pytest.approx(placed["body"].sum() * 12.0)
