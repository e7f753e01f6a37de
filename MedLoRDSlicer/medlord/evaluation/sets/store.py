"""Files of a set, and what was computed of each one, kept so that an interrupted evaluation can go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...checksums import sha256_of
from ...errors import InputError
from ...progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ...volume_files import write_atomically

_ENDINGS = (".nii", ".nii.gz", ".nrrd")


@dataclass(frozen=True)
class SetFile:
    """One volume of a set: its file and the SHA-256 of that file's content."""

    path: Path
    sha256: str


def volume_files_of(place: str | Path, what: str) -> list[Path]:
    """The volumes in a folder (.nii, .nii.gz, .nrrd; no .seg.nrrd), or those that match a pattern, by name.

    Raises `InputError` for fewer than two: a set has a spread.
    """
    from ..reference_build import files_matching

    folder = Path(place)
    found = sorted(folder.iterdir()) if folder.is_dir() else files_matching(str(place), f"{what} volume")
    names = [path for path in found if path.is_file() and path.name.lower().endswith(_ENDINGS)]
    volumes = [path for path in names if not path.name.lower().endswith(".seg.nrrd")]
    if len(volumes) < 2:
        raise InputError(
            f"{place} has {len(volumes)} {what} volumes (.nii, .nii.gz, .nrrd); at least two are needed, and some "
            "hundred for numbers that mean much."
        )
    return volumes


def hashed_files(
    paths: Sequence[Path], progress: Progress | None = None, cancel: Cancel | None = None
) -> list[SetFile]:
    """The files with the hashes of their content; raises `InputError` for one that is not there, `CancelledError`."""
    clock = PhaseClock("files", len(paths), progress)
    files = []
    for path in paths:
        raise_if_cancelled(cancel, "the reading of the files")
        if not path.is_file():
            raise InputError(f"There is no file {path.name} in {path.parent}; check the path.")
        files.append(SetFile(path, sha256_of(path)))
        clock.report(len(files))
    return files


class WorkFolder:
    """Results by content and settings in a folder that exists: one file each.

    Files are named by a hash, so no name of a file or patient is kept.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def path_of(self, file: SetFile, settings: dict, ending: str) -> Path:
        """Where the result of a file with these settings lies, whether it exists or not."""
        text = json.dumps({"sha256": file.sha256, **settings}, sort_keys=True)
        return self.folder / (hashlib.sha256(text.encode()).hexdigest()[:32] + ending)

    def read_json(self, path: Path) -> dict | None:
        """A stored result; None where there is none or where it is damaged (it is then computed again)."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def write_json(self, path: Path, data: dict) -> None:
        """Store a result."""
        text = json.dumps(data) + "\n"
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
