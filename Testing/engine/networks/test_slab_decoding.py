"""Decoding slab by slab: the values of the whole pass, whatever the thickness, in few planes at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medlord.errors import CancelledError, InputError
from medlord.networks.autoencoder import VectorQuantizedAutoencoder
from medlord.networks.build import build_autoencoder
from medlord.networks.slab_decoding import decode_in_slabs, decodes_in_slabs, slab_axis

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


def slab_of(size, thickness: int):
    axis = slab_axis(size)
    return tuple(thickness if number == axis else n for number, n in enumerate(size))


@torch.no_grad()
@settings(max_examples=20)
@given(
    strides=st.lists(STRIDE, min_size=1, max_size=3),
    layers=st.integers(0, 2),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    thickness=st.integers(1, 9),
)
def test_slabs_give_the_whole(strides, layers, size, thickness):
    """Any strides per axis, any number of residual layers, two volumes at once, along any axis."""
    network = autoencoder(strides, layers)
    latents = torch.randn(2, 2, *size)
    decoded = decode_in_slabs(network, latents, slab_of(size, thickness))
    torch.testing.assert_close(decoded, network.decode_latent(latents), atol=1e-6, rtol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(
    "up", [(2, 4, 1, 1, 0), (2, 3, 1, 1, 1), (2, 2, 1, 0, 0), (2, 3, 2, 2, 1), (1, 3, 1, 1, 0)]
)
@pytest.mark.parametrize("thickness", [1, 2, 3, 7])
def test_every_kind_of_upsampling(up, thickness):
    """Kernels, dilations and paddings that an imported autoencoder may have, output padding too."""
    torch.manual_seed(1)
    down = (2, 4, 1, 1) if up[0] == 2 else (1, 3, 1, 1)
    network = VectorQuantizedAutoencoder(1, 1, [3, 4], 1, [3, 4], [down] * 2, [up] * 2, 8, 2).double().eval()
    latents = torch.randn(1, 2, 7, 3, 2)
    decoded = decode_in_slabs(network, latents, (thickness, 3, 2))
    torch.testing.assert_close(decoded, network.decode_latent(latents), atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_hardly_a_voxel_is_computed_twice():
    """A plane of each upsampling's input per slab, and nothing of the residual layers."""
    network = autoencoder([2, 2], layers=2)
    latents, work = torch.randn(1, 2, 24, 2, 2), []
    for run in (network.decode_latent, lambda z: decode_in_slabs(network, z, (6, 2, 2))):
        with FlopCounterMode(display=False) as counter:
            run(latents)
        work.append(counter.get_total_flops())
    assert work[1] <= 1.1 * work[0]


@torch.no_grad()
def test_float32_differs_by_rounding_only():
    network = autoencoder(layers=2).float()
    latents = torch.randn(1, 2, 8, 8, 6)
    whole = network.decode_latent(latents)
    decoded = decode_in_slabs(network, latents, (3, 8, 6))
    assert decoded.dtype == torch.float32
    assert (decoded - whole).abs().max() <= 1e-6 * whole.abs().max().clamp(min=1)


@torch.no_grad()
@pytest.mark.parametrize(
    ("weights", "autocast"), [("float32", False), ("float32", True), ("bfloat16", False), ("float16", False)]
)
def test_types_are_those_of_the_whole_pass_in_any_precision(weights, autocast):
    """One rounding step apart at most, and float32 at the end."""
    network = autoencoder(layers=2).to(getattr(torch, weights))
    latents = torch.randn(1, 2, 8, 8, 6)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        whole = network.decode_latent(latents)
        decoded = decode_in_slabs(network, latents, (3, 8, 6))
    assert decoded.dtype == whole.dtype == torch.float32
    step = {"float32": 2**-8 if autocast else 2**-20, "bfloat16": 2**-8, "float16": 2**-11}[weights]
    assert (decoded - whole).abs().max() <= 4 * step * whole.abs().max()


def test_no_more_planes_at_a_time_than_a_slab_is_thick(monkeypatch):
    """After an upsampling too: memory does not grow with the factor."""
    given = []
    for kind in ("conv3d", "conv_transpose3d"):
        original = getattr(nn.functional, kind)

        def watched(x, *rest, original=original):
            given.append(x.shape[2])
            return original(x, *rest)

        monkeypatch.setattr(f"medlord.networks.slab_decoding.functional.{kind}", watched)
    with torch.no_grad():
        decode_in_slabs(autoencoder([2, 2, 2]), torch.randn(1, 2, 12, 2, 2), (3, 2, 2))
    assert max(given) == 3 + 2 + 1, "two planes of the slab before, and one of padding at the end"


@torch.no_grad()
def test_progress_counts_planes_and_cancel_stops_between_them():
    network, latents, events = autoencoder(), torch.randn(1, 2, 4, 4, 4), []
    decode_in_slabs(network, latents, (1, 4, 4), progress=events.append)
    steps = [event.step for event in events]
    assert steps == sorted(steps) and steps[-1] == 16 and len(steps) > 4
    assert {(event.phase, event.total) for event in events} == {("decode", 16)}
    made = len(events)
    events.clear()
    with pytest.raises(CancelledError, match=r"decode \(plane .* of 16\)"):
        decode_in_slabs(network, latents, (1, 4, 4), progress=events.append, cancel=lambda: len(events) == 3)
    assert len(events) == 3 < made
    with pytest.raises(CancelledError, match=r"plane 1 of 16"):
        decode_in_slabs(network, latents, (4, 4, 4), cancel=lambda: True)


def test_decoders_that_see_the_whole_volume_are_refused():
    normalised = autoencoder()
    normalised.decoder.blocks.insert(1, nn.GroupNorm(2, 2).double())
    assert decodes_in_slabs(autoencoder()) and not decodes_in_slabs(normalised)
    with pytest.raises(InputError, match="decode it in tiles"):
        decode_in_slabs(normalised, torch.randn(1, 2, 4, 4, 4), (2, 4, 4))


@pytest.mark.parametrize("slab", [(4, 2, 4), (0, 4, 4), (1.0, 4, 4), (2, 4)])
def test_a_slab_that_is_none_is_refused(slab):
    with pytest.raises(InputError, match=r"The slab .* takes all of them but along axis 0"):
        decode_in_slabs(autoencoder(), torch.randn(1, 2, 4, 4, 4), slab)
