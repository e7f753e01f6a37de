"""Exponential moving average of a network's weights."""

from __future__ import annotations

import copy

import torch


class WeightAverage:
    """Keeps `network`, a copy of a trained network whose weights follow it as an exponential moving average.

    The decay warms up as (1 + n) / (10 + n) until it reaches `decay`, so that short trainings are not dominated
    by the random start.
    """

    def __init__(self, network: torch.nn.Module, decay: float):
        self.decay = decay
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: torch.nn.Module, step: int) -> None:
        """Move the average towards `network` after optimiser step number `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, value in zip(self.network.parameters(), network.parameters(), strict=True):
            average.lerp_(value.to(average.dtype), 1 - decay)
        for average, value in zip(self.network.buffers(), network.buffers(), strict=True):
            average.copy_(value)
