"""Folders of results: several files that appear together, and folders that a failure does not leave behind."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from .errors import InputError
from .volume_files import check_writable_folder


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Make `folder` with its parents and check that files can be written to it; a failure within removes what it made.

    Only folders that are still empty are removed. Raises `InputError` when `folder` or a parent is a file or when
    the folder cannot be made or written.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        _make(folder)
        check_writable_folder(folder)
        yield folder
    except BaseException:
        for place in made:
            with contextlib.suppress(OSError):  # not made after all, or no longer empty
                place.rmdir()
        raise


@contextlib.contextmanager
def appearing_together(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Give a temporary folder to write the files `names` into; at the end they all move to `folder` at once.

    `folder` is made with its parents, older files of these names are replaced. When anything fails, within or while
    moving, `folder` is as it was. Raises `InputError` before anything is written when `folder` cannot take them.
    """
    for name in names:
        if (folder / name).is_dir():
            raise InputError(
                f"{folder / name} is a folder where a file is to be written; choose another folder."
            )
    with new_folder(folder):
        # Inside, since beside may be another disk or a folder that takes no files.
        staging = Path(tempfile.mkdtemp(prefix=".medlord-", dir=folder))
        try:
            yield staging
            _move_all(staging, folder, names)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _make(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made ({error.strerror}); choose another.") from error


def _move_all(staging: Path, folder: Path, names: Sequence[str]) -> None:
    """Move the files, the older ones aside first; put those back when a move fails."""
    older = Path(tempfile.mkdtemp(dir=staging))
    moved = []
    try:
        for name in names:
            if (folder / name).exists():
                (folder / name).replace(older / name)
            moved.append(name)
            (staging / name).replace(folder / name)
    except BaseException:
        for name in moved:
            (folder / name).unlink(missing_ok=True)
            if (older / name).exists():
                (older / name).replace(folder / name)
        raise
