"""The autoencoder: MONAI's numbers, strides per axis, receptive-field halos, reduced precision."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import VQVAE

from medlord.errors import InputError
from medlord.networks.build import build_autoencoder

SMALL = {"channels": [4, 8], "num_res_layers": 2, "num_embeddings": 16, "embedding_dim": 3}
ANISOTROPIC = {**SMALL, "strides": [[2, 2, 2], [2, 2, 1]]}


def autoencoder(seed: int = 0, **settings):
    """Autoencoder with seeded random weights, evaluation mode."""
    torch.manual_seed(seed)
    return build_autoencoder({**SMALL, "strides": 2, **settings}).eval()


def test_isotropic_networks_are_monais_to_the_last_bit():
    """Same names, strict loading, same latents, indices and images."""
    ours = autoencoder()
    theirs = VQVAE(
        3, 1, 1, (4, 8), 2, (4, 8), ((2, 4, 1, 1),) * 2, ((2, 4, 1, 1, 0),) * 2, 16, 3, ddp_sync=False
    ).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(2, 1, 8, 12, 16)
    with torch.no_grad():
        latents = theirs.encode(images)
        assert torch.equal(ours.encode(images), latents)
        assert torch.equal(ours.quantize(latents)[2], theirs.index_quantize(images))
        codes = theirs.quantizer.embed(theirs.index_quantize(images))
        assert torch.equal(ours.decode(codes), theirs.decode(codes))
        torch.testing.assert_close(ours(images)[0], theirs(images)[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("strides", "factors"),
    [([2, 2], (4, 4, 4)), ([[2, 2, 2], [2, 2, 1]], (4, 4, 2)), ([[1, 2, 2], [2, 1, 2]], (2, 2, 4))],
)
def test_sizes_follow_the_strides_of_each_axis(strides, factors):
    """Latents are smaller by the factors, images come back at their size."""
    network = autoencoder(strides=strides)
    assert network.downsampling_factors == factors
    images = torch.randn(1, 1, 16, 8, 12)
    latents = network.encode(images)
    assert latents.shape == (
        1,
        3,
        *(size // factor for size, factor in zip((16, 8, 12), factors, strict=True)),
    )
    assert network.decode_latent(latents).shape == images.shape


def test_decoding_and_encoding_of_latents():
    """decode_latent quantises first; encode_to_latent gives codes only when asked."""
    network = autoencoder(**ANISOTROPIC)
    images = torch.randn(1, 1, 16, 16, 8)
    with torch.no_grad():
        latents = network.encode(images)
        quantized, _, indices = network.quantize(latents)
        assert indices.shape == (1, 4, 4, 4)
        assert torch.equal(network.decode_latent(latents), network.decode(quantized))
        assert torch.equal(network.encode_to_latent(images), latents)
        assert torch.equal(network.encode_to_latent(images, quantized=True), quantized)


def reach(run, size: tuple[int, int, int], channels: int, axis: int, block: slice) -> tuple[int, int]:
    """First and last input voxel along `axis` on which the output voxels of `block` depend, by the gradient.

    With all weights positive no path through the network is cut off or cancelled.
    """
    inputs = torch.ones(1, channels, *size, requires_grad=True)
    output = run(inputs)
    cut = [slice(None)] * 5
    cut[axis + 2] = block
    (gradient,) = torch.autograd.grad(output[tuple(cut)].sum(), inputs)
    others = tuple(other for other in range(5) if other != axis + 2)
    touched = gradient.abs().sum(dim=others).nonzero().flatten()
    return int(touched[0]), int(touched[-1])


@pytest.mark.parametrize(
    "settings",
    [
        {"strides": [2, 2], "channels": [1, 1]},
        {"strides": [2, 2], "channels": [1, 1], "num_res_layers": 3},
        {"strides": [2, 2, 2], "channels": [1, 1, 1], "num_res_layers": 1},
        {"strides": [[2, 2, 2], [2, 2, 1]], "channels": [1, 1]},
    ],
)
@pytest.mark.parametrize("axis", [0, 2])
def test_halos_are_the_networks_receptive_field(settings, axis):
    """Exactly the computed halo of latents feeds a decoded block, and of voxels (in whole latents) an encoded one."""
    network = autoencoder(embedding_dim=1, **settings)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_().add_(0.1)
    factor = network.downsampling_factors[axis]
    halo, middle, length = network.decoding_halo[axis], 20, 41
    size = [8, 8, 8]
    size[axis] = length
    block = slice(middle * factor, (middle + 1) * factor)
    assert reach(network.decoder, tuple(size), 1, axis, block) == (middle - halo, middle + halo)
    size[axis] = length * factor
    first, last = reach(network.encoder, tuple(size), 1, axis, slice(middle, middle + 1))
    outside = max(middle * factor - first, last - (middle + 1) * factor + 1)
    assert network.encoding_halo[axis] - factor < outside <= network.encoding_halo[axis]


def test_published_halos():
    """The values measured on the published networks: factor 4 and 8 with two residual layers."""
    four, eight = autoencoder(strides=[2, 2]), autoencoder(strides=[2, 2, 2], channels=[2, 2, 2])
    assert (four.decoding_halo, four.encoding_halo) == ((8, 8, 8), (32, 32, 32))
    assert (eight.decoding_halo, eight.encoding_halo) == ((9, 9, 9), (72, 72, 72))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_bfloat16_autocast_forward_and_backward(memory_format):
    """All gradients are there and finite; images are float32 and finer than bfloat16 resolves."""
    network = autoencoder(**ANISOTROPIC).train().to(memory_format=memory_format)
    images = torch.rand(2, 1, 16, 16, 8).to(memory_format=memory_format) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        reconstruction, loss, _ = network(images)
    ((reconstruction - images).abs().mean() + loss).backward()
    assert reconstruction.dtype == torch.float32
    assert not torch.equal(reconstruction, reconstruction.bfloat16().float())
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)
    exact = network.eval().decode_latent(torch.ones(1, 3, 4, 4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network.decode_latent(torch.ones(1, 3, 4, 4, 4))
    torch.testing.assert_close(rounded, exact, atol=0.02, rtol=0.02)


def test_half_precision_weights_decode_without_autocast():
    """A network converted as a whole runs too."""
    network = autoencoder(**ANISOTROPIC).bfloat16()
    images = network.decode_latent(network.encode(torch.rand(1, 1, 8, 8, 8)))
    assert images.dtype == torch.float32 and images.isfinite().all()


@pytest.mark.parametrize(
    ("down", "up", "named"),
    [
        ([2, 3, 1, 0], [2, 4, 1, 1, 0], "do not divide sizes by their stride"),
        ([2, 4, 1, 1], [2, 3, 1, 1, 0], "do not multiply sizes by their stride"),
        (
            [2, 4, 1, 1],
            [1, 3, 1, 1, 0],
            "the encoder divides sizes by [4, 4, 4], the decoder multiplies them by [1",
        ),
        ([2, 4, 1], [2, 4, 1, 1, 0], "downsample_parameters need 4 numbers in every level"),
    ],
)
def test_convolutions_that_do_not_scale_by_whole_numbers_are_refused(down, up, named):
    """Otherwise grid and tiles would not meet the image."""
    with pytest.raises(InputError) as caught:
        autoencoder(strides=None, downsample_parameters=[down] * 2, upsample_parameters=[up] * 2)
    assert named in str(caught.value)


def test_other_kernels_that_scale_by_whole_numbers_serve_too():
    """Kernel 3 with stride 2, and 3 with one more voxel on the way up."""
    network = autoencoder(
        strides=None, downsample_parameters=[[2, 3, 1, 1]] * 2, upsample_parameters=[[2, 3, 1, 1, 1]] * 2
    )
    images = torch.randn(1, 1, 8, 12, 16)
    assert network.decode_latent(network.encode(images)).shape == images.shape


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"strides": 3}, "stride 3"),
        ({"strides": [2, 2, 2]}, "strides has 3 entries for 2 levels"),
        ({"strides": None}, "either strides or both"),
        ({"upsample_parameters": [[2, 4, 1, 1, 0]] * 2}, "either strides or both"),
        ({"num_res_channels": [4]}, "num_res_channels has 1"),
        ({"widths": 4}, "unknown key 'widths'"),
        ({"act": "NOSUCH"}, "cannot be built"),
    ],
)
def test_configurations_that_cannot_be_built_are_named(change, named):
    """One line that says which value is wrong."""
    if change == {"upsample_parameters": [[2, 4, 1, 1, 0]] * 2}:
        change = {**change, "strides": None}
    with pytest.raises(InputError, match=named) as caught:
        autoencoder(**change)
    assert "\n" not in str(caught.value)
