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
from medlord.memory.level_tiles import LevelDecoding, choose_by_level
from medlord.memory.planner import SMALLEST_TILE, plan_run
from medlord.networks.build import build_autoencoder
from medlord.networks.level_decoding import decode_by_level
from medlord.networks.tiling import Layout, decoding_layout
from medlord.synthesis import repeat_recipe, synthesize

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
PAPER = configuration("paper", 8)


def autoencoder(device: str):
    torch.manual_seed(3)
    config = {"channels": [4, 8, 16], "strides": [2, 2, 2], "num_res_layers": 2, "num_embeddings": 16}
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


def test_features_are_counted_where_they_lie():
    """512 x 512 x 256 at factor 8: 256 channels at a quarter, 128 at half the resolution; beside a GPU on the CPU."""
    on_cpu, on_gpu = paper_levels("cpu"), paper_levels("cuda")
    assert on_gpu.features[1:] == [4 * 256 * 128 * 128 * 64, 4 * 128 * 256 * 256 * 128]
    assert on_gpu.cpu_bytes == sum(on_gpu.features[1:])
    assert on_cpu.bytes_of((16, 16, 16)) > on_gpu.bytes_of((16, 16, 16)) + on_gpu.features[2]


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
