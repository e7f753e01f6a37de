"""A guard: bfloat16 gradients of feature maps that are two voxels long are wrong on a CPU, without a word."""

from __future__ import annotations

import torch

from ..errors import InputError


def refuse_narrow_maps(network: torch.nn.Module) -> None:
    """Let the convolutions of `network` raise `InputError` for feature maps whose training in bfloat16 would be wrong.

    With torch 2.13 on a CPU with AVX-512 the gradient of a convolution's weight (bfloat16, kernel 3, stride 1) comes
    from memory that nobody wrote when the map has two voxels along its first axis: it differs from run to run, and is
    NaN at times. Three voxels, one, the other axes, stride 2 and float32 are right; so is inference.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d) and max(module.kernel_size) > 1 and module.stride[0] == 1:
            module.register_forward_pre_hook(_refuse)


def _refuse(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    features = inputs[0]
    if module.training and features.device.type == "cpu" and features.shape[2] == 2:
        raise InputError(
            f"A feature map has {' x '.join(map(str, features.shape[2:]))} voxels; two along the first axis cannot be "
            "trained in bfloat16 on a CPU, the gradients would be wrong. Take the precision float32, a larger grid or "
            "crop, or fewer levels."
        )
