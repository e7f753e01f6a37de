"""Segmenters behind one interface: what finds structures in a CT, so that they can be compared with what was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..conditions import Conditions
from ..errors import InputError
from ..progress import Cancel, Progress, raise_if_cancelled
from ..volumes import Volume
from .rules import STRUCTURES, segment_by_rules


class Segmenter(Protocol):
    """What every segmenter offers.

    `name` is typed by people, `structures` are the names it can find, `licence` is that of its weights and code and
    `device` where it runs. `version` changes with its results, so that a reference made with another one is noticed.
    """

    name: str
    version: str
    structures: tuple[str, ...]
    licence: str
    device: str

    def segment(
        self,
        volume: Volume,
        structures: Sequence[str],
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Conditions:
        """Masks of `structures` on the grid of `volume`, in the order asked; a missing one is empty."""
        ...


class HuRules:
    """The built-in segmenter: thresholds in HU and morphology, no weights (see `rules`)."""

    name = "hu-rules"
    version = "1"
    structures = STRUCTURES
    licence = "Apache-2.0, no weights"
    device = "cpu"

    def segment(
        self,
        volume: Volume,
        structures: Sequence[str] = STRUCTURES,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Conditions:
        """See `segment_by_rules`."""
        return segment_by_rules(volume, structures, progress=progress, cancel=cancel)


class Labelmap:
    """A segmentation of the CT that the user already has, from any program: it is handed on, nothing is searched.

    `masks` are its structures, on any grid.
    """

    name = "labelmap"
    version = "1"
    licence = "that of the segmentation"
    device = "cpu"

    def __init__(self, masks: Conditions):
        self._masks = masks
        self.structures = tuple(masks.names)

    def segment(
        self,
        volume: Volume,
        structures: Sequence[str],
        progress: Progress | None = None,
        cancel: Cancel | None = None,
    ) -> Conditions:
        """The masks of `structures` on the grid of `volume`.

        Raises `InputError` for a structure that it does not have, and where nothing of it lies within the volume.
        """
        unknown = [name for name in structures if name not in self._masks]
        if unknown:
            raise InputError(
                f"The segmentation does not hold {', '.join(map(repr, unknown))}; it has {', '.join(self.structures)}."
            )
        raise_if_cancelled(cancel, "the segmentation")
        chosen = Conditions(self._masks.grid, {name: self._masks[name] for name in structures})
        if chosen.grid.matches(volume.grid):
            return chosen
        placed = chosen.resampled(volume.grid)
        if _has_voxels(chosen) and not _has_voxels(placed):
            raise InputError(
                "No voxel of the segmentation that was given lies within the CT: it belongs to another one, or either "
                "was moved; give the segmentation of this CT."
            )
        return placed


def _has_voxels(masks: Conditions) -> bool:
    return any(mask.any() for mask in masks.masks.values())


def segmenter_names() -> list[str]:
    """The names that `find_segmenter` takes on this computer; a `Labelmap` is made from masks instead."""
    from .total_segmentator.segmenter import is_installed

    return [HuRules.name, *(_total_segmentator_names() if is_installed() else ())]


def find_segmenter(name: str | Segmenter, **options) -> Segmenter:
    """The segmenter called `name` (one that already is a segmenter is passed through).

    `totalsegmentator` runs its task total, `totalsegmentator:TASK` another one; `options` are those of
    `total_segmentator.segmenter.TotalSegmentator`. Raises `InputError` with the known names for any other name, and for
    options that the segmenter does not have.
    """
    if not isinstance(name, str):
        return name
    if name in _total_segmentator_names():
        from .total_segmentator.segmenter import TotalSegmentator

        return TotalSegmentator(name.partition(":")[2] or "total", **options)
    if name != HuRules.name:
        known = ", ".join((HuRules.name, *_total_segmentator_names()))
        raise InputError(f"There is no segmenter '{name}'; choose one of {known}.")
    if options:
        raise InputError(f"The segmenter {name} has no options ({', '.join(options)}).")
    return HuRules()


def _total_segmentator_names() -> list[str]:
    from .total_segmentator.process import TASKS
    from .total_segmentator.segmenter import NAME

    return [NAME, *(f"{NAME}:{task}" for task in TASKS if task != "total")]
