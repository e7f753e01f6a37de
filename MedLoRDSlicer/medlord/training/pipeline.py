"""The whole training of one model, from data to bundle, stage by stage; every stage resumes.

    prepare -> autoencoder -> encode (latents, scale factor) -> diffusion -> control -> export

A working folder holds `cases/`, `autoencoder/`, `latents/`, `diffusion/`, `control/`. One YAML file describes
all of it (`Resources/Training/thorax-phantom.yaml` is the bundled model's).
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import load_file

from ..bundles.bundle import write_bundle
from ..bundles.description import ModelDescription
from ..condition_channels import condition_channels
from ..errors import InputError
from ..networks.build import build_autoencoder, build_control, build_denoiser
from ..progress import Cancel, Progress
from ..volumes import Grid
from .autoencoder import train_autoencoder
from .cases import prepare_files, prepare_phantoms
from .config import section
from .control import train_control
from .diffusion import train_diffusion
from .latents import encode_cases, measure_scale_factor
from .optimisation import CHECKPOINT

STAGES = ("prepare", "autoencoder", "encode", "diffusion", "control")


class TrainingPlan:
    """A checked configuration and the working folder that its stages share."""

    def __init__(self, config: dict, folder: Path, device: str = "cpu"):
        self.config, self.folder, self.device = config, Path(folder), device
        grid = section(config, "grid", ("shape", "spacing_mm", "orientation"))
        self.grid = Grid.centered(
            tuple(grid["shape"]), tuple(grid["spacing_mm"]), orientation=grid["orientation"]
        )
        self.conditions, self.attributes = list(config["conditions"]), dict(config["attributes"])
        for stage in ("autoencoder", "diffusion", "control"):
            section(config, stage, ("network", "training"))
        channels = len(condition_channels(self.conditions, self.attributes))
        self.control_config = {**config["control"]["network"], "condition_channels": channels}
        self.denoiser_config = config["diffusion"]["network"]

    def run(self, stage: str, progress: Progress | None = None, cancel: Cancel | None = None) -> None:
        """Run one of `STAGES`; raises `InputError` when it is unknown or the stages before it are not done."""
        if stage not in STAGES:
            raise InputError(f"Unknown stage '{stage}'; the stages are {', '.join(STAGES)}.")
        getattr(self, f"_{stage}")(progress, cancel)

    def _prepare(self, progress: Progress | None, cancel: Cancel | None) -> None:
        data, target = self.config["data"], self.folder / "cases"
        if "files" in data:
            prepare_files(target, data["files"], self.grid, self.conditions, progress=progress, cancel=cancel)
            return
        data = section(self.config, "data", ("first_seed", "cases"), {"truncated_share": 0.0})
        seeds = range(data["first_seed"], data["first_seed"] + data["cases"])
        prepare_phantoms(
            target,
            seeds,
            self.grid,
            self.conditions,
            truncated_share=data["truncated_share"],
            progress=progress,
            cancel=cancel,
        )

    def _autoencoder(self, progress: Progress | None, cancel: Cancel | None) -> None:
        stage = self.config["autoencoder"]
        config = {"autoencoder": stage["network"], "training": stage["training"]}
        train_autoencoder(
            config,
            self.folder / "cases",
            self.folder / "autoencoder",
            device=self.device,
            progress=progress,
            cancel=cancel,
        )

    def _encode(self, progress: Progress | None, cancel: Cancel | None) -> None:
        encode_cases(
            self.trained_autoencoder(),
            self.folder / "cases",
            self.folder / "latents",
            device=self.device,
            progress=progress,
            cancel=cancel,
        )
        measure_scale_factor(self.folder / "latents")

    def _diffusion(self, progress: Progress | None, cancel: Cancel | None) -> None:
        config = {
            "denoiser": self.denoiser_config,
            "schedule": self.config["schedule"],
            "training": self.config["diffusion"]["training"],
        }
        train_diffusion(
            config,
            self.folder / "latents",
            self.scale_factor(),
            self.folder / "diffusion",
            device=self.device,
            progress=progress,
            cancel=cancel,
        )

    def _control(self, progress: Progress | None, cancel: Cancel | None) -> None:
        config = {
            "denoiser": self.denoiser_config,
            "control": self.control_config,
            "schedule": self.config["schedule"],
            "conditions": self.conditions,
            "attributes": self.attributes,
            "training": self.config["control"]["training"],
        }
        train_control(
            config,
            self.trained_denoiser(),
            self.folder / "cases",
            self.folder / "latents",
            self.scale_factor(),
            self.folder / "control",
            device=self.device,
            progress=progress,
            cancel=cancel,
        )

    def scale_factor(self) -> float:
        """The measured latent scale factor; raises `InputError` before the stage `encode`."""
        path = self.folder / "latents" / "scale_factor.json"
        if not path.is_file():
            raise InputError(f"There is no {path.name} in {path.parent}; run the stage 'encode' first.")
        return float(json.loads(path.read_text(encoding="utf-8"))["scale_factor"])

    def trained_autoencoder(self) -> torch.nn.Module:
        """The autoencoder with the weights of its last checkpoint."""
        return self._trained(
            build_autoencoder(self.config["autoencoder"]["network"]), "autoencoder", "autoencoder"
        )

    def trained_denoiser(self) -> torch.nn.Module:
        """The denoiser with its averaged weights."""
        return self._trained(build_denoiser(self.denoiser_config), "diffusion", "average")

    def trained_control(self) -> torch.nn.Module:
        """The control adapter with its averaged weights."""
        return self._trained(build_control(self.control_config, self.denoiser_config), "control", "average")

    def _trained(self, network: torch.nn.Module, stage: str, name: str) -> torch.nn.Module:
        path = self.folder / stage / CHECKPOINT / "networks.safetensors"
        if not path.is_file():
            raise InputError(f"The stage '{stage}' has no checkpoint in {self.folder}; run it first.")
        tensors = load_file(path)
        start = name + "."
        network.load_state_dict({key[len(start) :]: tensors[key] for key in tensors if key.startswith(start)})
        return network.eval().requires_grad_(False)

    def export(self, target: Path, card: str, licence_text: str) -> ModelDescription:
        """Write the trained networks as a bundle to `target`."""
        config = self.config
        networks = {
            "autoencoder": self.trained_autoencoder(),
            "denoiser": self.trained_denoiser(),
            "control": self.trained_control(),
        }
        settings = {
            **{
                name: config[name]
                for name in ("id", "version", "title", "licence", "schedule", "prediction_type")
            },
            "networks": {
                "autoencoder": config["autoencoder"]["network"],
                "denoiser": self.denoiser_config,
                "control": self.control_config,
            },
            "scale_factor": self.scale_factor(),
            "grid_shape": self.grid.shape,
            "spacing_mm": tuple(config["grid"]["spacing_mm"]),
            "orientation": config["grid"]["orientation"],
            "conditions": self.conditions,
            "attributes": self.attributes,
            "window_hu": tuple(config["window_hu"]),
            "training": {
                "data": config["data"],
                **{n: config[n]["training"] for n in ("autoencoder", "diffusion", "control")},
            },
        }
        return write_bundle(
            target, networks, settings, _monai_metadata(config), card=card, licence_text=licence_text
        )


def _monai_metadata(config: dict) -> dict:
    """The keys that MONAI expects in a bundle's metadata."""
    versions = {name: metadata.version(name) for name in ("monai", "torch", "numpy")}
    shape = list(config["grid"]["shape"])
    channels = condition_channels(config["conditions"], config["attributes"])
    condition = {
        "type": "image",
        "format": "segmentation",
        "modality": "n/a",
        "num_channels": len(channels),
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {str(number): name for number, name in enumerate(channels)},
    }
    image = {
        "type": "image",
        "format": "hounsfield",
        "modality": "CT",
        "num_channels": 1,
        "spatial_shape": shape,
        "dtype": "int16",
        "value_range": list(config["window_hu"]),
        "is_patch_data": False,
        "channel_def": {"0": "image"},
    }
    return {
        "version": config["version"],
        "monai_version": versions["monai"],
        "pytorch_version": versions["torch"].split("+")[0],
        "numpy_version": versions["numpy"],
        "task": "Synthesis of thorax CT from segmentation masks",
        "description": config["title"],
        "authors": "The MedLoRDSlicer authors",
        "copyright": "The MedLoRDSlicer authors",
        "intended_use": "Research, teaching and software tests; not for clinical use",
        "network_data_format": {"inputs": {"condition": condition}, "outputs": {"image": image}},
    }
