"""Memory: the estimate against what torch really allocates, the planner, its errors, and smaller tiles on failure."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.engine_clients import box_conditions
from support.memory import allocated
from support.tiny_bundle import CONTROL, DENOISER, write_tiny_bundle

from medlord import cli
from medlord.bundles.description import read_description
from medlord.errors import InputError, InsufficientMemoryError
from medlord.exchange import write_conditions
from medlord.generation import RunOptions, in_smaller_tiles
from medlord.memory import free as free_memory
from medlord.memory.accounting import peak_bytes
from medlord.memory.free import budget_bytes, free_bytes, held_bytes
from medlord.memory.planner import SMALLEST_TILE, choose_tile, halved, plan_run, recorded_tiles
from medlord.memory.sizes import in_words, parse_memory
from medlord.networks.build import build_autoencoder, build_control, build_denoiser
from medlord.networks.quantizer import ChunkedQuantizer
from medlord.networks.tiling import Layout
from medlord.protocol import check_arguments
from medlord.synthesis import repeat_recipe, synthesize
from medlord.volume_files import save_volume
from medlord.volumes import Volume
from medlord.worker_verbs import Engine

CPU = torch.device("cpu")
WIDER = {**DENOISER, "in_channels": 8, "out_channels": 8, "channels": [16, 32], "norm_num_groups": 8}


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("8GB", 8 * 10**9),
        ("8GiB", 8 * 2**30),
        ("800MB", 800 * 10**6),
        ("1.5 gb", 1_500_000_000),
        (" 2TiB ", 2**41),
    ],
)
def test_amounts_of_memory_are_read(text, amount):
    assert parse_memory(text) == amount


@pytest.mark.parametrize(
    "text", ["8", "GB", "", "8 G", "-8GB", "0GB", "8,5GB", "1e3MB", "8GBs", "٨GB", "nanGB"]
)
def test_other_words_are_refused_in_one_line(text):
    with pytest.raises(InputError, match="is no amount of memory; write it like 8GB") as caught:
        parse_memory(text)
    assert "\n" not in str(caught.value)


def test_amounts_in_words():
    assert [in_words(n) for n in (-5, 0, 812 * 10**6, 8 * 10**9)] == ["0 MB", "0 MB", "812 MB", "8.0 GB"]


def networks(device: str) -> dict:
    settings = {"num_res_layers": 1, "num_embeddings": 16, "embedding_dim": 8}
    with torch.device(device):
        made = {
            "four": build_autoencoder({**settings, "channels": [8, 16], "strides": [2, 2]}),
            "eight": build_autoencoder({**settings, "channels": [4, 8, 16], "strides": [2, 2, [2, 2, 1]]}),
            "denoiser": build_denoiser(WIDER),
            "control": build_control({**CONTROL, "embedding_strides": [2, 2]}, WIDER),
        }
    return {name: network.eval().requires_grad_(False) for name, network in made.items()}


@pytest.fixture(scope="module")
def real_and_empty():
    torch.manual_seed(0)
    return networks("cpu"), networks("meta")


def decoding(size, name="four"):
    return lambda nets, make: nets[name].decode(make(1, 8, *size))


def encoding(size, name="four"):
    return lambda nets, make: nets[name].encode(make(1, 1, *size))


def embedding(size):
    return lambda nets, make: nets["control"].embed_condition(make(1, 7, *size, dtype=torch.uint8))


def step(size):
    def run(nets, make):
        latent, time = make(1, 8, *size), make(1, dtype=torch.int64)
        return nets["denoiser"](latent, time, *nets["control"](latent, time, make(1, 8, *size)))

    return run


PASSES = [
    *[(decoding(size), "float32") for size in [(6, 6, 6), (10, 8, 6), (16, 16, 16), (16, 16, 40)]],
    *[(decoding(size, "eight"), "float32") for size in [(3, 4, 8), (8, 8, 8), (16, 16, 16)]],
    *[(encoding(size, name), "float32") for size, name in [((24, 16, 32), "four"), ((48, 48, 48), "eight")]],
    *[(embedding(size), kind) for size in [(16, 24, 32), (48, 48, 48)] for kind in ("float32", "bfloat16")],
    *[(step(size), kind) for size in [(4, 6, 8), (12, 12, 12)] for kind in ("float32", "bfloat16")],
]


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def threads(request):
    """torch's kernels hold buffers per thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("run", "precision"), PASSES)
def test_the_estimate_is_an_upper_bound_within_one_and_a_half(run, precision, real_and_empty, tmp_path):
    """Every pass of a run, in several sizes, against the allocator."""
    real, empty = real_and_empty
    taken = allocated(lambda: run(real, torch.zeros), precision, tmp_path / "trace.json")
    without_data = lambda *shape, **kind: torch.empty(*shape, device="meta", **kind)  # noqa: E731
    estimated = peak_bytes(lambda: run(empty, without_data), "cpu", precision)
    assert taken <= 1.05 * estimated, "5 % for buffers of each thread beside such small volumes"
    assert estimated <= 1.5 * taken


def test_upsampling_with_stride_1_along_an_axis_is_unfolded(tmp_path):
    """Its kernel is 3 wide there; no residual layers, of which the unfolding would hide it."""
    config = {"channels": [16, 16], "strides": [[2, 2, 1], [1, 2, 1]], "num_res_layers": 0}
    networks = {}
    for device in ("cpu", "meta"):
        with torch.device(device):
            networks[device] = build_autoencoder({**config, "num_embeddings": 16, "embedding_dim": 8}).eval()

    def run(device):
        return networks[device].decode(torch.zeros(1, 8, 6, 6, 8, device=device))

    taken = allocated(lambda: run("cpu"), "float32", tmp_path / "trace.json")
    assert taken <= 1.05 * peak_bytes(lambda: run("meta"), "cpu") <= 1.6 * taken


def test_the_estimate_forgets_what_is_gone_and_leaves_views_and_weights_out():
    weight = torch.empty(1000, device="meta")

    def run():
        for _ in range(3):
            made = weight.view(10, 100) * 2
            made = made.t()[:5].relu_()
        return made

    assert peak_bytes(run, "cuda") == 2 * 4000


def test_the_estimate_is_the_same_within_inference_mode(real_and_empty):
    def run():
        return real_and_empty[1]["four"].decode(torch.empty(1, 8, 6, 6, 6, device="meta"))

    outside = peak_bytes(run, "cpu")
    with torch.inference_mode():
        assert peak_bytes(run, "cpu") == outside


SIZES = st.tuples(*[st.integers(1, 20)] * 3)


@given(
    size=SIZES, halo=st.tuples(*[st.integers(0, 4)] * 3), free=st.integers(0, 9000), fixed=st.integers(0, 100)
)
def test_the_planner_takes_the_least_work_that_fits(size, halo, free, fixed):
    """Compared with every way to cut, one by one."""
    layout = Layout(size, size, halo)

    def bytes_of(cells):
        return fixed + math.prod(cells)

    tile, needed = choose_tile(layout, bytes_of, free)
    chosen = replace(layout, tile=tile)
    assert needed == bytes_of(chosen.largest)
    sides = [{-(-n // parts) for parts in range(1, n + 1)} for n in size]
    allowed = [
        [s for s in of_axis if s >= min(SMALLEST_TILE, n)] for of_axis, n in zip(sides, size, strict=True)
    ]
    cuts = [replace(layout, tile=(a, b, c)) for a in allowed[0] for b in allowed[1] for c in allowed[2]]
    fitting = [cut.computed for cut in cuts if bytes_of(cut.largest) <= free]
    if fitting:
        assert needed <= free and chosen.computed == min(fitting)
    else:
        assert needed == min(bytes_of(cut.largest) for cut in cuts) > free


def test_a_recorded_tile_is_taken_where_it_fits():
    layout = Layout((16, 16, 16), (16, 16, 16), (2, 2, 2))
    assert choose_tile(layout, math.prod, 10**6, (5, 7, 16))[0] == (5, 7, 16)
    assert choose_tile(layout, math.prod, 500, (5, 7, 16))[0] != (5, 7, 16)


def test_halving_ends_at_the_smallest_tile():
    tiles, tile = [], (64, 9, 2)
    while tile is not None:
        tiles.append(tile)
        tile = halved(tile)
    assert tiles == [(64, 9, 2), (32, 5, 2), (16, 4, 2), (8, 4, 2), (4, 4, 2)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def result(model):
    return synthesize(box_conditions(), model, steps=3, device="cpu", precision="float32")


def test_less_memory_means_smaller_tiles_and_then_an_error(model, result):
    description = replace(read_description(model), grid_shape=(512, 512, 128))
    recipe = replace(result.recipe, tiling=None)

    def plan(free):
        return plan_run(description, recipe, CPU, loaded=True, free=free)

    ample = plan(10**12)
    assert ample.decode_tile == ample.condition_tile == (128, 128, 64)
    assert ample.needed <= ample.free and ample.require_enough() is None
    least = plan(0)
    assert least.decode_tile == least.condition_tile == (4, 4, 4)
    tight = plan((least.decoding + ample.decoding) // 2)
    assert 64 < math.prod(tight.decode_tile) < math.prod(ample.decode_tile)
    assert least.decoding < tight.decoding <= tight.free < ample.decoding
    with pytest.raises(
        InsufficientMemoryError, match=r"needs .* [GM]B of memory on cpu .* and 9 MB are free;"
    ) as caught:
        plan(9 * 10**6).require_enough()
    assert "\n" not in str(caught.value) and "choose another device" in str(caught.value)


def test_the_limit_that_is_advised_is_enough(model, result):
    def plan(limit):
        return plan_run(read_description(model), result.recipe, CPU, loaded=False, limit=limit)

    with pytest.raises(InsufficientMemoryError, match="raise the memory limit to") as caught:
        plan(10**6).require_enough()
    advised = re.search(r"raise the memory limit to ([0-9.]+ [MG]B) or more", str(caught.value))[1]
    assert plan(parse_memory(advised)).fits
    scarce = replace(plan(10**6), limit=10**12, held=0)
    with pytest.raises(InsufficientMemoryError) as caught:
        scarce.require_enough()
    assert "raise the memory limit" not in str(caught.value), "the limit is not what is in the way"


def test_weights_count_until_they_are_loaded(model, result):
    plans = [
        plan_run(read_description(model), result.recipe, CPU, loaded=loaded, free=10**9)
        for loaded in (False, True)
    ]
    stored = sum(path.stat().st_size for path in (model / "models").iterdir())
    assert stored < plans[0].weights < 4 * stored and plans[1].weights == 0


def test_the_limit_is_for_all_that_the_process_holds():
    held = held_bytes(CPU)
    assert budget_bytes(CPU, held + 10**8) <= 1.1 * 10**8
    assert budget_bytes(CPU, held // 2) == 0
    assert 0 < budget_bytes(CPU) <= free_bytes(CPU)


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(free_memory, "_CONTROL_GROUP", tmp_path)
    without = free_bytes(CPU)
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("4000000\n")
    (tmp_path / "memory.stat").write_text("anon 3\ninactive_file 500000\nactive_file 7\n")
    assert free_bytes(CPU) == 1_500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(CPU) > without // 2


def test_a_run_that_cannot_fit_ends_before_anything_is_loaded(model):
    events = []
    with pytest.raises(InsufficientMemoryError, match=r"\(memory limit 1 MB, the program itself holds \d"):
        synthesize(box_conditions(), model, device="cpu", memory_limit=10**6, progress=events.append)
    assert events == []


@pytest.mark.parametrize(
    "limits", [{"memory_limit": 0}, {"memory_limit": -5}, {"memory_limit": "8GB"}, {"preview_every": -1}]
)
def test_limits_that_are_none_are_refused(limits):
    with pytest.raises(InputError):
        RunOptions(**limits)


def test_tiles_are_recorded_and_do_not_change_the_volume(result, model):
    assert result.recipe.tiling == {"condition": [4, 4, 4], "decode": [4, 4, 4]}
    assert result.volume.recipe == result.recipe.to_dict()
    tiling = {"condition": [3, 2, 4], "decode": [2, 4, 3]}
    tiled = repeat_recipe(replace(result.recipe, tiling=tiling), model=model, device="cpu")
    assert tiled.recipe.tiling == tiling and tiled.warnings == []
    difference = np.abs(tiled.volume.array.astype(int) - result.volume.array)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize("tiling", [[4, 4, 4], {"decode": 4}, {"decode": [4, 4]}, {"decode": [4, 4, 0]}, "4"])
def test_a_changed_tiling_is_refused(tiling, result, model):
    assert recorded_tiles(None) == {}
    with pytest.raises(InputError, match="it was changed") as caught:
        repeat_recipe(replace(result.recipe, tiling=tiling), model=model, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_failed_allocation_is_tried_again_in_smaller_tiles():
    tried = []

    def run(tile):
        tried.append(tile)
        if math.prod(tile) > 8 * 8 * 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    assert in_smaller_tiles(run, (32, 16, 4), halved) == ("done", (8, 4, 4))
    assert tried == [(32, 16, 4), (16, 8, 4), (8, 4, 4)]
    with pytest.raises(MemoryError):
        in_smaller_tiles(lambda tile: bytearray(2**62), (8, 8, 8), halved)
    tried.clear()

    def broken(tile):
        tried.append(tile)
        raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="do not match"):
        in_smaller_tiles(broken, (8, 8, 8), halved)
    assert len(tried) == 1


def test_a_failure_in_the_smallest_part_says_what_is_needed_and_free(model, monkeypatch):
    """Every part of the decoding, tile or slab, asks for more than any machine has."""

    def greedy(self, indices):
        return torch.zeros(2**60)

    monkeypatch.setattr(ChunkedQuantizer, "embed", greedy)
    with pytest.raises(
        InsufficientMemoryError, match=r"needs about .*B of memory and .*B are free now"
    ) as caught:
        synthesize(box_conditions(), model, steps=2, device="cpu")
    assert "\n" not in str(caught.value)


def test_worker_and_command_line_plan_before_they_load(model, result, tmp_path, capsys):
    """The model's weights are missing: only what never looks at them can say that there is not enough memory."""
    described = tmp_path / "described" / "configs"
    described.mkdir(parents=True)
    shutil.copy(model / "configs" / "metadata.json", described)
    recipe, out = tmp_path / "recipe.json", tmp_path / "out"
    recipe.write_text(result.recipe.to_json(), encoding="utf-8")
    out.mkdir()
    common = {"folder": str(out), "model": str(described.parent), "memory_limit": 10**6}
    masks = out / "masks.npz"
    write_conditions(masks, box_conditions())
    engine, events = Engine(), []
    for verb, arguments in (
        ("repeat_recipe", {"recipe": str(recipe)}),
        ("synthesize", {"conditions": str(masks)}),
    ):
        check_arguments(verb, {**common, **arguments})
        with pytest.raises(InsufficientMemoryError, match="memory limit 1 MB"):
            engine.run(verb, {**common, **arguments}, events.append, lambda: False)
    assert events == [] and not engine.holds_models
    with pytest.raises(
        InputError, match="'memory_limit' of 'synthesize' is '8GB'; it must be a whole number"
    ):
        check_arguments("synthesize", {"folder": str(out), "memory_limit": "8GB"})
    masks.unlink()
    save_volume(Volume(box_conditions()["body"], box_conditions().grid), tmp_path / "body.nii.gz")
    body = ["--condition", f"body={tmp_path / 'body.nii.gz'}"]
    for way in (["--recipe", recipe], body, [*body, "--count", 3]):
        words = ["synthesize", *way, "--model", described.parent, "--out", out / "ct.nii.gz"]
        words = [str(word) for word in words]
        assert cli.main([*words, "--memory-limit", "1MB"]) == 3
        assert "memory limit 1 MB" in capsys.readouterr().err.splitlines()[-1]
    assert cli.main([*words, "--memory-limit", "8"]) == 2
    assert "'8' is no amount of memory" in capsys.readouterr().err
    assert list(out.iterdir()) == []
