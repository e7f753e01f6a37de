"""The engine process in good and bad times that it survives: one worker for all tests of this file."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from support.engine_clients import (
    PATIENCE_S,
    box_conditions,
    one_thread,
    one_thread_environment,
    wait_until,
)
from support.tiny_bundle import write_tiny_bundle

from medlord import synthesis
from medlord.client import EngineClient
from medlord.conditions import Conditions
from medlord.errors import CancelledError, EngineError, InputError, InsufficientMemoryError
from medlord.volumes import Grid, Volume

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="sets limits of a running process (prlimit)")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model in a folder of its own."""
    return write_tiny_bundle(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def log():
    """What the worker logged."""
    return []


@pytest.fixture(scope="module")
def client(tmp_path_factory, log):
    """One client for all tests; whatever they did, its worker is the same at the end, and leaves no file."""
    folder = tmp_path_factory.mktemp("temporary")
    with EngineClient(
        log=log.append, environment=one_thread_environment(), temporary_folder=folder,
        cancel_patience_s=PATIENCE_S,
    ) as client:  # fmt: skip
        first = client.call("ping")["pid"]
        yield client
        assert client.call("ping")["pid"] == client.pid == first
        (private,) = folder.iterdir()
        assert not list(private.iterdir())
    assert not list(folder.iterdir())


@pytest.fixture(scope="module")
def in_process(model):
    """The same synthesis in this process."""
    with one_thread():
        return synthesis.synthesize(box_conditions(), model, seed=5, steps=8)


def test_result_is_that_of_the_same_call_in_this_process(client, model, in_process):
    events = []
    result = client.synthesize(box_conditions(), model=model, seed=5, steps=8, progress=events.append)
    assert result.volume.array.dtype == np.int16
    assert np.array_equal(result.volume.array, in_process.volume.array)
    assert result.volume.grid == in_process.volume.grid
    assert result.recipe == in_process.recipe and result.volume.recipe == in_process.volume.recipe
    assert result.conditions.hashes() == in_process.conditions.hashes()
    assert result.warnings == in_process.warnings and result.energy_kwh == in_process.energy_kwh
    assert set(result.timings_s) == set(in_process.timings_s)
    assert result.timings_s["total"] >= result.timings_s["load"] > 0 and result.peak_memory_bytes > 0
    assert {"load", "condition", "denoise", "decode"} <= {event.phase for event in events}
    assert [event.step for event in events if event.phase == "denoise"] == list(range(1, 9))


def test_second_run_and_repetition_use_the_loaded_model(client, model, in_process):
    client.call("unload")
    runs = [client.synthesize(box_conditions(), model=model, seed=seed, steps=8) for seed in (5, 6)]
    again = client.repeat_recipe(in_process.recipe, model=model)
    assert [run.reused_model for run in (*runs, again)] == [False, True, True]
    assert np.array_equal(again.volume.array, in_process.volume.array)
    assert not np.array_equal(runs[1].volume.array, in_process.volume.array)
    described = client.call("describe")
    assert described["loaded"] == [{"model": "tiny", "device": described["device"]}]
    assert described["devices"][0]["name"] == "cpu" and described["devices"][0]["free_bytes"] > 0
    assert {"medlord", "torch", "numpy"} <= set(described["versions"])
    assert client.call("unload") == {"unloaded": 1}
    assert client.call("describe")["loaded"] == []


def test_a_model_whose_files_changed_is_loaded_again(client, tmp_path):
    folder = write_tiny_bundle(tmp_path)
    assert not client.synthesize(box_conditions(), model=folder, steps=1).reused_model
    assert client.synthesize(box_conditions(), model=folder, steps=1).reused_model
    os.utime(folder / "models" / "denoiser.safetensors", (1, 1))
    assert not client.synthesize(box_conditions(), model=folder, steps=1).reused_model


def test_reference_and_options_reach_the_synthesis(client, model):
    grid = Grid.centered((10, 10, 10), (20.0, 20.0, 20.0), (12.0, 22.0, 32.0))
    reference = Volume(np.full(grid.shape, -1000, np.int16), grid)
    reference.array[4:6] = 40
    options = {"steps": 2, "control_scale": np.float32(0.5), "attributes": {"contrast_phase": "venous"}}
    result = client.synthesize(
        box_conditions(), model=model, reference=reference, seed=np.int64(2**62), **options
    )
    assert np.allclose(result.volume.grid.center_ras_mm, grid.center_ras_mm)
    assert (result.recipe.seed, result.recipe.control_scale) == (2**62, 0.5)
    assert result.recipe.attributes == {"contrast_phase": "venous"}
    moved = client.synthesize(box_conditions(), model=model, center_ras_mm=np.array([1.0, 2.0, 3.0]), steps=1)
    assert np.allclose(moved.volume.grid.center_ras_mm, [1, 2, 3])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampler": "magic"}, "Unknown sampler 'magic'"),
        ({"model": "no-such-model"}, "no model 'no-such-model'"),
        ({"device": "cuda:99"}, "no device 'cuda:99'"),
        ({"seed": -1}, "seed -1"),
        ({"attributes": {"contrast_phase": "late"}}, "'late'"),
        ({"center_ras_mm": (1.0, float("nan"), 2.0)}, "three finite numbers"),
        ({"colour": "red"}, "takes no argument 'colour'"),
    ],
)
def test_bad_input_is_refused_with_one_line(client, model, options, words):
    with pytest.raises(InputError, match=words) as caught:
        client.synthesize(box_conditions(), **{"model": model, **options})
    assert "\n" not in str(caught.value)


def test_empty_segmentation_is_refused(client, model):
    grid = Grid.centered((4, 4, 4), (1, 1, 1))
    for masks in ({}, {"lung": np.zeros(grid.shape, bool)}):
        with pytest.raises(InputError):
            client.synthesize(Conditions(grid, masks), model=model)


def test_polling_delivers_progress_then_exactly_one_end(client, model):
    jobs = [client.submit_synthesis(box_conditions(), model=model, seed=seed, steps=3) for seed in (1, 2)]
    messages = []

    def both_ended() -> bool:
        messages.extend(client.poll())
        return sum(message.type in ("result", "error") for message in messages) == 2

    wait_until(both_ended, "two results")
    for job, seed in zip(jobs, (1, 2), strict=True):
        own = [message for message in messages if message.id == job]
        assert [message.type for message in own[:-1]] == ["progress"] * (len(own) - 1)
        assert own[-1].type == "result" and own[-1].value.recipe.seed == seed
    assert client.poll() == []


def test_cancel_stops_the_run_and_keeps_the_worker(client, model):
    steps = []

    def note(event):
        if event.phase == "denoise":
            steps.append(event.step)

    with pytest.raises(CancelledError, match="nothing was written"):
        client.synthesize(
            box_conditions(),
            model=model,
            sampler="ddpm",
            steps=300,
            progress=note,
            cancel=lambda: len(steps) >= 2,
        )
    assert 2 <= steps[-1] < 300


def test_cancel_of_a_waiting_job_leaves_the_running_one_alone(client, model):
    running = client.submit_synthesis(box_conditions(), model=model, sampler="ddpm", steps=300)
    waiting = client.submit_synthesis(box_conditions(), model=model, steps=1)
    client.cancel(waiting)
    with pytest.raises(CancelledError, match="before 'synthesize' began"):
        client.wait(waiting)
    assert client.call("ping")["running"] == running
    client.cancel(running)
    with pytest.raises(CancelledError):
        client.wait(running)


def test_an_error_in_the_callers_callback_cancels_the_run(client, model):
    def fail(event):
        raise ZeroDivisionError("in the caller's code")

    with pytest.raises(ZeroDivisionError):
        client.synthesize(box_conditions(), model=model, sampler="ddpm", steps=300, progress=fail)
    wait_until(lambda: client.call("ping")["running"] is None, "the abandoned run ends")


def test_idle_callback_may_poll(client, model):
    """A GUI processes its events while it waits, and its timer polls: both must get their own messages."""
    other, taken = client.submit("ping"), []
    result = client.synthesize(
        box_conditions(), model=model, steps=2, idle=lambda: taken.extend(client.poll())
    )
    assert result.recipe.steps == 2
    taken += client.poll()
    assert [message.id for message in taken if message.type == "result"] == [other]


@linux_only
def test_out_of_memory_is_an_error_and_the_next_run_works(client, model):
    import resource

    client.synthesize(box_conditions(), model=model, steps=1)
    grid = Grid.centered((400, 400, 400), (0.8, 0.8, 0.8))
    large = Conditions(grid, {"body": np.ones(grid.shape, bool)})
    with open(f"/proc/{client.pid}/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.prlimit(client.pid, resource.RLIMIT_AS, (used + 2**25, resource.RLIM_INFINITY))
    try:
        with pytest.raises(InsufficientMemoryError, match="not enough memory") as caught:
            client.synthesize(large, model=model)
    finally:
        resource.prlimit(client.pid, resource.RLIMIT_AS, before)
    assert "GiB free" in str(caught.value) and "\n" not in str(caught.value)
    assert "MemoryError" in caught.value.details
    assert not client.synthesize(box_conditions(), model=model, steps=1).reused_model


@linux_only
def test_full_disk_is_an_error_and_the_next_run_works(client, model):
    import resource

    before = resource.prlimit(client.pid, resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    try:
        with pytest.raises(EngineError, match="is full"):
            client.synthesize(box_conditions(), model=model, steps=1)
    finally:
        resource.prlimit(client.pid, resource.RLIMIT_FSIZE, before)
    assert client.synthesize(box_conditions(), model=model, steps=1).volume.array.size


def test_unknown_verbs_are_refused_before_they_are_sent(client):
    with pytest.raises(InputError, match="'fly'"):
        client.submit("fly")
    with pytest.raises(InputError, match="no job"):
        client.wait("no-such-job")


def test_installed_models_are_listed(client):
    for entry in client.call("models")["models"]:
        assert set(entry) == {"id", "folder"} and os.path.isdir(entry["folder"])
