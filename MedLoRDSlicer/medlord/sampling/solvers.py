"""Fast samplers: multistep solvers of the diffusion equation in the half log SNR lambda.

All of them predict data (the "++" form): with h = lambda_t - lambda_s for a step from time s to time t,

    x_t = (s_t / s_s) x_s + s_t * integral over [lambda_s, lambda_t] of exp(lambda) x0(lambda)        (exact)

(Lu et al. 2022b, "DPM-Solver++", proposition 4.1, with a_t the signal and s_t the noise at t), and differ in
how they extrapolate the estimate x0(lambda) of the network. The last step goes to clean data (h infinite),
where each of these formulas becomes: x = x0.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .samplers import Sampler

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class _Leap:
    """The numbers of one step from time s to time t."""

    noise_ratio: float  # s_t / s_s
    signal: float  # a_t
    noise: float  # s_t
    h: float  # lambda_t - lambda_s, > 0
    earlier: float | None  # (lambda_before_s - lambda_s) / h, < 0; None when only one estimate is known

    @property
    def weight(self) -> float:
        """a_t (1 - exp(-h)): the weight of x0 when it is held constant over the step."""
        return -self.signal * math.expm1(-self.h)


class MultistepSolver(Sampler):
    """A solver of second order that remembers its last two estimates of x0; steps must be taken in order."""

    default_steps = 25
    default_spacing = "quadratic"

    def __init__(self, schedule, steps=None, prediction_type="v_prediction", **options):
        super().__init__(schedule, steps, prediction_type, **options)
        kept = schedule.alphas_cumprod[self.timesteps]
        self._signal, self._noise = np.sqrt(kept), np.sqrt(1.0 - kept)
        self._lambda = schedule.half_log_snr[self.timesteps]
        self._expected = 0
        self._earlier_x0: torch.Tensor | None = None

    def step(self, prediction, index, x, noise=None):
        """See `Sampler.step`; step 0 starts a new chain, every other one must follow the one before it."""
        if index not in (0, self._expected):
            raise ValueError(
                f"step {index} of the sampler {self.name} came where step {self._expected} was due"
            )
        x0 = self._estimate_x0(prediction, index, x)
        earlier_x0 = self._earlier_x0 if index else None
        if index == self.steps - 1:
            self._expected, self._earlier_x0 = 0, None
            return x0, x0
        following = self._advance(x, x0, earlier_x0, index, noise)
        self._expected, self._earlier_x0 = index + 1, x0
        return following, x0

    @abstractmethod
    def _advance(
        self,
        x: torch.Tensor,
        x0: torch.Tensor,
        earlier_x0: torch.Tensor | None,
        index: int,
        noise: torch.Tensor | None,
    ) -> torch.Tensor:
        """The latent at `timesteps[index + 1]`; `earlier_x0` is the last step's estimate, None at step 0."""

    def _leap(self, index: int) -> _Leap:
        """The step from time step number `index` to the next one (not for the last step)."""
        h = float(self._lambda[index + 1] - self._lambda[index])
        earlier = float(self._lambda[index - 1] - self._lambda[index]) / h if index else None
        noise_ratio = float(self._noise[index + 1] / self._noise[index])
        return _Leap(noise_ratio, float(self._signal[index + 1]), float(self._noise[index + 1]), h, earlier)


def _extrapolated(x0: torch.Tensor, earlier_x0: torch.Tensor | None, leap: _Leap) -> torch.Tensor:
    """x0 half-way through the step, on the line through the last two estimates (Lu et al., algorithm 2)."""
    if earlier_x0 is None:
        return x0
    return x0 + (0.5 / leap.earlier) * (earlier_x0 - x0)


class DPMSolverPlusPlus(MultistepSolver):
    """DPM-Solver++(2M), deterministic (Lu et al. 2022b, algorithm 2)."""

    name = "dpm-solver++"

    def _advance(self, x, x0, earlier_x0, index, noise):
        leap = self._leap(index)
        return leap.noise_ratio * x + leap.weight * _extrapolated(x0, earlier_x0, leap)


class SDEDPMSolverPlusPlus(MultistepSolver):
    """SDE-DPM-Solver++(2M): the same extrapolation for the stochastic equation (Lu et al. 2022b)."""

    name = "sde-dpm-solver++"

    def needs_noise(self, index: int) -> bool:
        """Every step but the last."""
        return index < self.steps - 1

    def _advance(self, x, x0, earlier_x0, index, noise):
        leap = self._leap(index)
        taken = -math.expm1(-2.0 * leap.h)
        following = (leap.noise_ratio * math.exp(-leap.h)) * x
        following = following + (leap.signal * taken) * _extrapolated(x0, earlier_x0, leap)
        return following + (leap.noise * math.sqrt(taken)) * self._required(noise, index)


class UniPC(MultistepSolver):
    """Unified predictor-corrector of second order with B2(h) = exp(h) - 1 (Zhao et al. 2023, "UniPC").

    Each estimate of x0 first corrects the latent it was made at (UniC, no further network call), then
    predicts the next one (UniP). The predictor of second order equals DPM-Solver++(2M).
    """

    name = "unipc"

    def __init__(self, schedule, steps=None, prediction_type="v_prediction", **options):
        super().__init__(schedule, steps, prediction_type, **options)
        self._start_x: torch.Tensor | None = None
        self._two_before_x0: torch.Tensor | None = None

    def _advance(self, x, x0, earlier_x0, index, noise):
        if index:
            x = self._corrected(x0, earlier_x0, index)
        self._start_x, self._two_before_x0 = x, earlier_x0
        leap = self._leap(index)
        return leap.noise_ratio * x + leap.weight * _extrapolated(x0, earlier_x0, leap)

    def _corrected(self, x0: torch.Tensor, start_x0: torch.Tensor, index: int) -> torch.Tensor:
        """The latent at `timesteps[index]` again, now that the estimate x0 there is known too (UniC).

        `start_x0` is the estimate at the step's start.
        """
        leap = self._leap(index - 1)
        constant = leap.noise_ratio * self._start_x + leap.weight * start_x0
        if self._two_before_x0 is None:
            return constant + (0.5 * leap.weight) * (x0 - start_x0)
        of_earlier, of_end = _corrector_weights(leap.h, leap.earlier)
        earlier_slope = (self._two_before_x0 - start_x0) / leap.earlier
        return constant + leap.weight * (of_earlier * earlier_slope + of_end * (x0 - start_x0))


def _corrector_weights(h: float, earlier: float) -> tuple[float, float]:
    """Weights of the two differences in UniC-2 for data prediction (Zhao et al. 2023, theorem 3.1).

    With J_k = h * integral over u in [0, 1] of exp(h (u - 1)) u^k, the polynomials of degree 1 and 2 in
    lambda are integrated exactly when  w_1 + w_2 = J_1 / J_0  and  earlier * w_1 + w_2 = J_2 / J_0.
    """
    j0 = -math.expm1(-h)
    j1 = 1.0 - j0 / h
    j2 = 1.0 - 2.0 * j1 / h
    of_earlier = (j1 - j2) / (j0 * (1.0 - earlier))
    return of_earlier, j1 / j0 - of_earlier
