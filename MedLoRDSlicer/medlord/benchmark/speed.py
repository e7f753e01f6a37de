"""How fast and how large: the engine beside the plain baseline, in one run on one machine.

`run_speed` measures each configuration's denoising step, mask embedding, decoding, previews, peak memory and whole
runs. Times are medians of calls in turns, ratios medians of pairs within one round; peaks are those of fresh processes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from .full_size import FACTORS, SIZES, configuration, random_bundle
from .part_times import (
    Subject,
    decode_times,
    embedding_times,
    other_denoiser_times,
    preview_times,
    step_times,
)
from .report_files import write_report
from .table import speed_table
from .timing import BASELINE, DOES_NOT_FIT, machine, matrix_rate

if TYPE_CHECKING:
    import torch

    from .full_size import Configuration

FILES = ("speed.json", "speed.md")
ENGINE_REFERENCE = "ddpm-300 float32"
PREVIEW_EVERY = 5
UNIPC, REFERENCE = ("unipc", 25), ("ddpm", 300)


@dataclass(frozen=True)
class SpeedSettings:
    """What is measured.

    size          "paper" (512 x 512 x 256) or "reduced", for a computer without a GPU; None chooses by the device
    memory_limit  bytes that the engine may take; None takes what is free
    rounds        how often each variant is timed
    longest_s     whole runs that would take longer than this are computed from their parts, and the table says so
    """

    size: str | None = None
    device: str = "auto"
    memory_limit: int | None = None
    rounds: int = 9
    longest_s: float = 900.0
    factors: tuple[int, ...] = FACTORS

    def validate(self) -> None:
        """Raise `InputError` for an unknown size or factor and for numbers that measure nothing."""
        if self.size is not None and self.size not in SIZES:
            raise InputError(f"The size '{self.size}' is unknown; choose one of {', '.join(SIZES)}.")
        for factor in self.factors:
            configuration(self.size or SIZES[0], factor)
        if self.rounds < 1:
            raise InputError(f"{self.rounds} rounds measure nothing; take at least 1.")
        if self.longest_s < 0:
            raise InputError(f"The longest run is {self.longest_s} s; it must be 0 or more.")


def run_speed(
    settings: SpeedSettings,
    folder: Path,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> dict:
    """Measure and write `FILES` into `folder`; returns what speed.json holds.

    Raises `InputError`, `InsufficientMemoryError`, `CancelledError`; the files are written after each configuration.
    """
    import torch

    from ..devices import choose_device
    from .planning import predictions

    settings.validate()
    device = choose_device(settings.device)
    size = settings.size or ("paper" if device.type == "cuda" else "reduced")
    precisions = ["float32", "bfloat16", *(["float16"] if device.type == "cuda" else [])]
    report = {
        "settings": {**asdict(settings), "size": size},
        "machine": machine(device),
        "matrix_rate": {precision: matrix_rate(device, precision) for precision in precisions},
        "predictions": predictions(),
        "configurations": {},
    }
    with torch.inference_mode():
        for factor in settings.factors:
            chosen = configuration(size, factor)
            rates = report["matrix_rate"]
            measured = measure_configuration(chosen, settings, device, rates, progress, cancel)
            report["configurations"][chosen.name] = measured
            # After every configuration: a run of hours that is killed keeps what it has measured.
            write_report(folder, FILES, report, speed_table(report))
    return report


def measure_configuration(
    chosen: Configuration,
    settings: SpeedSettings,
    device: torch.device,
    rates: dict[str, float],
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> dict:
    """All numbers of one configuration; memory first, so that what does not fit shows soon.

    `rates` are the operations per second of a matrix product, by precision: these precisions are measured.
    """
    from .memory_peaks import measure_peaks
    from .operations import count_operations

    result = {"size": chosen.size, "factor": chosen.factor, "image_shape": list(chosen.image_shape)}
    result["operations"] = count_operations(chosen)
    clock = PhaseClock(f"measuring {chosen.name}", 4, progress)
    result["peaks"] = measure_peaks(chosen, settings, device, cancel)
    clock.report(1, message="peaks")
    subject = Subject(chosen, random_bundle(chosen, device), settings, rates, progress, cancel)
    result["step"] = step_times(subject)
    result["other_denoisers"] = other_denoiser_times(subject, result["operations"])
    clock.report(2, message="steps")
    result["embedding"], result["decode"] = embedding_times(subject), decode_times(subject)
    clock.report(3, message="embedding and decoding")
    result["runs"] = _whole_runs(subject, result)
    result["preview"] = _preview_shares(preview_times(subject), result["runs"])
    clock.report(4, message="whole runs")
    return result


def _whole_runs(subject: Subject, parts: dict) -> dict[str, dict]:
    """Whole syntheses: the baseline's 300 steps, the engine's 300 steps and its short chains.

    What would take too long has the sum of its `parts`; what does not fit into memory has "failed".
    """
    from ..devices import choose_precision
    from ..sampling import FAST

    automatic = choose_precision("auto", subject.device)
    wanted = {
        BASELINE: (BASELINE, *REFERENCE),
        ENGINE_REFERENCE: ("float32", *REFERENCE),
        "unipc-25 float32": ("float32", *UNIPC),
        f"unipc-25 {automatic}": (automatic, *UNIPC),
        "fast preset float32": ("float32", *FAST),
    }
    runs = {}
    for name, (variant, sampler, steps) in wanted.items():
        raise_if_cancelled(subject.cancel, f"measuring {name}")
        expected = _sum_of_parts(parts, variant, steps)
        if expected is None:
            runs[name] = {"failed": DOES_NOT_FIT}
        elif expected > subject.settings.longest_s:
            runs[name] = {"seconds": expected, "computed": True}
        elif variant == BASELINE:
            runs[name] = _baseline_run(subject)
        else:
            runs[name] = _engine_run(subject, sampler, steps, variant)
    for run in runs.values():
        for key, reference in (("ratio", BASELINE), ("ratio_to_ddpm", ENGINE_REFERENCE)):
            if "failed" not in run and "failed" not in runs[reference]:
                run[key] = run["seconds"] / runs[reference]["seconds"]
    return runs


def _sum_of_parts(parts: dict, variant: str, steps: int) -> float | None:
    """Seconds of a run of so many steps, from the times of its parts; None when one of them does not fit.

    The baseline embeds the masks within its steps.
    """
    needed = [parts["step"][variant], parts["decode"][BASELINE if variant == BASELINE else "float32"]]
    if variant != BASELINE:
        needed.append(parts["embedding"][variant])
    if any("failed" in part for part in needed):
        return None
    return steps * needed[0]["seconds"] + sum(part["seconds"] for part in needed[1:])


def _baseline_run(subject: Subject) -> dict:
    from ..devices import energy_counter_mj, exact_kernels
    from ..memory.free import free_bytes
    from .baseline import baseline_synthesis
    from .parts import random_masks

    device = subject.device
    masks, energy = random_masks(subject.chosen, device), energy_counter_mj(device)
    with exact_kernels():
        _, phases = baseline_synthesis(
            subject.bundle, masks, 0, free_bytes(device), subject.progress, subject.cancel
        )
    spent = energy_counter_mj(device)
    return {
        "seconds": sum(phases.values()),
        "computed": False,
        "phases": phases,
        "energy_kwh": None if energy is None or spent is None else (spent - energy) / 3.6e9,
    }


def _engine_run(subject: Subject, sampler: str, steps: int, precision: str) -> dict:
    from ..generation import RunOptions
    from .parts import engine_run

    options = RunOptions(str(subject.device), subject.settings.memory_limit)
    result = engine_run(subject.bundle, sampler, steps, precision, options, subject.progress, subject.cancel)
    phases = {name: seconds for name, seconds in result.timings_s.items() if name not in ("total", "load")}
    return {
        "seconds": sum(phases.values()),
        "computed": False,
        "phases": phases,
        "energy_kwh": result.energy_kwh,
        "peak_bytes": result.peak_memory_bytes,
    }


def _preview_shares(preview: dict[str, float], runs: dict[str, dict]) -> dict[str, float]:
    """Share of the fastest run that its previews take, one every five steps, with and without the fit."""
    count = (UNIPC[1] - 1) // PREVIEW_EVERY
    seconds = [run["seconds"] for name, run in runs.items() if name.startswith("unipc") and "seconds" in run]
    if not seconds:
        return {**preview, "per_run": count}
    previews = count * preview["seconds"]
    return {
        **preview,
        "per_run": count,
        "share_first_run": (preview["fit_seconds"] + previews) / min(seconds),
        "share_later_runs": previews / min(seconds),
    }
