"""`evaluate_sets`: a folder of synthetic volumes against a folder of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...output_folders import new_folder
from ...progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ..reference import ReferenceDistribution
from ..reference_check import (
    FIELD_OF_VIEW_RATIO,
    SMALLEST_SET,
    SetComparison,
    compare_sets,
    set_warnings,
)
from ..segmenters import Segmenter
from ..wording import counted
from .distances import Distances, Resampling, mean_of, measure_distances
from .extractors import FeatureExtractor
from .features import FeatureSettings, SetFeatures, collect_features
from .regional import measure_set
from .slices import PLANES
from .store import SetFile, WorkFolder, hashed_files

MEAN = "mean"
"""Name of the mean of the three planes, the 2.5D value."""

MEANINGS = {
    "fid": "squared Frechet distance of the features of real and synthetic slices (0: equal mean and covariance)",
    "fid_low, fid_high": "95 % of bootstrap replicates over volumes, moved to have their median at the value",
    "fid_floor": "FID of one half of the real volumes against the other: what remains between real sets of that size",
    "fid_at_floor": "FID of half of the real volumes against as many synthetic ones: to be compared with the floor",
    "kid": "squared kernel distance (KID, an MMD), unbiased for any number of volumes; about 0 for equal populations",
    "kid_floor": "KID of one half of the real volumes against the other",
    MEAN: "mean of the axial, coronal and sagittal value (2.5D)",
}


@dataclass(frozen=True)
class EvaluationSettings:
    """What is computed from the features: bootstrap replicates, splits of the real set for the floor, seed of both."""

    replicates: int = 50
    splits: int = 5
    seed: int = 0

    def __post_init__(self):
        if self.replicates < 0 or self.replicates == 1 or self.splits < 0:
            raise InputError(
                f"{self.replicates} bootstrap replicates and {self.splits} splits cannot be drawn; give 0 (none), or "
                "at least 2 replicates and 1 split."
            )


@dataclass
class SetEvaluation:
    """The result: window -> plane or "mean" -> distances, regional comparisons, and what both sets are.

    `distances` is empty without an extractor, `regions` (the comparison and both distributions) is None without a
    segmenter.
    """

    counts: dict[str, int]
    features: dict | None = None
    settings: dict = field(default_factory=dict)
    slices: dict[str, dict[str, int]] = field(default_factory=dict)
    geometry: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    distances: dict[str, dict[str, Distances]] = field(default_factory=dict)
    regions: tuple[list[SetComparison], ReferenceDistribution, ReferenceDistribution] | None = None
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict:
        """JSON form."""
        regional = None
        if self.regions:
            rows, made, _ = self.regions
            regional = {
                "segmenter": {"name": made.segmenter, "version": made.segmenter_version},
                "rows": [row.to_dict() for row in rows],
            }
        return {
            "format": "medlord-set-evaluation",
            "version": 1,
            "volumes": self.counts,
            "slices": self.slices,
            "geometry": self.geometry,
            "features": self.features,
            "settings": self.settings,
            "distances": {
                window: {plane: found.to_dict() for plane, found in planes.items()}
                for window, planes in self.distances.items()
            },
            "regions": regional,
            "warnings": self.warnings,
            "measures": MEANINGS,
        }


def evaluate_sets(
    real: Sequence[Path],
    synthetic: Sequence[Path],
    work: Path,
    *,
    extractor: FeatureExtractor | None = None,
    segmenter: Segmenter | None = None,
    feature_settings: FeatureSettings | None = None,
    settings: EvaluationSettings | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> SetEvaluation:
    """Compare CT files (HU): 2.5D FID and KID with an `extractor`, regional volumes and HU with a `segmenter`.

    What is computed of a volume is stored in the folder `work` (by hash, without names), so a second call goes on where
    the first one stopped. One volume is in memory at a time, and the features of one plane and window.
    Raises `InputError` when neither an extractor nor a segmenter is given, for fewer than two volumes in a set, and,
    naming the file, for one that is no CT; `CancelledError` when `cancel` answers true.
    """
    if extractor is None and segmenter is None:
        raise InputError("Nothing to compare: give weights of a feature extractor, a segmenter, or both.")
    if min(len(real), len(synthetic)) < 2:
        raise InputError(
            f"There are {len(real)} real and {len(synthetic)} synthetic volumes; each set needs at least two."
        )
    sets = {
        "real": hashed_files(real, progress, cancel),
        "synthetic": hashed_files(synthetic, progress, cancel),
    }
    result = SetEvaluation({name: len(files) for name, files in sets.items()})
    result.warnings += _doubles(sets)
    # An error before anything is stored leaves no folder behind.
    with new_folder(Path(work)) as place:
        folder = WorkFolder(place)
        if segmenter is not None:
            result.regions = _regions(sets, segmenter, folder, progress, cancel)
            result.warnings += set_warnings(*result.regions[1:])
        if extractor is not None:
            feature_settings, settings = (
                feature_settings or FeatureSettings(),
                settings or EvaluationSettings(),
            )
            collected = {
                name: collect_features(
                    files, extractor, folder, feature_settings,
                    phase=f"features, {name}", progress=progress, cancel=cancel,
                )
                for name, files in sets.items()
            }  # fmt: skip
            _compare(result, collected, extractor, feature_settings, settings, progress, cancel)
    return result


def _regions(
    sets: dict[str, list[SetFile]],
    segmenter: Segmenter,
    folder: WorkFolder,
    progress: Progress | None,
    cancel: Cancel | None,
) -> tuple[list[SetComparison], ReferenceDistribution, ReferenceDistribution]:
    """The comparison, the synthetic distribution and the real one."""
    made, reference = (
        measure_set(
            sets[name],
            segmenter,
            folder,
            name=name,
            phase=f"regions, {name}",
            progress=progress,
            cancel=cancel,
        )
        for name in ("synthetic", "real")
    )
    return compare_sets(made, reference), made, reference


def _compare(
    result: SetEvaluation,
    collected: dict[str, SetFeatures],
    extractor: FeatureExtractor,
    feature_settings: FeatureSettings,
    settings: EvaluationSettings,
    progress: Progress | None,
    cancel: Cancel | None,
) -> None:
    """Fill in the distances of all windows and planes, and what they were computed from."""
    real, synthetic = collected["real"], collected["synthetic"]
    resampling = Resampling.draw(
        len(real.stored), len(synthetic.stored), settings.replicates, settings.splits, settings.seed
    )
    rounds = 1 + len(resampling.replicates) + len(resampling.halves)
    clock = PhaseClock("distances", rounds * len(PLANES) * len(feature_settings.windows), progress)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        clock.report(done)
        raise_if_cancelled(cancel, "the comparison of the features")

    dimension = 0
    for window in feature_settings.windows:
        planes = {}
        for plane in PLANES:
            ours, theirs = real.of(plane, window), synthetic.of(plane, window)
            dimension = ours[0].shape[1]
            planes[plane] = measure_distances(ours, theirs, resampling, step)
        rows = {plane: found.summary() for plane, found in planes.items()}
        result.distances[window] = rows | {MEAN: mean_of(list(planes.values()))}
        result.slices = {
            plane: {"real": found.real_slices, "synthetic": found.synthetic_slices}
            for plane, found in planes.items()
        }
    result.features = {"name": extractor.name, "sha256": extractor.sha256, "dimension": dimension}
    result.settings = {
        "slices_per_plane": feature_settings.slices,
        "pixel_mm": feature_settings.pixel_mm,
        "windows_hu": {name: list(window) for name, window in feature_settings.windows.items()},
        "bootstrap_replicates": len(resampling.replicates),
        "splits": len(resampling.halves),
        "volumes_at_floor": len(resampling.halves[0][0]) if resampling.halves else 0,
        "seed": settings.seed,
    }
    result.geometry = {name: _geometry(found) for name, found in collected.items()}
    result.warnings += _comparability(result, feature_settings.pixel_mm)


def _geometry(found: SetFeatures) -> dict[str, list[float]]:
    """Medians over the volumes."""
    return {
        "field_of_view_mm": np.median(found.extents_mm, axis=0).round(3).tolist(),
        "spacing_mm": np.median(found.spacings_mm, axis=0).round(4).tolist(),
    }


def _doubles(sets: dict[str, list[SetFile]]) -> list[str]:
    """Volumes that are there twice make sets look more alike than they are."""
    found = []
    shared = {file.sha256 for file in sets["real"]} & {file.sha256 for file in sets["synthetic"]}
    if shared:
        found.append(f"{counted(len(shared), 'file')} in both sets: the distances are too small.")
    for name, files in sets.items():
        doubled = len(files) - len({file.sha256 for file in files})
        if doubled:
            found.append(f"{doubled} of the {len(files)} {name} files are copies of others of their set.")
    return found


def _comparability(result: SetEvaluation, pixel_mm: float) -> list[str]:
    """What makes distances of features say less, in words."""
    found = []
    real, synthetic = result.geometry["real"], result.geometry["synthetic"]
    sizes = np.array(real["field_of_view_mm"]), np.array(synthetic["field_of_view_mm"])
    ratio = float(np.max(np.maximum(sizes[0] / sizes[1], sizes[1] / sizes[0])))
    if ratio > FIELD_OF_VIEW_RATIO:
        found.append(
            f"The fields of view differ ({_millimetres(sizes[0])} real, {_millimetres(sizes[1])} synthetic): part of "
            "the distances is how much is in the picture."
        )
    coarse = max(max(real["spacing_mm"]), max(synthetic["spacing_mm"]))
    if not np.allclose(real["spacing_mm"], synthetic["spacing_mm"], rtol=0.05) and coarse > pixel_mm:
        found.append(
            f"The voxels differ and are larger than the pixels of {pixel_mm:g} mm: part of the distances is resolution;"
            f" --pixel-mm {coarse:.2g} takes it out."
        )
    fewest = min(count for counts in result.slices.values() for count in counts.values())
    if fewest <= result.features["dimension"]:
        found.append(
            f"There are {fewest} slices for {result.features['dimension']} features: FID is too high by much more than "
            "its interval says. Compare it at the floor's size with the floor, and look at KID."
        )
    fewest_volumes = min(result.counts.values())
    if fewest_volumes < SMALLEST_SET:
        intervals = (
            "are narrower than they should be" if result.settings["bootstrap_replicates"] else "are not given"
        )
        found.append(f"Of {fewest_volumes} volumes intervals {intervals}: {SMALLEST_SET} or more are needed.")
    if not result.settings["splits"]:
        found.append("Without two volumes for each half of the real set there is no floor to compare with.")
    return found


def _millimetres(size: np.ndarray) -> str:
    return " x ".join(f"{length:.0f}" for length in size) + " mm"
