"""Tiles: the values of the whole pass for every shape, factor and tile; the smallest halo that does it; blending."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from medlord.errors import CancelledError, InputError
from medlord.networks.autoencoder import VectorQuantizedAutoencoder
from medlord.networks.build import build_autoencoder, build_control
from medlord.networks.tiling import Layout, decode_tiled, decoding_layout, embed_tiled, encode_tiled, is_local

DENOISER = {
    "in_channels": 2,
    "out_channels": 2,
    "channels": [4, 4],
    "num_res_blocks": 1,
    "attention_levels": [False, False],
    "num_head_channels": 2,
    "norm_num_groups": 2,
}

STRIDE = st.lists(st.sampled_from([1, 2]), min_size=3, max_size=3)
SIZE = st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6))
TILE = st.tuples(st.integers(2, 9), st.integers(2, 7), st.integers(2, 7))


def autoencoder(strides=(2, 2), layers: int = 1, channels: int = 2) -> VectorQuantizedAutoencoder:
    """Random weights in double precision: oneDNN, which chooses its kernels by size, is not used for it."""
    torch.manual_seed(5)
    config = {
        "channels": [channels] * len(strides),
        "num_res_layers": layers,
        "strides": list(strides),
        "num_embeddings": 16,
        "embedding_dim": 2,
    }
    return build_autoencoder(config).double().eval()


def control(strides=(2, 2)):
    """Control adapter whose embedding does not start at zero, double precision."""
    torch.manual_seed(6)
    config = {
        "condition_channels": 3,
        "embedding_channels": [2] * len(strides),
        "embedding_strides": list(strides),
        "num_head_channels": 2,
        "norm_num_groups": 2,
    }
    network = build_control(config, DENOISER).double().eval()
    nn.init.normal_(network.controlnet_cond_embedding.conv_out.weight)
    return network


def times(size, factors) -> tuple[int, ...]:
    return tuple(n * factor for n, factor in zip(size, factors, strict=True))


@torch.no_grad()
@settings(max_examples=25)
@given(strides=st.lists(STRIDE, min_size=1, max_size=3), layers=st.integers(0, 2), size=SIZE, tile=TILE)
def test_tiles_decode_and_encode_to_the_whole(strides, layers, size, tile):
    """Any strides per axis, any number of residual layers, tiles of any size, borders included."""
    network = autoencoder(strides, layers)
    latents = torch.randn(1, 2, *size)
    decoded = decode_tiled(network, latents, tile)
    torch.testing.assert_close(decoded, network.decode_latent(latents), atol=1e-6, rtol=1e-6)
    images = torch.randn(1, 1, *times(size, network.downsampling_factors))
    encoded = encode_tiled(network, images, tile)
    torch.testing.assert_close(encoded, network.encode(images), atol=1e-6, rtol=1e-6)


@torch.no_grad()
@settings(max_examples=20)
@given(strides=st.lists(STRIDE, min_size=1, max_size=3), size=SIZE, tile=TILE, kind=st.sampled_from("uf"))
def test_tiles_embed_to_the_whole(strides, size, tile, kind):
    """The features of the masks, whatever type the masks have."""
    network = control(strides)
    shape = (1, 3, *times(size, network.condition_factors))
    masks = torch.rand(shape) < 0.5
    given_masks = masks.to(torch.uint8) if kind == "u" else masks.double()
    whole = network.embed_condition(masks)
    torch.testing.assert_close(embed_tiled(network, given_masks, tile), whole, atol=1e-6, rtol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("shorter", [0, 1])
def test_the_halo_is_as_small_as_it_can_be(shorter, monkeypatch):
    """With one voxel less the tiles differ from the whole."""
    network = autoencoder([[2, 2, 1], [2, 2, 2]], layers=2)
    for parameter in network.parameters():
        parameter.abs_()  # nothing is cut off by an activation or cancels
    halo = tuple(n - shorter for n in network.decoding_halo)
    monkeypatch.setattr(type(network), "decoding_halo", halo)
    latents = torch.randn(1, 2, 20, 4, 4)
    whole, tiled = network.decode_latent(latents), decode_tiled(network, latents, (8, 4, 4))
    assert torch.allclose(tiled, whole, atol=0, rtol=1e-6) == (shorter == 0)


@torch.no_grad()
def test_float32_differs_by_rounding_only():
    """What a run uses: 1e-6 of the image's range, and batches too."""
    network = autoencoder(layers=2, channels=8).float()
    latents = torch.randn(2, 2, 8, 8, 6)
    whole = network.decode_latent(latents)
    tiled = decode_tiled(network, latents, (3, 4, 6))
    assert tiled.dtype == torch.float32 and tiled.shape == whole.shape
    assert (tiled - whole).abs().max() <= 1e-6 * whole.abs().max().clamp(min=1)


def test_every_cell_belongs_to_one_core_and_no_tile_is_empty():
    layout = Layout((10, 3, 7), (4, 4, 2), (2, 2, 2))
    count = torch.zeros(10, 3, 7)
    for spans in layout:
        count[tuple(slice(span.first, span.last) for span in spans)] += 1
        assert all(0 <= span.low <= span.first < span.last <= span.high for span in spans)
    assert (count == 1).all() and layout.count == len(list(layout)) == 3 * 1 * 4
    assert layout.largest == (8, 3, 6)
    assert layout.computed == (6 + 8 + 4) * 3 * (4 + 6 + 5 + 3)


def without_neighbours(network: VectorQuantizedAutoencoder) -> VectorQuantizedAutoencoder:
    """Only the middle of each kernel remains, so that a voxel depends on nothing around it."""
    for module in network.decoder.modules():
        if isinstance(module, nn.Conv3d):
            middle = module.weight[..., 1, 1, 1].clone()
            module.weight.zero_()
            module.weight[..., 1, 1, 1] = middle
    return network


class Scaled(nn.Module):
    """Stands for a layer that tiling knows nothing of."""

    def forward(self, x):
        return 2 * x


@torch.no_grad()
@settings(max_examples=15)
@given(size=SIZE, tile=st.tuples(*[st.integers(1, 5)] * 3))
def test_the_weights_of_blended_tiles_add_up_to_one(size, tile):
    """Where a voxel depends on itself alone, blending must change nothing at all."""
    network = without_neighbours(autoencoder([1], layers=1))
    network.decoder.blocks.insert(1, Scaled())
    latents, told = torch.randn(1, 2, *size), []
    tiled = decode_tiled(network, latents, tile, warn=told.append)
    torch.testing.assert_close(tiled, network.decode_latent(latents), atol=1e-6, rtol=1e-6)
    assert len(told) == (decoding_layout(network, size, tile).count > 1)


@torch.no_grad()
def test_normalisation_makes_tiles_blend_with_a_warning():
    """No seam where two tiles meet; the whole at once needs no warning."""
    network = autoencoder([1], layers=1, channels=4).float()
    network.decoder.blocks.insert(1, nn.GroupNorm(2, 4))
    assert not is_local(network.decoder) and is_local(network.encoder)
    latents = torch.randn(1, 2, 24, 4, 4)
    whole = network.decode_latent(latents)
    with pytest.warns(UserWarning, match="normalisation, so its 2 tiles are blended") as caught:
        tiled = decode_tiled(network, latents, (12, 4, 4))
    assert len(caught) == 1
    assert torch.corrcoef(torch.stack([tiled.flatten(), whole.flatten()]))[0, 1] > 0.95
    error = (tiled - whole).mean(dim=(1, 3, 4))[0]
    assert (error[12] - error[11]).abs() < 0.5 * (error.max() - error.min())
    assert torch.equal(decode_tiled(network, latents), whole)


@torch.no_grad()
def test_progress_after_each_tile_and_cancel_before_the_next():
    network, latents, events = autoencoder(), torch.randn(1, 2, 6, 4, 4), []
    decode_tiled(network, latents, (2, 4, 4), progress=events.append)
    assert [(event.phase, event.step, event.total) for event in events] == [
        ("decode", n, 3) for n in (1, 2, 3)
    ]
    events.clear()
    with pytest.raises(CancelledError, match=r"decode \(tile 3 of 3\)"):
        decode_tiled(network, latents, (2, 4, 4), progress=events.append, cancel=lambda: len(events) == 2)


@torch.no_grad()
def test_the_embedding_tells_its_progress_and_can_be_cancelled():
    """At full size it is the longest wait before the first step."""
    network, masks, events = control(), torch.zeros(1, 3, 8, 8, 8), []
    with pytest.raises(CancelledError, match=r"embed \(tile 2 of 2\)"):
        embed_tiled(network, masks, (1, 2, 2), progress=events.append, cancel=lambda: bool(events))
    assert [(event.phase, event.step, event.total) for event in events] == [("embed", 1, 2)]


@pytest.mark.parametrize("tile", [(0, 2, 2), (2, 2), (2, 2, 2.5), (2, -1, 2)])
def test_tiles_that_are_none_are_refused(tile):
    with pytest.raises(InputError, match="three whole numbers"):
        decode_tiled(autoencoder(), torch.randn(1, 2, 4, 4, 4), tile)


def test_sizes_that_do_not_fit_the_factors_are_refused():
    with pytest.raises(InputError, match=r"\(8, 10, 8\) voxels, the network needs multiples of \(4, 4, 4\)"):
        encode_tiled(autoencoder(), torch.randn(1, 1, 8, 10, 8), (1, 1, 1))
    with pytest.raises(InputError, match="multiples of"):
        embed_tiled(control(), torch.zeros(1, 3, 8, 8, 7))
    with pytest.raises(InputError, match="2 condition channels were given"):
        embed_tiled(control(), torch.zeros(1, 2, 8, 8, 8))
