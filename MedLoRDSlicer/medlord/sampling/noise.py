"""Noise from a seed: the same numbers on every device, for every draw on its own.

Noise number `index` for `purpose` depends on (seed, purpose, index) and the shape alone. It does not depend
on how many draws came before, so a chain resumed half-way, a sampler that skips a draw, or a batch split in
two gets the same noise. Everything is drawn on the CPU in float32 and then copied to the device: the
generators of GPUs differ from each other and from the CPU's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    import torch

SEED_LIMIT = 2**63


def check_seed(seed: int) -> int:
    """The seed as a plain int; InputError unless it is a whole number from 0 to 2**63 - 1."""
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or not 0 <= seed < SEED_LIMIT:
        raise InputError(
            f"The seed is {seed!r}; it must be a whole number from 0 to 2**63 - 1: choose another."
        )
    return int(seed)


def derived_seed(seed: int, purpose: str, index: int) -> int:
    """The generator seed of draw number `index` for `purpose`: first 63 bits of SHA-256 of the three."""
    text = f"medlord noise 1|{check_seed(seed)}|{purpose}|{int(index)}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seeded_noise(seed: int, purpose: str, index: int, shape: Sequence[int]) -> torch.Tensor:
    """Standard normal noise of `shape`, float32 on the CPU; `purpose` is a word: "initial", "step"."""
    import torch

    generator = torch.Generator(device="cpu").manual_seed(derived_seed(seed, purpose, index))
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")


def batch_noise(seed: int, purpose: str, index: int, shape: Sequence[int]) -> torch.Tensor:
    """Noise for a batch, shape (batch, ...): sample b is that of a single volume with the seed `seed + b`."""
    import torch

    check_seed(seed + shape[0] - 1)
    return torch.stack([seeded_noise(seed + b, purpose, index, shape[1:]) for b in range(shape[0])])
