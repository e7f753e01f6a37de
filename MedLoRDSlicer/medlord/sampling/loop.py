"""The one denoising loop of the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EngineError, InputError
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from .noise import batch_noise
from .samplers import Sampler

if TYPE_CHECKING:
    import torch

Denoiser = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""(latent (batch, channel, i, j, k) float32, time steps (batch,) int64) -> prediction of the same shape."""

Preview = Callable[["torch.Tensor"], "np.ndarray | None"]
"""estimate of the clean latent (batch, channel, i, j, k) -> picture (rows, columns) uint8, or None."""


def denoise(
    denoiser: Denoiser,
    sampler: Sampler,
    shape: Sequence[int],
    seed: int,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
    preview: Preview | None = None,
    preview_every: int = 0,
    initial: torch.Tensor | np.ndarray | None = None,
    noises: Sequence[torch.Tensor | np.ndarray] | None = None,
) -> torch.Tensor:
    """Run the sampler's whole chain and return the clean latent, float32 of `shape` on `device`.

    denoiser       the network with its conditions and autocast bound; its output may be of any floating type
    shape          (batch, channel, i, j, k); sample b of a batch is the single volume of the seed `seed + b`
    seed           0 .. 2**63 - 1; the start is draw ("initial", 0), the noise of step n is draw ("step", n)
    progress       gets one event of the phase "denoise" after each step
    cancel         asked before each step; CancelledError then, and no further network call
    preview        called every `preview_every` steps (0: never), not after the last; its picture goes with
                   the event
    initial        start latent instead of the seed's, of `shape`
    noises         one array of `shape` per step, instead of the seed's; those of steps without noise are not
                   read

    On a GPU nothing waits for the device inside a step but a preview; the wait is at its end, where progress and
    cancel need it, and there is none when nobody listens.

    Raises InputError for injected arrays that do not fit, EngineError when the network's output has the wrong
    shape or the latent is not finite at the end.
    """
    import torch

    device, shape = torch.device(device), tuple(int(size) for size in shape)
    if noises is not None and len(noises) != sampler.steps:
        raise InputError(
            f"{len(noises)} injected noises came for a chain of {sampler.steps} steps: give one each."
        )
    clock, listened_to = PhaseClock("denoise", sampler.steps, progress), bool(progress or cancel)
    with torch.no_grad():
        x = _to_device(_start_latent(seed, shape, initial), device)
        timesteps = _to_device(torch.tensor(sampler.timesteps), device)
        for index in range(sampler.steps):
            raise_if_cancelled(cancel, f"denoising (step {index} of {sampler.steps} done)")
            prediction = denoiser(x, timesteps[index].expand(shape[0]))
            _check_shape(prediction, shape)
            noise = _noise_of_step(sampler, index, seed, shape, noises, device)
            x, x0 = sampler.step(prediction.float(), index, x, noise)
            wanted = preview is not None and preview_every > 0 and index + 1 < sampler.steps
            picture = preview(x0) if wanted and (index + 1) % preview_every == 0 else None
            if device.type == "cuda" and listened_to:
                torch.cuda.synchronize(device)
            clock.report(index + 1, preview=picture)
        _check_finite(x, sampler)
    return x


def _start_latent(seed: int, shape: tuple[int, ...], initial: Any | None) -> torch.Tensor:
    if initial is None:
        return batch_noise(seed, "initial", 0, shape)
    return _injected(initial, shape, "start latent")


def _noise_of_step(
    sampler: Sampler,
    index: int,
    seed: int,
    shape: tuple[int, ...],
    noises: Sequence | None,
    device: torch.device,
) -> torch.Tensor | None:
    """Noise for a step that needs some; drawn on the CPU while a GPU is still busy with the network."""
    if not sampler.needs_noise(index):
        return None
    if noises is None:
        noise = batch_noise(seed, "step", index, shape)
    else:
        noise = _injected(noises[index], shape, f"noise of step {index}")
    return _to_device(noise, device)


def _injected(values: torch.Tensor | np.ndarray, shape: tuple[int, ...], what: str) -> torch.Tensor:
    """Given values as a float32 tensor of `shape`; axes of size 1 may be missing, nothing is repeated."""
    import torch

    tensor = values if isinstance(values, torch.Tensor) else torch.tensor(values)
    if tuple(size for size in tensor.shape if size != 1) != tuple(size for size in shape if size != 1):
        raise InputError(
            f"The injected {what} has the shape {tuple(tensor.shape)}, the latent {shape}: give that shape."
        )
    return tensor.to(torch.float32).reshape(shape)


def _to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy from page-locked memory to a GPU, which does not wait for the work already queued there."""
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _check_shape(prediction: torch.Tensor, shape: tuple[int, ...]) -> None:
    if tuple(prediction.shape) != shape:
        raise EngineError(
            f"The network returned the shape {tuple(prediction.shape)} for a latent of {shape}: "
            "the model's description and its weights do not belong together, import the model again."
        )


def _check_finite(latent: torch.Tensor, sampler: Sampler) -> None:
    import torch

    bad = int((~torch.isfinite(latent)).sum())
    if bad:
        raise EngineError(
            f"{bad} of {latent.numel()} values of the latent are not finite after {sampler.steps} steps of "
            f"{sampler.name}: run again in float32 precision; if that gives the same, the weights are "
            f"damaged (medlord models verify) or their prediction type is not {sampler.prediction_type}."
        )
