"""The bundled model on held-out phantoms: how well it follows masks, how near its HU are, how its noise behaves.

A measurement that was interrupted goes on where it stopped when it is started again with the same settings.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..conditions import Conditions
from ..demo import FIRST_HELD_OUT_SEED
from ..errors import CancelledError, InputError
from ..evaluation.adherence import Adherence, adherence, dice, inner_part, psnr_db
from ..evaluation.rules import STRUCTURES, segment_by_rules
from ..progress import Cancel
from ..volume_files import check_writable_folder
from ..volumes import Volume
from .quality_table import markdown_table
from .report_files import write_report

if TYPE_CHECKING:
    from ..bundles.bundle import ModelBundle
    from ..synthesis import Result


@dataclass(frozen=True)
class QualitySettings:
    """What is measured: `seeds` phantoms from seed `start` on in one contrast `phase`, with one sampler and noise.

    `noise_seed` is that of all phantoms, `second_noise_seed` that of the second volume, made of the first
    `repeated` phantoms.
    """

    model: str = "thorax-phantom"
    seeds: int = 16
    start: int = FIRST_HELD_OUT_SEED + 100
    phase: str = "arterial"
    sampler: str = "sde-dpm-solver++"
    steps: int | None = None
    noise_seed: int = 1
    second_noise_seed: int = 2
    repeated: int = 4
    device: str = "auto"

    def validate(self) -> None:
        """Raise `InputError` for a training seed, no phantoms or an unknown contrast phase."""
        from ..phantom.tissues import PHASES

        if self.start < FIRST_HELD_OUT_SEED:
            raise InputError(
                f"Seed {self.start} may have been trained on; start at {FIRST_HELD_OUT_SEED} or more."
            )
        if self.seeds < 1:
            raise InputError(f"{self.seeds} phantoms cannot be measured; take at least 1.")
        if self.phase not in PHASES:
            raise InputError(f"Unknown contrast phase '{self.phase}'; choose one of {', '.join(PHASES)}.")


def run_quality(settings: QualitySettings, folder: Path, cancel: Cancel | None = None) -> dict:
    """Measure and write both files into `folder`; returns what `benchmark.json` holds. Prints a line per phantom.

    Raises `CancelledError` between two phantoms; those that are done stay in the files.
    """
    from ..bundles.bundle import load_bundle
    from ..devices import choose_device

    settings.validate()
    check_writable_folder(folder)
    bundle = load_bundle(settings.model, choose_device(settings.device))
    description = {"settings": asdict(settings), "weights_sha256": bundle.description.weights_sha256}
    report = _earlier(folder / "benchmark.json", description) or {**description, "cases": {}}
    previous: Conditions | None = None
    for number in range(settings.seeds):
        seed = settings.start + number
        if cancel is not None and cancel():
            raise CancelledError(
                f"Cancelled with {number} of {settings.seeds} phantoms measured; the same command goes on from there."
            )
        if str(seed) not in report["cases"]:
            found, numbers = measure_case(bundle, settings, seed, number < settings.repeated, previous)
            report["cases"][str(seed)] = numbers
            previous = found
            _write(folder, report)
        print(f"{number + 1}/{settings.seeds}  seed {seed}  {_short(report['cases'][str(seed)])}", flush=True)
    _write(folder, report)
    return report


def measure_case(
    bundle: ModelBundle, settings: QualitySettings, seed: int, repeat: bool, previous: Conditions | None
) -> tuple[Conditions, dict]:
    """One phantom: (what the rules found in its synthetic CT, all numbers).

    `repeat` makes a second volume of the same masks from another noise; `previous` is what was found in the volume
    of another phantom from the same noise.
    """
    from ..phantom import make_phantom

    case = make_phantom(seed, contrast_phase=settings.phase)
    result = _synthesize(bundle, settings, case.conditions, settings.noise_seed)
    found = segment_by_rules(result.volume)
    measured = adherence(result.volume, result.conditions, reference=case.volume, found=found)
    numbers = {
        "dice": _column(measured, "dice"),
        "ceiling_dice": _column(measured, "ceiling_dice"),
        "mean_hu": _column(measured, "mean_hu"),
        "phantom_mean_hu": _column(measured, "reference_mean_hu"),
        "autoencoder_psnr_db": autoencoder_psnr_db(bundle, case.volume),
        "seconds": result.timings_s,
        "peak_memory_bytes": result.peak_memory_bytes,
    }
    if repeat:
        second = _synthesize(bundle, settings, case.conditions, settings.second_noise_seed)
        numbers["two_noises"] = compare_volumes(result.volume, second.volume, found)
    if previous is not None:
        numbers["dice_with_other_mask"] = {name: dice(found[name], previous[name]) for name in STRUCTURES}
    return found, numbers


def autoencoder_psnr_db(bundle: ModelBundle, volume: Volume) -> float:
    """PSNR in dB (range 2000 HU) of the volume after encoding, quantisation and decoding, against the volume itself."""
    import torch

    low, high = bundle.description.window_hu
    clipped = np.clip(volume.array.astype(np.float32), low, high)
    image = torch.from_numpy((clipped - low) / (high - low) * 2 - 1)[None, None].to(bundle.device)
    with torch.inference_mode():
        decoded = bundle.autoencoder(image)[0].clamp(-1, 1)
    return psnr_db((decoded[0, 0].cpu().numpy() + 1) / 2 * (high - low) + low, clipped, high - low)


def compare_volumes(first: Volume, second: Volume, found: Conditions) -> dict:
    """Two volumes of one mask: is the anatomy the same and the texture another?

    `found` is what the rules find in `first`. Anatomy: Dice of what they find in both. Texture: the correlation of
    the fine detail (HU minus its Gaussian mean of 6 mm over the lung alone) of both inside the lung, 1 for the same
    detail, 0 for unrelated ones, and its standard deviation in HU.
    """
    other = segment_by_rules(second)
    shared = found["lung"] & other["lung"]
    lung, _ = inner_part(shared, first.grid)
    fine = [_fine_detail(volume, shared, sigma_mm=6.0)[lung] for volume in (first, second)]
    correlation = float(np.corrcoef(*fine)[0, 1]) if lung.any() else None
    return {
        "anatomy_dice": {name: dice(found[name], other[name]) for name in STRUCTURES},
        "lung_detail_correlation": correlation,
        "lung_detail_sd_hu": [float(values.std()) for values in fine] if lung.any() else None,
    }


def _fine_detail(volume: Volume, region: np.ndarray, sigma_mm: float) -> np.ndarray:
    """HU minus their Gaussian mean over `region`; with the chest wall in the mean, its edge would pass for detail."""
    from scipy import ndimage

    sigma, weights = sigma_mm / volume.grid.spacing_mm, region.astype(np.float32)
    covered = np.maximum(ndimage.gaussian_filter(weights, sigma), 1e-6)
    return volume.array - ndimage.gaussian_filter(volume.array * weights, sigma) / covered


def _synthesize(
    bundle: ModelBundle, settings: QualitySettings, conditions: Conditions, noise_seed: int
) -> Result:
    from ..synthesis import synthesize

    known = settings.phase in bundle.description.attributes.get("contrast_phase", ())
    return synthesize(
        conditions,
        settings.model,
        seed=noise_seed,
        sampler=settings.sampler,
        steps=settings.steps,
        attributes={"contrast_phase": settings.phase} if known else {},
        device=settings.device,
        center_ras_mm=tuple(conditions.grid.center_ras_mm),
        loaded=bundle,
    )


def _column(measured: Adherence, field: str) -> dict[str, float]:
    values = {row.name: getattr(row, field) for row in measured.structures}
    return {name: value for name, value in values.items() if value is not None}


def _earlier(path: Path, description: dict) -> dict | None:
    """What an interrupted run of the same settings and weights left."""
    if not path.is_file():
        return None
    report = json.loads(path.read_text(encoding="utf-8"))
    same = all(report.get(key) == json.loads(json.dumps(value)) for key, value in description.items())
    return report if same else None


def _write(folder: Path, report: dict) -> None:
    write_report(folder, ("benchmark.json", "benchmark.md"), report, markdown_table(report))


def _short(numbers: dict) -> str:
    parts = [f"{name} {numbers['dice'][name]:.3f}" for name in STRUCTURES if name in numbers["dice"]]
    return "  ".join(
        [*parts, f"PSNR {numbers['autoencoder_psnr_db']:.1f} dB", f"{numbers['seconds']['total']:.0f} s"]
    )
