"""Features of every slice of every volume of a set; one volume is in memory at a time."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ... import __version__
from ...errors import InputError
from ...progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ...volume_files import load_volume, write_atomically
from ...volumes import require_ct
from ..orientation import AnatomicalFrame
from ..volume_measures import extent_mm
from .extractors import FeatureExtractor
from .slices import PLANES, WINDOWS, plane_slices, windowed
from .store import SetFile, WorkFolder

_BATCH = 16


@dataclass(frozen=True)
class FeatureSettings:
    """How slices become features; both sets of a comparison have the same.

    slices      at most so many of each plane and volume, evenly spaced, so that all volumes weigh the same
    pixel_mm    width of a pixel in mm; a set with coarser voxels is not made finer by smaller pixels
    windows     name -> (black, white) in HU
    """

    slices: int = 32
    pixel_mm: float = 1.0
    windows: Mapping[str, tuple[float, float]] = field(default_factory=lambda: dict(WINDOWS))

    def __post_init__(self):
        if self.slices < 1:
            raise InputError(f"{self.slices} slices of each plane cannot be taken; give at least 1.")
        if not 0.1 <= self.pixel_mm <= 20:
            raise InputError(f"Pixels of {self.pixel_mm:g} mm are out of range; choose 0.1 to 20 mm.")
        if not self.windows:
            raise InputError(f"No window was chosen; there are {', '.join(WINDOWS)}.")
        for name, (low, high) in self.windows.items():
            if not low < high:
                raise InputError(f"The window {name} goes from {low:g} to {high:g} HU; it must rise.")


@dataclass(frozen=True)
class SetFeatures:
    """Features of a set: the stored files, one per volume, in the order of the volumes.

    `extents_mm` is the field of view and `spacings_mm` the voxel of each volume, [volumes, 3] along right, anterior and
    superior.
    """

    stored: tuple[Path, ...]
    extents_mm: np.ndarray
    spacings_mm: np.ndarray

    def of(self, plane: str, window: str) -> list[np.ndarray]:
        """Features [slices, features] of one plane and window, one array per volume.

        Raises `InputError` for a stored file that was damaged since it was written.
        """
        found = []
        for path in self.stored:
            try:
                with np.load(path, allow_pickle=False) as data:
                    found.append(data[_key(plane, window)])
            except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
                raise InputError(
                    f"{path.name} in {path.parent} is damaged ({error}); delete it and run again: it is then computed "
                    "once more."
                ) from error
        return found


def collect_features(
    files: Sequence[SetFile],
    extractor: FeatureExtractor,
    work: WorkFolder,
    settings: FeatureSettings,
    *,
    phase: str = "features",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> SetFeatures:
    """Compute and store the features of every CT (HU), or take those that are stored already in `work`.

    About 8 kB per slice, plane and window are stored for 2048 features. Raises `InputError` that names the file for one
    that is no CT in HU or too small, `CancelledError` when `cancel` answers true; what is stored by then is kept.
    """
    key = {"features": extractor.sha256, "extractor": extractor.name, "by": __version__, **asdict(settings)}
    clock = PhaseClock(phase, len(files), progress)
    stored, extents, spacings = [], [], []
    for number, file in enumerate(files):
        where = f"the features of volume {number + 1} of {len(files)}"
        raise_if_cancelled(cancel, where)
        path = work.path_of(file, key, ".npz")
        geometry = _stored_geometry(path, settings)
        if geometry is None:
            geometry = _compute(file, path, extractor, settings, cancel, where)
        stored.append(path)
        extents.append(geometry[0])
        spacings.append(geometry[1])
        clock.report(number + 1)
    return SetFeatures(tuple(stored), np.array(extents), np.array(spacings))


def _compute(
    file: SetFile,
    path: Path,
    extractor: FeatureExtractor,
    settings: FeatureSettings,
    cancel: Cancel | None,
    where: str,
) -> np.ndarray:
    """Store the features of a volume; its geometry [2, 3] is returned: field of view and spacing in mm."""
    volume = load_volume(file.path)
    require_ct(volume, file.path.name)
    found = {}
    for plane in PLANES:
        try:
            pictures = plane_slices(volume, plane, settings.slices, settings.pixel_mm)
        except InputError as error:
            raise InputError(f"{file.path.name}: {error}") from error
        for name, window in settings.windows.items():
            parts = []
            for start in range(0, len(pictures), _BATCH):
                raise_if_cancelled(cancel, where)
                parts.append(extractor.features(windowed(pictures[start : start + _BATCH], window)))
            found[_key(plane, name)] = np.concatenate(parts)
    spacing = AnatomicalFrame.of(volume.grid).spacing_mm
    geometry = np.array([extent_mm(volume.grid), spacing], dtype=np.float64)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez(stream, geometry=geometry, **found)

    write_atomically(path, write)
    return geometry


def _stored_geometry(path: Path, settings: FeatureSettings) -> np.ndarray | None:
    """The geometry in a stored file that holds all that is needed; None for a missing or damaged one."""
    try:
        with np.load(path, allow_pickle=False) as data:
            wanted = {_key(plane, window) for plane in PLANES for window in settings.windows}
            return data["geometry"] if wanted <= set(data.files) else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _key(plane: str, window: str) -> str:
    return f"{plane} {window}"
