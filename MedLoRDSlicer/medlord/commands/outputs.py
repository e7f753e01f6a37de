"""Output files: checks before any work begins, and writing all of them or none."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
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


def json_and_page(arguments: argparse.Namespace) -> list[Path]:
    """The files of --out (.json) and, where given, --html; raises `InputError` unless they can be written."""
    for path, ending in ((arguments.out, ".json"), (arguments.html, ".html")):
        if path and path.suffix.lower() != ending:
            raise InputError(f"{path.name} has the wrong ending; use {ending}.")
    outputs = [path for path in (arguments.out, arguments.html) if path]
    check_outputs(outputs, arguments.overwrite)
    return outputs


def write_json_and_page(arguments: argparse.Namespace, content: dict, page: Callable[[], str]) -> None:
    """Write both files; `page` makes the HTML where it is asked for."""
    from ..volume_files import write_atomically

    text = json.dumps(content, indent=2) + "\n"
    write_atomically(arguments.out, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    if arguments.html:
        html = page()
        write_atomically(arguments.html, lambda temporary: temporary.write_text(html, encoding="utf-8"))


def refuse_options(arguments: argparse.Namespace, names: Iterable[str], what: str) -> None:
    """Raise `InputError` for the first of the options `names` that was given: it has no effect on `what`."""
    for name in names:
        if getattr(arguments, name) not in (None, False):
            raise InputError(f"--{name.replace('_', '-')} has no effect on {what}; leave it away.")


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
