"""The attention switch: equal numbers, no matrix, plain words for what cannot be used."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from monai.networks.blocks.crossattention import CrossAttentionBlock
from monai.networks.blocks.selfattention import SABlock
from torch.utils._python_dispatch import TorchDispatchMode

from medlord.errors import InputError
from medlord.networks import attention
from medlord.networks.attention import (
    VARIABLE,
    SwitchedAttention,
    attend,
    require_attention,
    set_attention,
)
from medlord.networks.build import build_control, build_denoiser

DENOISER = {
    "in_channels": 3,
    "out_channels": 3,
    "channels": [8, 16],
    "num_res_blocks": 1,
    "attention_levels": [True, True],
    "num_head_channels": 4,
    "norm_num_groups": 4,
}
CONTROL = {
    "condition_channels": 2,
    "embedding_channels": [4],
    "embedding_strides": [2],
    "num_head_channels": 4,
    "norm_num_groups": 2,
    "with_transformers": True,
}
STEPS = torch.tensor([7])


class LargestTensor(TorchDispatchMode):
    """Remembers the number of elements of the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = result if isinstance(result, tuple | list) else (result,)
        sizes = [tensor.numel() for tensor in made if isinstance(tensor, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


def randomised(network):
    """The network in evaluation mode with every weight random, also those that start at zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def tokens(count: int, heads: int = 2, width: int = 4, seed: int = 1) -> torch.Tensor:
    return torch.randn(1, count, heads, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["sdpa", "math"])
def test_the_formula(kind):
    """Against the softmax of the whole matrix in float64, for other numbers of keys than of queries."""
    query, key, value = tokens(50, seed=1), tokens(30, seed=2), tokens(30, seed=3)
    scores = torch.einsum("bqhw,bkhw->bhqk", query.double(), key.double()) * 0.7
    expected = torch.einsum("bhqk,bkhw->bqhw", scores.softmax(-1), value.double())
    torch.testing.assert_close(attend(query, key, value, 0.7, kind).double(), expected, atol=1e-6, rtol=1e-5)


def test_math_works_through_blocks_of_rows(monkeypatch):
    """A budget of one row at a time gives the numbers of one block."""
    query, key, value = tokens(20, seed=1), tokens(20, seed=2), tokens(20, seed=3)
    at_once = attend(query, key, value, 0.5, "math")
    monkeypatch.setattr(attention, "_MATH_BYTES", 1)
    torch.testing.assert_close(attend(query, key, value, 0.5, "math"), at_once, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["sdpa", "math"])
def test_no_matrix_at_16384_tokens(kind, monkeypatch):
    """The published denoiser's finest attention level at factor 4; the matrix has 268 million entries per head.

    An eighth of the queries is asked, which is an eighth of the work and of the matrix.
    """
    monkeypatch.setattr(attention, "_MATH_BYTES", 4 * 2**20)
    everything = tokens(16384, heads=1, width=4)
    with torch.no_grad(), LargestTensor() as sizes:
        attend(everything[:, :2048], everything, everything, 0.5, kind)
    assert 2048 * 4 <= sizes.elements <= 2048 * 16384 / 16


@pytest.mark.parametrize("context", [False, True])
def test_takes_over_monais_blocks(context):
    """Same names, same numbers; a context gives the keys and values."""
    torch.manual_seed(0)
    if context:
        block = CrossAttentionBlock(8, 2, hidden_input_size=8, context_input_size=8, dim_head=4)
    else:
        block = SABlock(8, 2, qkv_bias=True, use_combined_linear=False)
    switched = SwitchedAttention(block, "sdpa")
    assert list(switched.state_dict()) == list(block.state_dict())
    x, other = torch.randn(2, 9, 8), torch.randn(2, 5, 8)
    arguments = (x, other) if context else (x,)
    with torch.no_grad():
        torch.testing.assert_close(switched(*arguments), block(*arguments), atol=1e-6, rtol=1e-5)


def test_one_switch_for_denoiser_and_control():
    """Every attention is reached, also those in transformer blocks, and the outputs agree."""
    denoiser, control = randomised(build_denoiser(DENOISER)), randomised(build_control(CONTROL, DENOISER))
    noisy, masks = torch.randn(1, 3, 4, 4, 4), torch.rand(1, 2, 8, 8, 8)

    def run() -> torch.Tensor:
        with torch.no_grad():
            return denoiser(noisy, STEPS, *control(noisy, STEPS, control.embed_condition(masks)))

    fused = run()
    # levels: 1 block each on the way down, 2 on the way up, and the middle; transformers attend twice
    assert set_attention(denoiser, "math") == 2 * (1 + 2) + 1
    assert set_attention(control, "math") == 2 * (2 + 1)
    assert not [m for n in (denoiser, control) for m in n.modules() if isinstance(m, SABlock)]
    torch.testing.assert_close(run(), fused, atol=2e-5, rtol=1e-4)


def test_gradients_flow_through_both_kinds():
    gradients = []
    for kind in ("sdpa", "math"):
        query = tokens(12).requires_grad_()
        attend(query, query, query, 0.5, kind).square().sum().backward()
        gradients.append(query.grad)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_the_environment_chooses(monkeypatch):
    monkeypatch.setenv(VARIABLE, "math")
    kinds = {m.kind for m in build_denoiser(DENOISER).modules() if isinstance(m, SwitchedAttention)}
    assert kinds == {"math"}
    monkeypatch.setenv(VARIABLE, "fast")
    with pytest.raises(InputError, match="attention 'fast' is unknown; use sdpa, xformers, math"):
        build_denoiser(DENOISER)


def test_xformers_that_cannot_be_loaded_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "xformers", None)
    for refused in (
        lambda: set_attention(build_denoiser(DENOISER), "xformers"),
        lambda: require_attention("xformers"),
    ):
        with pytest.raises(InputError, match="xformers cannot be loaded .* or use sdpa") as caught:
            refused()
        assert "\n" not in str(caught.value)


def test_xformers_needs_a_cuda_device(monkeypatch):
    """With a package of that name: only the device is wrong, and that shows when it runs."""
    package, operators = types.ModuleType("xformers"), types.ModuleType("xformers.ops")
    package.ops = operators
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", operators)
    denoiser = build_denoiser(DENOISER)
    set_attention(denoiser, "xformers")
    with pytest.raises(InputError, match="needs a CUDA device and this run is on cpu; use sdpa"):
        denoiser(torch.randn(1, 3, 4, 4, 4), STEPS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_xformers_agrees_on_a_gpu():
    pytest.importorskip("xformers", reason="xformers is not installed")
    query = torch.randn(1, 256, 4, 32, device="cuda")
    torch.testing.assert_close(
        attend(query, query, query, 0.2, "xformers"), attend(query, query, query, 0.2), atol=1e-4, rtol=1e-3
    )


def test_other_attention_is_refused():
    for options in ({"dropout_rate": 0.5}, {"use_combined_linear": True}):
        with pytest.raises(ValueError, match="not supported"):
            SwitchedAttention(SABlock(8, 2, **{"use_combined_linear": False, **options}), "sdpa")
