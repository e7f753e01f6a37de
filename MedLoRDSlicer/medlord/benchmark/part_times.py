"""Times of the parts of a synthesis: one step, what is done once per run, a preview."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..progress import Cancel, Progress
from .full_size import random_network, with_denoiser
from .timing import BASELINE, in_turns, summary

if TYPE_CHECKING:
    import torch

    from ..bundles.bundle import ModelBundle
    from .full_size import Configuration
    from .speed import SpeedSettings


@dataclass(frozen=True)
class Subject:
    """What is measured: a configuration as a model with random weights, in some precisions.

    `rates` are the device's operations per second in a large matrix product, by precision.
    """

    chosen: Configuration
    bundle: ModelBundle
    settings: SpeedSettings
    rates: dict[str, float]
    progress: Progress | None = None
    cancel: Cancel | None = None

    @property
    def device(self) -> torch.device:
        """Where the networks lie."""
        return self.bundle.device

    def latent(self) -> torch.Tensor:
        """A noisy latent of the synthesized volume, other numbers at every call."""
        import torch

        return torch.randn(self.chosen.latent_shape(), device=self.device)

    def timesteps(self) -> torch.Tensor:
        """Some time step, (1,) int64."""
        import torch

        return torch.full((1,), 100, dtype=torch.int64, device=self.device)

    def timed(self, variants: dict[str, Callable], reference: str, rounds: int | None = None) -> dict:
        """The variants in turns with the kernels that runs use, each to the reference."""
        from ..devices import exact_kernels

        with exact_kernels():
            seconds = in_turns(variants, rounds or self.settings.rounds, self.device, self.cancel)
        return summary(seconds, reference)


def step_times(subject: Subject) -> dict[str, dict]:
    """One denoising step with control: baseline and engine in every precision."""
    from .baseline import baseline_step
    from .parts import engine_step, random_masks

    latent, steps = subject.latent(), subject.timesteps()
    masks = random_masks(subject.chosen, subject.device)
    networks = subject.bundle.denoiser, subject.bundle.control
    embedded = networks[1].embed_condition(masks)
    variants: dict[str, Callable] = {BASELINE: lambda: baseline_step(*networks, latent, steps, masks)}
    for precision in subject.rates:
        variants[precision] = engine_step(*networks, latent, steps, embedded, precision)
    return subject.timed(variants, BASELINE)


def other_denoiser_times(subject: Subject, operations: dict[str, float]) -> dict[str, dict]:
    """One step, without control, of the other published denoisers, in the precision that suits the device.

    Those whose `operations` would take longer than the longest run are left out.
    """
    from ..devices import autocast, choose_precision

    device, precision, measured = subject.device, choose_precision("auto", subject.device), {}
    latent, steps = subject.latent(), subject.timesteps()
    for name in list(subject.chosen.denoisers)[1:]:
        least = operations[f"denoiser {name}"] / subject.rates[precision]
        if least * (subject.settings.rounds + 1) > subject.settings.longest_s:
            continue
        denoiser = random_network(with_denoiser(subject.chosen, name), "denoiser", device)

        def step(denoiser: torch.nn.Module = denoiser) -> torch.Tensor:
            with autocast(device, precision):
                return denoiser(latent, steps)

        measured[name] = {**subject.timed({name: step}, name)[name], "precision": precision}
    return measured


def embedding_times(subject: Subject) -> dict[str, dict]:
    """Embedding of the masks in every precision: once per run."""
    from ..devices import autocast
    from .parts import random_masks

    masks = random_masks(subject.chosen, subject.device)

    def embed(precision: str) -> torch.Tensor:
        with autocast(subject.device, precision):
            return subject.bundle.control.embed_condition(masks)

    variants = {precision: lambda precision=precision: embed(precision) for precision in subject.rates}
    return subject.timed(variants, next(iter(variants)), rounds=max(1, subject.settings.rounds // 3))


def decode_times(subject: Subject) -> dict:
    """Decoding of the synthesized volume by baseline and engine; "tiles" is what the memory planner chose."""
    from ..memory.free import free_bytes
    from .baseline import baseline_decode
    from .parts import decode
    from .planning import decode_way

    latent, autoencoder = subject.latent(), subject.bundle.autoencoder
    limit, free = subject.settings.memory_limit, free_bytes(subject.device)
    way = decode_way(subject.chosen, subject.chosen.image_shape, subject.device, limit)
    variants = {
        BASELINE: lambda: baseline_decode(autoencoder, latent, free),
        "float32": lambda: decode(autoencoder, latent, **way),
    }
    times = subject.timed(variants, BASELINE, rounds=max(1, subject.settings.rounds // 3))
    return {**times, "tiles": way}


def preview_times(subject: Subject) -> dict[str, float]:
    """Seconds of one preview, and of the fit that the first run of a model needs."""
    from ..sampling.previews import fit_latent_map, make_preview

    started = time.perf_counter()
    fit_latent_map(subject.bundle.autoencoder)
    fitted = time.perf_counter()
    preview, latent = make_preview(subject.bundle), subject.latent()
    measured = subject.timed({"preview": lambda: preview(latent)}, "preview")
    return {"seconds": measured["preview"]["seconds"], "fit_seconds": fitted - started}
