"""`evaluate_autoencoder`: what a model's autoencoder loses of a set of real CT."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ...bundles.description import OWN_RANGE
from ...errors import InputError
from ...output_folders import new_folder
from ...progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ...volume_files import load_volume
from ...volumes import Volume, require_ct
from ..sets.features import FeatureSettings
from ..sets.slices import PLANES, plane_slices, windowed
from ..sets.store import SetFile, WorkFolder, hashed_files
from ..spread import Spread, spread_of
from .perceptual import PerceptualNetwork
from .round_trip import RoundTrip
from .similarity import KERNEL, SIGMA, ms_ssim, psnr_db, weights_of

MODEL_WINDOW = "model"
"""Name of the window of HU that the autoencoder sees; the paper's table is about it."""

MEANINGS = {
    "psnr_db": "10 log10(width of the window^2 / mean squared error) over all voxels, dB; higher is better",
    "ms_ssim": "structural similarity over several scales in three dimensions, 0 to 1; 1 for equal volumes",
    "ms_ssim SCALES": "the same of the volumes with so many scales, where these differ; they do not compare",
    "lpips": "mean of the axial, coronal and sagittal LPIPS (2.5D), distance in features of a network; 0 for equal",
    "lpips PLANE": "the same over the slices of one plane",
    "median, quartiles": "over the volumes; first to third quartile is the interquartile range (IQR)",
}

_BATCH = 8
_FORMAT = 1


@dataclass
class AutoencoderEvaluation:
    """The result: window -> measure -> spread over the volumes, and what it was measured with.

    volumes    of each one: SHA-256 of its file, voxels on the model's grid, HU that became -1 and 1, number of scales
               of the MS-SSIM, and window -> measure -> value
    features   of the LPIPS, None without a network
    """

    model: dict
    settings: dict
    features: dict | None
    spreads: dict[str, dict[str, Spread]]
    volumes: list[dict]
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict:
        """JSON form; infinite values (of equal volumes) are null."""
        return {
            "format": "medlord-autoencoder-evaluation",
            "version": _FORMAT,
            "model": self.model,
            "settings": self.settings,
            "features": self.features,
            "count": len(self.volumes),
            "spreads": {
                window: {measure: spread.to_dict() for measure, spread in measures.items()}
                for window, measures in self.spreads.items()
            },
            "volumes": [{**one, "measures": _finite(one["measures"])} for one in self.volumes],
            "warnings": self.warnings,
            "measures": MEANINGS,
        }


def evaluate_autoencoder(
    model: str | Path,
    volumes: Sequence[Path],
    work: Path,
    *,
    perceptual: PerceptualNetwork | None = None,
    windows: Mapping[str, tuple[float, float]] | None = None,
    slices: int = 32,
    pixel_mm: float = 1.0,
    device: str = "auto",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> AutoencoderEvaluation:
    """Send CT files (HU) through the autoencoder of `model` and compare what comes out with what went in.

    Each CT is resampled to the model's spacing, on the model's grid around its middle, without what lies outside the
    CT. PSNR and MS-SSIM compare all voxels; with `perceptual` LPIPS compares up to `slices` slices of each plane
    in pixels of `pixel_mm`. All are measured in the window of HU that the model sees, and in `windows` (name -> low,
    high) beside it. What is measured of a volume is stored in the folder `work` (by hash, without names), so a second
    call goes on where the first one stopped; one volume is in memory at a time.

    Raises `InputError` for no volume and, naming the file, for one that is no CT or too small; what `RoundTrip` raises;
    `CancelledError` when `cancel` answers true.
    """
    if not volumes:
        raise InputError("There is no CT to send through the autoencoder; give at least one.")
    trip = RoundTrip(model, device)
    own = tuple(float(limit) for limit in trip.description.window_hu)
    settings = FeatureSettings(slices, pixel_mm, {MODEL_WINDOW: own, **(windows or {})})
    files = hashed_files(volumes, progress, cancel)
    measuring = _Measuring(trip, perceptual, settings)
    measured = []
    # An error before anything is stored leaves no folder behind.
    with new_folder(Path(work)) as place:
        folder = WorkFolder(place)
        clock = PhaseClock("reconstruct", len(files), progress)
        for number, file in enumerate(files, start=1):
            raise_if_cancelled(cancel, f"the reconstruction of volume {number} of {len(files)}")
            measured.append(measuring.of(file, folder, cancel))
            clock.report(number)
    return AutoencoderEvaluation(
        _described(trip),
        measuring.settings_in_words(measured),
        perceptual.to_dict() if perceptual else None,
        _spreads(measured),
        measured,
        _warnings(trip, measured),
    )


class _Measuring:
    """What is done with each volume."""

    def __init__(self, trip: RoundTrip, perceptual: PerceptualNetwork | None, settings: FeatureSettings):
        self._trip, self._perceptual, self._settings = trip, perceptual, settings
        description = trip.description
        self._key = {
            "autoencoder": trip.sha256,
            "grid": [list(description.grid_shape), list(description.spacing_mm), description.orientation],
            "intensities": description.intensity_map,
            "features": perceptual.to_dict() if perceptual else None,
            "version": _FORMAT,
            **asdict(settings),
        }

    def settings_in_words(self, measured: Sequence[dict]) -> dict:
        """How it was measured, in JSON form."""
        scales = sorted({one["ms_ssim_scales"] for one in measured})
        return {
            "windows_hu": {name: list(window) for name, window in self._settings.windows.items()},
            "ms_ssim": {
                "dimensions": 3,
                "kernel_voxels": KERNEL,
                "kernel_sigma_voxels": SIGMA,
                "scales": scales,
                "scale_weights": {str(count): list(weights_of(count)) for count in scales},
            },
            "slices_per_plane": self._settings.slices if self._perceptual else None,
            "pixel_mm": self._settings.pixel_mm if self._perceptual else None,
        }

    def of(self, file: SetFile, folder: WorkFolder, cancel: Cancel | None) -> dict:
        """Measure a volume, or take what is stored."""
        path = folder.path_of(file, self._key, ".json")
        stored = folder.read_json(path)
        if stored is not None and set(stored.get("measures", ())) == set(self._settings.windows):
            return stored
        volume = load_volume(file.path)
        require_ct(volume, file.path.name)
        warnings: list[str] = []
        try:
            original, made, window = self._trip(volume, cancel, warnings.append)
            result = {
                "sha256": file.sha256,
                "shape": list(original.grid.shape),
                "ct_spacing_mm": [float(x) for x in volume.grid.spacing_mm],
                "window_hu": list(window),
                **self._compare(made, original, window, cancel),
                "warnings": list(dict.fromkeys(warnings)),
            }
        except InputError as error:
            raise InputError(f"{file.path.name}: {error}") from error
        folder.write_json(path, result)
        return result

    def _compare(
        self, made: Volume, original: Volume, own: tuple[float, float], cancel: Cancel | None
    ) -> dict:
        """{"ms_ssim_scales", "measures": window -> measure -> value}."""
        scales, measures = 0, {}
        lpips = self._lpips(made, original, own, cancel) if self._perceptual else {}
        for name, limits in self._settings.windows.items():
            raise_if_cancelled(cancel, "the comparison of a volume")
            window = own if name == MODEL_WINDOW else limits
            similarity, scales = ms_ssim(made.array, original.array, window)
            measures[name] = {
                "psnr_db": psnr_db(made.array, original.array, window),
                "ms_ssim": similarity,
                **lpips.get(name, {}),
            }
        return {"ms_ssim_scales": scales, "measures": measures}

    def _lpips(
        self, made: Volume, original: Volume, own: tuple[float, float], cancel: Cancel | None
    ) -> dict[str, dict[str, float]]:
        """Window -> {"lpips PLANE": mean over slices, "lpips": mean of the planes}."""
        found: dict[str, dict[str, float]] = {name: {} for name in self._settings.windows}
        for plane in PLANES:
            one, other = (
                plane_slices(
                    volume, plane, self._settings.slices, self._settings.pixel_mm, chosen_by=original
                )
                for volume in (made, original)
            )
            for name, limits in self._settings.windows.items():
                window = own if name == MODEL_WINDOW else limits
                parts = []
                for start in range(0, len(one), _BATCH):
                    raise_if_cancelled(cancel, "the comparison of slices")
                    batch = slice(start, start + _BATCH)
                    parts.append(
                        self._perceptual.distances(
                            windowed(one[batch], window), windowed(other[batch], window)
                        )
                    )
                found[name][f"lpips {plane}"] = float(np.concatenate(parts).mean())
        for values in found.values():
            values["lpips"] = float(np.mean(list(values.values())))
        return found


def _described(trip: RoundTrip) -> dict:
    """The model, as far as its autoencoder is concerned."""
    description = trip.description
    return {
        "id": description.id,
        "version": description.version,
        "autoencoder_sha256": trip.sha256,
        "grid_shape": list(description.grid_shape),
        "spacing_mm": list(description.spacing_mm),
        "orientation": description.orientation,
        "intensity_map": description.intensity_map,
    }


def _spreads(measured: Sequence[dict]) -> dict[str, dict[str, Spread]]:
    """Window -> measure -> spread. MS-SSIM of different numbers of scales are apart, as `ms_ssim SCALES`."""
    scales = sorted({one["ms_ssim_scales"] for one in measured})
    spreads: dict[str, dict[str, Spread]] = {}
    for window, measures in measured[0]["measures"].items():
        spreads[window] = {}
        for measure in measures:
            groups = {measure: measured}
            if measure == "ms_ssim" and len(scales) > 1:
                groups = {
                    f"ms_ssim {count}": [one for one in measured if one["ms_ssim_scales"] == count]
                    for count in scales
                }
            for name, group in groups.items():
                spreads[window][name] = spread_of([one["measures"][window][measure] for one in group])
    return spreads


def _finite(measures: Mapping[str, Mapping[str, float]]) -> dict:
    return {
        window: {name: value if math.isfinite(value) else None for name, value in values.items()}
        for window, values in measures.items()
    }


def _warnings(trip: RoundTrip, measured: Sequence[dict]) -> list[str]:
    """What makes the numbers say less, in words."""
    found = list(dict.fromkeys(text for one in measured for text in one["warnings"]))
    description, count = trip.description, len(measured)
    doubled = count - len({one["sha256"] for one in measured})
    if doubled:
        found.append(f"{doubled} of the {count} files are copies of others.")
    smaller = sum(tuple(one["shape"]) != tuple(description.grid_shape) for one in measured)
    if smaller:
        found.append(
            f"{smaller} of the {count} CT are smaller than the model's grid; they were compared where they are."
        )
    scales = sorted({one["ms_ssim_scales"] for one in measured})
    if len(scales) > 1:
        counts = [sum(one["ms_ssim_scales"] == number for one in measured) for number in scales]
        groups = ", ".join(f"{number} for {count} CT" for number, count in zip(scales, counts))
        found.append(
            f"MS-SSIM has fewer scales for small CT ({groups}); such numbers do not compare, so each number of scales "
            "stands by itself."
        )
    voxel = math.prod(description.spacing_mm)
    coarse = sum(math.prod(one["ct_spacing_mm"]) > 1.1 * voxel for one in measured)
    if coarse:
        found.append(
            f"{coarse} of the {count} CT have larger voxels than the model: they hold less detail that can be lost, "
            "so the numbers look too good."
        )
    if description.intensity_map == OWN_RANGE:
        found.append(
            f"'{description.id}' scales each volume by its own minimum and maximum, so the width of the window "
            f"'{MODEL_WINDOW}' differs between volumes."
        )
    return found
