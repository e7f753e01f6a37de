"""The masks of a study in the mode match: labelmaps on the grid of the cases, with the same labels in every case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..segmentation_files import read_segmentation
from .cases import Equalisation, Survey, make_mask


@dataclass(frozen=True)
class CaseMasks:
    """The masks' files by case, and the names of the label values in all of them."""

    files: dict[str, Path]
    names: dict[str, str]

    @classmethod
    def of(cls, files: dict[str, Path]) -> CaseMasks:
        """Read which structures the masks have; shown is what all have, or the labels would tell the source.

        Raises `InputError` when a mask cannot be read or the masks have no structure in common.
        """
        common: list[str] | None = None
        for path in files.values():
            names = {segment.name for segment in read_segmentation(path).segments}
            common = sorted(names) if common is None else [name for name in common if name in names]
        if not common:
            raise InputError(
                "The masks of the study have no structure in common; give masks with the same names of structures."
            )
        if len(common) > 255:
            raise InputError(
                f"The masks have {len(common)} structures in common (limit 255); leave some out."
            )
        return cls(files, {str(value): name for value, name in enumerate(common, 1)})

    def labelmap(self, case: str, entry: Survey, plan: Equalisation) -> np.ndarray:
        """The labels of a case, uint8 [i, j, k] on the shared grid; a later structure lies over an earlier one."""
        segmentation = read_segmentation(self.files[case])
        by_name = {segment.name: segment for segment in segmentation.segments}
        labels = np.zeros(plan.grid.shape, dtype=np.uint8)
        for value, name in self.names.items():
            labels[make_mask(segmentation.mask(by_name[name]), segmentation.grid, entry, plan)] = int(value)
        return labels
