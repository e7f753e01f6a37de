"""Noise schedules: closed forms, limits, the algebra between x0, noise and velocity, JSON."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medlord.errors import InputError
from medlord.sampling import PREDICTION_TYPES, SCHEDULE_KINDS, NoiseSchedule

schedules = st.builds(
    NoiseSchedule,
    training_steps=st.integers(1, 1200),
    kind=st.sampled_from(SCHEDULE_KINDS),
    table_precision=st.sampled_from(["float64", "float32"]),
)


def test_cosine_schedule_is_its_formula():
    """alphas_cumprod_t = f(t + 1) / f(0) wherever no beta was clipped, and the last beta is."""
    schedule = NoiseSchedule(300)
    kept = np.cos((np.arange(301) / 300 + 0.008) / 1.008 * math.pi / 2) ** 2
    np.testing.assert_allclose(schedule.alphas_cumprod[:-1], kept[1:-1] / kept[0], rtol=1e-12)
    assert schedule.betas[-1] == 0.9999
    assert schedule.alphas_cumprod[-1] == pytest.approx(kept[-2] / kept[0] * 1e-4, rel=1e-9)


def test_linear_schedules_have_their_end_points():
    linear = NoiseSchedule(1000, "linear", 1e-4, 2e-2).betas
    assert linear[[0, -1]] == pytest.approx([1e-4, 2e-2], rel=1e-12)
    assert np.ptp(np.diff(linear)) < 1e-15
    scaled = NoiseSchedule(1000, "scaled_linear", 0.0015, 0.0195).betas
    assert scaled[[0, -1]] == pytest.approx([0.0015, 0.0195], rel=1e-12)
    assert np.ptp(np.diff(np.sqrt(scaled))) < 1e-15


@pytest.mark.parametrize("steps", [1, 2, 30, 300, 1000])
def test_float32_tables_are_those_of_torch(steps):
    """Within one unit in the last place: torch's own rounding depends on the processor, ours does not."""
    ours = NoiseSchedule(steps, "linear", 1e-4, 2e-2, table_precision="float32").alphas_cumprod
    betas = torch.linspace(1e-4, 2e-2, steps, dtype=torch.float32)
    np.testing.assert_allclose(ours, torch.cumprod(1.0 - betas, 0).double().numpy(), rtol=2e-7)


@given(schedules)
def test_tables_are_those_of_a_diffusion(schedule):
    assert schedule.betas.shape == schedule.alphas_cumprod.shape == (schedule.training_steps,)
    assert schedule.betas.dtype == schedule.alphas_cumprod.dtype == np.float64
    assert ((schedule.betas > 0) & (schedule.betas < 1)).all()
    assert (np.diff(schedule.alphas_cumprod) < 0).all()
    assert ((schedule.alphas_cumprod > 0) & (schedule.alphas_cumprod < 1)).all()
    assert np.isfinite(schedule.half_log_snr).all()
    assert schedule.alphas_cumprod_at(-1) == 1.0


@given(schedules)
def test_json_round_trip(schedule):
    again = NoiseSchedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert again == schedule
    assert hash(again) == hash(schedule)
    np.testing.assert_array_equal(again.alphas_cumprod, schedule.alphas_cumprod)


@given(schedules, st.data())
def test_every_prediction_gives_back_data_and_noise(schedule, data):
    t = data.draw(st.integers(0, schedule.training_steps - 1))
    generator = torch.Generator().manual_seed(t)
    x0, noise = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    x_t = schedule.add_noise(x0, noise, t)
    predictions = {"v_prediction": schedule.velocity(x0, noise, t), "epsilon": noise, "sample": x0}
    for kind in PREDICTION_TYPES:
        torch.testing.assert_close(schedule.to_x0(x_t, predictions[kind], t, kind), x0, rtol=0, atol=1e-9)
        epsilon = schedule.to_epsilon(x_t, predictions[kind], t, kind)
        torch.testing.assert_close(epsilon, noise, rtol=0, atol=1e-9)


def test_one_time_step_per_sample_equals_each_on_its_own():
    schedule = NoiseSchedule(300)
    x0, noise = torch.randn(2, 3, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0, 150, 299])
    for together in (schedule.add_noise, schedule.velocity):
        single = torch.cat([together(x0[b : b + 1], noise[b : b + 1], int(t[b])) for b in range(3)])
        torch.testing.assert_close(together(x0, noise, t), single, rtol=1e-6, atol=1e-6)
    assert schedule.add_noise(x0, noise, t).dtype == torch.float32


def test_half_precision_latents_are_noised_in_float32():
    x0 = torch.ones(2, 1, 2, 2, 2, dtype=torch.float16)
    assert NoiseSchedule(300).add_noise(x0, x0, torch.tensor([1, 2])).dtype == torch.float32


def test_tables_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        NoiseSchedule(10).betas[0] = 0.5


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"training_steps": 0}, "0 training steps"),
        ({"training_steps": 2.5}, "2.5 training steps"),
        ({"training_steps": True}, "True training steps"),
        ({"training_steps": 300, "kind": "sigmoid"}, "'sigmoid'"),
        ({"training_steps": 300, "kind": "linear", "beta_start": 0.5, "beta_end": 0.1}, "0.5 to 0.1"),
        ({"training_steps": 300, "kind": "linear", "beta_end": 1.0}, "1.0"),
        ({"training_steps": 300, "beta_limit": 1.0}, "clips beta at 1.0"),
        ({"training_steps": 300, "cosine_offset": float("nan")}, "nan"),
        ({"training_steps": 300, "table_precision": "float16"}, "'float16'"),
        ({"training_steps": 300, "schedule": "cosine"}, "unknown settings schedule"),
        ({"kind": "cosine"}, "training_steps"),
    ],
)
def test_bad_settings_are_refused_in_words(settings, named):
    with pytest.raises(InputError, match=".") as caught:
        NoiseSchedule.from_dict(settings)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_arguments_are_refused():
    schedule, x = NoiseSchedule(300), torch.zeros(1, 1, 2, 2, 2)
    with pytest.raises(InputError, match="Time step 300 .* 0 to 299"):
        schedule.add_noise(x, x, 300)
    with pytest.raises(InputError, match="Unknown prediction type 'v'"):
        schedule.to_x0(x, x, 3, "v")
