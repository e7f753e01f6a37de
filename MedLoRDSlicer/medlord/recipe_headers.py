"""The recipe in the header of a volume's file, read without voxels and with the standard library alone.

Slicer's process has no nibabel, and its reader of scalar volumes passes on neither the extensions of a NIfTI header nor
the keys of an NRRD header.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from .volume_files import NIFTI_MARK, NRRD_RECIPE_KEYS

_NIFTI_HEADER_BYTES = 348
# Beyond any recipe: a header that goes on for longer is none.
_MOST_BYTES = 1 << 28


def recipe_in_header(path: str | Path) -> dict | None:
    """The recipe in a NIfTI-1 (.nii, .nii.gz) or NRRD (.nrrd, .nhdr) file, None when there is none.

    A file that is missing, of another kind or damaged has none: this looks, it does not judge.
    """
    path = Path(path)
    name = path.name.lower()
    try:
        if name.endswith(".nii.gz"):
            with gzip.open(path, "rb") as file:
                text = _in_nifti(file)
        elif name.endswith(".nii"):
            with path.open("rb") as file:
                text = _in_nifti(file)
        elif name.endswith((".nrrd", ".nhdr")):
            with path.open("rb") as file:
                text = _in_nrrd(file)
        else:
            return None
        recipe = json.loads(text) if text else None
    except (OSError, EOFError, zlib.error, struct.error, ValueError, OverflowError):
        return None
    return recipe if isinstance(recipe, dict) else None


def _in_nifti(file: BinaryIO) -> str | None:
    """The text behind the mark in one of the header's extensions (NIfTI-1 standard, "Header extensions")."""
    header = file.read(_NIFTI_HEADER_BYTES + 4)
    if len(header) < _NIFTI_HEADER_BYTES + 4:
        return None
    order = "<" if header[:4] == struct.pack("<i", _NIFTI_HEADER_BYTES) else ">"
    if struct.unpack(f"{order}i", header[:4])[0] != _NIFTI_HEADER_BYTES or not header[_NIFTI_HEADER_BYTES]:
        return None
    end = min(int(struct.unpack(f"{order}f", header[108:112])[0]), _MOST_BYTES)
    place = len(header)
    while place + 8 <= end:
        size, _code = struct.unpack(f"{order}ii", file.read(8))
        if not 8 <= size <= end - place:
            return None
        content = file.read(size - 8)
        place += size
        if content.startswith(NIFTI_MARK):
            return content[len(NIFTI_MARK) :].rstrip(b"\0").decode("utf-8")
    return None


def _in_nrrd(file: BinaryIO) -> str | None:
    r"""The value of one of the keys; a line break and a backslash in it are written \n and \\."""
    if not file.readline(16).startswith(b"NRRD"):
        return None
    while line := file.readline(_MOST_BYTES).rstrip(b"\r\n"):
        key, separator, value = line.partition(b":=")
        if separator and key.decode("utf-8") in NRRD_RECIPE_KEYS:
            escaped = value.decode("utf-8")
            return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], escaped)
    return None
