"""The chunked quantiser: indices of a brute-force search, MONAI's numbers, bounded memory, revival of dead codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.layers.vector_quantizer import EMAQuantizer
from torch.utils._python_dispatch import TorchDispatchMode

from medlord.networks.quantizer import ChunkedQuantizer, nearest_codes


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, tuple | list) else (result,)
        sizes = [tensor.numel() for tensor in made if isinstance(tensor, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


def pair(num_embeddings: int = 37, dim: int = 5, seed: int = 0) -> tuple[ChunkedQuantizer, EMAQuantizer]:
    """Our quantiser and MONAI's with the same codebook."""
    torch.manual_seed(seed)
    theirs = EMAQuantizer(3, num_embeddings, dim, decay=0.9, ddp_sync=False)
    ours = ChunkedQuantizer(num_embeddings, dim, decay=0.9)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


@settings(max_examples=60, deadline=None)
@given(
    vectors=st.integers(1, 60),
    codes=st.integers(1, 40),
    dim=st.integers(1, 6),
    chunk_bytes=st.integers(1, 4000),
    seed=st.integers(0, 2**32 - 1),
)
def test_indices_equal_brute_force(vectors, codes, dim, chunk_bytes, seed):
    """Small whole numbers make float32 exact, ties included: the first of equally near codes wins, in any chunking."""
    random = np.random.default_rng(seed)
    points = random.integers(-3, 4, (vectors, dim))
    codebook = random.integers(-3, 4, (codes, dim))
    expected = ((points[:, None] - codebook[None]) ** 2).sum(-1).argmin(1)
    found = nearest_codes(torch.tensor(points).float(), torch.tensor(codebook).float(), chunk_bytes)
    assert np.array_equal(found.numpy(), expected)


def test_dead_codes_with_huge_components_do_not_disturb_the_search():
    """Real EMA codebooks hold dead codes of the order 1e5."""
    torch.manual_seed(1)
    codebook = torch.randn(64, 8)
    codebook[::6] *= 1e5
    vectors = torch.randn(500, 8)
    expected = ((vectors[:, None].double() - codebook[None].double()) ** 2).sum(-1).argmin(1)
    assert torch.equal(nearest_codes(vectors, codebook, 1000), expected)


def test_state_dict_and_five_training_updates_equal_monai():
    """Quantised values, loss, indices and the codebook after updates are MONAI's."""
    ours, theirs = pair()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for step in range(5):
        latents = torch.randn(2, 5, 3, 4, 2, generator=torch.Generator().manual_seed(step))
        got, expected = ours(latents), theirs(latents)
        torch.testing.assert_close(got[0], expected[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(got[1], expected[1])
        assert torch.equal(got[2], expected[2])
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, atol=1e-6, rtol=1e-5)


def test_evaluation_leaves_the_codebook_alone():
    """Only training mode updates."""
    ours = pair()[0].eval()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    ours(torch.randn(1, 5, 4, 4, 4))
    assert all(torch.equal(before[name], value) for name, value in ours.state_dict().items())


def test_values_are_codes_and_the_gradient_goes_straight_through():
    """Quantised values are codes to the last bit; the commitment loss pulls the latents towards them."""
    ours = pair()[0].eval()
    latents = torch.randn(1, 5, 4, 3, 2, requires_grad=True)
    quantized, loss, indices = ours(latents)
    assert torch.equal(quantized, ours.embedding(indices).permute(0, 4, 1, 2, 3))
    (straight,) = torch.autograd.grad(quantized.sum(), latents, retain_graph=True)
    assert torch.equal(straight, torch.ones_like(latents))
    (pull,) = torch.autograd.grad(loss, latents)
    torch.testing.assert_close(pull, 0.25 * 2 * (latents - quantized).detach() / latents.numel())


def test_autocast_changes_no_index():
    """Rounding the distances to bfloat16 would move 1 to 5 per cent of the codes."""
    ours = pair(512, 8)[0].eval()
    latents = torch.randn(1, 8, 12, 12, 12)
    expected = ours.indices(latents)
    with torch.autocast("cpu", torch.bfloat16):
        quantized, _, indices = ours(latents)
    assert torch.equal(indices, expected)
    assert quantized.dtype == torch.float32


@pytest.mark.parametrize("training", [False, True])
def test_no_matrix_of_all_distances_and_no_one_hot(training):
    """The largest tensor is bounded by the setting, in training as in evaluation."""
    ours = ChunkedQuantizer(256, 4, chunk_bytes=64 * 1024).train(training)
    latents = torch.randn(1, 4, 20, 20, 20)
    with LargestTensor() as seen:
        ours(latents)
    assert seen.elements <= max(latents.numel(), 64 * 1024 // 4)
    assert seen.elements < 8000 * 256 / 10


def used_codes(quantizer: ChunkedQuantizer, steps: int = 40) -> int:
    """Codes used on the last of `steps` training batches that lie far from where codebooks start."""
    for step in range(steps):
        batch = 5 + 0.5 * torch.randn(1, 3, 8, 8, 8, generator=torch.Generator().manual_seed(step))
        indices = quantizer(batch)[2]
    return len(indices.unique())


def test_revival_uses_the_whole_codebook_where_plain_updates_use_a_corner():
    """Data-dependent start and restart of unused codes."""
    torch.manual_seed(0)
    plain, revived = ChunkedQuantizer(64, 3), ChunkedQuantizer(64, 3, revival_threshold=0.1)
    assert used_codes(plain) < 32
    assert used_codes(revived) >= 60


def test_revival_is_repeatable_and_brings_single_dead_codes_back():
    """The same generator gives the same codebook; a code that nothing maps to moves onto a vector of the batch."""

    def trained() -> ChunkedQuantizer:
        quantizer = ChunkedQuantizer(32, 3, revival_threshold=0.1)
        quantizer.revival_generator = torch.Generator().manual_seed(7)
        used_codes(quantizer, 3)
        quantizer.embedding.weight[5] = quantizer.ema_w[5] = 1e6
        quantizer.ema_cluster_size[5] = 0
        used_codes(quantizer, 2)
        return quantizer

    first, second = trained(), trained()
    assert torch.equal(first.embedding.weight, second.embedding.weight)
    assert (first.embedding.weight[5] - 5).abs().max() < 3


def test_a_codebook_larger_than_the_first_batch_starts_on_it_too():
    """Vectors are then drawn more than once."""
    quantizer = ChunkedQuantizer(100, 3, revival_threshold=0.1)
    batch = torch.randn(1, 3, 2, 2, 2)
    quantized = quantizer(batch)[0]
    torch.testing.assert_close(quantized, batch)
