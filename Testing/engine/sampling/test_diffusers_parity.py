"""Whole chains of our samplers beside diffusers' schedulers, with the same noise and the same toy network.

diffusers keeps its tables in float32; here it is given our float64 tables, so that what is compared is the
algorithm.
"""

import numpy as np
import pytest
import torch

from medlord.sampling import NoiseSchedule, make_sampler

diffusers = pytest.importorskip(
    "diffusers", reason="parity is measured against diffusers (a test dependency)"
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEP_COUNTS = (7, 10, 20, 25, 30, 300)
SHAPE = (1, 2, 3, 4, 5)
TOLERANCE = 1e-5
COSINE = NoiseSchedule(300)
SCHEDULES = {
    "cosine": COSINE,
    "linear": NoiseSchedule(300, "linear"),
    "scaled_linear": NoiseSchedule(300, "scaled_linear", 0.0015, 0.0195),
}
SOLVERS = {
    "unipc": (diffusers.UniPCMultistepScheduler, {"solver_order": 2, "solver_type": "bh2"}),
    "dpm-solver++": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    "sde-dpm-solver++": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
}


def network(schedule, prediction_type, x, t):
    """A fixed nonlinear network that mixes neighbours, in the parametrization asked for."""
    x0 = 0.8 * torch.tanh((1.0 + t / schedule.training_steps) * x + 0.3 * torch.roll(x, 1, dims=-1) + 0.1)
    signal, spread = schedule.signal_and_noise(int(t))
    epsilon = (x - signal * x0) / spread
    predictions = {"v_prediction": signal * epsilon - spread * x0, "epsilon": epsilon, "sample": x0}
    return predictions[prediction_type]


def draws(count, seed=0):
    """The start latent and `count` noises, with the same generator as diffusers' own draws."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator) for _ in range(count + 1)]


def our_chain(sampler, start, noises):
    """Latents after each step."""
    latents, x = [], start
    for index, t in enumerate(sampler.timesteps):
        prediction = network(sampler.schedule, sampler.prediction_type, x, int(t))
        x, _ = sampler.step(prediction, index, x, noises[index] if sampler.needs_noise(index) else None)
        latents.append(x)
    return torch.stack(latents)


def their_chain(scheduler, schedule, prediction_type, start, timesteps, step_options):
    """Latents after each step; `step_options(index)` are further arguments of diffusers' step."""
    latents, x = [], start
    for index, t in enumerate(timesteps):
        prediction = network(schedule, prediction_type, x, int(t))
        x = scheduler.step(prediction, t, x, **step_options(index)).prev_sample
        latents.append(x)
    return torch.stack(latents)


def with_our_tables(scheduler_class, schedule, prediction_type, **options):
    scheduler = scheduler_class(
        num_train_timesteps=schedule.training_steps,
        trained_betas=schedule.betas,
        prediction_type=prediction_type,
        **options,
    )
    kept = torch.tensor(schedule.alphas_cumprod)
    scheduler.alphas_cumprod = kept
    if hasattr(scheduler, "lambda_t"):
        scheduler.alpha_t, scheduler.sigma_t = kept.sqrt(), (1 - kept).sqrt()
        scheduler.lambda_t = torch.tensor(schedule.half_log_snr)
    return scheduler


def put_timesteps(scheduler, schedule, timesteps):
    """Make a multistep scheduler of diffusers walk over `timesteps`, ending at clean data."""
    kept = schedule.alphas_cumprod[timesteps]
    scheduler.timesteps = torch.tensor(timesteps)
    # float64, where diffusers rounds to float32 and loses up to 1e-5 of the steps' small differences in lambda.
    scheduler.sigmas = torch.tensor(np.append(np.sqrt((1 - kept) / kept), 0.0))


def assert_same(ours, theirs):
    """Equal over the entire chain, relative to the latent's size where that exceeds 1."""
    assert torch.isfinite(ours).all()
    size = ours.abs().amax(dim=tuple(range(1, ours.ndim)), keepdim=True).clamp(min=1.0)
    difference = (ours - theirs) / size
    assert difference.abs().max() <= TOLERANCE
    assert difference.square().mean().sqrt() <= TOLERANCE


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
@pytest.mark.parametrize("name", ["cosine", "linear", "scaled_linear"])
def test_ddpm_over_all_steps(name, prediction_type):
    schedule = SCHEDULES[name]
    sampler = make_sampler("ddpm", schedule, prediction_type=prediction_type)
    start, *noises = draws(sampler.steps)
    theirs = with_our_tables(diffusers.DDPMScheduler, schedule, prediction_type, clip_sample=False)
    theirs.set_timesteps(sampler.steps)
    assert theirs.timesteps.tolist() == sampler.timesteps.tolist()
    generator = torch.Generator().manual_seed(0)
    torch.randn(SHAPE, generator=generator)
    chain = their_chain(
        theirs, schedule, prediction_type, start, theirs.timesteps, lambda index: {"generator": generator}
    )
    assert_same(our_chain(sampler, start, noises), chain)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
@pytest.mark.parametrize("steps", STEP_COUNTS)
def test_ddim(steps, prediction_type, eta):
    sampler = make_sampler("ddim", COSINE, steps, prediction_type, eta=eta, spacing="leading")
    start, *noises = draws(steps)
    theirs = with_our_tables(
        diffusers.DDIMScheduler, COSINE, prediction_type, clip_sample=False, timestep_spacing="leading"
    )
    theirs.set_timesteps(steps)
    assert theirs.timesteps.tolist() == sampler.timesteps.tolist()

    def options(index):
        return {"eta": eta, "variance_noise": noises[index] if eta else None}

    chain = their_chain(theirs, COSINE, prediction_type, start, theirs.timesteps, options)
    assert_same(our_chain(sampler, start, noises), chain)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon"])
@pytest.mark.parametrize("steps", STEP_COUNTS)
@pytest.mark.parametrize("schedule_name", ["cosine", "scaled_linear"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_multistep_solvers(solver, schedule_name, steps, prediction_type):
    schedule = SCHEDULES[schedule_name]
    sampler = make_sampler(solver, schedule, steps, prediction_type)
    start, *noises = draws(steps)
    scheduler_class, options = SOLVERS[solver]
    theirs = with_our_tables(scheduler_class, schedule, prediction_type, final_sigmas_type="zero", **options)
    theirs.set_timesteps(steps)
    put_timesteps(theirs, schedule, sampler.timesteps)

    def step_options(index):
        return {"variance_noise": noises[index]} if solver == "sde-dpm-solver++" else {}

    chain = their_chain(theirs, schedule, prediction_type, start, theirs.timesteps, step_options)
    assert_same(our_chain(sampler, start, noises), chain)


@pytest.mark.parametrize("steps", [8, 10, 20, 25, 30, 300])
@pytest.mark.parametrize("solver", SOLVERS)
def test_trailing_spacing_is_theirs(solver, steps):
    """The same time steps and chain as diffusers' own "trailing".

    Not for 7 of 300 steps, where diffusers 0.42 sums up rounding errors and appends an eighth time step, -1.
    """
    sampler = make_sampler(solver, COSINE, steps, spacing="trailing")
    start, *noises = draws(steps)
    scheduler_class, options = SOLVERS[solver]
    theirs = with_our_tables(
        scheduler_class,
        COSINE,
        "v_prediction",
        final_sigmas_type="zero",
        timestep_spacing="trailing",
        **options,
    )
    theirs.set_timesteps(steps)
    assert theirs.timesteps.tolist() == sampler.timesteps.tolist()
    put_timesteps(theirs, COSINE, sampler.timesteps)

    def step_options(index):
        return {"variance_noise": noises[index]} if solver == "sde-dpm-solver++" else {}

    chain = their_chain(theirs, COSINE, "v_prediction", start, theirs.timesteps, step_options)
    assert_same(our_chain(sampler, start, noises), chain)


def test_lambda_floor_is_lambda_min_clipped():
    """What our floor leaves out is what diffusers' `lambda_min_clipped` leaves out."""
    theirs = with_our_tables(
        diffusers.DPMSolverMultistepScheduler, COSINE, "epsilon", lambda_min_clipped=-5.1
    )
    theirs.set_timesteps(10)
    sampler = make_sampler("dpm-solver++", COSINE, 10, "epsilon", lambda_floor=-5.1)
    assert int(theirs.timesteps[0]) == int(sampler.timesteps[0]) < COSINE.training_steps - 1
