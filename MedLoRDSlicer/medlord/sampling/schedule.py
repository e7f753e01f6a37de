"""The noise schedule of a diffusion model and the formulas that tie noise, data and velocity together.

Notation of Ho et al. 2020 ("Denoising Diffusion Probabilistic Models"): time steps t = 0 .. T-1, beta_t the
variance that step t adds, alpha_t = 1 - beta_t, alphas_cumprod_t the product of all alphas up to and
including t. A noisy latent is

    x_t = a_t * x_0 + s_t * noise,  a_t = sqrt(alphas_cumprod_t),  s_t = sqrt(1 - alphas_cumprod_t)   (eq. 4)

Before the first step lies clean data: alphas_cumprod_{-1} = 1. Tables are float64; latents keep their own
type (float32 in the engine), so every coefficient is rounded once, when it meets the latent.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    import torch

SCHEDULE_KINDS = ("cosine", "linear", "scaled_linear")
TABLE_PRECISIONS = ("float64", "float32")
PREDICTION_TYPES = ("v_prediction", "epsilon", "sample")


@dataclass(frozen=True)
class NoiseSchedule:
    """How much noise each training step adds; immutable, hashable, with a JSON round trip.

    training_steps   T, number of training steps (>= 1); time steps are 0 .. T-1
    kind             "cosine" (Nichol & Dhariwal 2021, eq. 17), "linear" (Ho et al. 2020: beta from beta_start
                     to beta_end) or "scaled_linear" (linear in sqrt(beta))
    beta_start, beta_end   first and last beta of the linear kinds, 0 < beta_start <= beta_end < 1; unused by
                           "cosine"
    cosine_offset    the small shift s of the cosine kind, keeps beta_0 away from zero
    beta_limit       the cosine kind clips beta from above here, below 1: otherwise the last step would leave
                     no signal at all and the solvers, which divide by it, would not be finite
    table_precision  "float64", or "float32" for models whose training code kept its tables in float32
                     (upstream's linear kinds and CardioDiT): betas, alphas and their product are then rounded
                     to float32

    Raises InputError for values outside these limits.
    """

    training_steps: int
    kind: str = "cosine"
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    cosine_offset: float = 0.008
    beta_limit: float = 0.9999
    table_precision: str = "float64"

    def __post_init__(self) -> None:
        if not _is_integer(self.training_steps) or self.training_steps < 1:
            raise InputError(
                f"The noise schedule has {self.training_steps!r} training steps; it needs a whole number of "
                "at least 1: correct training_steps of the model's schedule."
            )
        object.__setattr__(self, "training_steps", int(self.training_steps))
        _require_known("schedule kind", self.kind, SCHEDULE_KINDS)
        _require_known("table precision", self.table_precision, TABLE_PRECISIONS)
        if not 0.0 < self.beta_start <= self.beta_end < 1.0:
            raise InputError(
                f"The noise schedule has beta from {self.beta_start} to {self.beta_end}; "
                "it needs 0 < beta_start <= beta_end < 1: correct the model's schedule."
            )
        if not 0.0 < self.beta_limit < 1.0:
            raise InputError(
                f"The noise schedule clips beta at {self.beta_limit}; the limit must lie between 0 and 1 "
                "(0.9999 is usual): correct beta_limit of the model's schedule."
            )
        if not 0.0 < self.cosine_offset < 1.0:
            raise InputError(
                f"The cosine schedule has the offset {self.cosine_offset}; it must lie between 0 and 1 "
                "(0.008 is usual): correct cosine_offset of the model's schedule."
            )

    @cached_property
    def betas(self) -> np.ndarray:
        """beta_t, float64 of shape (T,), each in (0, 1)."""
        if self.kind == "cosine":
            betas = _cosine_betas(self.training_steps, self.cosine_offset, self.beta_limit)
            if self.table_precision == "float32":
                betas = betas.astype(np.float32).astype(np.float64)
        elif self.kind == "linear":
            betas = self._evenly_spaced(self.beta_start, self.beta_end)
        else:
            roots = self._evenly_spaced(math.sqrt(self.beta_start), math.sqrt(self.beta_end))
            betas = self._rounded(roots**2)
        return _read_only(betas)

    @cached_property
    def alphas_cumprod(self) -> np.ndarray:
        """Product of (1 - beta_s) over s <= t, float64 of shape (T,), decreasing from near 1 towards 0."""
        return _read_only(self._rounded(np.cumprod(self._rounded(1.0 - self.betas))))

    @cached_property
    def half_log_snr(self) -> np.ndarray:
        """lambda_t = log(a_t / s_t), half the log signal-to-noise ratio; float64, shape (T,), decreasing."""
        return _read_only(0.5 * (np.log(self.alphas_cumprod) - np.log1p(-self.alphas_cumprod)))

    def alphas_cumprod_at(self, t: int) -> float:
        """alphas_cumprod at time step `t`; 1 for t = -1, the clean data."""
        return 1.0 if t == -1 else float(self.alphas_cumprod[self._checked(t)])

    def signal_and_noise(self, t: int) -> tuple[float, float]:
        """(a_t, s_t): how much of x_t is data and how much is noise, for one whole-number time step."""
        kept = self.alphas_cumprod_at(t)
        return math.sqrt(kept), math.sqrt(1.0 - kept)

    def add_noise(self, x0: torch.Tensor, noise: torch.Tensor, t: int | torch.Tensor) -> torch.Tensor:
        """x_t from clean data and standard normal noise of the same shape (Ho et al. 2020, eq. 4).

        `t` is one time step for all, or an integer tensor (batch,) with one for each sample, on any device.
        """
        signal, spread = self._coefficients(t, x0)
        return signal * x0 + spread * noise

    def velocity(self, x0: torch.Tensor, noise: torch.Tensor, t: int | torch.Tensor) -> torch.Tensor:
        """v_t = a_t * noise - s_t * x0, the target of v-prediction (Salimans & Ho 2022, section 4)."""
        signal, spread = self._coefficients(t, x0)
        return signal * noise - spread * x0

    def to_x0(
        self, x_t: torch.Tensor, prediction: torch.Tensor, t: int | torch.Tensor, prediction_type: str
    ) -> torch.Tensor:
        """The clean latent that a network's `prediction` at x_t stands for; no clipping.

        For "epsilon" this divides by a_t, which magnifies the network's error at the noisiest time steps.
        """
        _require_known("prediction type", prediction_type, PREDICTION_TYPES)
        if prediction_type == "sample":
            return prediction
        signal, spread = self._coefficients(t, x_t)
        if prediction_type == "v_prediction":
            return signal * x_t - spread * prediction
        return (x_t - spread * prediction) / signal

    def to_epsilon(
        self, x_t: torch.Tensor, prediction: torch.Tensor, t: int | torch.Tensor, prediction_type: str
    ) -> torch.Tensor:
        """The noise that a network's `prediction` at x_t stands for."""
        _require_known("prediction type", prediction_type, PREDICTION_TYPES)
        if prediction_type == "epsilon":
            return prediction
        signal, spread = self._coefficients(t, x_t)
        if prediction_type == "v_prediction":
            return signal * prediction + spread * x_t
        return (x_t - signal * prediction) / spread

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON values; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> NoiseSchedule:
        """Rebuild a schedule; settings left out have their defaults, unknown ones raise InputError."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise InputError(
                f"The noise schedule has the unknown settings {', '.join(unknown)}; known are "
                f"{', '.join(sorted(known))}: correct the model's description."
            )
        if "training_steps" not in settings:
            raise InputError(
                "The noise schedule does not say training_steps, the number of steps the model was trained "
                "with (300 and 1000 are usual): add it to the model's description."
            )
        return cls(**settings)

    def _coefficients(self, t: int | torch.Tensor, like: torch.Tensor) -> tuple[Any, Any]:
        """(a_t, s_t): plain numbers for one time step, tensors (batch, 1, ...) for one step per sample."""
        if not hasattr(t, "device"):
            return self.signal_and_noise(t)
        table = _coefficient_table(self, like.device, str(like.dtype))
        pair = table[:, t.to(like.device)]
        return tuple(values.reshape(-1, *[1] * (like.ndim - 1)) for values in pair)

    def _checked(self, t: int) -> int:
        if not 0 <= t < self.training_steps:
            raise InputError(
                f"Time step {t} is outside the schedule; it has the steps 0 to {self.training_steps - 1}: "
                "use the time steps of the sampler."
            )
        return int(t)

    def _rounded(self, table: np.ndarray) -> np.ndarray:
        return table.astype(self.table_precision).astype(np.float64)

    def _evenly_spaced(self, start: float, end: float) -> np.ndarray:
        """T values from start to end; in float32 from both ends inwards, as torch.linspace computes them."""
        if self.table_precision == "float64" or self.training_steps == 1:
            return self._rounded(np.linspace(start, end, self.training_steps))
        first, last = np.float32(start), np.float32(end)
        stride = float((last - first) / np.float32(self.training_steps - 1))
        index = np.arange(self.training_steps, dtype=np.float64)
        upwards = float(first) + stride * index
        downwards = float(last) - stride * (self.training_steps - 1 - index)
        return self._rounded(np.where(index < self.training_steps // 2, upwards, downwards))


def _cosine_betas(training_steps: int, offset: float, limit: float) -> np.ndarray:
    """Betas of the cosine schedule: Nichol & Dhariwal 2021, eq. 17, with beta clipped to at most `limit`."""
    angle = (np.arange(training_steps + 1, dtype=np.float64) / training_steps + offset) / (1.0 + offset)
    kept = np.cos(angle * (math.pi / 2.0)) ** 2
    return np.clip(1.0 - kept[1:] / kept[:-1], 0.0, limit)


@lru_cache(maxsize=32)
def _coefficient_table(schedule: NoiseSchedule, device: torch.device, dtype_name: str) -> torch.Tensor:
    """(2, T) tensor of a_t and s_t on `device`, kept so that a training step copies nothing to the device.

    Half-precision latents get float32 coefficients.
    """
    import torch

    kept = schedule.alphas_cumprod
    dtype = torch.float64 if dtype_name == "torch.float64" else torch.float32
    return torch.from_numpy(np.stack([np.sqrt(kept), np.sqrt(1.0 - kept)])).to(device=device, dtype=dtype)


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _read_only(table: np.ndarray) -> np.ndarray:
    table.setflags(write=False)
    return table


def _require_known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"Unknown {what} {value!r}; known are {', '.join(known)}: choose one of these.")
