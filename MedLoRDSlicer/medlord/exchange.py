"""Files by which arrays cross the process boundary: .npz without pickles, written whole or not at all.

Every file holds a `header` (UTF-8 JSON as uint8) and the arrays it describes. Masks are packed to one bit per
voxel: a 512 x 512 x 600 segmentation of 12 structures is 236 MB instead of 1.9 GB. Zip checksums find damage.
Only numpy is needed, so the files can be read and written in Slicer's own Python.
"""

from __future__ import annotations

import errno
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .conditions import Conditions
from .errors import EngineError, InputError
from .volumes import Grid, Volume

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def write_conditions(path: Path, conditions: Conditions) -> None:
    """Write masks and grid. Raises `EngineError` when the file cannot be written."""
    arrays = {
        f"mask_{n:04d}": np.packbits(np.ravel(mask)) for n, mask in enumerate(conditions.masks.values())
    }
    _write(path, {"kind": "conditions", "names": conditions.names, **conditions.grid.to_dict()}, arrays)


def read_conditions(path: Path) -> Conditions:
    """Read what `write_conditions` wrote: boolean masks [i, j, k]; raises `EngineError` for a damaged file."""
    header, arrays = _read(path, "conditions")
    grid = Grid.from_dict(header)
    count = int(np.prod(grid.shape, dtype=np.int64))
    masks = {}
    for number, name in enumerate(header["names"]):
        packed = arrays[f"mask_{number:04d}"]
        if packed.dtype != np.uint8 or packed.shape != ((count + 7) // 8,):
            raise EngineError(
                f"{path.name} holds a mask of {packed.size} bytes for the shape {grid.shape}; run again."
            )
        masks[name] = np.unpackbits(packed, count=count).view(bool).reshape(grid.shape)
    return Conditions(grid, masks)


def write_volume(path: Path, volume: Volume) -> None:
    """Write voxels (any integer or float type, kept exactly), grid, recipe and metadata."""
    header = {"kind": "volume", "recipe": volume.recipe, "metadata": volume.metadata, **volume.grid.to_dict()}
    _write(path, header, {"voxels": np.ascontiguousarray(volume.array)})


def read_volume(path: Path) -> Volume:
    """Read what `write_volume` wrote. Raises `EngineError` for a missing or damaged file."""
    header, arrays = _read(path, "volume")
    voxels, grid = arrays["voxels"], Grid.from_dict(header)
    if voxels.shape != grid.shape or voxels.dtype.kind not in "iuf":
        raise EngineError(
            f"{path.name} holds {voxels.dtype} voxels of shape {voxels.shape} for {grid.shape}; run again."
        )
    return Volume(voxels, grid, header["recipe"], header["metadata"])


def write_json(path: Path, data: Any) -> None:
    """Write `data` as UTF-8 JSON, whole or not at all."""
    _replace(path, lambda stream: stream.write(json.dumps(data).encode("utf-8")))


def read_json(path: Path) -> Any:
    """Read a UTF-8 JSON file. Raises `EngineError` when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def write_preview(path: Path, picture: np.ndarray) -> None:
    """Write one picture (rows, columns) of uint8 grey values."""
    picture = np.ascontiguousarray(picture)
    if picture.ndim != 2 or picture.dtype != np.uint8:
        raise InputError(
            f"A preview is {picture.dtype} of shape {picture.shape}; it must be uint8 (rows, columns)."
        )
    _replace(path, lambda stream: np.save(stream, picture, allow_pickle=False))


def take_preview(path: Path) -> np.ndarray | None:
    """Read a picture and delete its file; None when it is gone (its run ended meanwhile)."""
    try:
        picture = np.load(path, allow_pickle=False)
        path.unlink()
    except (OSError, ValueError, EOFError):
        return None
    return picture


def _write(path: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    text = np.frombuffer(json.dumps(header).encode("utf-8"), dtype=np.uint8)
    _replace(path, lambda stream: np.savez(stream, header=text, **arrays))


def _replace(path: Path, write) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as stream:
            write(stream)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if error.errno in _FULL:
            raise EngineError(
                f"The disk of the temporary folder {path.parent} is full ({error.strerror}): {path.name} could "
                "not be written. Free some room there, or point TMPDIR (TEMP on Windows) to another disk."
            ) from error
        raise EngineError(
            f"The temporary folder {path.parent} cannot be written ({error.strerror}); "
            "point TMPDIR (TEMP on Windows) to a folder that can."
        ) from error


def _read(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header").tobytes().decode("utf-8"))
        if header["kind"] != kind:
            raise ValueError(f"it holds {header['kind']}, not {kind}")
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    return header, arrays


def _unreadable(path: Path, error: Exception) -> EngineError:
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())
    return EngineError(f"The exchange file {path.name} cannot be read ({reason}); run again.")
