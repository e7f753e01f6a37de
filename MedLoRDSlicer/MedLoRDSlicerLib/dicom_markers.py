"""Marks by which a synthetic volume stays recognisable when Slicer exports it to DICOM.

Slicer's export dialog takes the tags of a series from the attributes `DICOM.<tag>` of its subject-hierarchy item:
series description, manufacturer and model are written from there. `ImageType` is not: Slicer's exporter for scalar
volumes always writes ORIGINAL\\PRIMARY\\AXIAL for a CT, so that mark reaches exporters that honour it and the node's
own files, but not Slicer's. The series description carries the word SYNTHETIC in every case. UIDs are left to the
exporter, which makes new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PREFIX = "DICOM."
IMAGE_TYPE = "DERIVED\\SECONDARY\\OTHER"
MANUFACTURER = "MedLoRDSlicer (synthetic)"
_LONGEST_TEXT = 64  # of the value representation LO, PS3.5


def series_tags(recipe: Mapping[str, Any], kind: str = "CT") -> dict[str, str]:
    """DICOM keywords and values of a synthetic series; they hold no name that a user typed.

    SyntheticData is (0008,001C) of PS3.3, made for this.
    """
    model = f"{recipe.get('model', 'unknown')} {recipe.get('model_version', '')}".strip()
    description = f"SYNTHETIC {kind} ({model}, seed {recipe.get('seed', '?')})"
    return {
        "SeriesDescription": description[:_LONGEST_TEXT],
        "Modality": "CT",
        "Manufacturer": MANUFACTURER,
        "Model": model[:_LONGEST_TEXT],
        "ImageType": IMAGE_TYPE,
        "SyntheticData": "YES",
        "DerivationDescription": "Synthesized by a generative model from a segmentation; no patient was measured.",
    }


def mark_node(volume_node, tags: Mapping[str, str]) -> None:
    """Put the tags on a volume node; its NRRD file carries them."""
    for keyword, value in tags.items():
        volume_node.SetAttribute(PREFIX + keyword, value)


def mark_item(hierarchy, item: int, tags: Mapping[str, str]) -> None:
    """Put the tags on a subject-hierarchy item, where Slicer's DICOM export looks for them."""
    for keyword, value in tags.items():
        hierarchy.SetItemAttribute(item, PREFIX + keyword, value)
