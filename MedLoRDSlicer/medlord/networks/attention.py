"""The attention of denoiser and control, with one switch for how it is computed.

Every kind gives softmax(q k^T / sqrt(width)) v over all voxels of a level (Vaswani et al. 2017, eq. 1), equal up to
rounding, and none of them ever holds the whole matrix: at 16384 tokens and 8 heads that would be 8 GiB.

    sdpa       torch's scaled_dot_product_attention, on every device; the default
    xformers   xformers' memory_efficient_attention; needs that package and a CUDA device
    math       plain matrix products over blocks of rows: slow, for comparison

The environment variable MEDLORD_ATTENTION names the kind that new networks start with; `set_attention` changes it.
"""

from __future__ import annotations

import os

import torch
from monai.networks.blocks.crossattention import CrossAttentionBlock
from monai.networks.blocks.selfattention import SABlock
from torch import nn

from ..errors import InputError

KINDS = ("sdpa", "xformers", "math")
VARIABLE = "MEDLORD_ATTENTION"

_MATH_BYTES = 64 * 2**20
"""Scores that "math" holds at a time."""


def chosen_attention() -> str:
    """The kind that MEDLORD_ATTENTION names, "sdpa" without it; raises `InputError` for one that cannot be used."""
    kind = os.environ.get(VARIABLE) or KINDS[0]
    require_attention(kind)
    return kind


def require_attention(kind: str, device: torch.device | None = None) -> None:
    """Raise `InputError` unless `kind` is known, installed and, where a `device` is given, usable on it."""
    if kind not in KINDS:
        raise InputError(f"The attention '{kind}' is unknown; use {', '.join(KINDS)} ({VARIABLE}).")
    if kind != "xformers":
        return
    _xformers()
    if device is not None and device.type != "cuda":
        raise InputError(
            f"The attention 'xformers' was asked for, but it needs a CUDA device and this run is on {device}; use sdpa."
        )


def set_attention(network: nn.Module, kind: str) -> int:
    """Let every attention of `network` be computed by `kind`; returns how many there are.

    Raises `InputError` for a kind that is unknown or not installed; whether the device suits it shows when it runs.
    """
    require_attention(kind)
    found = [module for module in network.modules() if isinstance(module, SwitchedAttention)]
    for module in found:
        module.kind = kind
    return len(found)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, kind: str = KINDS[0]
) -> torch.Tensor:
    """softmax(scale * q k^T) v of tensors (batch, tokens, heads, width), of the same form.

    Raises `InputError` when `kind` cannot be used with these tensors.
    """
    # on "meta", where memory and operations are counted, no kernel of xformers exists; torch's counts the same
    if kind == "xformers" and query.device.type != "meta":
        return _attend_by_xformers(query, key, value, scale)
    # torch wants the heads before the tokens
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    if kind == "math":
        mixed = _attend_by_rows(query, key, value, scale)
    else:
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, scale=scale)
    return mixed.transpose(1, 2)


class SwitchedAttention(nn.Module):
    """Takes over the layers of one of MONAI's attention blocks, under the same names, and computes by `kind`.

    Tokens (batch, tokens, channels) -> the same shape; a `context` (batch, other tokens, channels) gives keys and
    values instead of the tokens themselves.
    """

    def __init__(self, block: SABlock | CrossAttentionBlock, kind: str) -> None:
        super().__init__()
        if block.causal or block.attention_dtype is not None or block.dropout_rate > 0:
            raise ValueError("attention that is causal, upcast or has dropout is not supported")
        if getattr(block, "use_combined_linear", False) or block.rel_positional_embedding is not None:
            raise ValueError("attention with joint projections or positional embeddings is not supported")
        self.num_heads, self.scale, self.kind = block.num_heads, block.scale, kind
        # in the order in which MONAI's blocks hold them, so that optimisers number the weights as before
        self.out_proj = block.out_proj
        self.to_q, self.to_k, self.to_v = block.to_q, block.to_k, block.to_v

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """See the class."""
        source = x if context is None else context
        heads = (
            projection(tokens).unflatten(-1, (self.num_heads, -1))
            for projection, tokens in ((self.to_q, x), (self.to_k, source), (self.to_v, source))
        )
        return self.out_proj(attend(*heads, self.scale, self.kind).flatten(2))


def take_over_attention(network: nn.Module) -> None:
    """Put a `SwitchedAttention` of the chosen kind in the place of every attention block of MONAI in `network`."""
    kind = chosen_attention()
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, SABlock | CrossAttentionBlock):
                setattr(parent, name, SwitchedAttention(child, kind))


def _attend_by_rows(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    """Plain products on (batch, heads, tokens, width), a block of query rows at a time."""
    batch, heads, tokens, _ = query.shape
    rows = max(1, _MATH_BYTES // (4 * batch * heads * key.shape[2]))
    mixed = []
    for start in range(0, tokens, rows):
        scores = query[:, :, start : start + rows] @ key.transpose(-1, -2) * scale
        mixed.append(scores.float().softmax(dim=-1).to(value.dtype) @ value)
    return torch.cat(mixed, dim=2)


def _attend_by_xformers(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
) -> torch.Tensor:
    require_attention("xformers", query.device)
    try:
        return _xformers().memory_efficient_attention(query, key, value, scale=scale)
    except (NotImplementedError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"The attention 'xformers' cannot be used here ({query.dtype}, {query.shape[-1]} wide, {query.device}: "
            f"{reason}); use sdpa."
        ) from error


def _xformers():
    """The module xformers.ops; raises `InputError` when it is not installed or does not load."""
    try:
        import xformers.ops
    except (ImportError, OSError, RuntimeError) as error:  # a build for another torch raises each of them
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"The attention 'xformers' was asked for, but xformers cannot be loaded ({reason}); "
            "install a build for this torch or use sdpa."
        ) from error
    return xformers.ops
