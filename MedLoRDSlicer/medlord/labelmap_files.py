"""Masks that overlap in a single labelmap: every combination of structures has a value of its own.

A labelmap has one value per voxel, and structures contain each other (the lung lies in the body). To let one of them
win would leave a hole of the lung's size in the body, a mask that no model was trained with. So the table beside the
labelmap gives a structure all values that it consists of: {"body": [1, 2], "lung": [2]}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .conditions import Conditions
from .errors import InputError
from .volume_files import save_volume, write_atomically
from .volumes import Grid, Volume

_LARGEST_VALUE = 32767


def write_labelmap(
    path: str | Path, labels_path: str | Path, grid: Grid, masks: Mapping[str, np.ndarray]
) -> dict[str, list[int]]:
    """Write masks [i, j, k] as a labelmap (NIfTI) and its table of values (JSON) that `read_labels` reads.

    Nothing is lost where masks overlap, see `combine_masks`. Returns the table: structure -> its values, none for an
    empty mask. Raises `InputError` when a folder cannot be written, `EngineError` when the disk is full; older files of
    both names stay as they were then.
    """
    labelmap, table = combine_masks(Conditions(grid, dict(masks)))
    lines = [f"  {json.dumps(name, ensure_ascii=False)}: {values}" for name, values in table.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"

    def write_both(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")
        # Within the other's writing, so that both names change together: only a renaming is left to do.
        save_volume(Volume(labelmap, grid), path)

    write_atomically(Path(labels_path), write_both)
    return table


def combine_masks(conditions: Conditions) -> tuple[np.ndarray, dict[str, list[int]]]:
    """(labelmap [i, j, k] of uint8 or int16, structure -> its values): each combination that occurs has one value.

    Values count from 1, single structures first. Raises `InputError` for more combinations than int16 can count.
    """
    found = np.zeros(conditions.grid.shape, np.int32)
    combinations: list[tuple[str, ...]] = [()]
    for name, mask in conditions.masks.items():
        before = found[mask]
        after = np.zeros(len(combinations), np.int32)
        for value in np.flatnonzero(np.bincount(before)):
            after[value] = len(combinations)
            combinations.append((*combinations[value], name))
        found[mask] = after[before]
    # A combination of which a later structure took every voxel is gone.
    counts = np.bincount(found.ravel(), minlength=len(combinations))
    kept = [value for value in range(1, len(combinations)) if counts[value]]
    kept.sort(key=lambda value: len(combinations[value]))
    if len(kept) > _LARGEST_VALUE:
        raise InputError(
            f"The structures overlap in {len(kept)} combinations, a labelmap holds {_LARGEST_VALUE}; write .seg.nrrd."
        )
    numbers = np.zeros(len(combinations), np.uint8 if len(kept) < 256 else np.int16)
    numbers[kept] = np.arange(1, len(kept) + 1)
    table = {
        name: [int(numbers[value]) for value in kept if name in combinations[value]]
        for name in conditions.masks
    }
    return numbers[found], table
