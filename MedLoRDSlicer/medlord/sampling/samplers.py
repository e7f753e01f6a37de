"""What every sampler has in common, and the two ancestral ones: DDPM and DDIM.

A sampler turns the prediction of the network at one time step into the latent at the next. It draws no random
numbers: the caller asks `needs_noise(index)` and injects standard normal noise, so a chain can be repeated
exactly. Every chain ends at clean data: after the last step alphas_cumprod is 1, hence the latent is the last
estimate of x0. (The one exception is DDPM's `upstream_short_chain`.)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import InputError
from .schedule import PREDICTION_TYPES, NoiseSchedule

if TYPE_CHECKING:
    import torch

SPACINGS = ("quadratic", "linspace", "trailing", "leading")

NO_LAMBDA_FLOOR = -100.0
"""A half log SNR that no schedule goes below: chains start at T - 1."""

EPSILON_LAMBDA_FLOOR = -5.1
"""Where chains with epsilon prediction start: signal 0.6 % of the noise (see `Sampler`)."""

_SMALLEST_VARIANCE = 1e-20


def spaced_timesteps(training_steps: int, steps: int, spacing: str) -> np.ndarray:
    """The time steps of a chain: int64 of shape (steps,), strictly decreasing within 0 .. training_steps - 1.

    Works for any 1 <= steps <= training_steps, whether it divides them or not.

    "quadratic"  from training_steps - 1 to 0, both included, with distances that shrink in proportion to the
                 square root of the time step (Song et al. 2021, DDIM, appendix D.2). Many solvers lose their
                 accuracy where the noise is low and the half log SNR changes fast; here their steps in it are
                 about even.
    "linspace"   evenly from training_steps - 1 to 0, both included
    "trailing"   evenly, starting at training_steps - 1; as far from 0 at the end as from each other
                 (Lin et al. 2023, "Common diffusion noise schedules and sample steps are flawed", table 2)
    "leading"    whole multiples of floor(training_steps / steps) down to 0, as MedLoRD's own code has them.
                 Starts below training_steps - 1 when steps < training_steps, where the latent is not pure
                 noise: only for repeating chains of that code.
    """
    if spacing not in SPACINGS:
        raise InputError(
            f"Unknown spacing of time steps {spacing!r}; known are {', '.join(SPACINGS)}: choose one."
        )
    if spacing == "leading":
        timesteps = (training_steps // steps) * np.arange(steps)[::-1]
    elif spacing == "trailing":
        timesteps = np.rint(training_steps * np.arange(steps, 0, -1) / steps) - 1
    elif steps == 1:
        timesteps = np.array([training_steps - 1])
    elif spacing == "quadratic":
        left = np.arange(steps - 1, -1, -1)
        timesteps = np.maximum(np.rint((training_steps - 1) * (left / (steps - 1)) ** 2), left)
    else:
        timesteps = np.rint((training_steps - 1) * np.arange(steps - 1, -1, -1) / (steps - 1))
    return timesteps.astype(np.int64)


class Sampler(ABC):
    """One chain of denoising steps; make one per run, the multistep solvers remember their last estimates.

    schedule         the model's noise schedule
    steps            number of network evaluations, 1 .. T; None for the sampler's default
    prediction_type  "v_prediction", "epsilon" or "sample": what the network returns
    spacing          see `spaced_timesteps`; None for the sampler's default
    lambda_floor     time steps with a half log SNR below this are left out. None leaves out nothing
                     (NO_LAMBDA_FLOOR) for "v_prediction" and "sample", and those below -5.1 for "epsilon": on
                     a cosine schedule the signal at T - 1 is 5e-5, and dividing the network's error by it
                     ruins the chain. Never shortens the range below `steps` time steps; not used by
                     "leading".

    `timesteps` are the time steps in the order of the chain, int64 of shape (steps,), strictly decreasing.
    Raises InputError for steps outside 1 .. T and unknown names.
    """

    name: ClassVar[str]
    default_steps: ClassVar[int | None] = None
    default_spacing: ClassVar[str] = "linspace"

    def __init__(
        self,
        schedule: NoiseSchedule,
        steps: int | None = None,
        prediction_type: str = "v_prediction",
        *,
        spacing: str | None = None,
        lambda_floor: float | None = None,
    ):
        if prediction_type not in PREDICTION_TYPES:
            raise InputError(
                f"Unknown prediction type {prediction_type!r}; known are {', '.join(PREDICTION_TYPES)}: "
                "correct the model's description."
            )
        self.schedule, self.prediction_type = schedule, prediction_type
        self.steps = self._checked_steps(steps)
        self.spacing = self.default_spacing if spacing is None else spacing
        if lambda_floor is None:
            lambda_floor = EPSILON_LAMBDA_FLOOR if prediction_type == "epsilon" else NO_LAMBDA_FLOOR
        self.lambda_floor = float(lambda_floor)
        self.timesteps = self._chosen_timesteps()
        self.timesteps.setflags(write=False)

    def needs_noise(self, index: int) -> bool:
        """Whether step number `index` (0 is the first, noisiest) must be given noise."""
        return False

    @abstractmethod
    def step(
        self, prediction: torch.Tensor, index: int, x: torch.Tensor, noise: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: (latent at the next time step, estimate of the clean latent), both of the shape of `x`.

        `prediction` is the network's output at `x` and `timesteps[index]`; `noise` is standard normal, needed
        when `needs_noise(index)`.
        """

    def settings(self) -> dict[str, Any]:
        """Everything that defines the chain beside the schedule, as JSON values, for recipes."""
        return {
            "name": self.name,
            "steps": self.steps,
            "prediction_type": self.prediction_type,
            "spacing": self.spacing,
            "lambda_floor": self.lambda_floor,
        }

    def _checked_steps(self, steps: int | None) -> int:
        total = self.schedule.training_steps
        if steps is None:
            return total if self.default_steps is None else min(self.default_steps, total)
        if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or not 1 <= steps <= total:
            raise InputError(
                f"The sampler {self.name} was asked for {steps!r} steps; the model was trained with {total}: "
                f"choose a whole number from 1 to {total}."
            )
        return int(steps)

    def _chosen_timesteps(self) -> np.ndarray:
        usable = self.schedule.training_steps
        if self.spacing != "leading":
            usable = max(self.steps, int(np.count_nonzero(self.schedule.half_log_snr >= self.lambda_floor)))
        return spaced_timesteps(usable, self.steps, self.spacing)

    def _kept_before_and_after(self, index: int) -> tuple[float, float]:
        """alphas_cumprod at this step's time and at the next one's; 1 after the last step."""
        after = int(self.timesteps[index + 1]) if index + 1 < self.steps else -1
        kept_at = self.schedule.alphas_cumprod_at
        return kept_at(int(self.timesteps[index])), kept_at(after)

    def _estimate_x0(self, prediction: torch.Tensor, index: int, x: torch.Tensor) -> torch.Tensor:
        return self.schedule.to_x0(x, prediction, int(self.timesteps[index]), self.prediction_type)

    def _required(self, noise: torch.Tensor | None, index: int) -> torch.Tensor:
        if noise is None:
            raise ValueError(
                f"step {index} of the sampler {self.name} needs noise; ask needs_noise(index) before"
            )
        return noise


class DDPM(Sampler):
    """Ancestral sampling over all T training steps (Ho et al. 2020, eq. 7 and algorithm 2); the reference.

    The step from t to t - 1 uses the posterior of one training step, without clipping of x0. With fewer than
    T steps that posterior is wrong: it takes away the noise of one training step where the chain jumps over
    many, and the chain ends over-noised. Fewer steps therefore raise InputError.

    `upstream_short_chain=True` allows them all the same and repeats what MedLoRD's published code computes
    (spacing "leading", always the posterior t -> t - 1): for comparing numbers with that code, never for
    images.
    """

    name = "ddpm"

    def __init__(
        self,
        schedule: NoiseSchedule,
        steps: int | None = None,
        prediction_type: str = "v_prediction",
        *,
        upstream_short_chain: bool = False,
    ):
        self.upstream_short_chain = upstream_short_chain
        super().__init__(schedule, steps, prediction_type, spacing="leading", lambda_floor=NO_LAMBDA_FLOOR)
        total = schedule.training_steps
        if self.steps != total and not upstream_short_chain:
            raise InputError(
                f"The sampler ddpm was asked for {self.steps} of {total} steps; each of its steps takes away "
                "the noise of one training step only, so a shorter chain ends over-noised: use ddpm with "
                f"{total} steps (its default), or for a short chain sde-dpm-solver++ or unipc with 25 steps."
            )

    def needs_noise(self, index: int) -> bool:
        """Every step but the one at t = 0."""
        return bool(self.timesteps[index] > 0)

    def step(self, prediction, index, x, noise=None):
        """Mean and variance of q(x_{t-1} | x_t, x_0): Ho et al. 2020, eq. 7."""
        t = int(self.timesteps[index])
        kept, kept_before = self.schedule.alphas_cumprod_at(t), self.schedule.alphas_cumprod_at(t - 1)
        beta = float(self.schedule.betas[t])
        x0 = self._estimate_x0(prediction, index, x)
        of_x0 = math.sqrt(kept_before) * beta / (1.0 - kept)
        of_x = math.sqrt(1.0 - beta) * (1.0 - kept_before) / (1.0 - kept)
        following = of_x0 * x0 + of_x * x
        if self.needs_noise(index):
            variance = max((1.0 - kept_before) / (1.0 - kept) * beta, _SMALLEST_VARIANCE)
            following = following + math.sqrt(variance) * self._required(noise, index)
        return following, x0

    def settings(self) -> dict[str, Any]:
        """See `Sampler.settings`."""
        return {
            "name": self.name,
            "steps": self.steps,
            "prediction_type": self.prediction_type,
            "upstream_short_chain": self.upstream_short_chain,
        }


class DDIM(Sampler):
    """Denoising diffusion implicit model (Song et al. 2021, eq. 12 and 16).

    `eta` from 0 (deterministic) to 1 (as much noise as ancestral sampling over the same time steps: with all
    T steps that is DDPM, with fewer it is its correct shorter form). Use spacing="leading" to repeat
    MedLoRD's own chains.
    """

    name = "ddim"
    default_steps = 50

    def __init__(self, schedule, steps=None, prediction_type="v_prediction", *, eta=0.0, **options):
        if not 0.0 <= eta <= 1.0:
            raise InputError(
                f"The sampler ddim got eta {eta}; it must lie from 0 (no noise) to 1: choose another."
            )
        self.eta = float(eta)
        super().__init__(schedule, steps, prediction_type, **options)

    def needs_noise(self, index: int) -> bool:
        """Every step but the last, when eta is not 0."""
        return self.eta > 0.0 and index < self.steps - 1

    def step(self, prediction, index, x, noise=None):
        """Song et al. 2021, eq. 12, with sigma of eq. 16."""
        kept, kept_after = self._kept_before_and_after(index)
        x0 = self._estimate_x0(prediction, index, x)
        epsilon = self.schedule.to_epsilon(x, prediction, int(self.timesteps[index]), self.prediction_type)
        variance = self.eta**2 * (1.0 - kept_after) / (1.0 - kept) * (1.0 - kept / kept_after)
        direction = math.sqrt(max(1.0 - kept_after - variance, 0.0))
        following = math.sqrt(kept_after) * x0 + direction * epsilon
        if self.needs_noise(index):
            following = following + math.sqrt(variance) * self._required(noise, index)
        return following, x0

    def settings(self) -> dict[str, Any]:
        """See `Sampler.settings`."""
        return {**super().settings(), "eta": self.eta}
