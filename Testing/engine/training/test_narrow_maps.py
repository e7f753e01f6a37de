"""Feature maps of two voxels are refused in bfloat16 on a CPU, also where this torch happens to compute them right."""

from __future__ import annotations

import shutil

import pytest
import torch

from medlord.errors import InputError
from medlord.training.narrow_maps import refuse_narrow_maps


def guarded(**settings):
    convolution = torch.nn.Conv3d(32, 32, **{"kernel_size": 3, "padding": 1, **settings})
    refuse_narrow_maps(convolution)
    return convolution


def test_two_voxels_along_the_first_axis_are_refused_while_training():
    convolution = guarded()
    with pytest.raises(InputError, match="2 x 4 x 4 voxels.*float32"):
        convolution(torch.ones(1, 32, 2, 4, 4))
    for shape in ((3, 4, 4), (1, 4, 4), (4, 2, 2)):
        assert convolution(torch.ones(1, 32, *shape)).shape[2:] == shape
    assert convolution.eval()(torch.ones(1, 32, 2, 4, 4)).shape[2:] == (2, 4, 4)
    with pytest.raises(InputError):
        guarded(stride=(1, 2, 2))(torch.ones(1, 32, 2, 4, 4))
    assert guarded(stride=2)(torch.ones(1, 32, 2, 4, 4)).shape[2:] == (1, 2, 2)
    assert guarded(kernel_size=1, padding=0)(torch.ones(1, 32, 2, 4, 4)).shape[2:] == (2, 4, 4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_stage_with_such_maps_trains_in_float32_alone(trained, precision):
    """The latents of the tiny training are 4 x 4 x 4 voxels: 2 on the second level of its denoiser."""
    shutil.rmtree(trained.folder / "diffusion")
    trained.config["diffusion"]["training"].update(steps=1, precision=precision)
    if precision == "float32":
        trained.run("diffusion")
        return
    with pytest.raises(InputError, match="2 x 2 x 2 voxels"):
        trained.run("diffusion")


def gradients_beside_litter(convolution, voxels):
    """Of four passes over the same features, after memory full of NaN was given back."""
    gradients = []
    features = torch.randn(1, 32, voxels, 4, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(4):
        litter = [torch.full((2**size,), float("nan")) for size in range(6, 20) for _ in range(4)]
        del litter
        convolution.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = convolution(features).float().square().sum()
        loss.backward()
        gradients.append(convolution.weight.grad.clone())
    return gradients


def test_gradients_of_what_the_guard_lets_through_do_not_depend_on_memory():
    """Three voxels, and two with stride 2; where two with stride 1 come out alike too, this has shown nothing."""
    channels = {"in_channels": 32, "out_channels": 32, "kernel_size": 3, "padding": 1}
    for convolution, voxels in ((guarded(), 3), (guarded(stride=2), 2)):
        first, *others = gradients_beside_litter(convolution, voxels)
        assert all(torch.equal(gradient, first) for gradient in others)
    first, *others = gradients_beside_litter(torch.nn.Conv3d(**channels), 2)
    if all(torch.equal(gradient, first) for gradient in others):
        pytest.skip("the gradients of two voxels came out alike here too: what lay in memory was harmless")
