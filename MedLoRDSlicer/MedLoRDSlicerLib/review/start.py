"""The review mode from the Python console."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import slicer

from medlord.errors import InputError

from ..headless import in_slicer_application
from ..translation import _

if TYPE_CHECKING:
    from .session import ReviewSession

_MODULE = "MedLoRDSlicer"


def start_review(study_folder: str | Path, reader: str, answers: str | Path | None = None) -> ReviewSession:
    """Open the module's panel and begin to read a study in it, or go on where `reader` stopped.

    `answers` is the folder of the answers (default: the study's own). Raises `InputError` for a bad study or reader,
    while a study is being read, and in a program without windows.
    """
    if not in_slicer_application() or slicer.util.mainWindow() is None:
        raise InputError(
            _(
                "This program has no window to read in; use Slicer with its window, or 'medlord review answer'."
            )
        )
    slicer.util.selectModule(_MODULE)
    return slicer.util.getModuleWidget(_MODULE).panel.review.start(study_folder, reader, answers)
