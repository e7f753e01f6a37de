"""Samplers against distributions that are known in closed form, and what every chain must keep to.

For data N(mu, s^2) the best denoiser is known: E[x0 | x_t] = (mu s_t^2 + s^2 a_t x_t) / (a_t^2 s^2 + s_t^2).
It is affine, and so is every sampler, so mean and spread of what a chain produces follow exactly from its
response to a unit impulse in the start latent and in each noise: no random numbers, no statistical tolerance.
"""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medlord.errors import InputError
from medlord.sampling import (
    FAST,
    REFERENCE,
    SAMPLERS,
    SCHEDULE_KINDS,
    SPACINGS,
    NoiseSchedule,
    make_sampler,
    spaced_timesteps,
)

COSINE = NoiseSchedule(300)
MEAN = 0.7


def best_prediction(sampler, index, x, mean, spread):
    signal, noise = sampler.schedule.signal_and_noise(int(sampler.timesteps[index]))
    x0 = (mean * noise**2 + spread**2 * signal * x) / (signal**2 * spread**2 + noise**2)
    epsilon = (x - signal * x0) / noise
    predictions = {"v_prediction": signal * epsilon - noise * x0, "epsilon": epsilon, "sample": x0}
    return predictions[sampler.prediction_type]


def run(sampler, start, noises, mean, spread):
    x = start
    for index in range(sampler.steps):
        noise = noises[index] if sampler.needs_noise(index) else None
        x, _ = sampler.step(best_prediction(sampler, index, x, mean, spread), index, x, noise)
    return x


def produced_mean_and_spread(sampler, mean, spread):
    """Mean and standard deviation of the chain's result for standard normal start and noises."""
    nothing = torch.zeros(1, dtype=torch.float64)
    impulses = torch.eye(sampler.steps + 1, dtype=torch.float64)
    centre = run(sampler, nothing, [nothing] * sampler.steps, mean, spread)
    responses = run(sampler, impulses[0], impulses[1:], 0.0, spread)
    return float(centre), float(responses.square().sum().sqrt())


CASES = [
    ("ddpm", None, {}, 0.06),
    ("unipc", 25, {}, 0.01),
    ("dpm-solver++", 25, {}, 0.02),
    ("sde-dpm-solver++", 30, {}, 0.03),
    ("ddim", 300, {}, 0.03),
    ("ddim", 300, {"eta": 1.0}, 0.06),
]


@pytest.mark.parametrize("spread", [1.0, 0.3])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
@pytest.mark.parametrize(("name", "steps", "options", "tolerance"), CASES)
def test_gaussian_data_comes_out_as_it_is(name, steps, options, tolerance, prediction_type, spread):
    sampler = make_sampler(name, COSINE, steps, prediction_type, **options)
    mean, produced = produced_mean_and_spread(sampler, MEAN, spread)
    # Leaving out the noisiest time steps, the default for epsilon, loses 0.6 % of the mean and no more.
    assert mean == pytest.approx(MEAN, abs=0.02 * MEAN)
    assert produced == pytest.approx(spread, rel=tolerance)


def test_short_chain_of_ddpm_would_be_over_noised():
    """Why strided DDPM is refused: with the code of upstream the spread is nearly three times the data's."""
    sampler = make_sampler("ddpm", COSINE, 25, upstream_short_chain=True)
    mean, produced = produced_mean_and_spread(sampler, MEAN, 0.3)
    assert produced > 2.5 * 0.3
    assert mean < 0.5 * MEAN


def test_unipc_converges_faster_than_ddim():
    """The error of the spread falls with the second power of the number of steps, DDIM's with the first."""

    def error(name, steps):
        sampler = make_sampler(name, NoiseSchedule(20000), steps, spacing="quadratic")
        return abs(produced_mean_and_spread(sampler, 0.0, 1.0)[1] - 1.0)

    assert error("unipc", 20) / error("unipc", 40) > 3.0
    assert 1.7 < error("ddim", 20) / error("ddim", 40) < 2.3


def test_quadratic_spacing_keeps_fine_detail():
    """The solvers' default keeps a component of a twentieth of the latent's size; even spacing loses half."""
    quadratic = make_sampler("unipc", COSINE, 25)
    trailing = make_sampler("unipc", COSINE, 25, spacing="trailing")
    assert produced_mean_and_spread(quadratic, 0.0, 0.05)[1] == pytest.approx(0.05, rel=0.05)
    assert produced_mean_and_spread(trailing, 0.0, 0.05)[1] < 0.6 * 0.05


def test_strided_ddpm_is_refused_with_the_reason():
    with pytest.raises(InputError, match="25 of 300 steps.*over-noised.*unipc") as caught:
        make_sampler("ddpm", COSINE, 25)
    assert "\n" not in str(caught.value)


def test_ddim_with_full_noise_over_all_steps_is_ddpm():
    ddpm, ddim = make_sampler("ddpm", COSINE), make_sampler("ddim", COSINE, 300, eta=1.0)
    generator = torch.Generator().manual_seed(3)
    x, prediction, noise = torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64)
    for index in (0, 100, 298, 299):
        ours, _ = ddpm.step(prediction, index, x, noise)
        theirs, _ = ddim.step(prediction, index, x, noise)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ("quadratic", [100, 56, 25, 6, 0]),
        ("linspace", [100, 75, 50, 25, 0]),
        ("trailing", [100, 80, 60, 39, 19]),
        ("leading", [80, 60, 40, 20, 0]),
    ],
)
def test_spacings_are_their_formulas(spacing, expected):
    assert spaced_timesteps(101, 5, spacing).tolist() == expected


@given(st.integers(1, 400), st.data(), st.sampled_from(SPACINGS))
def test_any_step_count_gives_decreasing_timesteps(training_steps, data, spacing):
    steps = data.draw(st.integers(1, training_steps))
    timesteps = spaced_timesteps(training_steps, steps, spacing)
    assert timesteps.shape == (steps,) and timesteps.dtype == np.int64
    assert (np.diff(timesteps) < 0).all()
    assert 0 <= timesteps[-1] and timesteps[0] <= training_steps - 1
    if spacing != "leading":
        assert timesteps[0] == training_steps - 1
    if steps == training_steps or (steps > 1 and spacing in ("quadratic", "linspace")):
        assert timesteps[-1] == 0


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from([name for name in SAMPLERS if name != "ddpm"]),
    training_steps=st.integers(1, 60),
    kind=st.sampled_from(SCHEDULE_KINDS),
    prediction_type=st.sampled_from(["v_prediction", "epsilon", "sample"]),
    spacing=st.sampled_from(SPACINGS),
    data=st.data(),
)
def test_any_chain_stays_finite(name, training_steps, kind, prediction_type, spacing, data):
    """Also where every training step is used and the cosine schedule leaves almost no signal at its end."""
    steps = data.draw(st.integers(1, training_steps))
    schedule = NoiseSchedule(training_steps, kind)
    sampler = make_sampler(name, schedule, steps, prediction_type, spacing=spacing)
    noises = torch.randn(steps + 1, 2, 3, generator=torch.Generator().manual_seed(steps))
    x = run(sampler, noises[0], noises[1:], 0.2, 0.5)
    assert torch.isfinite(x).all()
    assert x.abs().max() < 100


def test_solvers_are_finite_at_the_end_of_the_cosine_schedule():
    """alphas_cumprod at T - 1 is 2.7e-9: v-prediction may start there, epsilon starts at the floor."""
    assert COSINE.alphas_cumprod[-1] < 1e-8
    assert make_sampler("unipc", COSINE, 25).timesteps[0] == 299
    assert make_sampler("unipc", COSINE, 25, "epsilon").timesteps[0] == 297
    assert make_sampler("unipc", COSINE, 300, "epsilon").timesteps[0] == 299


def test_last_step_ends_at_the_estimate_of_clean_data():
    generator = torch.Generator().manual_seed(1)
    for name in SAMPLERS:
        sampler = make_sampler(name, NoiseSchedule(12), 12, **({"eta": 1.0} if name == "ddim" else {}))
        x = torch.randn(1, 2, 3, generator=generator)
        for index in range(12):
            noise = torch.randn(1, 2, 3, generator=generator)
            x, x0 = sampler.step(torch.tanh(x), index, x, noise)
        torch.testing.assert_close(x, x0, rtol=1e-6, atol=1e-6)
        assert not sampler.needs_noise(11)


def test_a_sampler_can_run_twice_but_not_out_of_order():
    sampler = make_sampler("unipc", COSINE, 8)
    start, nothing = torch.full((1, 2), 0.5), [None] * 8
    first = run(sampler, start, nothing, MEAN, 0.3)
    torch.testing.assert_close(run(sampler, start, nothing, MEAN, 0.3), first, rtol=0, atol=0)
    sampler.step(start, 0, start)
    with pytest.raises(ValueError, match="step 5 .* step 1 was due"):
        sampler.step(start, 5, start)
    torch.testing.assert_close(run(sampler, start, nothing, MEAN, 0.3), first, rtol=0, atol=0)


def test_noise_that_is_needed_must_be_given():
    sampler = make_sampler("sde-dpm-solver++", COSINE, 8)
    with pytest.raises(ValueError, match="needs noise"):
        sampler.step(torch.zeros(1), 0, torch.zeros(1))


def test_presets_are_what_the_documentation_says():
    fast, reference = make_sampler(FAST[0], COSINE, FAST[1]), make_sampler(REFERENCE[0], COSINE, REFERENCE[1])
    assert (fast.name, fast.steps) == ("sde-dpm-solver++", 25)
    assert (reference.name, reference.steps) == ("ddpm", 300)
    assert make_sampler("unipc", NoiseSchedule(10)).steps == 10


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
def test_settings_build_the_same_sampler_again(name, prediction_type):
    options = {"ddpm": {"upstream_short_chain": True}, "ddim": {"eta": 0.25, "spacing": "trailing"}}
    sampler = make_sampler(name, COSINE, 9, prediction_type, **options.get(name, {"lambda_floor": -3.0}))
    again = make_sampler(schedule=COSINE, **json.loads(json.dumps(sampler.settings())))
    assert again.settings() == sampler.settings()
    assert again.timesteps.tolist() == sampler.timesteps.tolist()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("euler", COSINE), "'euler'; known are ddpm, ddim, unipc, dpm-solver++, sde-dpm-solver++"),
        (("unipc", COSINE, 0), "0 steps"),
        (("unipc", COSINE, 301), "from 1 to 300"),
        (("unipc", COSINE, 2.5), "2.5 steps"),
        (("unipc", COSINE, 25, "velocity"), "'velocity'"),
    ],
)
def test_bad_arguments_are_refused_in_words(arguments, named):
    with pytest.raises(InputError) as caught:
        make_sampler(*arguments)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("unipc", {"eta": 1.0}, "unipc has no option eta; it has lambda_floor, spacing"),
        ("ddpm", {"spacing": "linspace"}, "ddpm has no option spacing"),
        ("ddim", {"eta": 1.5}, "eta 1.5"),
        ("ddim", {"spacing": "karras"}, "'karras'; known are quadratic"),
    ],
)
def test_bad_options_are_refused_in_words(name, options, named):
    with pytest.raises(InputError) as caught:
        make_sampler(name, COSINE, **options)
    assert named in str(caught.value)
