"""Reading a case back: one read of the file gives its hash and its voxels, so what is shown is what was hashed.

It needs numpy alone and touches nothing but the file, so a reader's program can load the next case in a thread of its
own: reading, hashing and decompressing all let other threads run.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..volumes import Grid
from .study import Study, changed_file

_MAGIC = b"NRRD0004\n"
_TYPES = {"short": "<i2", "unsigned char": "u1"}
_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class CaseVoxels:
    """Voxels [i, j, k] (int16 HU, or uint8 labels) and their grid in the space of the cases (RAS mm)."""

    array: np.ndarray
    grid: Grid


def read_case(study: Study, case: str) -> CaseVoxels:
    """The volume of a case or training case, int16 HU [i, j, k].

    Raises `InputError` when the file is missing, cannot be read, or is not the one the study was made with.
    """
    entry = next((e for e in (*study.cases, *study.training) if e.case == case), None)
    if entry is None:
        raise InputError(f"The study has no case {case}.")
    return _read(study, study.file(case), entry.sha256)


def read_case_mask(study: Study, case: str) -> CaseVoxels:
    """The mask of a case in the mode match, uint8 labels [i, j, k]; raises `InputError` as `read_case` does."""
    entry = next((e for e in study.cases if e.case == case and e.mask_sha256), None)
    if entry is None:
        raise InputError(f"The study has no mask for {case}.")
    return _read(study, study.mask_file(case), entry.mask_sha256)


def _read(study: Study, path: Path, sha256: str) -> CaseVoxels:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(
            f"{path.name} is missing in {study.folder}; put the original back, or copy the study again from its author."
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise changed_file(path)
    try:
        return _parsed(content)
    except (ValueError, KeyError, EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"{path.name} is no volume of this program ({type(error).__name__}: {error}); have its author make the "
            "study again."
        ) from error


def _parsed(content: bytes) -> CaseVoxels:
    """What `cases.write_case` wrote; nothing else is read."""
    if not content.startswith(_MAGIC):
        raise ValueError("no NRRD of version 4")
    end = content.index(b"\n\n")
    fields = dict(line.split(": ", 1) for line in content[len(_MAGIC) : end].decode("ascii").splitlines())
    shape = tuple(int(size) for size in fields["sizes"].split())
    affine = np.eye(4)
    for axis, direction in enumerate(fields["space directions"].split()):
        affine[:3, axis] = _vector(direction)
    affine[:3, 3] = _vector(fields["space origin"])
    voxels = memoryview(content)[end + 2 :]
    if fields["encoding"] == "gzip":
        voxels = gzip.decompress(voxels)
    array = np.frombuffer(voxels, dtype=_TYPES[fields["type"]]).reshape(shape, order="F")
    return CaseVoxels(array, Grid(shape, _RAS_FROM_LPS @ affine))


def _vector(text: str) -> list[float]:
    return [float(number) for number in text.strip("()").split(",")]
