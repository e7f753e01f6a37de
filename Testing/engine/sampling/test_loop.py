"""The denoising loop: what goes in, what is reported, how it stops, what it refuses."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import medlord
from medlord.errors import CancelledError, EngineError, InputError
from medlord.sampling import NoiseSchedule, batch_noise, denoise, make_sampler

COSINE = NoiseSchedule(50)
SHAPE = (1, 2, 3, 4, 5)


def toy_denoiser(x, t):
    """A prediction that depends on the latent, its neighbours and the time step of each sample."""
    time = t.reshape(-1, 1, 1, 1, 1) / 50
    return torch.tanh((1 + time) * x + 0.2 * torch.roll(x, 1, -1))


class CountingDenoiser:
    def __init__(self):
        self.calls = []

    def __call__(self, x, t):
        self.calls.append((x.clone(), t.clone()))
        return toy_denoiser(x, t)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "unipc", "sde-dpm-solver++"])
def test_the_loop_is_the_samplers_chain(name):
    """The same chain written out step by step, with the documented draws."""
    steps = None if name == "ddpm" else 9
    latent = denoise(toy_denoiser, make_sampler(name, COSINE, steps), SHAPE, seed=11)
    sampler = make_sampler(name, COSINE, steps)
    x = batch_noise(11, "initial", 0, SHAPE)
    for index, t in enumerate(sampler.timesteps):
        prediction = toy_denoiser(x, torch.tensor([int(t)]))
        x, _ = sampler.step(prediction, index, x, batch_noise(11, "step", index, SHAPE))
    assert torch.equal(latent, x)
    assert latent.dtype == torch.float32 and latent.shape == SHAPE and not latent.requires_grad


def test_seeds_make_volumes():
    def latent(seed, shape=SHAPE):
        return denoise(toy_denoiser, make_sampler("sde-dpm-solver++", COSINE, 6), shape, seed)

    assert torch.equal(latent(1), latent(1))
    assert not torch.allclose(latent(1), latent(2), atol=0.1)
    pair = latent(1, (2, *SHAPE[1:]))
    torch.testing.assert_close(pair, torch.cat([latent(1), latent(2)]), rtol=0, atol=1e-6)


def test_network_sees_float32_latents_and_a_time_step_per_sample():
    network = CountingDenoiser()
    sampler = make_sampler("unipc", COSINE, 6)
    denoise(network, sampler, (3, *SHAPE[1:]), seed=0)
    assert [t.tolist() for _, t in network.calls] == [[int(t)] * 3 for t in sampler.timesteps]
    assert all(x.dtype == torch.float32 and t.dtype == torch.int64 for x, t in network.calls)


def test_latents_stay_float32_below_a_half_precision_network():
    """Only the network's output is rounded: everything after it is computed in float32."""

    def half(x, t):
        return toy_denoiser(x, t).to(torch.bfloat16)

    latent = denoise(half, make_sampler("unipc", COSINE, 6), SHAPE, seed=0)
    rounded = denoise(lambda x, t: half(x, t).float(), make_sampler("unipc", COSINE, 6), SHAPE, seed=0)
    assert latent.dtype == torch.float32
    assert torch.equal(latent, rounded)


def test_injected_latent_and_noises_replace_the_seed():
    sampler = make_sampler("ddpm", NoiseSchedule(8))
    generator = torch.Generator().manual_seed(5)
    start = torch.randn(SHAPE, generator=generator).half()
    noises = torch.randn(8, *SHAPE[1:], generator=generator).half().numpy()
    latents = [denoise(toy_denoiser, sampler, SHAPE, seed, initial=start, noises=noises) for seed in (0, 1)]
    assert torch.equal(*latents)
    x = start.float()
    for index, t in enumerate(sampler.timesteps):
        noise = torch.tensor(noises[index]).float()[None]
        x, _ = sampler.step(toy_denoiser(x, torch.tensor([int(t)])), index, x, noise)
    assert torch.equal(latents[0], x)


def test_noises_of_steps_without_noise_are_not_read():
    noises = [None] * 6
    latent = denoise(toy_denoiser, make_sampler("unipc", COSINE, 6), SHAPE, seed=0, noises=noises)
    assert torch.isfinite(latent).all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"initial": torch.zeros(1, 2, 3, 4, 6)}, "start latent has the shape (1, 2, 3, 4, 6)"),
        ({"initial": torch.zeros(1)}, "start latent has the shape (1,)"),
        ({"noises": [torch.zeros(SHAPE)] * 5}, "5 injected noises came for a chain of 6 steps"),
        ({"noises": [torch.zeros(5)] * 6}, "noise of step 0 has the shape (5,)"),
    ],
)
def test_injected_arrays_must_fit(arguments, named):
    sampler = make_sampler("sde-dpm-solver++", COSINE, 6)
    with pytest.raises(InputError) as caught:
        denoise(toy_denoiser, sampler, SHAPE, seed=0, **arguments)
    assert named in str(caught.value)


def test_every_step_is_reported_in_order():
    events = []
    denoise(toy_denoiser, make_sampler("unipc", COSINE, 7), SHAPE, seed=0, progress=events.append)
    assert [(event.phase, event.step, event.total) for event in events] == [
        ("denoise", step, 7) for step in range(1, 8)
    ]
    assert events[-1].eta_s == 0.0
    assert all(later.elapsed_s >= earlier.elapsed_s for earlier, later in itertools.pairwise(events))


def test_previews_come_every_n_steps_with_the_estimate_of_clean_data():
    estimates, events = [], []

    def preview(x0):
        estimates.append(x0)
        return np.full((2, 2), len(estimates), np.uint8)

    sampler = make_sampler("unipc", COSINE, 9)
    denoise(toy_denoiser, sampler, SHAPE, 0, progress=events.append, preview=preview, preview_every=3)
    with_picture = {event.step: int(event.preview[0, 0]) for event in events if event.preview is not None}
    assert with_picture == {3: 1, 6: 2}
    assert all(estimate.shape == SHAPE for estimate in estimates)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["ddim", "unipc", "sde-dpm-solver++"]), st.integers(1, 12), st.data())
def test_cancel_takes_effect_within_one_step(name, steps, data):
    """Asked to stop after k steps, the network is not called a (k + 1)-th time."""
    stop_after = data.draw(st.integers(0, steps - 1))
    network, done = CountingDenoiser(), []

    def cancelled():
        return len(done) >= stop_after

    with pytest.raises(CancelledError, match=f"step {stop_after} of {steps}"):
        denoise(network, make_sampler(name, COSINE, steps), SHAPE, 0, progress=done.append, cancel=cancelled)
    assert len(network.calls) == stop_after


def test_a_cancelled_sampler_runs_again():
    sampler = make_sampler("unipc", COSINE, 6)
    expected = denoise(toy_denoiser, make_sampler("unipc", COSINE, 6), SHAPE, seed=0)
    done = []
    with pytest.raises(CancelledError):
        denoise(toy_denoiser, sampler, SHAPE, 0, progress=done.append, cancel=lambda: len(done) == 3)
    assert torch.equal(denoise(toy_denoiser, sampler, SHAPE, seed=0), expected)


def test_a_latent_that_is_not_finite_is_an_error_with_a_next_step():
    def broken(x, t):
        return torch.full_like(x, float("nan"))

    with pytest.raises(EngineError, match="120 of 120 values .* float32") as caught:
        denoise(broken, make_sampler("unipc", COSINE, 6), SHAPE, seed=0)
    assert "\n" not in str(caught.value)


def test_a_network_of_another_shape_is_an_error():
    with pytest.raises(EngineError, match=r"shape \(1, 4, 3, 4, 5\)"):
        denoise(lambda x, t: x.repeat(1, 2, 1, 1, 1), make_sampler("unipc", COSINE, 6), SHAPE, seed=0)


def test_gradients_are_not_recorded():
    weight = torch.ones((), requires_grad=True)
    latent = denoise(lambda x, t: weight * x, make_sampler("unipc", COSINE, 6), SHAPE, seed=0)
    assert not latent.requires_grad


def test_importing_the_package_does_not_load_torch():
    """The command line lists the samplers, and must not wait seconds for torch to say so."""
    code = "import sys, medlord.sampling; sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(medlord.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
