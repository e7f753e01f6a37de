"""Previews: the map from latents to images, the picture's planes, and that a model is fitted once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny_bundle import write_tiny_bundle

from medlord.bundles.bundle import load_bundle
from medlord.sampling import previews
from medlord.sampling.previews import fit_latent_map, make_preview, picture_of_slabs
from medlord.volumes import Grid


class LinearAutoencoder(torch.nn.Module):
    """Decodes each latent voxel to a block that is linear in its vector: what the map must find exactly."""

    def __init__(self, factors, channels=2, codes=50):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.downsampling_factors = factors
        self.table = torch.randn(codes, channels, generator=generator) * 0.2
        voxels = factors[0] * factors[1] * factors[2]
        self.weights = torch.randn(channels, voxels, generator=generator) * 0.2
        self.codebook = self
        self.embedding = torch.nn.Embedding.from_pretrained(self.table)

    def embed(self, indices):
        return self.embedding(indices).permute(0, 4, 1, 2, 3)

    def decode(self, latent):
        blocks = latent[0].permute(1, 2, 3, 0) @ self.weights
        return previews._image(blocks, self.downsampling_factors)[None, None]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("models")))


@settings(max_examples=10, deadline=None)
@given(st.tuples(*[st.integers(1, 3)] * 3), st.tuples(*[st.integers(1, 3)] * 3))
def test_blocks_and_images_are_inverse(factors, latent_shape):
    image = torch.arange(np.prod(factors) * np.prod(latent_shape)).reshape(
        [f * n for f, n in zip(factors, latent_shape, strict=True)]
    )
    blocks = previews._blocks(image, factors)
    assert blocks.shape == (*latent_shape, np.prod(factors))
    assert blocks[0, 0, 0].tolist() == image[: factors[0], : factors[1], : factors[2]].flatten().tolist()
    assert torch.equal(previews._image(blocks, factors), image)


def test_a_linear_decoder_is_found():
    """Slabs along every axis equal the decoded image there, averaged over the latent voxel's thickness."""
    autoencoder = LinearAutoencoder((2, 1, 3))
    latent_map = fit_latent_map(autoencoder)
    latent = autoencoder.embed(torch.randint(50, (1, 6, 5, 4), generator=torch.Generator().manual_seed(1)))
    image = autoencoder.decode(latent)[0, 0]
    for axis, factor in enumerate(autoencoder.downsampling_factors):
        first = latent.shape[2 + axis] // 2 * factor
        expected = image.narrow(axis, first, factor).mean(axis, keepdim=True)
        found = latent_map.slab(latent, axis)
        assert found.shape == expected.shape
        # not exact: the regression is damped, since neighbours of real latents resemble each other
        assert (found - expected).abs().max() < 0.25 * expected.std()
        assert np.corrcoef(found.flatten(), expected.flatten())[0, 1] > 0.995


def test_it_follows_a_real_decoder(bundle):
    """A map fitted to random codes predicts the decoding of other latents: convolutions with kinks, not linear."""
    autoencoder = bundle.autoencoder
    latent_map = fit_latent_map(autoencoder)
    indices = torch.randint(64, (1, 8, 8, 8), generator=torch.Generator().manual_seed(5))
    latent = autoencoder.codebook.embed(indices)
    with torch.no_grad():
        image = autoencoder.decode(latent)[0, 0]
    slab = latent_map.slab(latent, 2)[2:-2, 2:-2, 0]
    expected = image[2:-2, 2:-2, 4 * 2 : 4 * 2 + 2].mean(2)
    assert np.corrcoef(slab.flatten(), expected.flatten())[0, 1] > 0.8


def test_few_channels_look_at_neighbours_and_many_do_not():
    assert fit_latent_map(LinearAutoencoder((1, 1, 1), channels=2)).reach == 3
    assert fit_latent_map(LinearAutoencoder((1, 1, 1), channels=64)).reach == 1


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SLA"])
def test_planes_are_seen_as_in_radiology(orientation):
    """One bright voxel at the patient's right, front and head: left and top of axial and coronal, left and top."""
    spacing = {"R": 2.0, "L": 2.0, "A": 2.0, "P": 2.0, "S": 4.0, "I": 4.0}
    grid = Grid.centered((20,) * 3, tuple(spacing[letter] for letter in orientation), orientation=orientation)
    world = np.array([-12.0, -12.0, -24.0])  # towards left, back and foot of the middle
    world = -world  # towards right, front and head
    index = np.rint(np.linalg.inv(grid.affine) @ [*world, 1])[:3].astype(int)
    volume = np.full(grid.shape, -1000.0)
    volume[index[0], index[1], index[2]] = 400.0
    slabs = [volume.max(axis=axis, keepdims=True) for axis in range(3)]
    picture = picture_of_slabs(slabs, grid)
    # 20 x 20 voxels of 2 mm axial, 20 x 40 pixels of 2 mm coronal and sagittal
    assert picture.shape == (40, 60) and picture.dtype == np.uint8
    axial, coronal, sagittal = picture[10:30, :20], picture[:, 20:40], picture[:, 40:]
    for panel in (axial, coronal, sagittal):
        row, column = np.unravel_index(panel.argmax(), panel.shape)
        assert panel.max() > 100 and row < panel.shape[0] / 2 and column < panel.shape[1] / 2
    assert not picture[:10, :20].any() and not picture[30:, :20].any(), "centred on black"


def test_large_planes_are_made_smaller():
    grid = Grid.centered((512, 4, 300), (1.0, 1.0, 1.0))
    slabs = [np.zeros([1 if a == axis else n for a, n in enumerate(grid.shape)]) for axis in range(3)]
    rows, columns = picture_of_slabs(slabs, grid).shape
    assert rows == 150 and columns == 256 + 256 + 2


def test_the_preview_of_a_model(bundle, monkeypatch):
    """Right kind of picture, the same for the same latent, of the first sample; the map is fitted once."""
    fits = []
    monkeypatch.setattr(previews, "_maps", type(previews._maps)())
    monkeypatch.setattr(
        previews, "fit_latent_map", lambda network: fits.append(network) or fit_latent_map(network)
    )
    latent = (
        torch.randn(2, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
        * bundle.description.scale_factor
    )
    picture = make_preview(bundle)(latent)
    again = make_preview(bundle)(latent[:1])
    assert picture.dtype == np.uint8 and picture.ndim == 2 and np.array_equal(picture, again)
    # 320 x 320 mm axial, 320 x 240 mm coronal and sagittal, in pixels of 20 mm
    assert picture.shape == (16, 48)
    assert picture.std() > 0 and len(fits) == 1
    assert not np.array_equal(make_preview(bundle)(latent[1:]), picture)


def test_the_scale_factor_is_taken_off(bundle):
    import dataclasses

    latent = torch.randn(1, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    scaled = dataclasses.replace(
        bundle, description=dataclasses.replace(bundle.description, scale_factor=2.5)
    )
    assert np.array_equal(make_preview(scaled)(latent * 2.5), make_preview(bundle)(latent))


def test_previews_work_under_autocast_and_leave_random_numbers_alone(bundle):
    latent = torch.randn(1, 4, 4, 4, 4)
    state = torch.get_rng_state()
    expected = make_preview(bundle)(latent)
    fit_latent_map(bundle.autoencoder)
    assert torch.equal(state, torch.get_rng_state())
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(make_preview(bundle)(latent), expected)
