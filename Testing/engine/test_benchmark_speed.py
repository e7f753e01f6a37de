"""The benchmark's own numbers: what it counts, that both sides compute the same, that the report holds every part."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from medlord.benchmark import full_size, memory_peaks, planning, speed, timing
from medlord.benchmark.baseline import baseline_synthesis, full_matrix_fits, nearest_by_full_matrix
from medlord.benchmark.child import measure_here, measure_in_child
from medlord.benchmark.full_size import Configuration, configuration, random_bundle, with_denoiser
from medlord.benchmark.operations import count_operations
from medlord.benchmark.parts import engine_run, random_masks
from medlord.benchmark.planning import predictions
from medlord.benchmark.speed import SpeedSettings, run_speed
from medlord.benchmark.table import layout_table, speed_table
from medlord.benchmark.timing import BASELINE
from medlord.errors import CancelledError, InputError
from medlord.generation import RunOptions
from medlord.networks.build import build_denoiser, count_parameters
from medlord.networks.quantizer import nearest_codes

CPU = torch.device("cpu")
TINY = Configuration(
    "reduced",
    4,
    (16, 16, 16),
    (32, 32, 16),
    {
        "channels": [4, 8],
        "num_res_layers": 1,
        "strides": [2, 2],
        "num_embeddings": 16,
        "embedding_dim": 8,
    },
    {
        "tiny": {
            **next(iter(full_size.REDUCED_DENOISERS.values())),
            "channels": [4, 8],
            "num_res_blocks": 1,
            "attention_levels": [False, True],
            "num_head_channels": 4,
            "norm_num_groups": 2,
        }
    },
    {
        "condition_channels": len(full_size.CONDITIONS),
        "embedding_channels": [2, 4],
        "embedding_strides": [2, 2],
        "num_head_channels": 2,
        "norm_num_groups": 2,
        "with_transformers": True,
    },
)


@pytest.fixture
def tiny(monkeypatch):
    """The benchmark with a configuration that runs in milliseconds, and no processes beside this one."""
    monkeypatch.setattr(full_size, "CONFIGURATIONS", {**full_size.CONFIGURATIONS, ("reduced", 4): TINY})
    monkeypatch.setattr(full_size, "TRAINING_STEPS", 60)
    monkeypatch.setattr(speed, "REFERENCE", ("ddpm", 60))
    monkeypatch.setattr(memory_peaks, "measure_in_child", lambda work: measure_here(**work))
    monkeypatch.setattr(timing, "_MATRIX_SIZE", {"cpu": 64})
    monkeypatch.setattr(planning, "FACTORS", (8,))
    monkeypatch.setattr(planning, "_GPU_BYTES", (8 * 10**9,))
    return TINY


@pytest.mark.parametrize(
    ("name", "million_weights"), [("medlord", 166.6), ("3level", 215.4), ("wide", 368.3)]
)
def test_published_denoisers_have_their_size(name, million_weights):
    """With the layer after the attention, which the published code stores though it never applies it."""
    settings = {**full_size.PAPER_DENOISERS[name], "include_fc": True}
    with torch.device("meta"):
        assert round(count_parameters(build_denoiser(settings)) / 1e6, 1) == million_weights


def test_counted_operations_are_those_of_the_published_networks():
    """TFLOP at 512 x 512 x 256, counted before on the published code."""
    expected = {
        4: {"denoiser": 9.3, "embedding": 0.78, "decode": 49.2},
        8: {"denoiser": 1.0, "denoiser 3level": 4.7, "denoiser wide": 4.7, "embedding": 0.96, "decode": 58.7},
    }
    configurations = {4: with_denoiser(configuration("paper", 4), "medlord"), 8: configuration("paper", 8)}
    for factor, numbers in expected.items():
        counted = count_operations(configurations[factor])
        for name, tera in numbers.items():
            assert counted[name] / 1e12 == pytest.approx(tera, rel=0.012), (factor, name)


def test_the_full_matrix_finds_the_codes_of_the_chunked_search():
    generator = torch.Generator().manual_seed(0)
    vectors, codes = torch.randn(3000, 8, generator=generator), torch.randn(50, 8, generator=generator)
    expected = nearest_codes(vectors, codes)
    assert full_matrix_fits(3000, 50, 10**9) and not full_matrix_fits(3000, 50, 10**6)
    for free in (10**9, 10**6):
        assert torch.equal(nearest_by_full_matrix(vectors, codes, free), expected)


def test_the_baseline_makes_the_engines_volume(monkeypatch):
    """Same networks, noise and chain: what the engine saves must not change its image."""
    monkeypatch.setattr(full_size, "TRAINING_STEPS", 40)
    bundle = random_bundle(TINY, CPU)
    with torch.inference_mode():
        image, phases = baseline_synthesis(bundle, random_masks(TINY, CPU), 0, 10**9)
    result = engine_run(bundle, "ddpm", 40, "float32", RunOptions("cpu"))
    hu = image[0, 0].numpy() * 1000
    assert hu.std() > 1
    assert np.abs(result.volume.array - hu).max() <= 1.0
    assert phases.keys() == {"denoise", "decode"} and all(seconds > 0 for seconds in phases.values())


def test_the_report_has_every_part_and_becomes_a_table(tiny, tmp_path):
    report = run_speed(SpeedSettings("reduced", "cpu", rounds=1, factors=(4,)), tmp_path)
    assert json.loads((tmp_path / "speed.json").read_text()) == json.loads(json.dumps(report))
    (measured,) = report["configurations"].values()
    assert set(measured["step"]) == {BASELINE, "float32", "bfloat16"}
    assert measured["step"][BASELINE]["ratio"] == 1.0
    runs = measured["runs"]
    assert {BASELINE, "ddpm-300 float32", "unipc-25 float32"} <= set(runs)
    assert not any(run["computed"] for run in runs.values())
    assert runs["unipc-25 float32"]["ratio_to_ddpm"] < 1, "25 steps to 60"
    assert set(runs["unipc-25 float32"]["phases"]) >= {"denoise", "decode"}
    assert {"decode untiled", "decode tiled", "baseline step"} <= set(measured["peaks"])
    assert measured["preview"]["per_run"] == 4 and measured["preview"]["seconds"] > 0
    table = (tmp_path / "speed.md").read_text()
    for said in (
        "Denoising step with control",
        "Whole synthesis",
        "Peak memory",
        "Previews",
        "Reduced",
        "prediction",
    ):
        assert said in table
    widths = [line.count("|") for line in table.splitlines() if line.startswith("|")]
    assert set(widths) == {5, 6}, "every row has the cells of its table"


def test_long_runs_are_computed_and_said_to_be(tiny, tmp_path):
    report = run_speed(SpeedSettings("reduced", "cpu", rounds=1, longest_s=0.0, factors=(4,)), tmp_path)
    (measured,) = report["configurations"].values()
    baseline = measured["runs"][BASELINE]
    assert baseline["computed"] and "computed from its parts" in speed_table(report)
    parts = 60 * measured["step"][BASELINE]["seconds"] + measured["decode"][BASELINE]["seconds"]
    assert baseline["seconds"] == pytest.approx(parts)


def test_cancel_writes_nothing(tiny, tmp_path):
    with pytest.raises(CancelledError):
        run_speed(SpeedSettings("reduced", "cpu", rounds=1, factors=(4,)), tmp_path, cancel=lambda: True)
    assert not list(tmp_path.iterdir())


def test_turns_and_ratios(monkeypatch):
    """Each variant once per round, the first round not counted; ratios are of pairs within a round."""
    clock, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def variant(name, seconds):
        def call():
            calls.append(name)
            # the second counted round is disturbed alike for both
            clock[0] += seconds * (10 if len(calls) in (5, 6) else 1)

        return call

    measured = timing.in_turns({"a": variant("a", 2.0), "b": variant("b", 1.0)}, 3, CPU)
    assert calls == ["a", "b"] * 4
    result = timing.summary(measured, "a")
    assert result["b"]["ratio"] == pytest.approx(0.5) and result["b"]["seconds"] == pytest.approx(1.0)
    assert result["b"]["ratio_range"] == [pytest.approx(0.5)] * 2


def test_what_does_not_fit_is_said_and_the_rest_is_measured():
    """The last of three variants runs out of memory; other errors are not taken for that."""
    calls = {"a": lambda: None, "b": lambda: None}

    def too_large():
        raise MemoryError("no")

    def broken():
        raise RuntimeError("a shape does not fit")

    result = timing.summary(timing.in_turns({**calls, "large": too_large}, 2, CPU), "a")
    assert result["large"] == {"failed": timing.DOES_NOT_FIT} and result["b"]["rounds"] == 2
    without_reference = timing.summary(timing.in_turns({**calls, "large": too_large}, 2, CPU), "large")
    assert "ratio" not in without_reference["a"] and without_reference["a"]["seconds"] >= 0
    with pytest.raises(RuntimeError, match="a shape"):
        timing.in_turns({"broken": broken}, 1, CPU)


def test_a_child_answers_and_its_failure_is_one_line():
    """A real process: its peak is above what it held, and networks of the reduced size are in it."""
    measured = measure_in_child({"work": "step", "size": "reduced", "factor": 4, "device": "cpu"})
    assert measured["peak_bytes"] > measured["before_bytes"] > 40 * 2**20
    assert measured["seconds"] > 0


def test_predictions_need_no_gpu():
    """Published sizes on three kinds of consumer GPU; less memory never means larger tiles."""
    rows = predictions()
    assert len(rows) == 6 and all(row["decoding"] > 0 for row in rows)
    for factor in (4, 8):
        tiles = [np.prod(row["decode_tile"]) for row in rows if f"factor {factor}" in row["configuration"]]
        assert tiles == sorted(tiles)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (SpeedSettings(size="huge"), "size 'huge' is unknown; choose one of reduced, paper"),
        (SpeedSettings(rounds=0), "0 rounds measure nothing"),
        (SpeedSettings(longest_s=-1), "longest run is -1"),
        (SpeedSettings(factors=(16,)), "factor 16; sizes are reduced, paper, factors 4, 8"),
    ],
)
def test_bad_settings_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        settings.validate()


def test_layout_reports_what_this_machine_cannot_run(tiny, tmp_path, monkeypatch):
    """Channels last and math are measured; xformers without a GPU is a row with its reason."""
    from medlord.benchmark.layout import LayoutSettings, run_layout

    settings = LayoutSettings("reduced", "cpu", rounds=1, compiled=False, factors=(4,))
    report = run_layout(settings, tmp_path)
    rows = {(row["part"], row["precision"], row["variant"]): row for row in report["rows"]}
    assert rows["denoiser", "float32", "contiguous"]["ratio"] == 1.0
    assert rows["decoder", "bfloat16", "channels_last_3d"]["seconds"] > 0
    assert "xformers" in rows["control", "float32", "attention xformers"]["failed"]
    table = layout_table(report)
    assert "not measured" in table and table.count("| attention math |") == 4


def test_another_denoiser_takes_its_place():
    only = with_denoiser(configuration("paper", 4), "wide")
    assert only.denoiser["channels"] == [128, 256, 512, 512] and list(only.denoisers) == ["wide"]
