"""Loss terms against their definitions."""

from __future__ import annotations

import pytest
import torch

from medlord.training import losses


@pytest.mark.parametrize("shape", [(2, 1, 6, 5, 8), (1, 2, 4, 6, 7), (1, 1, 3, 3, 1)])
def test_spectral_loss_over_half_the_spectrum_is_that_over_the_whole(shape):
    """Even and odd sizes of the halved axis."""
    torch.manual_seed(0)
    image, reconstruction = torch.randn(shape), torch.randn(shape)
    whole = [torch.fft.fftn(volume, dim=(2, 3, 4), norm="ortho").abs() for volume in (image, reconstruction)]
    expected = ((whole[0] - whole[1]) ** 2).mean()
    torch.testing.assert_close(losses.spectral_loss(reconstruction, image), expected)


def test_spectral_loss_has_finite_gradients_for_equal_and_empty_volumes():
    """Magnitude zero has no slope; it must not become NaN."""
    volume = torch.zeros(1, 1, 4, 4, 4, requires_grad=True)
    losses.spectral_loss(volume, torch.ones(1, 1, 4, 4, 4)).backward()
    assert volume.grad.isfinite().all()


def test_adversarial_terms():
    """Least squares after a leaky ReLU of slope 0.05: by hand."""
    fake, real = torch.tensor([-2.0, 1.0]), torch.tensor([1.0, -20.0])
    assert losses.generator_adversarial_loss(fake) == pytest.approx(((-0.1 - 1) ** 2 + 0) / 2)
    expected = 0.5 * ((0.1**2 + 1) / 2 + (0 + (-1 - 1) ** 2) / 2)
    assert losses.discriminator_loss(fake, real) == pytest.approx(expected)


def test_losses_compute_in_float32():
    """bfloat16 inputs do not round the mean."""
    values = torch.full((1000,), 1.0).bfloat16()
    target = torch.zeros(1000).bfloat16()
    assert losses.DIFFUSION_LOSSES["l1"](values, target).dtype == torch.float32
    assert losses.DIFFUSION_LOSSES["smooth_l1"](values, target) == 0.5
    assert losses.DIFFUSION_LOSSES["smooth_l1"](3 * values, target) == 2.5
