"""Reference distributions: what a population's volumes look like, so that one more can be placed among them.

The file is JSON:

    {"format": "medlord-reference", "version": 1,
     "name": "thorax-phantom", "population": "in words: who, how many, which scans",
     "count": 200,
     "field_of_view": {"extent_mm": [[right, anterior, superior] per volume]},
     "segmenter": {"name": "hu-rules", "version": "1"},
     "attributes": {"contrast_phase": ["native", ...]},
     "structures": {"lung": {"rvr": [...], "ml": [...], "median_hu": [...], "spread_hu": [...]}, ...},
     "scan": {"noise_hu": [...], ...},
     "measures": {"rvr": "what it is", ...}}

Every list has one entry per volume, in one order; null says that it could not be measured. Values are kept one by one,
not as means, so any test can be run on them. Names of files or patients are not stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np

from ..errors import InputError
from ..resources import resource_folder
from ..volume_files import write_atomically
from .volume_measures import SCAN_MEASURES, STRUCTURE_MEASURES, VolumeMeasures

FORMAT, VERSION = "medlord-reference", 1
SMALLEST_SUBGROUP = 20
"""A subgroup (one contrast phase) with fewer volumes says too little; then the whole population is taken."""

_SIGNIFICANT_DIGITS = 5

Values = dict[str, dict[str, list[Optional[float]]]]


@dataclass(frozen=True)
class ReferenceDistribution:
    """A population's measures; see the module's text for the fields and the file."""

    name: str
    population: str
    segmenter: str
    segmenter_version: str
    extents_mm: list[tuple[float, float, float]]
    structures: Values
    scan: dict[str, list[float | None]]
    attributes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """N, the number of volumes."""
        return len(self.extents_mm)

    def values(self, structure: str, measure: str) -> np.ndarray:
        """All values of a measure that could be taken, float64 [n]; empty for what the reference does not have."""
        return _known(self.structures.get(structure, {}).get(measure, ()))

    def scan_values(self, measure: str) -> np.ndarray:
        """All values of a measure of the whole scan, float64 [n]."""
        return _known(self.scan.get(measure, ()))

    def subgroup(self, attributes: Mapping[str, str]) -> ReferenceDistribution:
        """The volumes with these attributes, such as {"contrast_phase": "native"}; all of them if those are too few.

        Attributes that the reference does not record are left out of account.
        """
        wanted = {name: value for name, value in attributes.items() if name in self.attributes}
        chosen = [
            number
            for number in range(self.count)
            if all(self.attributes[name][number] == value for name, value in wanted.items())
        ]
        if len(chosen) < SMALLEST_SUBGROUP or len(chosen) == self.count:
            return self
        words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in wanted.items())

        def pick(items: Sequence) -> list:
            return [items[number] for number in chosen]

        return ReferenceDistribution(
            self.name,
            f"{self.population} Of these the {len(chosen)} with {words}.",
            self.segmenter,
            self.segmenter_version,
            pick(self.extents_mm),
            {name: {m: pick(v) for m, v in rows.items()} for name, rows in self.structures.items()},
            {measure: pick(items) for measure, items in self.scan.items()},
            {name: pick(items) for name, items in self.attributes.items()},
        )

    def comparable_field_of_view(self, extent: Sequence[float], tolerance: float = 0.05) -> bool:
        """Whether volumes of this extent (right, anterior, superior in mm) can have their RVR compared with these.

        That is so when the volume of the field of view lies within the range of the reference, give or take
        `tolerance`.
        """
        sizes = np.prod(np.asarray(self.extents_mm, dtype=float), axis=1)
        size = float(np.prod(np.asarray(extent, dtype=float)))
        return bool(sizes.min() * (1 - tolerance) <= size <= sizes.max() * (1 + tolerance))

    def to_dict(self) -> dict:
        """JSON form, values rounded to five significant digits."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "population": self.population,
            "count": self.count,
            "field_of_view": {"extent_mm": _rounded([list(extent) for extent in self.extents_mm])},
            "segmenter": {"name": self.segmenter, "version": self.segmenter_version},
            "attributes": self.attributes,
            "structures": _rounded(self.structures),
            "scan": _rounded(self.scan),
            "measures": {**STRUCTURE_MEASURES, **SCAN_MEASURES},
        }


def collect_reference(
    measured: Sequence[VolumeMeasures],
    *,
    name: str,
    population: str,
    segmenter: str,
    segmenter_version: str,
    attributes: Mapping[str, Sequence[str]] | None = None,
) -> ReferenceDistribution:
    """A distribution of volumes that were measured with one segmenter; `attributes` has one value per volume.

    Raises `InputError` for no volumes, for attributes of another number and for volumes with other structures.
    """
    if not measured:
        raise InputError("A reference needs at least one volume; none was measured.")
    attributes = {key: list(values) for key, values in (attributes or {}).items()}
    for key, values in attributes.items():
        if len(values) != len(measured):
            raise InputError(f"The attribute '{key}' has {len(values)} values for {len(measured)} volumes.")
    names = list(measured[0].structures)
    for number, one in enumerate(measured):
        if list(one.structures) != names:
            raise InputError(
                f"Volume {number + 1} was segmented into {', '.join(one.structures)}, the first one into "
                f"{', '.join(names)}; measure all with the same structures."
            )
    structures = {
        structure: {
            measure: [one.structures[structure][measure] for one in measured]
            for measure in STRUCTURE_MEASURES
        }
        for structure in names
    }
    scan = {measure: [one.scan[measure] for one in measured] for measure in measured[0].scan}
    extents = [one.extent_mm for one in measured]
    return ReferenceDistribution(
        name, population, segmenter, segmenter_version, extents, structures, scan, attributes
    )


def save_reference(reference: ReferenceDistribution, path: str | Path) -> Path:
    """Write the JSON file; raises `InputError` when its folder cannot be written."""
    path = Path(path)
    text = _compact(reference.to_dict()) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def load_reference(path: str | Path) -> ReferenceDistribution:
    """Read a reference file; raises `InputError` when it is missing, no JSON, or not a whole reference."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no reference {path.name} in {path.parent}; check the path.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path.name} is no reference distribution (no JSON); make one with `medlord reference build`."
        ) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(
            f"{path.name} is no reference distribution; make one with `medlord reference build`."
        )
    if data.get("version") != VERSION:
        raise InputError(
            f"{path.name} has version {data.get('version')} of the format; this program reads {VERSION}."
        )
    try:
        return _from_dict(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path.name} is damaged ({type(error).__name__}: {error}); make it again with `medlord reference build`."
        ) from error


def find_reference(name: str | Path, segmenter: str) -> ReferenceDistribution:
    """The reference in the file `name`, or the shipped one of that name for a segmenter.

    Raises `InputError` with the shipped names for an unknown one, and for a reference made with another segmenter:
    volumes from two segmenters cannot be compared.
    """
    path = Path(name)
    if path.suffix.lower() != ".json":
        shipped = shipped_references()
        chosen = shipped.get((str(name), segmenter))
        if chosen is None:
            known = ", ".join(f"{n} (for {s})" for n, s in shipped) or "none"
            raise InputError(
                f"There is no reference '{name}' for the segmenter {segmenter}; shipped are {known}. Give one of them "
                "or a .json file made with `medlord reference build`."
            )
        path = chosen
    reference = load_reference(path)
    if reference.segmenter != segmenter:
        raise InputError(
            f"The reference {path.name} was made with the segmenter {reference.segmenter}, the check uses {segmenter}; "
            f"use one segmenter for both (--segmenter {reference.segmenter})."
        )
    return reference


def shipped_references() -> dict[tuple[str, str], Path]:
    """(name, segmenter) -> file of every reference in the resources; files are called NAME.SEGMENTER.json."""
    found = {}
    for path in sorted((resource_folder() / "References").glob("*.json")):
        name, _, segmenter = path.stem.partition(".")
        found[name, segmenter] = path
    return found


def _from_dict(data: dict) -> ReferenceDistribution:
    count = data["count"]
    reference = ReferenceDistribution(
        str(data["name"]),
        str(data["population"]),
        str(data["segmenter"]["name"]),
        str(data["segmenter"]["version"]),
        [tuple(map(float, extent)) for extent in data["field_of_view"]["extent_mm"]],
        {name: {m: list(v) for m, v in rows.items()} for name, rows in data["structures"].items()},
        {measure: list(values) for measure, values in data["scan"].items()},
        {name: list(values) for name, values in data.get("attributes", {}).items()},
    )
    numbers = [values for rows in reference.structures.values() for values in rows.values()]
    numbers += reference.scan.values()
    for values in [*numbers, *reference.attributes.values(), reference.extents_mm]:
        if not count or len(values) != count:
            raise ValueError(f"a list has {len(values)} values for {count} volumes")
    for values in [*numbers, *reference.extents_mm]:
        _require_finite(values)
    return reference


def _known(values: Sequence[float | None]) -> np.ndarray:
    return np.array([value for value in values if value is not None], dtype=np.float64)


def _require_finite(values: Sequence[float | None]) -> None:
    """Among NaN, which JSON readers take, nothing is ever unusual."""
    if not np.isfinite(_known(values)).all():
        raise ValueError("a value is not finite")


def _rounded(data):
    """Numbers of nested lists and dictionaries rounded to a few significant digits: the file stays small."""
    if isinstance(data, dict):
        return {key: _rounded(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_rounded(value) for value in data]
    return None if data is None else float(f"{data:.{_SIGNIFICANT_DIGITS}g}")


def _compact(data, indent: str = "") -> str:
    """JSON whose lists stand on one line each: short, and still readable and comparable line by line."""
    if not isinstance(data, dict) or not data:
        return json.dumps(data)
    inner = f"{indent} "
    entries = [f"{inner}{json.dumps(key)}: {_compact(value, inner)}" for key, value in data.items()]
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"
