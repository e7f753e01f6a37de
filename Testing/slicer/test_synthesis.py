"""Whole runs: a segmentation in a scene, a real worker process, a CT in the same place."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import numpy as np
import pytest
from scene_building import (
    AFFINE,
    add_chest,
    add_segmentation,
    box,
    fingerprint,
    oblique_affine,
    put_under,
    rotation,
    scene_content,
)

from medlord.client import EngineClient
from medlord.errors import CancelledError, EngineError, InputError
from medlord.volumes import Grid
from MedLoRDSlicerLib.arrays import volume_from_node
from MedLoRDSlicerLib.engine import Engine
from MedLoRDSlicerLib.logic import SynthesisLogic
from MedLoRDSlicerLib.results import recipe_of, save_ct
from MedLoRDSlicerLib.segments import conditions_from_segmentation

WANTED = ["body", "lung", "bone", "aorta"]


def centre_of(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Mean world position (RAS mm) of a mask's voxels."""
    return (np.argwhere(mask) @ grid.affine[:3, :3].T + grid.affine[:3, 3]).mean(axis=0)


def wait_until(condition, seconds: float = 900.0) -> None:
    """Wait for something that another process does; fails when it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("affine", [AFFINE, oblique_affine()], ids=["axis-aligned", "oblique"])
def test_a_ct_appears_where_the_segmentation_is(scene, logic, tiny_model, affine):
    drawing = add_chest(scene, affine)
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = rotation((5, -10, 20)), (40.0, -25.0, 60.0)
    put_under(scene, drawing, move)
    before, events = fingerprint(drawing), []

    ct = logic.synthesize(
        drawing, tiny_model, seed=11, contrast_phase="arterial", steps=4, progress=events.append
    )

    assert fingerprint(drawing) == before
    given = conditions_from_segmentation(drawing, WANTED).conditions
    low, high = given.bounding_box_ras_mm()
    volume = volume_from_node(ct)
    assert volume.array.dtype == np.int16 and volume.array.shape == (16, 16, 8)
    np.testing.assert_allclose(volume.grid.center_ras_mm, (low + high) / 2, atol=1e-6)
    np.testing.assert_allclose(volume.grid.spacing_mm, (20, 20, 30))
    used = scene.GetFirstNodeByName(f"{ct.GetName()} conditions")
    placed = conditions_from_segmentation(used, WANTED).conditions
    assert placed.grid.matches(volume.grid)
    for name in given.names:
        distance = np.linalg.norm(centre_of(placed[name], placed.grid) - centre_of(given[name], given.grid))
        assert distance < 15.0, name  # half a voxel of the model's 30 mm slices
    recipe = recipe_of(ct)
    assert (recipe["seed"], recipe["attributes"]) == (11, {"contrast_phase": "arterial"})
    assert ct.GetAttribute("MedLoRD.seed") == "11" and ct.GetAttribute("synthetic") == "1"
    assert {"denoise", "decode"} <= {event.phase for event in events}


def test_one_seed_is_one_volume_and_names_do_not_collide(scene, logic, tiny_model):
    drawing = add_chest(scene)
    nodes = [logic.synthesize(drawing, tiny_model, seed=seed, name="Result", steps=2) for seed in (1, 1, 2)]
    arrays = [volume_from_node(node).array for node in nodes]
    np.testing.assert_array_equal(arrays[0], arrays[1])
    assert (arrays[0] != arrays[2]).any()
    assert len({node.GetName() for node in nodes}) == 3


def test_what_was_not_used_is_reported(scene, logic, tiny_model, caplog):
    mask = box((4, 4, 4), (16, 16, 12))
    drawing = add_segmentation(scene, {"body": mask, "liver": mask, "my scribble": mask})
    run = logic.start(drawing, tiny_model, steps=1)
    run.wait()
    assert "made from it: liver, my scribble." in " ".join(run.warnings)
    ct = logic.synthesize(drawing, tiny_model, steps=1)
    assert "2 of 3 segments not used" in caplog.text and "left to the model: lung, bone, aorta" in caplog.text
    warnings, segments = (json.loads(ct.GetAttribute(f"MedLoRD.{name}")) for name in ("warnings", "segments"))
    assert warnings == run.warnings_for_record and "2 of 3 segments not used" in warnings[0]
    assert segments == [
        {"structure": "body", "how": "name", "conditions": ["body"]},
        {"structure": "liver", "how": "name", "conditions": []},
    ]
    assert ct.GetAttribute("MedLoRD.unmatched_segments") == "1"


def test_names_that_a_user_typed_reach_no_file_and_no_log(scene, logic, tiny_model, tmp_path, caplog, capfd):
    caplog.set_level("DEBUG")
    mask = box((4, 4, 4), (16, 16, 12))
    drawing = add_segmentation(scene, {"body": mask, "Tumour Jane Doe": mask})
    drawing.SetName("Scan of Jane Doe")
    drawing.GetSegmentation().GetNthSegment(0).SetName("Body")
    ct = logic.synthesize(drawing, tiny_model, steps=1)
    # In the scene, beside the segmentation, the name helps; the user sees it there and can change it.
    assert ct.GetName().startswith("Scan of Jane Doe")
    used = scene.GetFirstNodeByName(f"{ct.GetName()} conditions")
    used.AddDefaultStorageNode()
    for node, name in ((ct, "ct.nrrd"), (used, "conditions.seg.nrrd")):
        storage = node.GetStorageNode()
        storage.SetUseCompression(False)
        storage.SetFileName(str(tmp_path / name))
        assert storage.WriteData(node)
    save_ct(ct, tmp_path / "export.nrrd")
    save_ct(ct, tmp_path / "export.nii")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(files) == {"ct.nrrd", "conditions.seg.nrrd", "export.nrrd", "export.nii"}
    assert b"MedLoRD.segments:=" in files["ct.nrrd"] and b"MedLoRD.warnings:=" in files["ct.nrrd"]
    told = {"log": caplog.text, "console": "".join(capfd.readouterr())}
    assert "1 of 2 segments not used" in told["log"]
    found = [name for name, data in files.items() if b"Jane" in data or b"Tumour" in data]
    found += [name for name, text in told.items() if "Jane" in text or "Tumour" in text]
    assert found == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "no-such-model"}, "There is no model 'no-such-model'"),
        ({"contrast_phase": "lunar"}, "'lunar' is no contrast_phase"),
        ({"sampler": "guess"}, "guess"),
        ({"device": "abacus"}, "abacus"),
        ({"seed": -1}, "-1"),
        ({"steps": 0}, "0"),
        ({"segmentation_node": None}, "A segmentation is needed"),
    ],
)
def test_bad_input_changes_nothing(scene, logic, tiny_model, change, words):
    arguments = {"segmentation_node": add_chest(scene), "model": tiny_model, **change}
    before = scene_content(scene)
    with pytest.raises(InputError) as refused:
        logic.synthesize(**arguments)
    assert words in str(refused.value) and "\n" not in str(refused.value)
    assert scene_content(scene) == before


def test_a_volume_or_a_node_outside_a_scene_is_no_segmentation(scene, logic):
    import slicer

    with pytest.raises(InputError, match="'Scan' was given"):
        logic.synthesize(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Scan"))
    with pytest.raises(InputError, match="in no scene"):
        logic.synthesize(slicer.vtkMRMLSegmentationNode())


def test_cancel_leaves_the_scene_as_it_was(scene, logic, tiny_model):
    drawing = add_chest(scene)
    before = scene_content(scene)
    steps = []

    def progress(event):
        if event.phase == "denoise":
            steps.append(event.step)

    with pytest.raises(CancelledError):
        logic.synthesize(drawing, tiny_model, sampler="ddpm", progress=progress, cancel=lambda: bool(steps))
    assert steps and max(steps) < 300
    assert scene_content(scene) == before
    logic.synthesize(drawing, tiny_model, steps=1)


def test_an_exception_in_a_callback_cancels_the_run(scene, logic, tiny_model):
    def fail(event):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        logic.synthesize(add_chest(scene), tiny_model, sampler="ddpm", progress=fail)
    assert logic.synthesize(add_chest(scene), tiny_model, steps=1)


def delete_node(scene, drawing):
    scene.RemoveNode(drawing)


def close_scene(scene, drawing):
    scene.Clear()


def close_scene_and_draw_again(scene, drawing):
    identifier = drawing.GetID()
    scene.Clear()
    assert add_chest(scene).GetID() == identifier


@pytest.mark.parametrize("happen", [delete_node, close_scene, close_scene_and_draw_again])
def test_a_result_without_its_segmentation_is_dropped(scene, logic, tiny_model, happen):
    drawing = add_chest(scene)
    run = logic.synthesize(drawing, tiny_model, steps=2, wait=False)
    happen(scene, drawing)
    before = scene_content(scene)
    with pytest.raises(CancelledError, match="dropped"):
        run.wait()
    assert (run.state, run.volume_node) == ("dropped", None)
    another = logic.synthesize(add_chest(scene), tiny_model, steps=1, name="Next")
    assert another.GetScene() is scene
    assert not [
        entry
        for entry in scene_content(scene)
        if "CT" in entry[2] and "Next" not in entry[2] and entry not in before
    ]


def test_two_runs_share_one_worker(scene, logic, tiny_model):
    drawing = add_chest(scene)
    runs = [logic.start(drawing, tiny_model, seed=seed, steps=2) for seed in (1, 2)]
    # Waiting for the second moves the first along too.
    runs[1].wait()
    runs[0].wait()
    assert [run.state for run in runs] == ["finished", "finished"]
    assert [run.volume_node.GetAttribute("MedLoRD.seed") for run in runs] == ["1", "2"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_worker_leaves_the_scene_and_the_next_run_works(scene, logic, tiny_model):
    drawing = add_chest(scene)
    before, content = fingerprint(drawing), scene_content(scene)
    run = logic.start(drawing, tiny_model, sampler="ddpm")

    def denoises() -> bool:
        run.poll()
        return run.event is not None and run.event.phase == "denoise"

    wait_until(denoises)
    os.kill(logic.engine.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="SIGKILL") as ended:
        run.wait()
    assert "\n" not in str(ended.value)
    assert run.state == "failed" and scene_content(scene) == content and fingerprint(drawing) == before
    assert logic.synthesize(drawing, tiny_model, steps=1).GetScene() is scene


def test_closing_the_engine_ends_its_runs(scene, tiny_model):
    engine = Engine(EngineClient)
    run = SynthesisLogic(engine).start(add_chest(scene), tiny_model)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        run.wait()
    assert run.state == "failed"


def test_a_failing_scene_fails_the_run_and_not_the_engine(scene, logic, tiny_model, monkeypatch):
    drawing = add_chest(scene)

    def fail(*_, **__):
        raise RuntimeError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("MedLoRDSlicerLib.run.add_run", fail)
        run = logic.start(drawing, tiny_model, steps=1)
        with pytest.raises(RuntimeError, match="no room"):
            run.wait()
    assert run.state == "failed" and "no room" in str(run.error)
    assert logic.synthesize(drawing, tiny_model, steps=1)
