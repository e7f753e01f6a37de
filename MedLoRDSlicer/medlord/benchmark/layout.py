"""Where memory layout, compilation and the kind of attention pay: each part of the engine, timed in turns.

What is measured here is why the engine runs contiguous tensors without torch.compile: a choice for the machines that
were measured, recorded in docs/benchmarks.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from .full_size import FACTORS, SIZES, configuration, random_network
from .report_files import write_report
from .table import layout_table
from .timing import in_turns, machine, summary

if TYPE_CHECKING:
    import torch

    from .full_size import Configuration

FILES = ("layout.json", "layout.md")
DEFAULT = "contiguous"
CHANNELS_LAST, COMPILED = "channels_last_3d", "torch.compile"


@dataclass(frozen=True)
class LayoutSettings:
    """What is measured; `compiled` adds torch.compile, which takes minutes and a C++ compiler on a CPU."""

    size: str | None = None
    device: str = "auto"
    rounds: int = 9
    compiled: bool = True
    factors: tuple[int, ...] = FACTORS

    def validate(self) -> None:
        """Raise `InputError` for an unknown size or factor and for no rounds."""
        for factor in self.factors:
            configuration(self.size or SIZES[0], factor)
        if self.rounds < 1:
            raise InputError(f"{self.rounds} rounds measure nothing; take at least 1.")


def run_layout(
    settings: LayoutSettings,
    folder: Path,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> dict:
    """Measure and write `FILES` into `folder`; returns what layout.json holds."""
    import torch

    from ..devices import choose_device

    settings.validate()
    device = choose_device(settings.device)
    size = settings.size or ("paper" if device.type == "cuda" else "reduced")
    chosen = [configuration(size, factor) for factor in settings.factors]
    precisions = ["float32", "bfloat16"]
    clock = PhaseClock("layout", len(chosen) * len(precisions) * len(PARTS), progress)
    rows: list[dict] = []
    with torch.inference_mode():
        for one in chosen:
            for part in PARTS:
                for precision in precisions:
                    names = {"configuration": one.name, "part": part, "precision": precision}
                    rows += [
                        {**names, **row} for row in _measured(one, part, precision, device, settings, cancel)
                    ]
                    clock.report(len({(r["configuration"], r["part"], r["precision"]) for r in rows}))
    report = {"settings": {**asdict(settings), "size": size}, "machine": machine(device), "rows": rows}
    write_report(folder, FILES, report, layout_table(report))
    return report


def _measured(
    chosen: Configuration,
    part: str,
    precision: str,
    device: torch.device,
    settings: LayoutSettings,
    cancel: Cancel | None,
) -> list[dict]:
    """Rows of all variants of one part in one precision."""
    from ..devices import autocast

    network_name, prepare = PARTS[part]
    kinds = {DEFAULT: {}, CHANNELS_LAST: {"channels_last": True}}
    if network_name != "autoencoder":
        kinds["attention math"] = {"attention": "math"}
        kinds["attention xformers"] = {"attention": "xformers"}
    if settings.compiled:
        kinds[COMPILED] = {"compiled": True}
    calls: dict[str, Callable] = {}
    rows: list[dict] = []

    def in_precision(run: Callable) -> torch.Tensor:
        with autocast(device, precision):
            return run()

    for name, how in kinds.items():
        raise_if_cancelled(cancel, f"preparing {part}, {name}")
        try:
            run = prepare(chosen, device, **how)
            started = time.perf_counter()
            in_precision(run)
        # A variant that cannot run here is a result: the table says why.
        except (InputError, RuntimeError, ImportError, OSError) as error:
            rows.append({"variant": name, "failed": _first_line(error).replace("|", "/")})
            continue
        rows.append({"variant": name, "first_call_seconds": time.perf_counter() - started})
        calls[name] = partial(in_precision, run)
    if DEFAULT not in calls:
        return rows
    measured = summary(in_turns(calls, settings.rounds, device, cancel), DEFAULT)
    return [{**row, **measured.get(row["variant"], {})} for row in rows]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]


def _network(chosen: Configuration, name: str, device: torch.device, channels_last=False, attention="sdpa"):
    """A network in the wanted layout, with the wanted attention, and a function that lays tensors out alike."""
    import torch

    from ..networks.attention import require_attention, set_attention

    require_attention(attention, device)
    network = random_network(chosen, name, device)
    set_attention(network, attention)
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    return network.to(memory_format=layout), lambda tensor: tensor.contiguous(memory_format=layout)


def _denoiser(chosen: Configuration, device: torch.device, compiled: bool = False, **how) -> Callable:
    import torch

    network, laid_out = _network(chosen, "denoiser", device, **how)
    forward = torch.compile(network) if compiled else network
    latent = laid_out(torch.randn(chosen.latent_shape(), device=device))
    steps = torch.full((1,), 100, dtype=torch.int64, device=device)
    return lambda: forward(latent, steps)


def _control(chosen: Configuration, device: torch.device, compiled: bool = False, **how) -> Callable:
    import torch

    network, laid_out = _network(chosen, "control", device, **how)
    forward = torch.compile(network) if compiled else network
    latent = laid_out(torch.randn(chosen.latent_shape(), device=device))
    width = network.block_out_channels[0]
    embedded = laid_out(torch.randn((1, width, *latent.shape[2:]), device=device))
    steps = torch.full((1,), 100, dtype=torch.int64, device=device)
    return lambda: forward(latent, steps, embedded)


def _decoder(chosen: Configuration, device: torch.device, compiled: bool = False, **how) -> Callable:
    import torch

    network, laid_out = _network(chosen, "autoencoder", device, **how)
    forward = torch.compile(network.decoder) if compiled else network.decoder
    latent = laid_out(torch.randn(chosen.latent_shape(), device=device))
    return lambda: forward(latent)


PARTS: dict[str, tuple[str, Callable]] = {
    "denoiser": ("denoiser", _denoiser),
    "control": ("control", _control),
    "decoder": ("autoencoder", _decoder),
}
"""The network that each part belongs to, and what makes a call of it."""
