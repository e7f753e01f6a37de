"""The table of numbers that lies beside every synthetic CT: volumes of the masks, HU under each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import vtk

from medlord.conditions import Conditions
from medlord.volumes import Volume

from .translation import _


@dataclass(frozen=True)
class StructureNumbers:
    """One mask on the model's grid: its volume in ml, mean and standard deviation of the HU under it."""

    structure: str
    volume_ml: float
    mean_hu: float
    sd_hu: float


def measure_structure(volume: Volume, conditions: Conditions, structure: str) -> StructureNumbers:
    """Numbers of one mask that is not empty, on the grid of the synthetic volume."""
    values = volume.array[conditions[structure]]
    return StructureNumbers(
        structure,
        len(values) * conditions.grid.voxel_volume_ml,
        float(values.mean(dtype=np.float64)),
        float(values.std(dtype=np.float64)),
    )


def add_table(
    scene, name: str, numbers: Sequence[StructureNumbers], drawn_ml: Mapping[str, float] | None, seed: int
):
    """Add a table node with one row per structure.

    `drawn_ml` are the volumes of the masks as they were drawn; without them that column is left out.
    """
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    table = vtk.vtkTable()
    names = vtk.vtkStringArray()
    names.SetName(_("Structure"))
    for entry in numbers:
        names.InsertNextValue(entry.structure)
    table.AddColumn(names)
    node.SetAndObserveTable(table)
    # Slicer 5.12 has the new name and warns of the old one.
    show_names = getattr(node, "SetUseColumnTitleAsColumnHeader", None) or node.SetUseColumnNameAsColumnHeader
    show_names(True)
    if drawn_ml:
        volumes = [drawn_ml.get(entry.structure, float("nan")) for entry in numbers]
        _add_column(node, _("Volume drawn"), volumes, _("Volume of the mask as it was drawn"), "ml")
    volumes = [entry.volume_ml for entry in numbers]
    _add_column(node, _("Volume on the grid"), volumes, _("Volume of the mask on the model's grid"), "ml")
    add_seed_columns(node, numbers, seed)
    node.SetLocked(True)
    return node


def add_seed_columns(node, numbers: Sequence[StructureNumbers], seed: int) -> None:
    """Two more columns: mean and standard deviation of the synthetic HU under each mask, for one more seed."""
    means = [entry.mean_hu for entry in numbers]
    deviations = [entry.sd_hu for entry in numbers]
    text = _("Mean of the synthetic CT under the mask that was given")
    _add_column(node, _("Mean HU, seed {seed}").format(seed=seed), means, text)
    text = _("Standard deviation of the synthetic CT under the mask that was given")
    _add_column(node, _("SD HU, seed {seed}").format(seed=seed), deviations, text)


def _add_column(node, name: str, values: Sequence[float], text: str, unit: str = "") -> None:
    """A column of numbers with what it measures and its unit; a name that exists gets a number."""
    taken = {node.GetTable().GetColumnName(n) for n in range(node.GetTable().GetNumberOfColumns())}
    unique, number = name, 1
    while unique in taken:
        unique, number = f"{name} ({number})", number + 1
    column = vtk.vtkDoubleArray()
    column.SetName(unique)
    for value in values:
        column.InsertNextValue(round(value, 3))
    node.AddColumn(column)
    node.SetColumnDescription(unique, text)
    # The table view writes the unit below the name.
    if unit:
        node.SetColumnUnitLabel(unique, unit)
