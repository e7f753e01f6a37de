"""TotalSegmentator behind the interface of segmenters."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...conditions import Conditions
from ...errors import EngineError, InputError
from ...progress import Cancel, Progress, raise_if_cancelled
from ...vocabulary import load_vocabulary
from ...volume_files import load_volume, save_volume
from ...volumes import Volume, require_ct
from .process import LICENSED_TASKS, SEGMENTATION, TASKS, VOLUME
from .running import Runner, ask

NAME = "totalsegmentator"
PYTHON_VARIABLE, LICENSE_VARIABLE = "MEDLORD_TOTALSEGMENTATOR_PYTHON", "MEDLORD_TOTALSEGMENTATOR_LICENSE"

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


class TotalSegmentator:
    """The package TotalSegmentator, run in a process of its own (see `process` and `running`).

    task         total, fast (the 3 mm model of total), lung_vessels, body, or heartchambers_highres
    subset       only these structures, of the tasks total and fast; quicker, and much less memory for large CT
    weights      folder with TotalSegmentator's weights (default: TOTALSEG_WEIGHTS_PATH, else its own folder)
    license_key  for heartchambers_highres (default: MEDLORD_TOTALSEGMENTATOR_LICENSE, else what TotalSegmentator has)
    download     the user agreed to size and licence of weights that are not there yet
    device       auto, cpu, cuda or cuda:N
    python       a Python that has the package (default: MEDLORD_TOTALSEGMENTATOR_PYTHON, else the running one)
    runner       starts the process (default: `processes.start_process`)

    The package is asked for its structures and version when they are first needed. Structures of the vocabulary that
    are unions of the task's, such as lung, can be asked for too.
    """

    def __init__(
        self,
        task: str = "total",
        *,
        subset: Sequence[str] | None = None,
        weights: str | Path | None = None,
        license_key: str | None = None,
        download: bool = False,
        device: str = "auto",
        python: str | None = None,
        runner: Runner | None = None,
    ):
        if task not in TASKS:
            raise InputError(f"TotalSegmentator has no task '{task}' here; choose one of {', '.join(TASKS)}.")
        if subset and TASKS[task]["task"] != "total":
            raise InputError(f"A subset can be chosen of the tasks total and fast, not of {task}.")
        if not _DEVICE.fullmatch(device):
            raise InputError(
                f"There is no device '{device}' for TotalSegmentator; use auto, cpu, cuda or cuda:N."
            )
        if weights is not None and not Path(weights).is_dir():
            raise InputError(f"There is no folder {weights} for TotalSegmentator's weights; check the path.")
        self.name = NAME if task == "total" else f"{NAME}:{task}"
        self.device = device
        self.licence = (
            "Apache-2.0" if task not in LICENSED_TASKS else "a licence key of TotalSegmentator is needed"
        )
        self._task, self._subset = task, tuple(subset or ())
        self._weights, self._download = weights, download
        self._license_key = license_key or os.environ.get(LICENSE_VARIABLE) or None
        self._python = python or os.environ.get(PYTHON_VARIABLE) or None
        self._runner = runner
        self._known: dict[str, Any] | None = None

    @property
    def version(self) -> str:
        """Version of the package."""
        return self._description()["version"]

    @property
    def structures(self) -> tuple[str, ...]:
        """The subset, else all classes of the task and the unions of them that the vocabulary names."""
        if self._subset:
            return self._subset
        classes = self._classes()
        unions = [name for name in load_vocabulary().structures if name not in classes and self._parts(name)]
        return (*classes, *unions)

    def segment(
        self,
        volume: Volume,
        structures: Sequence[str],
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Conditions:
        """Masks of `structures` on the grid of `volume`, a CT in HU; what was not found is empty.

        Raises `InputError` for a volume that is no CT, for unknown structures and where the package is not installed,
        `WeightsError` for missing weights or a missing licence key, `InsufficientMemoryError`, `CancelledError`, and
        `EngineError` when the process crashes.
        """
        require_ct(volume, "The volume to segment")
        parts = {name: self._required_parts(name) for name in structures}
        raise_if_cancelled(cancel, "the segmentation")
        with tempfile.TemporaryDirectory(prefix="medlord-segment-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            # Without the recipe: it holds masks and is no business of the segmenter.
            save_volume(Volume(volume.array, volume.grid), folder / VOLUME)
            answer = self._ask(folder, self._request(), progress, cancel)
            found = load_volume(folder / SEGMENTATION)
        if not found.grid.matches(volume.grid):
            raise EngineError(
                f"TotalSegmentator answered with a grid of {found.grid.shape} for one of {volume.grid.shape}; nothing "
                "was taken from it."
            )
        values = answer["labels"]
        masks = {
            name: np.isin(found.array, [values[part] for part in names]) for name, names in parts.items()
        }
        return Conditions(volume.grid, masks)

    def _request(self) -> dict[str, Any]:
        subset = sorted({part for name in self._subset for part in self._required_parts(name)})
        return {
            "action": "segment",
            "task": self._task,
            "subset": subset or None,
            "weights": str(Path(self._weights).resolve()) if self._weights is not None else None,
            "license_key": self._license_key,
            "download": self._download,
            "device": self.device.replace("auto", "gpu").replace("cuda", "gpu"),
        }

    def _ask(
        self,
        folder: Path,
        request: dict[str, Any],
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> dict[str, Any]:
        return ask(
            request, folder, python=self._python, runner=self._runner, progress=progress, cancel=cancel
        )

    def _description(self) -> dict[str, Any]:
        if self._known is None:
            with tempfile.TemporaryDirectory(prefix="medlord-segment-") as name:
                self._known = self._ask(Path(name), {"action": "describe"})
        return self._known

    def _classes(self) -> list[str]:
        description = self._description()
        if self._task not in description["classes"]:
            raise InputError(
                f"TotalSegmentator {description['version']} has no task {self._task}; install a newer version."
            )
        return description["classes"][self._task]

    def _parts(self, name: str) -> list[str]:
        """The classes of the task that make a structure; none for what the task cannot give completely."""
        classes = self._classes()
        if name in classes:
            return [name]
        plan = load_vocabulary().plan(classes, [name])
        return list(plan.sources.get(name, ())) if name not in plan.incomplete else []

    def _required_parts(self, name: str) -> list[str]:
        parts = self._parts(name)
        if not parts:
            raise InputError(
                f"The task {self._task} of TotalSegmentator does not find '{name}'; it finds "
                f"{', '.join(self._classes()[:12])} ..."
            )
        return parts


def is_installed() -> bool:
    """Whether the running Python has the package, or another one is named for it."""
    from importlib.util import find_spec

    return bool(os.environ.get(PYTHON_VARIABLE)) or find_spec("totalsegmentator") is not None
