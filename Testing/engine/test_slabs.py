"""The choice between one piece, slabs and tiles: its bound on memory, and what a recipe records."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.engine_clients import box_conditions
from support.memory import allocated
from support.tiny_bundle import write_tiny_bundle

from medlord.benchmark.full_size import configuration, describe
from medlord.benchmark.planning import decoding_plan, plain_recipe
from medlord.memory.accounting import peak_bytes
from medlord.memory.planner import choose_tile, plan_run
from medlord.memory.slabs import SlabCosts, thinner
from medlord.networks.build import build_autoencoder
from medlord.networks.slab_decoding import decode_in_slabs
from medlord.networks.tiling import decode_tiled, decoding_layout
from medlord.synthesis import repeat_recipe, synthesize

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
PAPER = {factor: configuration("paper", factor) for factor in (4, 8)}


def autoencoder(device: str, channels=(4, 8, 16), strides=(2, 2, 2), layers: int = 2):
    torch.manual_seed(3)
    config = {"channels": [*channels], "strides": [*strides], "num_res_layers": layers, "num_embeddings": 16}
    with torch.device(device):
        return build_autoencoder({**config, "embedding_dim": 8}).eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(20, 16, 16), (16, 20, 16), (16, 16, 20)])
@pytest.mark.parametrize("thickness", [1, 3, 10])
def test_the_bytes_of_a_slab_are_an_upper_bound(size, thickness, tmp_path):
    """Against torch's allocator, along every axis."""
    real, latents = autoencoder("cpu"), torch.randn(1, 8, *size)
    beside = 4 * math.prod(size) * (8**3 + 2 * 8)  # the image, and the latents with their codes
    slabs = SlabCosts(autoencoder("meta"), size, "cpu", beside)
    slab = tuple(thickness if n == 20 else n for n in size)
    taken = allocated(lambda: decode_in_slabs(real, latents, slab), "float32", tmp_path / "trace.json")
    assert taken <= 1.05 * slabs.bytes_of(slab)
    assert slabs.bytes_of(slab) <= 1.6 * taken


def test_a_small_tile_at_the_border_that_takes_more_than_the_largest_is_counted(tmp_path):
    """torch unfolds it, and the largest not."""
    size, tile, shape = (16, 16, 8), (5, 5, 8), ((32, 64), (2, 2), 1)
    real, empty, latents = autoencoder("cpu", *shape), autoencoder("meta", *shape), torch.randn(1, 8, *size)
    beside = 4 * math.prod(size) * (4**3 + 2 * 8)

    def bytes_of(cells):
        decode = lambda: empty.decode(torch.empty(1, 8, *cells, device="meta"))  # noqa: E731
        return beside + peak_bytes(decode, "cpu")

    layout = decoding_layout(empty, size, tile)
    planned = choose_tile(layout, bytes_of, 10**12, tile)[1]
    taken = allocated(lambda: decode_tiled(real, latents, tile), "float32", tmp_path / "trace.json")
    assert taken <= 1.05 * planned <= 1.6 * taken
    assert taken > 1.5 * bytes_of(layout.largest), "or this layout shows nothing"


def test_slabs_become_ever_thinner_down_to_one_plane():
    slabs = SlabCosts(autoencoder("meta"), (9, 20, 3), "cpu", 0).slabs()
    assert slabs[0] == (9, 5, 3) and slabs[-1] == (9, 1, 3)
    assert slabs == sorted(set(slabs), reverse=True)
    assert SlabCosts(autoencoder("meta"), (1, 1, 1), "cpu", 0).slabs() == [(1, 1, 1)]
    slab, size, thicknesses = (9, 7, 3), (9, 20, 3), []
    while slab is not None:
        thicknesses.append(slab[1])
        slab = thinner(slab, size)
    assert thicknesses == [7, 4, 2, 1]


def test_the_thickest_slab_that_fits_is_taken():
    costs = SlabCosts(autoencoder("meta"), (20, 8, 8), "cuda", 0)
    slabs = costs.slabs()
    for slab in slabs[1:]:
        assert costs.choose(costs.bytes_of(slab)) == (slab, costs.bytes_of(slab))
    assert costs.choose(costs.bytes_of(slabs[-1]) - 1) is None
    recorded = (4, 8, 8)
    assert costs.choose(10**12, recorded) == (recorded, costs.bytes_of(recorded))
    assert costs.choose(costs.bytes_of(recorded) - 1, recorded)[0][0] < 4, "recorded, and too large here"
    assert costs.choose(10**12, (4, 4, 8)) == (slabs[0], costs.bytes_of(slabs[0])), "no slab of this volume"


@pytest.mark.parametrize("factor", [4, 8])
def test_at_8_gb_the_published_decoder_goes_in_slabs(factor):
    """And in one piece where there is room; where not even one plane fits, in tiles."""
    description = describe(PAPER[factor])
    recipe, size = plain_recipe(description, "unipc", 25, "float16"), PAPER[factor].latent_shape()[2:]
    plan = plan_run(description, recipe, CUDA, loaded=False, free=8 * 10**9)
    assert plan.in_slabs and plan.fits and plan.decode_tile[1:] == size[1:] and plan.decode_tile[0] >= 8
    ample = plan_run(description, recipe, CUDA, loaded=False, free=10**12)
    assert not ample.in_slabs and ample.decode_tile == size


@pytest.mark.parametrize("factor", [4, 8])
def test_the_published_decoder_fits_into_a_tenth_of_its_memory(factor):
    """512 x 512 x 256 voxels on a CPU; an image takes 0.4 GB of it with its HU."""
    from medlord.memory.free import held_bytes

    peaks = [
        decoding_plan(PAPER[factor], PAPER[factor].image_shape, CPU, held_bytes(CPU) + free)
        for free in (1_600 * 10**6, 10**12)
    ]
    assert peaks[0].in_slabs and peaks[0].decoding <= peaks[0].free
    assert not peaks[1].in_slabs and peaks[0].decoding < 0.1 * peaks[1].decoding


def test_a_recorded_tile_is_kept_where_it_fits():
    recipe = plain_recipe(describe(PAPER[8]), "unipc", 25, "float16")
    recorded = replace(recipe, tiling={"decode": [8, 8, 8]})
    plan = plan_run(describe(PAPER[8]), recorded, CUDA, loaded=True, free=8 * 10**9)
    assert not plan.in_slabs and plan.decode_tile == (8, 8, 8)
    little = plan_run(describe(PAPER[8]), recorded, CUDA, loaded=True, free=plan.decoding - 1)
    assert little.in_slabs and little.decoding <= little.free


def test_a_recorded_slab_that_does_not_suit_the_volume_is_passed_over():
    recipe = plain_recipe(describe(PAPER[8]), "unipc", 25, "float16")
    for slab in ([4, 4, 4], [10**30, 64, 32]):
        recorded = replace(recipe, tiling={"decode_in_slabs": slab})
        plan = plan_run(describe(PAPER[8]), recorded, CUDA, loaded=True, free=10**12)
        assert not plan.in_slabs and plan.decode_tile == PAPER[8].latent_shape()[2:]


def test_where_nothing_fits_the_message_asks_for_what_takes_least():
    """The smallest tile of the published decoder is mostly halo and takes more than slabs of one plane."""
    recipe = plain_recipe(describe(PAPER[8]), "unipc", 25, "float16")
    plan = plan_run(describe(PAPER[8]), recipe, CUDA, loaded=True, free=1)
    assert plan.in_slabs and plan.decode_tile == (1, 64, 32) and plan.decoding < 10**9


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("models"))


def test_a_recorded_way_is_taken_again(model):
    """The volume is that in one piece, but for rounding."""
    result = synthesize(box_conditions(), model, steps=3, device="cpu", precision="float32")
    size = result.recipe.tiling["decode"]
    axis = size.index(max(size))
    slab = [2 if number == axis else side for number, side in enumerate(size)]
    tiling = {"condition": [4, 4, 4], "decode_in_slabs": slab}
    again = repeat_recipe(replace(result.recipe, tiling=tiling), model=model, device="cpu")
    assert again.recipe.tiling == tiling and again.warnings == []
    difference = np.abs(again.volume.array.astype(int) - result.volume.array)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01
    whole = repeat_recipe(again.recipe, model=model, device="cpu")
    assert np.array_equal(whole.volume.array, again.volume.array)


@pytest.mark.parametrize("planned", ["decode", "decode_in_slabs"])
def test_when_an_allocation_fails_slabs_become_thinner(model, planned, monkeypatch):
    """A plan can be wrong: another program may have taken the memory meanwhile. One piece goes on in slabs too."""
    import medlord.networks.slab_decoding as slab_decoding
    import medlord.networks.tiling as tiling

    result = synthesize(box_conditions(), model, steps=1, device="cpu", precision="float32")
    size = result.recipe.tiling["decode"]
    axis, tried = size.index(max(size)), []

    def short_of_memory(real, autoencoder, latents, tile, **options):
        tried.append(tile[axis])
        if tile[axis] > 1:
            raise MemoryError("for the test")
        return real(autoencoder, latents, tile, **options)

    for module, name in ((slab_decoding, "decode_in_slabs"), (tiling, "decode_tiled")):
        monkeypatch.setattr(module, name, functools.partial(short_of_memory, getattr(module, name)))
    recorded = [
        side // 2 if number == axis and planned != "decode" else side for number, side in enumerate(size)
    ]
    changed = replace(
        result.recipe, tiling={"condition": result.recipe.tiling["condition"], planned: recorded}
    )
    again = repeat_recipe(changed, model=model, device="cpu")
    assert tried[0] == recorded[axis] and tried[-1] == 1 and tried == sorted(set(tried), reverse=True)
    assert again.recipe.tiling["decode_in_slabs"][axis] == 1 and "decode" not in again.recipe.tiling
