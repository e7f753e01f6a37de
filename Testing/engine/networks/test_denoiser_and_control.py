"""The denoiser and its control adapter: generations, attention, residuals, strides per axis, reduced precision."""

from __future__ import annotations

import json

import pytest
import torch

from medlord.errors import InputError
from medlord.networks.build import (
    build_autoencoder,
    build_control,
    build_denoiser,
    build_discriminator,
    count_parameters,
)

DENOISER = {
    "in_channels": 3,
    "out_channels": 3,
    "channels": [8, 16],
    "num_res_blocks": 1,
    "attention_levels": [False, True],
    "num_head_channels": 8,
    "norm_num_groups": 4,
}
CONTROL = {
    "condition_channels": 2,
    "embedding_channels": [4, 6],
    "embedding_strides": [[2, 2, 2], [2, 2, 1]],
    "norm_num_groups": 2,
}
STEPS = torch.tensor([7])


def randomised(network, seed: int = 0):
    """The network in evaluation mode with every weight random, also those that start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def latents(size: int = 8, seed: int = 1) -> torch.Tensor:
    """Noisy latents."""
    return torch.randn(1, 3, size, size, size, generator=torch.Generator().manual_seed(seed))


def test_a_new_denoiser_predicts_zero_and_keeps_the_shape():
    """The last convolution starts at zero."""
    output = build_denoiser(DENOISER).eval()(latents(), STEPS)
    assert output.shape == (1, 3, 8, 8, 8)
    assert not output.any()


def test_output_activation_is_a_switch_without_weights():
    """Both generations have the same names and give different values."""
    with_silu = randomised(build_denoiser(DENOISER))
    without = randomised(build_denoiser({**DENOISER, "output_activation": "none"}))
    assert list(with_silu.state_dict()) == list(without.state_dict())
    with torch.no_grad():
        assert (with_silu(latents(), STEPS) - without(latents(), STEPS)).abs().max() > 1e-2


def test_a_new_control_adapter_changes_nothing():
    """Its projections start at zero, so every residual is zero; their shapes are the denoiser's skip tensors'."""
    denoiser, control = randomised(build_denoiser(DENOISER)), build_control(CONTROL, DENOISER).eval()
    masks = torch.rand(1, 2, 32, 32, 16) > 0.5
    with torch.no_grad():
        residuals, middle = control(latents(), STEPS, control.embed_condition(masks))
        shapes = [tuple(item.shape[1:]) for item in residuals]
        assert shapes == [(8, 8, 8, 8), (8, 8, 8, 8), (8, 4, 4, 4), (16, 4, 4, 4)]
        assert not middle.any() and not any(item.any() for item in residuals)
        assert torch.equal(denoiser(latents(), STEPS, residuals, middle), denoiser(latents(), STEPS))


def test_training_reaches_projections_first_and_then_everything():
    """With zero projections only they get gradients; once they are not zero, the embedding gets some too."""
    denoiser, control = randomised(build_denoiser(DENOISER)), build_control(CONTROL, DENOISER)
    masks = torch.rand(1, 2, 32, 32, 16)

    def gradients() -> dict[str, bool]:
        control.zero_grad()
        residuals, middle = control(latents(), STEPS, control.embed_condition(masks))
        denoiser(latents(), STEPS, residuals, middle).square().sum().backward()
        named = control.named_parameters()
        return {name: bool(weight.grad is not None and weight.grad.any()) for name, weight in named}

    fresh = gradients()
    assert fresh["controlnet_mid_block.weight"] and fresh["controlnet_down_blocks.0.weight"]
    assert not fresh["controlnet_cond_embedding.conv_out.weight"]
    randomised(control)
    assert all(gradients().values())


def test_masks_steer_and_the_scale_scales():
    """Different masks give different residuals; the scale multiplies them; no mask channel may be missing."""
    control = randomised(build_control(CONTROL, DENOISER))
    masks = torch.zeros(1, 2, 32, 32, 16, dtype=torch.uint8)
    other = masks.clone()
    other[:, 1, 8:20] = 1
    with torch.no_grad():
        empty = control(latents(), STEPS, control.embed_condition(masks))
        painted = control(latents(), STEPS, control.embed_condition(other))
        half = control(latents(), STEPS, control.embed_condition(other), conditioning_scale=0.5)
    assert (empty[1] - painted[1]).abs().max() > 1e-4
    torch.testing.assert_close(half[1], painted[1] * 0.5)
    assert all(torch.equal(a * 0.5, b) for a, b in zip(painted[0], half[0], strict=True))
    with pytest.raises(InputError, match="1 condition channels were given, the model takes 2"):
        control.embed_condition(masks[:, :1])
    with pytest.raises(InputError, match=r"\(8, 8, 4\).*\(8, 8, 8\)"):
        control(latents(), STEPS, control.embed_condition(masks[..., :8]))


def test_one_embedded_condition_serves_a_batch():
    """Embedded once, used for every sample."""
    control = randomised(build_control(CONTROL, DENOISER))
    noisy = torch.cat([latents(seed=1), latents(seed=2)])
    with torch.no_grad():
        embedded = control.embed_condition(torch.rand(1, 2, 32, 32, 16))
        together, _ = control(noisy, STEPS.expand(2), embedded)
        alone, _ = control(noisy[1:], STEPS, embedded)
    torch.testing.assert_close(together[-1][1:], alone[-1], atol=1e-5, rtol=1e-4)


def test_condition_factors_match_an_anisotropic_autoencoder():
    """Masks at image resolution land on the latent grid; the halo is the embedding's receptive field."""
    control = build_control(CONTROL, DENOISER)
    network = build_autoencoder(
        {
            "channels": [2, 2],
            "num_res_layers": 1,
            "strides": CONTROL["embedding_strides"],
            "num_embeddings": 4,
            "embedding_dim": 3,
        }
    )
    assert control.condition_factors == network.downsampling_factors == (4, 4, 2)
    with torch.no_grad():
        for parameter in control.controlnet_cond_embedding.parameters():
            parameter.fill_(0.01)
    masks = torch.ones(1, 2, 64, 4, 48, requires_grad=True)
    embedded = control.embed_condition(masks)
    (gradient,) = torch.autograd.grad(embedded[:, :, 8:9, :, 12:13].sum(), masks)
    for axis, factor, first_latent in ((2, 4, 8), (4, 2, 12)):
        others = tuple(other for other in range(5) if other != axis)
        touched = gradient.abs().sum(dim=others).nonzero().flatten()
        outside = max(
            first_latent * factor - int(touched[0]), int(touched[-1]) - (first_latent + 1) * factor + 1
        )
        assert control.condition_halo[axis - 2] - factor < outside <= control.condition_halo[axis - 2]


@pytest.mark.parametrize("with_transformers", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_bfloat16_autocast_forward_and_backward(memory_format, with_transformers):
    """Close to float32, with finite gradients, in both memory layouts."""
    denoiser = randomised(build_denoiser(DENOISER)).to(memory_format=memory_format)
    control = randomised(build_control({**CONTROL, "with_transformers": with_transformers}, DENOISER))
    control = control.to(memory_format=memory_format)
    masks = torch.rand(1, 2, 32, 32, 16).to(memory_format=memory_format)
    noisy = latents().to(memory_format=memory_format)

    def run() -> torch.Tensor:
        residuals, middle = control(noisy, STEPS, control.embed_condition(masks))
        return denoiser(noisy, STEPS, residuals, middle)

    with torch.no_grad():
        exact = run()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run()
    rounded.float().abs().mean().backward()
    assert (rounded.float() - exact).abs().max() < 0.05 * exact.abs().max()
    weights = [*denoiser.parameters(), *control.parameters()]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights)


def test_configurations_survive_json_and_errors_name_the_value():
    """What a bundle stores builds the same network."""
    again = json.loads(json.dumps(DENOISER)), json.loads(json.dumps(CONTROL))
    assert count_parameters(build_denoiser(again[0])) == count_parameters(build_denoiser(DENOISER))
    assert list(build_control(again[1], again[0]).state_dict())
    with pytest.raises(InputError, match="unknown key 'width'"):
        build_denoiser({**DENOISER, "width": 8})
    with pytest.raises(InputError, match="lacks 'norm_num_groups'"):
        build_denoiser({key: value for key, value in DENOISER.items() if key != "norm_num_groups"})
    with pytest.raises(InputError, match="multiple of norm_num_groups|multiple of|num_groups"):
        build_denoiser({**DENOISER, "norm_num_groups": 5})
    with pytest.raises(InputError, match="output_activation is 'tanh'"):
        build_denoiser({**DENOISER, "output_activation": "tanh"})
    with pytest.raises(InputError, match="embedding_strides has 1 entries for 2"):
        build_control({**CONTROL, "embedding_strides": [2]}, DENOISER)
    with pytest.raises(InputError, match="cannot be built"):
        build_control({**CONTROL, "norm_num_groups": 3}, DENOISER)


def test_sizes_of_the_published_configurations():
    """Parameters of the published networks: half the width is about a quarter of the encoder."""
    published = {
        "in_channels": 8,
        "out_channels": 8,
        "channels": [64, 128, 256, 512],
        "num_res_blocks": 2,
        "attention_levels": [False, False, True, True],
        "num_head_channels": 32,
        "norm_num_groups": 32,
    }
    adapter = {
        "condition_channels": 6,
        "embedding_channels": [32, 64],
        "embedding_strides": [2, 2],
        "num_head_channels": 32,
        "with_transformers": True,
    }
    with torch.device("meta"):
        assert round(count_parameters(build_denoiser(published)) / 1e6, 1) == 166.6
        assert round(count_parameters(build_control(adapter, published)) / 1e6, 1) == 21.9


def test_discriminator_returns_logits_of_patches():
    """One logit per patch, trained end to end."""
    discriminator = build_discriminator({"channels": 4, "num_layers_d": 2})
    logits = discriminator(torch.randn(1, 1, 16, 16, 16))
    assert logits.shape == (1, 1, 2, 2, 2)
    logits.mean().backward()
    assert all(weight.grad is not None for weight in discriminator.parameters())
