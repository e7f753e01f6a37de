"""How long the creation of a review takes, from volumes on the disk to the study and its key."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ..volume_files import save_volume, write_atomically
from ..volumes import Grid, Volume

FILES = ("review.json", "review.md")
SOURCES = ("real", "model-a", "model-b", "model-c")
EXTENT_MM = (380.0, 320.0, 320.0)
"""Field of view of the volumes, to left, posterior and superior."""

_NOISE_HU = 15.0


@dataclass(frozen=True)
class ReviewSettings:
    """`per_source` volumes of each of four sources, of `shape` voxels (to left, posterior, superior)."""

    per_source: int = 15
    shape: tuple[int, int, int] = (256, 256, 128)

    def validate(self) -> None:
        """Raise `InputError` for no volumes, and for volumes too small to be a case."""
        if self.per_source < 1:
            raise InputError(f"{self.per_source} volumes per source are no study; take at least 1.")
        if min(self.shape) < 16:
            raise InputError(f"Volumes of {self.shape} voxels are too small (limit 16 along each axis).")


def run_review(
    settings: ReviewSettings, folder: Path, progress: Progress | None = None, cancel: Cancel | None = None
) -> dict:
    """Make volumes, time the creation of a study from them, write `FILES` into `folder`; returns review.json's content.

    Volumes and study are removed afterwards. The volumes are one phantom with noise of its own each, which costs what
    others of the size cost and is made quickly.
    """
    from ..review.create import create_study
    from ..review.draw import Source, StudyPlan

    settings.validate()
    # A new folder: it is removed afterwards, and one that was there may hold the user's own volumes.
    work = Path(tempfile.mkdtemp(prefix=".medlord-", dir=folder))
    try:
        _write_volumes(settings, work, progress, cancel)
        sources = [Source(n, str(work / n), "real" if n == SOURCES[0] else "synthetic") for n in SOURCES]
        wall, processor = time.perf_counter(), time.process_time()
        created = create_study(
            work / "study",
            sources,
            StudyPlan(settings.per_source, seed=1),
            progress=progress,
            cancel=cancel,
        )
        measured = {
            "settings": asdict(settings),
            "volumes": len(created.study.cases),
            "seconds": round(time.perf_counter() - wall, 1),
            "processor_seconds": round(time.process_time() - processor, 1),
            "processors": _processors(),
            "load": [round(load, 1) for load in _load()],
            "platform": platform.platform(),
        }
    finally:
        shutil.rmtree(work, ignore_errors=True)
    texts = {FILES[0]: json.dumps(measured, indent=1) + "\n", FILES[1]: review_table(measured)}
    for name, text in texts.items():
        write_atomically(
            folder / name, lambda temporary, text=text: temporary.write_text(text, encoding="utf-8")
        )
    return measured


def review_table(measured: dict) -> str:
    """One line in Markdown of what `run_review` returns."""
    shape = " x ".join(str(size) for size in measured["settings"]["shape"])
    return (
        f"A study of {measured['volumes']} volumes of {shape} is created in {measured['seconds']} s "
        f"({measured['processor_seconds']} s of processor time) on {measured['processors']} processors.\n"
    )


def _write_volumes(
    settings: ReviewSettings, work: Path, progress: Progress | None, cancel: Cancel | None
) -> None:
    from ..phantom import make_phantom

    spacing = tuple(extent / size for extent, size in zip(EXTENT_MM, settings.shape, strict=True))
    grid = Grid.centered(settings.shape, spacing, orientation="LPS")
    hu = make_phantom(1, grid).volume.array
    clock = PhaseClock("volumes", len(SOURCES) * settings.per_source, progress)
    generator = np.random.default_rng(1)
    for number in range(len(SOURCES) * settings.per_source):
        raise_if_cancelled(cancel, "the making of the volumes")
        clock.report(number)
        source = SOURCES[number % len(SOURCES)]
        (work / source).mkdir(parents=True, exist_ok=True)
        noise = generator.standard_normal(grid.shape, dtype=np.float32) * _NOISE_HU
        array = np.rint(np.clip(hu + noise, -1024, 2000)).astype(np.int16)
        save_volume(
            Volume(array, grid), work / source / f"volume_{number}.nii.gz", synthetic=source != SOURCES[0]
        )
    clock.report(len(SOURCES) * settings.per_source)


def _processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load() -> tuple[float, ...]:
    """How busy the machine was in the last minute, this process included, where the system tells."""
    return os.getloadavg()[:1] if hasattr(os, "getloadavg") else ()
