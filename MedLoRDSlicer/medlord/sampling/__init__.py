"""Noise schedules, samplers and the one denoising loop.

Importing this package does not import torch; calling its functions does.
"""

from .loop import denoise
from .noise import batch_noise, check_seed, seeded_noise
from .registry import FAST, REFERENCE, SAMPLERS, make_sampler
from .samplers import DDIM, DDPM, SPACINGS, Sampler, spaced_timesteps
from .schedule import PREDICTION_TYPES, SCHEDULE_KINDS, NoiseSchedule
from .solvers import DPMSolverPlusPlus, SDEDPMSolverPlusPlus, UniPC

__all__ = [
    "DDIM",
    "DDPM",
    "DPMSolverPlusPlus",
    "FAST",
    "NoiseSchedule",
    "PREDICTION_TYPES",
    "REFERENCE",
    "SAMPLERS",
    "SCHEDULE_KINDS",
    "SDEDPMSolverPlusPlus",
    "SPACINGS",
    "Sampler",
    "UniPC",
    "batch_noise",
    "check_seed",
    "denoise",
    "make_sampler",
    "seeded_noise",
    "spaced_timesteps",
]
