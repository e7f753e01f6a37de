"""Noise from a seed: one seed is one volume, whatever else was drawn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medlord.errors import InputError
from medlord.sampling import batch_noise, seeded_noise

SHAPE = (2, 3, 4, 5)


def test_noise_of_a_seed_never_changes():
    """These numbers are what seeds of published recipes stand for: a change here changes every volume."""
    noise = seeded_noise(42, "step", 3, (4, 4, 4))
    assert noise.dtype == torch.float32 and noise.device.type == "cpu"
    expected = torch.tensor([0.654356, -1.310951, -0.678859, -0.848579])
    torch.testing.assert_close(noise.flatten()[:4], expected, rtol=0, atol=1e-5)


def test_draws_do_not_depend_on_each_other():
    torch.manual_seed(0)
    first = seeded_noise(7, "step", 5, SHAPE)
    torch.randn(1000)
    for index in range(5):
        seeded_noise(7, "step", index, SHAPE)
    assert torch.equal(seeded_noise(7, "step", 5, SHAPE), first)


def test_global_generator_is_left_alone():
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    seeded_noise(1, "initial", 0, SHAPE)
    assert torch.equal(torch.randn(3), expected)


def test_seed_purpose_and_index_each_make_other_noise():
    draws = [
        seeded_noise(seed, purpose, index, SHAPE)
        for seed in (0, 1)
        for purpose in ("initial", "step")
        for index in (0, 1)
    ]
    for first in range(len(draws)):
        for second in range(first):
            correlation = torch.corrcoef(torch.stack([draws[first].flatten(), draws[second].flatten()]))[0, 1]
            assert abs(float(correlation)) < 0.5


def test_noise_is_standard_normal():
    noise = seeded_noise(123, "initial", 0, (64, 64, 64))
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.01)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.01)


@given(st.integers(0, 2**63 - 4), st.integers(1, 3))
def test_a_batch_is_its_single_volumes(seed, batch):
    together = batch_noise(seed, "initial", 0, (batch, *SHAPE))
    for b in range(batch):
        assert torch.equal(together[b], seeded_noise(seed + b, "initial", 0, SHAPE))


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, "7", True, None])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(InputError, match="seed is .* whole number from 0"):
        seeded_noise(seed, "initial", 0, SHAPE)


def test_a_batch_must_not_run_past_the_last_seed():
    with pytest.raises(InputError, match="seed is"):
        batch_noise(2**63 - 1, "initial", 0, (2, *SHAPE))
