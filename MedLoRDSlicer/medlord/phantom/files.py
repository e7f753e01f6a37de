"""A phantom as files: CT, segmentation, parameters."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import InputError
from ..output_folders import appearing_together
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ..segmentation_files import write_segmentation
from ..volume_files import check_writable_folder, save_volume, write_atomically
from ..volumes import Grid
from .case import PhantomCase, make_phantom

FILE_NAMES = ("ct.nii.gz", "segmentation.seg.nrrd", "parameters.json")


def write_phantom(
    seed: int,
    out_dir: str | Path,
    grid: Grid | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
    **overrides,
) -> list[Path]:
    """Make a phantom and write it into a folder, which is created if need be (its parent must exist).

    Files: ct.nii.gz (int16 HU, marked as synthetic), segmentation.seg.nrrd (every structure that is present, the
    overlapping ones in layers of their own), parameters.json. Returns their paths; older ones are replaced.
    `grid` and `overrides` are those of `make_phantom`.

    All files appear together at the end: bad parameters (`InputError`), cancelling (`CancelledError`), a folder that
    cannot be written (`InputError`) or a full disk (`EngineError`) leave the folder as it was.
    """
    folder = Path(out_dir)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"The output {folder} is a file; name a folder.")
    check_writable_folder(folder if folder.exists() else folder.parent)
    case = make_phantom(seed, grid, progress, cancel, **overrides)
    with appearing_together(folder, FILE_NAMES) as staging:
        _write_all(case, staging, progress, cancel)
    return [folder / name for name in FILE_NAMES]


def _write_all(case: PhantomCase, folder: Path, progress: Progress | None, cancel: Cancel | None) -> None:
    grid = case.volume.grid
    ct, segmentation, parameters = (folder / name for name in FILE_NAMES)
    clock = PhaseClock("write", len(FILE_NAMES), progress)
    raise_if_cancelled(cancel, "writing of the phantom")
    save_volume(case.volume, ct, synthetic=True)
    clock.report(1)
    raise_if_cancelled(cancel, "writing of the phantom")
    masks = {name: mask for name in case.labels if (mask := case.labels[name]).any()}
    write_segmentation(segmentation, grid, masks)
    clock.report(2)
    text = json.dumps(case.parameters.to_dict(), indent=2) + "\n"
    write_atomically(parameters, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    clock.report(3)
