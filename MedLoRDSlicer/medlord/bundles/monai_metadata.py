"""The keys that MONAI expects in a bundle's `configs/metadata.json`, beside our own section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from ..condition_channels import condition_channels


def monai_metadata(
    *,
    version: str,
    title: str,
    authors: str,
    shape: Sequence[int],
    window_hu: Sequence[float],
    conditions: Sequence[str],
    attributes: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Versions, authors, and the data format of inputs (masks and attributes, where there are any) and output (HU)."""
    versions = {name: metadata.version(name) for name in ("monai", "torch", "numpy")}
    channels = condition_channels(conditions, attributes)
    inputs = {
        "condition": _image("segmentation", "n/a", shape, "float32", (0, 1), channels),
    }
    return {
        "version": version,
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"].split("+")[0],
        "numpy_version": versions["numpy"],
        "task": "Synthesis of CT from segmentation masks" if channels else "Synthesis of CT",
        "description": title,
        "authors": authors,
        "copyright": authors,
        "intended_use": "Research, teaching and software tests; not for clinical use",
        "network_data_format": {
            "inputs": inputs if channels else {},
            "outputs": {"image": _image("hounsfield", "CT", shape, "int16", window_hu, ["image"])},
        },
    }


def _image(
    kind: str,
    modality: str,
    shape: Sequence[int],
    dtype: str,
    values: Sequence[float],
    channels: Sequence[str],
) -> dict[str, Any]:
    return {
        "type": "image",
        "format": kind,
        "modality": modality,
        "num_channels": len(channels),
        "spatial_shape": list(shape),
        "dtype": dtype,
        "value_range": list(values),
        "is_patch_data": False,
        "channel_def": {str(number): name for number, name in enumerate(channels)},
    }
