"""The choice between plain tiles and going level by level: its bound on memory, its work, and what a recipe records."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.engine_clients import box_conditions
from support.memory import allocated
from support.tiny_bundle import write_tiny_bundle

from medlord.benchmark.full_size import configuration, describe
from medlord.benchmark.planning import decoding_plan, plain_recipe, tiles_and_share
from medlord.memory.accounting import peak_bytes
from medlord.memory.level_tiles import LevelDecoding, choose_by_level
from medlord.memory.planner import SMALLEST_TILE, choose_tile, plan_run
from medlord.networks.build import build_autoencoder
from medlord.networks.level_decoding import decode_by_level
from medlord.networks.tiling import Layout, decode_tiled, decoding_layout
from medlord.synthesis import repeat_recipe, synthesize

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
PAPER = configuration("paper", 8)


def autoencoder(device: str, channels=(4, 8, 16), strides=(2, 2, 2), layers: int = 2):
    torch.manual_seed(3)
    config = {"channels": [*channels], "strides": [*strides], "num_res_layers": layers, "num_embeddings": 16}
    with torch.device(device):
        return build_autoencoder({**config, "embedding_dim": 8}).eval().requires_grad_(False)


def paper_levels(device_type: str) -> LevelDecoding:
    with torch.device("meta"):
        network = build_autoencoder(PAPER.autoencoder)
    return LevelDecoding(network, PAPER.latent_shape()[2:], device_type, 0)


@pytest.mark.parametrize("tile", [(8, 8, 8), (16, 8, 8), (16, 16, 16)])
def test_the_bytes_of_a_tile_are_an_upper_bound(tile, tmp_path):
    """Against torch's allocator, features of the whole volume included."""
    size = (16, 16, 16)
    latents = torch.randn(1, 8, *size)
    real = autoencoder("cpu")
    beside = 4 * math.prod(size) * (8**3 + 2 * 8)  # the image, and the latents with their codes
    levels = LevelDecoding(autoencoder("meta"), size, "cpu", beside)
    taken = allocated(lambda: decode_by_level(real, latents, tile), "float32", tmp_path / "trace.json")
    assert taken <= 1.05 * levels.bytes_of(tile)
    assert levels.bytes_of(tile) <= 1.6 * taken


def test_a_small_tile_at_the_border_that_takes_more_than_the_largest_is_counted(tmp_path):
    """torch unfolds it, and the largest not; the plan is for both ways of decoding."""
    size, tile, shape = (16, 16, 8), (5, 5, 8), ((32, 64), (2, 2), 1)
    real, empty, latents = autoencoder("cpu", *shape), autoencoder("meta", *shape), torch.randn(1, 8, *size)
    beside = 4 * math.prod(size) * (4**3 + 2 * 8)

    def plainly(cells):
        decode = lambda: empty.decode(torch.empty(1, 8, *cells, device="meta"))  # noqa: E731
        return beside + peak_bytes(decode, "cpu")

    layout = decoding_layout(empty, size, tile)
    planned = choose_tile(layout, plainly, 10**12, tile)[1]
    taken = allocated(lambda: decode_tiled(real, latents, tile), "float32", tmp_path / "trace.json")
    assert taken <= 1.05 * planned <= 1.6 * taken
    assert taken > 1.5 * plainly(layout.largest), "or this layout shows nothing"
    levels = LevelDecoding(empty, size, "cpu", beside)
    taken = allocated(lambda: decode_by_level(real, latents, tile), "float32", tmp_path / "trace.json")
    assert taken <= 1.05 * levels.bytes_of(tile) <= 1.6 * taken


def test_features_are_counted_where_they_lie():
    """512 x 512 x 256 at factor 8: 256 channels at a quarter, 128 at half the resolution; beside a GPU on the CPU."""
    on_cpu, on_gpu = paper_levels("cpu"), paper_levels("cuda")
    assert on_gpu.features[1:] == [4 * 256 * 128 * 128 * 64, 4 * 128 * 256 * 256 * 128]
    assert on_gpu.cpu_bytes == sum(on_gpu.features[1:])
    assert on_cpu.bytes_of((16, 16, 16)) > on_gpu.bytes_of((16, 16, 16)) + on_gpu.features[2]
    two = LevelDecoding(autoencoder("meta", (4, 4), (2, 2)), (8, 8, 8), "cuda", 0)
    assert two.cpu_bytes == two.features[1] + 4 * 32**3, "the image lies on the CPU as well"


def test_the_work_of_the_whole_is_that_of_the_operations_counted():
    """Multiplications of all levels, against torch's counter (which counts a multiplication and an addition)."""
    from torch.utils.flop_counter import FlopCounterMode

    network = autoencoder("meta")
    with FlopCounterMode(display=False) as counter:
        network.decode(torch.empty(1, 8, 8, 8, 8, device="meta"))
    assert 2 * LevelDecoding(network, (8, 8, 8), "cpu", 0).computed((8, 8, 8)) == counter.get_total_flops()


def test_tiles_become_ever_smaller_down_to_the_smallest():
    levels = LevelDecoding(autoencoder("meta"), (20, 9, 3), "cpu", 0)
    tiles = levels.tiles(SMALLEST_TILE)
    assert tiles[0] == (20, 9, 3) and tiles[-1] == (4, 4, 3) and len(set(tiles)) == len(tiles)
    for larger, smaller in zip(tiles, tiles[1:], strict=False):
        assert all(a >= b for a, b in zip(larger, smaller, strict=True))
    works = [levels.computed(tile) for tile in tiles]
    assert works == sorted(works)
    odd = LevelDecoding(autoencoder("meta"), (13, 9, 5), "cpu", 0).tiles(SMALLEST_TILE)
    assert odd[-1] == (4, 4, 4) == tuple(map(min, zip(*odd, strict=True))), (
        "no side below, on the way neither"
    )


def test_the_largest_tile_that_fits_is_taken_though_smaller_ones_take_more():
    """Where they are small enough to be unfolded on a CPU."""
    size = (20, 20, 10)
    levels = LevelDecoding(autoencoder("meta", (16, 32), (2, 2)), size, "cpu", 0)
    tiles = levels.tiles(SMALLEST_TILE)
    needed = [levels.bytes_of(tile) for tile in tiles]
    assert needed != sorted(needed, reverse=True), "or this network shows nothing"
    plain = Layout(size, (4, 4, 4), (8, 8, 8)), max(needed) + 1
    for free in needed:
        first = next(tile for tile, taken in zip(tiles, needed, strict=True) if taken <= free)
        assert choose_by_level(levels, free, plain, SMALLEST_TILE) == (first, levels.bytes_of(first))


def test_at_8_gb_the_published_decoder_goes_level_by_level():
    """And computes less than half of what plain tiles of that memory compute."""
    recipe = plain_recipe(describe(PAPER), "unipc", 25, "float16")
    plan = plan_run(describe(PAPER), recipe, CUDA, loaded=False, free=8 * 10**9)
    assert plan.by_level and plan.fits
    with torch.device("meta"):
        network = build_autoencoder(PAPER.autoencoder)
    size = PAPER.latent_shape()[2:]
    _, share = tiles_and_share(network, size, plan.decode_tile, True)
    assert share < 1.3
    _, of_plain = tiles_and_share(network, size, (32, 13, 32), False)
    assert of_plain > 2 * share
    ample = plan_run(describe(PAPER), recipe, CUDA, loaded=False, free=10**12)
    assert not ample.by_level and ample.decode_tile == size
    recorded = replace(recipe, tiling={"decode": [SMALLEST_TILE] * 3})
    little = plan_run(describe(PAPER), recorded, CUDA, loaded=True, free=1_850 * 10**6)
    assert little.by_level and little.decoding <= little.free, (
        "the smallest plain tile was recorded, and is too large"
    )


def test_a_cpu_without_room_for_the_features_keeps_to_plain_tiles():
    plan = decoding_plan(PAPER, PAPER.image_shape, CPU, 5 * 10**9)
    assert not plan.by_level and plan.fits


def test_plain_tiles_stay_where_they_compute_little_more():
    levels = paper_levels("cuda")
    layout = decoding_layout(levels._autoencoder, PAPER.latent_shape()[2:], (64, 64, 32))
    free, needed = 30 * 10**9, 10**9
    assert choose_by_level(levels, free, (layout, needed), SMALLEST_TILE) is None, "one tile"
    halved = replace(layout, tile=(32, 64, 32))
    assert choose_by_level(levels, free, (halved, needed), SMALLEST_TILE) is not None
    assert choose_by_level(levels, free, (Layout(layout.size, (32, 64, 32), (0, 0, 0)), needed), 4) is None
    assert choose_by_level(levels, 0, (halved, needed), SMALLEST_TILE) is None, "nothing fits"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("models"))


def test_a_recorded_way_is_taken_again(model):
    """The volume is that of plain tiles, but for rounding."""
    result = synthesize(box_conditions(), model, steps=3, device="cpu", precision="float32")
    tiling = {"condition": [4, 4, 4], "decode_by_level": [2, 4, 3]}
    again = repeat_recipe(replace(result.recipe, tiling=tiling), model=model, device="cpu")
    assert again.recipe.tiling == tiling and again.warnings == []
    difference = np.abs(again.volume.array.astype(int) - result.volume.array)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01
    whole = repeat_recipe(again.recipe, model=model, device="cpu")
    assert np.array_equal(whole.volume.array, again.volume.array)
