"""What a model bundle says of itself: `configs/metadata.json` in MONAI-bundle layout, with a section `medlord`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import WeightsError
from ..volumes import Grid

FORMAT = 1
NETWORKS = ("autoencoder", "denoiser", "control")
FIXED_WINDOW, OWN_RANGE = "fixed-window", "own-minimum-and-maximum"
"""Intensity maps: `window_hu` for every volume, or each volume's own minimum and maximum (MedLoRD's pipeline)."""


@dataclass(frozen=True)
class ModelDescription:
    """A latent diffusion model, as far as it must be known to run it.

    networks          constructor dictionaries of the networks (`medlord.networks.build`); "control" may be missing
    weights_sha256    hash of every weight file, by its path within the bundle
    schedule          noise schedule (`NoiseSchedule.to_dict`); `prediction_type` is what the denoiser predicts
    scale_factor      latents are multiplied by it before diffusion
    grid_shape        native voxels (i, j, k); spacing_mm along them; orientation such as "RAS"
    conditions        names of the masks, in channel order
    attributes        image-level attributes and their values, e.g. {"contrast_phase": ["native", ...]}
    window_hu         HU that the network sees as -1 and 1
    training          settings of the training, for the record
    preprocessing     how volumes were prepared for training where that was not this engine's own way: intensity_map,
                      clip_hu, orientation, spacing, volume_fit, condition_fit, padding_value
    provenance        of an imported model: family, files with their SHA-256, where every setting came from
    """

    id: str
    version: str
    networks: dict[str, dict]
    weights_sha256: dict[str, str]
    schedule: dict
    prediction_type: str
    scale_factor: float
    grid_shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    conditions: list[str]
    attributes: dict[str, list[str]]
    window_hu: tuple[float, float]
    licence: str
    title: str = ""
    training: dict = field(default_factory=dict)
    preprocessing: dict = field(default_factory=dict)
    provenance: dict = field(default_factory=dict)

    def grid_at(self, center_ras_mm: Any) -> Grid:
        """The native grid with its middle at a world position (RAS mm)."""
        return Grid.centered(
            self.grid_shape, self.spacing_mm, tuple(float(x) for x in center_ras_mm), self.orientation
        )

    @property
    def extent_mm(self) -> np.ndarray:
        """Size of the field of view along R, A and S in mm."""
        grid = self.grid_at((0.0, 0.0, 0.0))
        return np.abs(grid.affine[:3, :3]) @ np.asarray(grid.shape)

    @property
    def takes_masks(self) -> bool:
        """False for a model without a control network: its volumes follow nothing but the seed."""
        return "control" in self.networks

    @property
    def intensity_map(self) -> str:
        """`FIXED_WINDOW`, or `OWN_RANGE`: then the HU of the model's volumes are relative."""
        return self.preprocessing.get("intensity_map", FIXED_WINDOW)

    @property
    def settings_sha256(self) -> str:
        """Hash of what decides a run's numbers beside weights, seed and masks: a new import may change it alone."""
        deciding = {
            "networks": self.networks,
            "schedule": self.schedule,
            "prediction_type": self.prediction_type,
            "scale_factor": float(self.scale_factor),
            "window_hu": [float(value) for value in self.window_hu],
            "conditions": list(self.conditions),
            # Pairs: their order is that of the channels, and sorting the keys below must not hide it.
            "attributes": [[name, list(values)] for name, values in self.attributes.items()],
        }
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode("utf-8")).hexdigest()

    @property
    def default_attributes(self) -> dict[str, str]:
        """The first value of every attribute: what a run takes when nothing was chosen."""
        return {name: values[0] for name, values in self.attributes.items()}


def read_description(folder: Path) -> ModelDescription:
    """Read `configs/metadata.json` of a bundle; raises `WeightsError` when missing, damaged or of another format."""
    path = folder / "configs" / "metadata.json"
    if not path.is_file():
        raise WeightsError(
            f"{folder.name} is no model bundle: configs/metadata.json is missing; import the model again."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))["medlord"]
        if content["format"] != FORMAT:
            raise WeightsError(
                f"The bundle {folder.name} has format {content['format']}, this program reads {FORMAT}; "
                "update the program."
            )
        _require_networks(content)
        fields = {key: content[key] for key in ModelDescription.__dataclass_fields__ if key in content}
        for name in ("grid_shape", "spacing_mm", "window_hu"):
            fields[name] = tuple(fields[name])
        return ModelDescription(**fields)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise WeightsError(
            f"configs/metadata.json of {folder.name} cannot be read ({type(error).__name__}: {error}); "
            "import the model again."
        ) from error


def _require_networks(content: Mapping[str, Any]) -> None:
    """Raise `KeyError` or `TypeError` unless the needed networks are described and exactly weight files have hashes."""
    networks, hashes = content["networks"], content["weights_sha256"]
    if not isinstance(networks, dict) or not isinstance(hashes, dict):
        raise TypeError("networks and weights_sha256 must be objects")
    for name in ("autoencoder", "denoiser"):
        if name not in networks:
            raise KeyError(f"network '{name}'")
    for name in networks:
        if name not in NETWORKS:
            raise KeyError(f"unknown network '{name}'")
        if not hashes.get(weight_file(name)):
            raise KeyError(f"SHA-256 of {weight_file(name)}")
    for path in hashes:
        # Nothing outside the bundle is read, whatever its description says.
        if path not in map(weight_file, NETWORKS):
            raise KeyError(f"weight file '{path}', which no model has")


def weight_file(network: str) -> str:
    """Path of a network's weights within a bundle."""
    return f"models/{network}.safetensors"


def description_to_metadata(description: ModelDescription, monai: Mapping[str, Any]) -> dict:
    """The whole metadata file: MONAI's keys (version, authors, ...) with the section `medlord`."""
    content = {name: getattr(description, name) for name in ModelDescription.__dataclass_fields__}
    return {**monai, "medlord": {"format": FORMAT, **content}}
