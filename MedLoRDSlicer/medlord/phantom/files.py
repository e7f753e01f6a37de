"""A phantom as files: CT, labelmap, overlapping masks, parameters."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ..volume_files import check_writable_folder, save_volume, write_atomically
from ..volumes import Grid, Volume
from . import labels
from .case import PhantomCase, make_phantom


def write_phantom(seed: int, out_dir: str | Path, grid: Grid | None = None, progress: Progress | None = None,
                  cancel: Cancel | None = None, **overrides) -> list[Path]:
    """Make a phantom and write it into a folder, which is created if need be (its parent must exist).

    Files: ct.nii.gz (int16 HU), labelmap.nii.gz (uint8, disjoint structures; where shapes meet the order of
    `medlord.phantom.labels` decides) with labels.json {value: name}, one mask NAME.nii.gz for the body and for every
    overlapping structure and finding that is present, parameters.json. Returns their paths.

    All files appear together at the end: bad parameters (`InputError`), cancelling (`CancelledError`), a folder that
    cannot be written (`InputError`) or a full disk (`EngineError`) leave the folder as it was.
    """
    out_dir = Path(out_dir)
    if out_dir.exists() and not out_dir.is_dir():
        raise InputError(f"The output {out_dir} is a file; give a folder.")
    check_writable_folder(out_dir if out_dir.exists() else out_dir.parent)
    case = make_phantom(seed, grid, progress, cancel, **overrides)
    created = not out_dir.exists()
    out_dir.mkdir(exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".medlord-", dir=out_dir))
    try:
        names = _write_all(case, staging, progress, cancel)
        for name in names:
            (staging / name).replace(out_dir / name)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if created:
            shutil.rmtree(out_dir, ignore_errors=True)
        raise
    staging.rmdir()
    return [out_dir / name for name in names]


def _write_all(case: PhantomCase, folder: Path, progress, cancel) -> list[str]:
    grid = case.volume.grid
    masks = [name for name in labels.FLAGS if case.labels[name].any()]
    clock, done = PhaseClock("write", 2 + len(masks), progress), []

    def save(array, name, synthetic=False):
        raise_if_cancelled(cancel, "writing of the phantom")
        save_volume(Volume(array, grid), folder / name, synthetic=synthetic)
        done.append(name)
        clock.report(len(done))

    save(case.volume.array, "ct.nii.gz", synthetic=True)
    save(case.labelmap, "labelmap.nii.gz")
    for name in masks:
        save(case.labels[name].astype(np.uint8), f"{name}.nii.gz")
    texts = {"labels.json": {value: name for name, value in labels.VALUES.items()},
             "parameters.json": case.parameters.to_dict()}
    for name, content in texts.items():
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(folder / name, lambda path, text=text: path.write_text(text, encoding="utf-8"))
    return [*done, *texts]
