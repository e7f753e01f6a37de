"""Make a reference distribution from CT files, one after the other."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from glob import glob
from pathlib import Path

from ..checksums import sha256_of
from ..errors import InputError
from ..output_folders import new_folder
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ..volume_files import load_volume
from ..volumes import Volume, require_ct
from .adherence import phase_of
from .reference import ReferenceDistribution, collect_reference
from .segmenters import Labelmap, Segmenter
from .sets.regional import measure_file
from .sets.store import SetFile, WorkFolder
from .volume_measures import VolumeMeasures, measure_volume


def build_reference(
    ct_files: Sequence[Path],
    segmenter: Segmenter | None,
    *,
    name: str,
    population: str,
    segmentations: Sequence[Path] = (),
    attributes: Mapping[str, Sequence[str]] | None = None,
    work: Path | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> ReferenceDistribution:
    """Segment and measure every CT (HU) and collect what was measured; one volume is in memory at a time.

    `segmentations` are those that exist already, one per CT and in the same order; then `segmenter` is None.
    `attributes` has one value per CT. What the recipe of a synthetic CT says of its contrast phase is taken where
    `attributes` does not say it for all. What a segmenter finds of a CT is measured once and kept in the folder `work`
    where one is given (by hash, without names): a call that was stopped goes on there.
    Raises `InputError` that names the file for one that is no CT in HU and for a segmentation that lies elsewhere,
    `CancelledError` when `cancel` answers true.
    """
    if not ct_files:
        raise InputError("No CT was given; a reference needs at least one, better a hundred.")
    if segmentations and len(segmentations) != len(ct_files):
        raise InputError(
            f"There are {len(ct_files)} CT and {len(segmentations)} segmentations; each CT needs one, in the same "
            "order of names."
        )
    if (segmenter is None) != bool(segmentations):
        raise InputError("Give either a segmenter or segmentations that exist already.")
    attributes = {key: list(values) for key, values in (attributes or {}).items()}
    clock = PhaseClock("reference", len(ct_files), progress)
    measured: list[VolumeMeasures] = []
    phases = []
    with new_folder(Path(work)) if work and segmenter is not None else nullcontext() as folder:
        for number, path in enumerate(ct_files):
            raise_if_cancelled(cancel, f"the measurement of {path.name} ({number + 1} of {len(ct_files)})")
            volume = load_volume(path)
            require_ct(volume, path.name)
            if segmenter is None:
                one = _measured_as_given(volume, path, segmentations[number], measured, cancel)
            elif folder is not None:
                one = measure_file(SetFile(path, sha256_of(path)), segmenter, WorkFolder(folder), cancel)
            else:
                one = measure_volume(volume, segmenter.segment(volume, segmenter.structures, None, cancel))
            measured.append(one)
            phases.append(phase_of(volume))
            clock.report(number + 1)
    used = Labelmap if segmenter is None else segmenter
    if "contrast_phase" not in attributes and all(phases):
        attributes["contrast_phase"] = phases
    return collect_reference(
        measured,
        name=name,
        population=population,
        segmenter=used.name,
        segmenter_version=used.version,
        attributes=attributes,
    )


def files_matching(pattern: str, what: str) -> list[Path]:
    """The files that match a glob pattern, in the order of their names; raises `InputError` when there is none."""
    if Path(pattern).is_dir():
        raise InputError(f"{pattern} is a folder; give a pattern of its files, such as '{pattern}/*.nii.gz'.")
    found = [Path(name) for name in sorted(glob(pattern, recursive=True)) if Path(name).is_file()]
    if not found:
        raise InputError(f"No {what} matches {pattern}; check the pattern and put it in quotation marks.")
    return found


def read_attributes(path: Path, ct_files: Sequence[Path]) -> dict[str, list[str]]:
    """Attributes of CT files from a CSV with the column `file` (name without folder) and one column per attribute.

    Returns attribute -> one value per CT, in the order of `ct_files`. Raises `InputError` for a missing column or file.
    """
    if not path.is_file():
        raise InputError(f"There is no table {path.name} in {path.parent}; check the path.")
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = [name for name in (rows[0] if rows else {}) if name and name != "file"]
    if not rows or "file" not in rows[0] or not columns:
        raise InputError(
            f"{path.name} needs the column 'file' and at least one attribute, such as contrast_phase."
        )
    table = {row["file"]: row for row in rows}
    absent = [ct.name for ct in ct_files if ct.name not in table]
    if absent:
        raise InputError(
            f"{path.name} has no row for {absent[0]} ({len(absent)} of {len(ct_files)} CT lack one)."
        )
    return {column: [table[ct.name][column] or "" for ct in ct_files] for column in columns}


def _measured_as_given(
    volume: Volume,
    ct_file: Path,
    segmentation: Path,
    measured: Sequence[VolumeMeasures],
    cancel: Cancel | None,
) -> VolumeMeasures:
    """Measures of a CT by its segmentation, which has the same structures as those `measured` before.

    Raises `InputError`, with the names of the files, for other structures and for a segmentation that lies elsewhere.
    """
    given = _existing(segmentation)
    try:
        found = given.segment(volume, given.structures, None, cancel)
    except InputError as error:
        raise InputError(f"{ct_file.name}, {segmentation.name}: {error}") from error
    if measured and list(measured[0].structures) != found.names:
        other = ", ".join(sorted(set(measured[0].structures) ^ set(found.names)) or ("another order",))
        raise InputError(
            f"{segmentation.name} and the segmentations before it do not name the same structures ({other}); name all "
            "in every file, without voxels where a structure is absent."
        )
    return measure_volume(volume, found)


def _existing(path: Path) -> Labelmap:
    """A segmentation file, with all structures that the vocabulary knows."""
    from ..segmentation_files import read_segmentation
    from ..vocabulary import load_vocabulary

    return Labelmap(read_segmentation(path).conditions(list(load_vocabulary().structures)).conditions)
