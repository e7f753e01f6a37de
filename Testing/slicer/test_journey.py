"""The whole journey of a user with the bundled model: draw from nothing, map, run, compare, save, load, run again."""

from __future__ import annotations

import numpy as np
import pytest
from drawing import SegmentEditor
from scene_building import folder_content, save_and_load

from MedLoRDSlicerLib.arrays import volume_from_node, volume_grid
from MedLoRDSlicerLib.canvas import new_canvas, prepare_segment_editor
from MedLoRDSlicerLib.compare import LEFT, RIGHT, CompareView, input_volume_of, result_conditions
from MedLoRDSlicerLib.conditions_table import by_hand_from_text, by_hand_to_text
from MedLoRDSlicerLib.placement import is_canvas
from MedLoRDSlicerLib.recipes import settings_of
from MedLoRDSlicerLib.results import SampleSet
from MedLoRDSlicerLib.seeds import add_standard_deviation, synthetic_siblings

STEPS = 2
# Room for whichever model is bundled: the canvas is its grid, 300 mm wide and high at least.
BODY, LUNG, HEART = ((0, 0, 0), (140, 100, 140)), ((70, 0, 10), (45, 60, 90)), ((-25, 20, -10), (45, 40, 45))


def draw(scene, editor_logic, canvas, description) -> None:
    """Body, one lung and a "heart", which is no condition of the model, with the Segment Editor's own logic."""
    editor = SegmentEditor(
        scene, editor_logic, prepare_segment_editor(scene, canvas.segmentation, description)
    )
    canvas.segmentation.GetSegmentation().AddEmptySegment("heart", "heart")
    for segment, place in (("body", BODY), ("lung", LUNG), ("heart", HEART)):
        editor.draw_ellipsoid(segment, *place)


def compare_with_input(scene, layout, ct) -> None:
    """Compare layout and back; a CT that was drawn from nothing is compared with its canvas."""
    compare = CompareView(scene)
    before = layout.GetViewArrangement()
    compare.show(input_volume_of(ct), ct)
    compare.apply_window("lung")
    compare.swap()
    assert is_canvas(input_volume_of(ct)) and compare.swapped
    assert {side for side, *_ in compare.slice_nodes()} == {LEFT, RIGHT}
    assert result_conditions(ct).GetDisplayNode().GetVisibility2DOutline()
    compare.leave()
    assert layout.GetViewArrangement() == before


def test_from_an_empty_canvas_to_the_same_volume_again(scene, layout, logic, editor_logic, tmp_path):
    description = logic.describe_model()
    canvas = new_canvas(scene, description)
    draw(scene, editor_logic, canvas, description)

    # Map: the table shows that nothing takes the heart; the user gives it to the myocardium.
    table = logic.conditions_table(canvas.segmentation)
    assert table.reason == "" and [match.segment_name for match in table.unused] == ["heart"]
    text = by_hand_to_text({"heart_myocardium": ("heart",)})  # what the parameter node keeps
    by_hand = by_hand_from_text(text)
    table = logic.conditions_table(canvas.segmentation, by_hand=by_hand)
    row = next(row for row in table.rows if row.condition == "heart_myocardium")
    # The canvas's own empty segment of that name makes room.
    assert [match.segment_name for match in table.unused] == ["heart_myocardium"] and row.how == "by hand"
    assert row.volume_ml == pytest.approx(4 / 3 * np.pi * np.prod(HEART[1]) / 1000, rel=0.15)

    # Run two seeds of the mask with a real worker.
    samples, prepared = SampleSet(), logic.prepare(canvas.segmentation, by_hand=by_hand)
    while not prepared.done:
        prepared.step()
    options = {"by_hand": by_hand, "steps": STEPS, "contrast_phase": "arterial"}
    runs = [
        logic.start(canvas.segmentation, seed=seed, samples=samples, prepared=prepared, **options)
        for seed in (5, 6)
    ]
    first, second = (run.wait() for run in runs)
    made = volume_from_node(first)
    assert made.grid.matches(volume_grid(canvas.volume))
    assert (made.array != volume_from_node(second).array).any()
    assert len(folder_content(scene, runs[0].nodes.folder_item)) == 4
    assert synthetic_siblings(first) == [first, second]
    deviation = volume_from_node(add_standard_deviation(scene, [first, second])).array
    assert deviation.max() > 0

    compare_with_input(scene, layout, first)

    # Save, load, reload the recipe: the same volume, from the drawing and from the recipe alone.
    name = first.GetName()
    save_and_load(scene, tmp_path / "journey.mrb")
    loaded = scene.GetFirstNodeByName(name)
    np.testing.assert_array_equal(volume_from_node(loaded).array, made.array)
    settings = settings_of(loaded)
    assert (settings.seed, settings.steps, settings.by_hand) == (5, STEPS, by_hand)
    assert settings.attributes["contrast_phase"] == "arterial"
    assert settings.segmentation.GetName() == "Canvas segmentation"
    again = logic.start(settings.segmentation, settings.model, **settings.options()).wait()
    assert again is not loaded and again.GetName() != name
    np.testing.assert_array_equal(volume_from_node(again).array, made.array)
    assert volume_from_node(again).grid.matches(made.grid)
    repeated = logic.repeat(loaded).wait()
    np.testing.assert_array_equal(volume_from_node(repeated).array, made.array)
    assert repeated.GetAttribute("MedLoRD.segments") == loaded.GetAttribute("MedLoRD.segments")
