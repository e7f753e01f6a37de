"""Regional volumes of a set, measured volume by volume and kept, for the comparison with another set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields

from ... import __version__
from ...progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ...volume_files import load_volume
from ...volumes import require_ct
from ..image_quality import ImageQuality
from ..reference import ReferenceDistribution, collect_reference
from ..segmenters import Segmenter
from ..volume_measures import VolumeMeasures, measure_volume
from ..wording import counted
from .store import SetFile, WorkFolder


def measure_set(
    files: Sequence[SetFile],
    segmenter: Segmenter,
    work: WorkFolder,
    *,
    name: str,
    phase: str = "regions",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> ReferenceDistribution:
    """Segment and measure every CT (HU), or take what is stored already in `work`; the set as a distribution.

    Raises `InputError` that names the file for one that is no CT, `CancelledError` when `cancel` answers true.
    """
    clock = PhaseClock(phase, len(files), progress)
    measured = []
    for number, file in enumerate(files):
        raise_if_cancelled(cancel, f"the segmentation of volume {number + 1} of {len(files)}")
        measured.append(measure_file(file, segmenter, work, cancel))
        clock.report(number + 1)
    return collect_reference(
        measured,
        name=name,
        population=f"{counted(len(files), 'volume')} of this comparison.",
        segmenter=segmenter.name,
        segmenter_version=segmenter.version,
    )


def measure_file(
    file: SetFile, segmenter: Segmenter, work: WorkFolder, cancel: Cancel | None = None
) -> VolumeMeasures:
    """Segment and measure one CT (HU), or take what is stored in `work`; raises as `measure_set`."""
    # One segmenter finds other structures when it is asked for a subset.
    structures = list(segmenter.structures)
    settings = {"segmenter": segmenter.name, "version": segmenter.version, "structures": structures}
    path = work.path_of(file, {**settings, "by": __version__}, ".json")
    one = _stored(work.read_json(path))
    if one is None:
        volume = load_volume(file.path)
        require_ct(volume, file.path.name)
        one = measure_volume(volume, segmenter.segment(volume, segmenter.structures, None, cancel))
        work.write_json(path, asdict(one))
    return one


def _stored(data: dict | None) -> VolumeMeasures | None:
    """Measures as they were stored; None for nothing and for files of another version."""
    names = {part.name for part in fields(ImageQuality)}
    if data is None or set(data) != {"structures", "quality", "extent_mm"}:
        return None
    if not isinstance(data["quality"], dict) or set(data["quality"]) != names:
        return None
    quality = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data["quality"].items()
    }
    return VolumeMeasures(data["structures"], ImageQuality(**quality), tuple(data["extent_mm"]))
