"""The samplers by the names that people type."""

from __future__ import annotations

import inspect
from typing import Any

from ..errors import InputError
from .samplers import DDIM, DDPM, Sampler
from .schedule import NoiseSchedule
from .solvers import DPMSolverPlusPlus, SDEDPMSolverPlusPlus, UniPC

SAMPLERS: dict[str, type[Sampler]] = {
    sampler.name: sampler for sampler in (DDPM, DDIM, UniPC, DPMSolverPlusPlus, SDEDPMSolverPlusPlus)
}

FAST: tuple[str, int | None] = ("sde-dpm-solver++", 25)
"""(sampler, steps) for everyday use; why not UniPC: docs/adr/0010."""

REFERENCE: tuple[str, int | None] = ("ddpm", None)
"""(sampler, steps) to compare with: all training steps, which is what None stands for."""


def make_sampler(
    name: str,
    schedule: NoiseSchedule,
    steps: int | None = None,
    prediction_type: str = "v_prediction",
    **options: Any,
) -> Sampler:
    """A sampler for one run.

    `steps=None` takes the sampler's default: all training steps for ddpm, 50 for ddim, 25 for the others.

    `options` are those of the sampler's class: `spacing`, `lambda_floor`, `eta` (ddim),
    `upstream_short_chain` (ddpm). `make_sampler(schedule=schedule, **sampler.settings())` builds the same
    sampler again.

    Raises InputError for unknown names and options, listing the known ones, and for steps that the sampler
    refuses.
    """
    if name not in SAMPLERS:
        raise InputError(f"Unknown sampler {name!r}; known are {', '.join(SAMPLERS)}: choose one of these.")
    known = _options_of(SAMPLERS[name])
    unknown = sorted(set(options) - known)
    if unknown:
        raise InputError(
            f"The sampler {name} has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}: "
            "leave it out."
        )
    return SAMPLERS[name](schedule, steps, prediction_type, **options)


def _options_of(sampler: type[Sampler]) -> set[str]:
    """Names of the keyword-only options of a sampler class, those of the base class for `**options`."""
    parameters = inspect.signature(sampler).parameters.values()
    names = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        names |= _options_of(Sampler)
    return names
