"""What a network's pass takes, found by running it on tensors that have a shape but no data.

Every tensor that comes into being is counted until nothing refers to it any more, and each convolution adds the
workspace of its kernel. So the number follows the network's own code: there is no formula per architecture that could
become wrong. Nothing is computed; a pass takes some milliseconds whatever the size.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# torch unfolds a float32 volume on the CPU, every voxel as often as the kernel has taps, when it is one volume whose
# channels times its first two sides are at most this; the last side does not matter to it (measured with torch 2.13).
_UNFOLDED_UP_TO = 20_480

_LOWERED = frozenset(
    (
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose3d",
        "linear",
        "matmul",
        "bmm",
        "baddbmm",
        "addmm",
        "einsum",
    )
)


def peak_bytes(run: Callable[[], Any], device_type: str, precision: str = "float32") -> int:
    """Most bytes of tensors alive at a time while `run()` works, its result included, on "cpu" or "cuda".

    `run` makes its inputs with `device="meta"` and uses networks whose weights lie there too; the weights are not
    counted. Attention counts as fused. `precision` is that of autocast.

    An upper bound, tested against what torch's allocator really hands out on a CPU for the passes of a run: between 1
    and 1.5 times it. On CUDA the workspace of a convolution (a copy of its input and output) is an assumption. Parts
    that a network takes out of autocast count as lowered, so do not ask for a decoding below float32.
    """
    counted = _LiveBytes(device_type)
    # Within inference mode torch would show its operations whole, and what happens inside them could not be counted.
    with torch.inference_mode(False), torch.no_grad(), _Autocast(device_type, precision), counted:
        result = run()
    del result
    return counted.peak


class _LiveBytes(TorchDispatchMode):
    """Adds up the storages that operations made and that still exist."""

    def __init__(self, device_type: str) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._on_cpu = device_type == "cpu"
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        # What came from outside (weights) stays uncounted, its views too.
        for tensor in _tensors((args, kwargs)):
            self._watch(tensor, 0)
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            self._watch(tensor, tensor.untyped_storage().nbytes())
        extra = 0
        if func is torch.ops.aten.convolution.default:
            extra = self._workspace(args[0], args[1], result, transposed=args[6])
        self.peak = max(self.peak, self.live + extra)
        return result

    def _watch(self, tensor: torch.Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self.live += size
            weakref.finalize(storage, self._forget, storage._cdata, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size

    def _workspace(
        self, x: torch.Tensor, weight: torch.Tensor, output: torch.Tensor, transposed: bool
    ) -> int:
        """Copies in the kernels' own layouts, measured on the CPU: see Testing/engine/test_memory.py."""
        given, made, weights = (t.numel() * t.element_size() for t in (x, output, weight))
        if not self._on_cpu:
            return given + made + weights
        unfolded = 0
        small = x.shape[0] == 1 and x.shape[:4].numel() <= _UNFOLDED_UP_TO
        if x.dtype == torch.float32 and small and min(weight.shape[3:]) <= 3:
            voxels = (x if transposed else output)[0, 0].numel()
            unfolded = weight[0].numel() * weight.element_size() * voxels
        return max(given, 2 * made if transposed else made, unfolded) + weights


class _Autocast(TorchFunctionMode):
    """What autocast does to the types, and fused attention, for tensors without a device of their own."""

    def __init__(self, device_type: str, precision: str) -> None:
        super().__init__()
        self._low = getattr(torch, precision)
        self._device_type = device_type

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            query, value = (kwargs.get(key, args[i] if len(args) > i else None) for key, i in _QUERY_VALUE)
            mixed = query.new_empty((*query.shape[:-1], value.shape[-1]), dtype=self._type_of(query))
            if self._device_type == "cpu":
                # Made and gone: the blocks of scores that every thread of torch's kernel holds.
                query.new_empty(torch.get_num_threads() * _attention_block(query, value), dtype=torch.uint8)
            return mixed
        if self._low != torch.float32:
            if name in _LOWERED:
                args, kwargs = tree_map(lambda x: _cast(x, self._low), (args, kwargs))
            elif name in ("group_norm", "layer_norm") and self._device_type == "cuda":
                args, kwargs = tree_map(lambda x: _cast(x, torch.float32), (args, kwargs))
        return func(*args, **kwargs)

    def _type_of(self, query: torch.Tensor) -> torch.dtype:
        return query.dtype if self._low == torch.float32 else self._low


_QUERY_VALUE = (("query", 0), ("value", 2))


def _attention_block(query: torch.Tensor, value: torch.Tensor) -> int:
    """Bytes of one thread's block of scores in float32 and in the lowered type, with its part of the result."""
    rows = min(256, max(32, query.shape[-2]))
    columns = min(512, value.shape[-2])
    return rows * (columns * (4 + 2) + value.shape[-1] * 4 + 8)


def _cast(value: Any, kind: torch.dtype) -> Any:
    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.to(kind) if is_float else value


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
