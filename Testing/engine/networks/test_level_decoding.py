"""Decoding level by level: the values of the whole pass, with a halo that is no larger than each level needs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medlord.errors import CancelledError, InputError
from medlord.networks.build import build_autoencoder
from medlord.networks.level_decoding import decode_by_level, decodes_by_level, level_layouts

STRIDE = st.lists(st.sampled_from([1, 2]), min_size=3, max_size=3)


def autoencoder(strides=(2, 2), layers: int = 1):
    """Random weights in double precision, other numbers of channels in every level."""
    torch.manual_seed(5)
    config = {
        "channels": [3, 2, 4][: len(strides)],
        "num_res_layers": layers,
        "strides": list(strides),
        "num_embeddings": 16,
        "embedding_dim": 2,
    }
    return build_autoencoder(config).double().eval()


@torch.no_grad()
@settings(max_examples=12)
@given(
    strides=st.lists(STRIDE, min_size=2, max_size=3),
    layers=st.integers(0, 2),
    size=st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6)),
    tile=st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(2, 7)),
)
def test_level_by_level_gives_the_whole(strides, layers, size, tile):
    """Any strides per axis, any number of residual layers, two volumes at once, tiles of any size, borders included."""
    network = autoencoder(strides, layers)
    latents = torch.randn(2, 2, *size)
    decoded = decode_by_level(network, latents, tile)
    torch.testing.assert_close(decoded, network.decode_latent(latents), atol=1e-6, rtol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("shorter", [0, 1])
def test_the_halo_of_each_level_is_as_small_as_it_can_be(level, shorter, monkeypatch):
    """With one voxel less at one level the tiles differ from the whole."""
    network = autoencoder([[2, 2, 1], [2, 2, 2]], layers=2)
    for parameter in network.parameters():
        parameter.abs_()  # nothing is cut off by an activation or cancels
    halos = [network.level_halo(n) for n in range(2)]
    halos[level] = tuple(n - shorter for n in halos[level])
    monkeypatch.setattr(type(network), "level_halo", lambda _, n: halos[n])
    latents = torch.randn(1, 2, 20, 4, 4)
    tiled = decode_by_level(network, latents, (8, 4, 4))
    assert torch.allclose(tiled, network.decode_latent(latents), atol=0, rtol=1e-6) == (shorter == 0)


@torch.no_grad()
def test_float32_differs_by_rounding_only():
    network = autoencoder(layers=2).float()
    latents = torch.randn(1, 2, 8, 8, 6)
    whole = network.decode_latent(latents)
    tiled = decode_by_level(network, latents, (3, 4, 6))
    assert tiled.dtype == torch.float32
    assert (tiled - whole).abs().max() <= 1e-6 * whole.abs().max().clamp(min=1)


@torch.no_grad()
@pytest.mark.parametrize(
    ("weights", "autocast"), [("float32", False), ("float32", True), ("bfloat16", False), ("float16", False)]
)
def test_in_one_tile_no_bit_differs_in_any_precision(weights, autocast):
    """Between two levels features keep the type that they have in the whole pass."""
    network = autoencoder(layers=2).to(getattr(torch, weights))
    latents = torch.randn(1, 2, 8, 8, 6)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert torch.equal(decode_by_level(network, latents, (8, 8, 6)), network.decode_latent(latents))


def test_every_level_cuts_the_same_place():
    layouts = level_layouts(autoencoder([[2, 2, 1], [2, 2, 2]]), (10, 8, 6), (4, 8, 3))
    assert [layout.size for layout in layouts] == [(10, 8, 6), (20, 16, 12)]
    assert [layout.tile for layout in layouts] == [(4, 8, 3), (8, 16, 6)]
    assert [layout.count for layout in layouts] == [6, 6]


@torch.no_grad()
def test_progress_over_all_levels_and_cancel_between_tiles():
    network, latents, events = autoencoder(), torch.randn(1, 2, 4, 4, 4), []
    decode_by_level(network, latents, (2, 4, 4), progress=events.append)
    assert [(event.phase, event.step, event.total) for event in events] == [
        ("decode", n, 4) for n in (1, 2, 3, 4)
    ]
    events.clear()
    with pytest.raises(CancelledError, match=r"decode \(tile 4 of 4\)"):
        decode_by_level(network, latents, (2, 4, 4), progress=events.append, cancel=lambda: len(events) == 3)


def test_decoders_that_cannot_go_by_level_are_refused():
    """One level has nothing to gain; normalisation sees the whole volume."""
    normalised = autoencoder()
    normalised.decoder.blocks.insert(1, nn.GroupNorm(2, 2).double())
    assert decodes_by_level(autoencoder())
    for network in (autoencoder([2]), normalised):
        assert not decodes_by_level(network)
        with pytest.raises(InputError, match="decode it in plain tiles"):
            decode_by_level(network, torch.randn(1, 2, 4, 4, 4), (2, 2, 2))
