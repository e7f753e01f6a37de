"""Reading and writing segmentations as files: labelmaps with names, and 3D Slicer's .seg.nrrd with its layers.

A labelmap holds one value per voxel; Slicer keeps segments that overlap in further layers (the first axis of a
4D NRRD, kind "list"). Names come from the file itself (keys `SegmentN_...` of Slicer, the label table that
TotalSegmentator writes into NIfTI headers) or from a table beside it (JSON or CSV).
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from .conditions import Conditions, whole_numbers
from .errors import InputError
from .vocabulary import Match, Plan, Vocabulary, load_vocabulary
from .volume_files import (
    file_kind,
    read_failure,
    require_nifti_geometry,
    require_nrrd_geometry,
    write_atomically,
)
from .volumes import Grid

_SEGMENT_KEY = re.compile(r"Segment(\d+)_(\w+)")
_TERMINOLOGY_TAG = "TerminologyEntry"


@dataclass(frozen=True)
class Segment:
    """One segment: the voxels of `layer` that have `value`; identifier and terminology tag where the file has them."""

    name: str
    value: int
    layer: int = 0
    identifier: str | None = None
    terminology: str | None = None


@dataclass
class Segmentation:
    """Segments on a grid; `layers` is an integer array [layer, i, j, k]."""

    grid: Grid
    layers: np.ndarray
    segments: list[Segment]

    def mask(self, segment: Segment) -> np.ndarray:
        """The voxels of a segment, boolean [i, j, k]."""
        return self.layers[segment.layer] == segment.value

    def unnamed_values(self) -> list[int]:
        """Label values above 0 that occur and that no segment has, over all layers."""
        found = set()
        for layer, array in enumerate(self.layers):
            named = [segment.value for segment in self.segments if segment.layer == layer]
            found |= set(np.unique(array).tolist()) - set(named) - {0}
        return sorted(value for value in found if value > 0)

    def conditions(self, wanted: Sequence[str], vocabulary: Vocabulary | None = None) -> Assembled:
        """Build the `wanted` conditions; only masks that serve one are made, however many segments there are.

        Raises `InputError` when no segment serves any of them.
        """
        vocabulary = vocabulary or load_vocabulary()
        matches = [vocabulary.match(s.terminology, s.identifier, s.name, wanted) for s in self.segments]
        structures = list(dict.fromkeys(match.structure for match in matches if match))
        plan = vocabulary.plan(structures, wanted)
        if not plan.sources:
            given = ", ".join(f"'{segment.name}'" for segment in self.segments) or "no segment"
            raise InputError(
                f"No segment matches: the file has {given}; wanted is one of {', '.join(wanted)}. "
                "Rename a segment, or give its name with --labels or --condition NAME=FILE."
            )
        masks = {}
        for condition, sources in plan.sources.items():
            mask = np.zeros(self.grid.shape, dtype=bool)
            for segment, match in zip(self.segments, matches):
                if match and match.structure in sources:
                    mask |= self.mask(segment)
            masks[condition] = mask
        return Assembled(Conditions(self.grid, masks), plan, dict(zip(self.segments, matches)))


@dataclass
class Assembled:
    """Conditions from a segmentation, with the account of how every segment was understood."""

    conditions: Conditions
    plan: Plan
    matches: dict[Segment, Match | None]

    @property
    def unused(self) -> list[str]:
        """Names of the segments that serve no condition."""
        used = {structure for sources in self.plan.sources.values() for structure in sources}
        return [s.name for s, match in self.matches.items() if match is None or match.structure not in used]


def read_segmentation(
    path: str | Path,
    labels: Mapping[int, str | tuple[str, ...]] | None = None,
    *,
    labels_option: str = "--labels",
) -> Segmentation:
    """Read a labelmap (NIfTI, NRRD) or a Slicer segmentation (.seg.nrrd).

    `labels` maps label values to names, to several where structures overlap, and wins over names in the file;
    `labels_option` is where errors say to give it. Raises `InputError` when the file is missing, unreadable, holds no
    whole numbers, or has no names for its values.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path.name} in {path.parent}; check the path.")
    kind = file_kind(path)
    with read_failure(path):
        layers, grid, segments = _read_nifti(path) if kind == "nifti" else _read_nrrd(path)
    grid.validate(path.name)
    layers = whole_numbers(layers, path.name)
    if labels is not None:
        segments = [
            Segment(name, value)
            for value, names in labels.items()
            for name in ((names,) if isinstance(names, str) else names)
        ]
        if len(layers) > 1:
            raise InputError(
                f"{path.name} has {len(layers)} layers: leave {labels_option} away, values alone do not tell."
            )
    if not segments:
        raise InputError(
            f"{path.name} holds no names for its label values; give them with {labels_option} FILE."
        )
    return Segmentation(grid, layers, segments)


def read_labels(path: str | Path) -> dict[int, str | tuple[str, ...]]:
    """Read names of label values from JSON ({"1": "lung"} or {"lung": 1}) or CSV (two columns: value, name).

    In JSON a structure may have several values, and then a value several structures: {"body": [1, 2], "lung": [2]},
    as `labelmap_files.write_labelmap` writes them. Raises `InputError` for a file that is no such table.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no label table {path.name} in {path.parent}; check the path.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        pairs, may_share = _json_pairs(text) if path.suffix.lower() == ".json" else (_csv_pairs(text), False)
    except (ValueError, csv.Error) as error:
        raise InputError(
            f"{path.name} is no table of label values and names ({error}); see --help."
        ) from error
    values = [value for value, _ in pairs]
    doubled = set() if may_share else {value for value in values if values.count(value) > 1}
    if not pairs or doubled or min(values) < 1:
        what = (
            f"the values {sorted(doubled)} twice"
            if doubled
            else "no value (of structures that were not found)"
            if may_share
            else "no value"
            if not pairs
            else "a value below 1"
        )
        raise InputError(f"{path.name} has {what}; every label value from 1 on needs one name.")
    names: dict[int, tuple[str, ...]] = {}
    for value, name in pairs:
        names[value] = (*names.get(value, ()), name)
    return {value: shared if len(shared) > 1 else shared[0] for value, shared in names.items()}


def write_segmentation(path: str | Path, grid: Grid, masks: Mapping[str, np.ndarray]) -> Path:
    """Write masks [i, j, k] as a .seg.nrrd that 3D Slicer opens: names, terminology and colours of the vocabulary.

    Masks that overlap come into different layers. Empty masks are kept as segments without voxels. Raises
    `InputError` when the folder cannot be written, `EngineError` when the disk is full.
    """
    path = Path(path)
    if not path.name.lower().endswith(".seg.nrrd"):
        raise InputError(f"{path.name} has the wrong ending for a segmentation; use .seg.nrrd.")
    layers, segments = _pack_layers(Conditions(grid, dict(masks)))
    header = _nrrd_header(layers, grid, segments, load_vocabulary())
    data = header.encode("utf-8") + gzip.compress(
        np.ascontiguousarray(layers.transpose(3, 2, 1, 0)).tobytes(), 5
    )
    write_atomically(path, lambda temporary: temporary.write_bytes(data))
    return path


def _pack_layers(conditions: Conditions) -> tuple[np.ndarray, list[Segment]]:
    """Every mask in the first layer where it meets no other; values count from 1 in each layer."""
    layers: list[np.ndarray] = []
    segments = []
    for name, mask in conditions.masks.items():
        free = (n for n, layer in enumerate(layers) if layer.max() < 255 and not layer[mask].any())
        number = next(free, len(layers))
        if number == len(layers):
            layers.append(np.zeros(conditions.grid.shape, dtype=np.uint8))
        value = 1 + sum(segment.layer == number for segment in segments)
        layers[number][mask] = value
        segments.append(Segment(name, value, number, name))
    return np.stack(layers or [np.zeros(conditions.grid.shape, np.uint8)]), segments


def _nrrd_header(layers: np.ndarray, grid: Grid, segments: list[Segment], vocabulary: Vocabulary) -> str:
    def vector(values) -> str:
        return "(" + ",".join(repr(float(v)) for v in values) + ")"

    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine
    directions = " ".join(vector(to_lps[:3, axis]) for axis in range(3))
    lines = [
        "NRRD0005",
        "type: unsigned char",
        "dimension: 4",
        "space: left-posterior-superior",
        "sizes: " + " ".join(str(n) for n in layers.shape),
        f"space directions: none {directions}",
        "kinds: list domain domain domain",
        "encoding: gzip",
        f"space origin: {vector(to_lps[:3, 3])}",
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        "Segmentation_MasterRepresentation:=Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset:=0 0 0",
    ]
    extent = " ".join(f"0 {n - 1}" for n in grid.shape)
    for number, segment in enumerate(segments):
        known = vocabulary[segment.name] if segment.name in vocabulary else None
        color = known.color if known else (128, 174, 128)
        keys = {
            "Color": " ".join(f"{value / 255:.6g}" for value in color),
            "ColorAutoGenerated": "0",
            "Extent": extent,
            "ID": segment.identifier,
            "LabelValue": segment.value,
            "Layer": segment.layer,
            "Name": segment.name,
            "NameAutoGenerated": "0",
            "Tags": f"{_TERMINOLOGY_TAG}:{known.terminology}|" if known and known.terminology else "|",
        }
        lines += [f"Segment{number}_{key}:={value}" for key, value in keys.items()]
    return "\n".join(lines) + "\n\n"


def _read_nifti(path: Path) -> tuple[np.ndarray, Grid, list[Segment]]:
    import nibabel

    image = nibabel.load(path)
    require_nifti_geometry(image.header, path.name)
    array = np.asanyarray(image.dataobj)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise InputError(
            f"{path.name} has {array.ndim} axes of shape {array.shape}; a 3D labelmap is needed."
        )
    segments = []
    for extension in image.header.extensions:
        segments += _label_table(extension.get_content())
    return array[None], Grid(array.shape, image.affine), segments


def _label_table(content: bytes | str) -> list[Segment]:
    """Names in a NIfTI header extension as TotalSegmentator writes them: XML with <Label Key="1">name</Label>."""
    text = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
    if "<Label " not in text:
        return []
    try:
        root = ElementTree.fromstring(text.rstrip("\0").strip())
    except ElementTree.ParseError:
        return []  # another program's extension: then the names must be given
    found = [(int(label.get("Key", 0)), (label.text or "").strip()) for label in root.iter("Label")]
    return [Segment(name, value) for value, name in found if value > 0 and name]


def _read_nrrd(path: Path) -> tuple[np.ndarray, Grid, list[Segment]]:
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path))
    require_nrrd_geometry(image, path.name)
    if image.GetDimension() != 3:
        raise InputError(f"{path.name} has {image.GetDimension()} spatial axes; a 3D segmentation is needed.")
    array = sitk.GetArrayFromImage(image)
    layers = np.moveaxis(array, -1, 0).transpose(0, 3, 2, 1) if array.ndim == 4 else array.T[None]
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    keys: dict[int, dict[str, str]] = {}
    for key in image.GetMetaDataKeys():
        if match := _SEGMENT_KEY.fullmatch(key):
            keys.setdefault(int(match[1]), {})[match[2]] = image.GetMetaData(key)
    segments = [_segment_from_keys(number, keys[number], len(layers)) for number in sorted(keys)]
    for segment in segments:
        if not 0 <= segment.layer < len(layers):
            raise InputError(
                f"{path.name} puts '{segment.name}' into layer {segment.layer} but has {len(layers)}; save it again."
            )
    return (
        np.ascontiguousarray(layers),
        Grid(layers.shape[1:], np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine),
        segments,
    )


def _segment_from_keys(number: int, keys: Mapping[str, str], layer_count: int) -> Segment:
    """A segment from Slicer's keys; files before Slicer 4.11 have neither Layer nor LabelValue, one layer each."""
    tags = dict(tag.split(":", 1) for tag in keys.get("Tags", "").split("|") if ":" in tag)
    return Segment(
        name=keys.get("Name") or keys.get("ID") or f"Segment {number + 1}",
        value=int(keys.get("LabelValue", 1)),
        layer=int(keys.get("Layer", number if layer_count > 1 else 0)),
        identifier=keys.get("ID"),
        terminology=tags.get(_TERMINOLOGY_TAG),
    )


def _json_pairs(text: str) -> tuple[list[tuple[int, str]], bool]:
    """(pairs of value and name, whether a value may have several names: there are lists of values)."""
    content = json.loads(text, object_pairs_hook=list)
    if not isinstance(content, list) or not all(isinstance(pair, tuple) for pair in content):
        raise ValueError("a JSON object is needed")
    lists = [
        isinstance(value, list) and not any(isinstance(v, (list, tuple)) for v in value)
        for _, value in content
    ]
    pairs = [
        _pair(key, value)
        for (key, values), is_list in zip(content, lists)
        for value in (values if is_list else [values])
    ]
    return pairs, any(lists)


def _csv_pairs(text: str) -> list[tuple[int, str]]:
    first = text.strip().split("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(), delimiter=delimiter)
    rows = [[cell.strip() for cell in row] for row in reader if any(row)]
    if rows and not any(cell.lstrip("+-").isdigit() for cell in rows[0]):
        rows = rows[1:]  # a line of titles
    return [_pair(*(row + [""])[:2]) for row in rows]


def _pair(first: object, second: object) -> tuple[int, str]:
    """(value, name) of two cells, whichever comes first."""
    for value, name in ((first, second), (second, first)):
        if re.fullmatch(r"[+-]?\d+", str(value).strip()) and isinstance(name, str) and name.strip():
            return int(str(value)), name.strip()
    raise ValueError(f"no value and name in {first!r}, {second!r}")
