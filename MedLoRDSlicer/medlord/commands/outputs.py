"""Checks of output files before any work begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError


def check_outputs(paths: Iterable[Path], overwrite: bool) -> None:
    """Raise unless every path can be written: its folder exists and takes files, and nothing is lost unasked."""
    from ..volume_files import check_writable_folder

    paths = list(paths)
    for folder in dict.fromkeys(path.parent for path in paths):
        check_writable_folder(folder)
    for path in paths:
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file in it.")
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists already; choose another name or give --overwrite.")


@contextmanager
def all_or_nothing(paths: Iterable[Path]) -> Iterator[None]:
    """Remove those of `paths` that came into being within it when what happens in it fails."""
    new = [path for path in paths if not path.exists()]
    try:
        yield
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        raise


def siblings(path: Path, seeds: Iterable[int]) -> list[Path]:
    """NAME_seed.ENDING beside `path`, one for each seed; the ending .nii.gz stays whole."""
    ending = ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix
    stem = path.name[: len(path.name) - len(ending)]
    return [path.with_name(f"{stem}_{seed}{path.name[len(stem) :]}") for seed in seeds]
