"""The whole training of one model, from data to bundle, stage by stage; every stage resumes.

    prepare -> autoencoder -> encode (latents, scale factor) [-> decoder] -> diffusion -> control -> export

A working folder holds `cases/`, `autoencoder/`, `latents/`, `decoder/`, `diffusion/`, `control/`. One YAML file
describes all of it (`Resources/Training/thorax-phantom.yaml` is the bundled model's).
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import torch

from ..bundles.bundle import write_bundle
from ..bundles.description import ModelDescription
from ..condition_channels import condition_channels
from ..errors import InputError
from ..networks.build import build_autoencoder, build_control, build_denoiser
from ..progress import Cancel, Progress
from ..volumes import Grid
from .autoencoder import AUTOENCODER_DEFAULTS, train_autoencoder
from .cases import list_cases, prepare_files, prepare_phantoms
from .checkpoint import load_networks, read_state, weights_sha256
from .config import check_keys, first_difference, read_origin, section, write_origin
from .control import CONTROL_DEFAULTS, DENOISER_AVERAGE, train_control
from .data_settings import check_data, check_grid, check_names, without_file_names
from .decoder import DECODER_AVERAGE, DECODER_DEFAULTS, train_decoder
from .diffusion import DIFFUSION_DEFAULTS, train_diffusion
from .latents import SCALE_FACTOR, discard_stale_latents, encode_cases, measure_scale_factor
from .optimisation import CHECKPOINT, require_same_config
from .settings import check_settings
from .stages import STAGES, stages_of

KEYS = (
    *("id", "version", "title", "licence", "grid", "window_hu", "conditions", "attributes", "schedule"),
    *("prediction_type", "data", "autoencoder", "diffusion", "control"),
)
"""What a configuration must hold; `decoder` may be added."""

TRAINING_SECTIONS = {
    "autoencoder": (("steps", "batch", "crop"), AUTOENCODER_DEFAULTS),
    "decoder": (("steps", "batch", "crop"), DECODER_DEFAULTS),
    "diffusion": (("steps", "batch"), DIFFUSION_DEFAULTS),
    "control": (("steps", "batch"), CONTROL_DEFAULTS),
}
"""What the section `training` of each stage must hold, and what it may, with its defaults."""


class TrainingPlan:
    """A checked configuration and the working folder that its stages share."""

    def __init__(self, config: dict, folder: Path, device: str = "cpu"):
        self.config, self.folder, self.device = config, Path(folder), device
        check_keys(config, KEYS, ("decoder",))
        grid = section(config, "grid", ("shape", "spacing_mm", "orientation"))
        check_grid(grid)
        self.grid = Grid.centered(
            tuple(grid["shape"]), tuple(grid["spacing_mm"]), orientation=grid["orientation"]
        )
        self.window_hu = _checked_window(config["window_hu"])
        if config["prediction_type"] != "v_prediction":
            raise InputError(
                f"prediction_type is '{config['prediction_type']}'; networks are trained here to predict v only, "
                "write v_prediction."
            )
        check_names(config.get("conditions"), config.get("attributes"))
        check_data(config)
        self.conditions, self.attributes = list(config["conditions"]), dict(config["attributes"])
        for stage in ("autoencoder", "diffusion", "control"):
            section(config, stage, ("network", "training"))
        if "decoder" in config:
            section(config, "decoder", ("training",))
        for stage, (required, defaults) in TRAINING_SECTIONS.items():
            if stage in config:
                settings = section(config[stage], "training", required, defaults, within=stage)
                check_settings(stage, settings, self.conditions)
        channels = len(condition_channels(self.conditions, self.attributes))
        self.control_config = {**config["control"]["network"], "condition_channels": channels}
        self.denoiser_config = config["diffusion"]["network"]

    def run(self, stage: str, progress: Progress | None = None, cancel: Cancel | None = None) -> None:
        """Run one of `STAGES`; raises `InputError` when it is unknown or the stages before it are not done."""
        if stage not in STAGES:
            raise InputError(f"Unknown stage '{stage}'; the stages are {', '.join(STAGES)}.")
        getattr(self, f"_{stage}")(progress=progress, cancel=cancel)

    def _prepare(self, **callbacks) -> None:
        data, target = self.config["data"], self.folder / "cases"
        if read_origin(target) is None and not any(target.glob("*.npz")):
            # Before the first case: a preparation that is killed and goes on must know its own cases again.
            write_origin(target, self._cases_origin())
        self._cases()
        if "files" in data:
            prepare_files(target, data["files"], self.grid, self.conditions, **callbacks)
            return
        seeds = range(data["first_seed"], data["first_seed"] + data["cases"])
        share = data.get("truncated_share", 0.0)
        prepare_phantoms(target, seeds, self.grid, self.conditions, truncated_share=share, **callbacks)

    def _autoencoder(self, **callbacks) -> None:
        config, target = self._stage_config("autoencoder"), self.folder / "autoencoder"
        train_autoencoder(config, self._cases(), target, device=self.device, **callbacks)

    def _encode(self, **callbacks) -> None:
        target, network = self.folder / "latents", self.trained_autoencoder()
        cases = self._cases()
        discard_stale_latents(target, self._latents_origin())
        encode_cases(network, cases, target, self.window_hu, device=self.device, **callbacks)
        measure_scale_factor(target)

    def _decoder(self, **callbacks) -> None:
        section(self.config, "decoder", ("training",))
        train_decoder(
            self._stage_config("decoder"),
            self.trained_autoencoder(),
            self._cases(),
            self._latents(),
            self.folder / "decoder",
            device=self.device,
            **callbacks,
        )

    def _diffusion(self, **callbacks) -> None:
        config, target = self._stage_config("diffusion"), self.folder / "diffusion"
        train_diffusion(config, self._latents(), self.scale_factor(), target, device=self.device, **callbacks)

    def _control(self, **callbacks) -> None:
        train_control(
            self._stage_config("control"),
            self.trained_denoiser(),
            self._cases(),
            self._latents(),
            self.scale_factor(),
            self.folder / "control",
            device=self.device,
            **callbacks,
        )

    def _cases_origin(self) -> dict:
        return {name: self.config[name] for name in ("grid", "data", "conditions")}

    def _latents_origin(self, exporting: bool = False) -> dict:
        return {
            "autoencoder_sha256": weights_sha256(self.trained_autoencoder(exporting)),
            "window_hu": list(self.window_hu),
            "cases": self._cases_origin(),
        }

    def _cases(self) -> Path:
        """The folder of the cases; raises `InputError` when they were made for another configuration."""
        folder, origin = self.folder / "cases", self._cases_origin()
        before = read_origin(folder)
        if before is None:
            list_cases(folder)  # Says that there is none yet, where that is the reason.
        difference = first_difference(before or {}, origin)
        if difference:
            raise InputError(
                f"The cases in {folder} were made for another configuration ({difference}); choose a new working "
                "folder, or delete that one and run the stage 'prepare' again."
            )
        return folder

    def _latents(self, exporting: bool = False) -> Path:
        """The folder of the latents; raises `InputError` unless all are of the present autoencoder and cases."""
        folder = self.folder / "latents"
        if not (folder / SCALE_FACTOR).is_file():
            raise InputError(f"There is no {SCALE_FACTOR} in {folder}; run the stage 'encode' first.")
        before = read_origin(folder)
        if before is None and exporting:
            return folder  # Folders trained before origins were noted can still be exported, no more.
        difference = first_difference(before or {}, self._latents_origin(exporting))
        if difference:
            raise InputError(
                f"The latents in {folder} do not belong to the present autoencoder and cases ({difference}); run "
                "the stage 'encode' again."
            )
        return folder

    def scale_factor(self, exporting: bool = False) -> float:
        """The measured latent scale factor; raises `InputError` before the stage `encode` and for stale latents."""
        path = self._latents(exporting) / SCALE_FACTOR
        return float(json.loads(path.read_text(encoding="utf-8"))["scale_factor"])

    def trained_autoencoder(self, exporting: bool = False) -> torch.nn.Module:
        """The finished autoencoder; the errors of all three are those of `_trained`."""
        network = build_autoencoder(self.config["autoencoder"]["network"])
        return self._trained(network, "autoencoder", "autoencoder", exporting)

    def _final_autoencoder(self) -> torch.nn.Module:
        """The autoencoder of the model: that of its own stage, its decoder from the stage `decoder` if there is one."""
        network = self.trained_autoencoder(exporting=True)
        if "decoder" in self.config:
            self._trained(network.decoder, "decoder", DECODER_AVERAGE, exporting=True)
        return network

    def trained_denoiser(self, exporting: bool = False) -> torch.nn.Module:
        """The finished denoiser with its averaged weights."""
        return self._trained(build_denoiser(self.denoiser_config), "diffusion", "average", exporting)

    def trained_control(self, exporting: bool = False) -> torch.nn.Module:
        """The finished control adapter with its averaged weights."""
        network = build_control(self.control_config, self.denoiser_config)
        return self._trained(network, "control", "average", exporting)

    def _final_denoiser(self) -> torch.nn.Module:
        """The denoiser of the model: that of its own stage, unless the control stage trained it on."""
        if not self.config["control"]["training"].get("train_denoiser", False):
            return self.trained_denoiser(exporting=True)
        return self._trained(
            build_denoiser(self.denoiser_config), "control", DENOISER_AVERAGE, exporting=True
        )

    def _stage_config(self, stage: str, exporting: bool = False) -> dict:
        """All that the weights of a stage depend on: its checkpoint keeps it, for `require_same_config`."""
        config = self.config
        if stage == "autoencoder":
            inputs = {
                "autoencoder": config["autoencoder"]["network"],
                "window_hu": list(self.window_hu),
                "cases": self._cases_origin(),
            }
        elif stage == "decoder":
            inputs = {"window_hu": list(self.window_hu), "latents": self._latents_origin(exporting)}
        else:
            inputs = {
                "denoiser": self.denoiser_config,
                "schedule": config["schedule"],
                "latents": self._latents_origin(exporting),
            }
        if stage == "control":
            inputs |= {
                "control": self.control_config,
                "conditions": self.conditions,
                "attributes": self.attributes,
                "denoiser_sha256": weights_sha256(self.trained_denoiser(exporting)),
            }
        return {**inputs, "training": config[stage]["training"]}

    def _trained(self, network: torch.nn.Module, stage: str, name: str, exporting: bool) -> torch.nn.Module:
        """Fill `network` from the end of a stage.

        Raises `InputError` when the stage has not begun, has not reached its last step, or was trained with another
        configuration (see `require_same_config`) or on other results of the stages before it.
        """
        place, steps = self.folder / stage / CHECKPOINT, self.config[stage]["training"]["steps"]
        state = read_state(place)
        if state is None:
            raise InputError(f"The stage '{stage}' has no checkpoint in {self.folder}; run it first.")
        if state["step"] < steps:
            raise InputError(
                f"The stage '{stage}' has done {state['step']} of {steps} steps in {self.folder}; run it to its "
                "end first."
            )
        config = self._stage_config(stage, exporting)
        if exporting:
            # Checkpoints written before window, cases and fingerprints were noted can still be exported, no more.
            config = {key: value for key, value in config.items() if key in state["config"]}
        require_same_config(stage, state["config"], config, int(state["step"]), TRAINING_SECTIONS[stage][1])
        load_networks(place, {name: network})
        return network.eval().requires_grad_(False)

    def export(self, target: Path, card: str, licence_text: str) -> ModelDescription:
        """Write the trained networks as a bundle to `target`."""
        config = self.config
        networks = {
            "autoencoder": self._final_autoencoder(),
            "denoiser": self._final_denoiser(),
            "control": self.trained_control(exporting=True),
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
            "scale_factor": self.scale_factor(exporting=True),
            "grid_shape": self.grid.shape,
            "spacing_mm": tuple(config["grid"]["spacing_mm"]),
            "orientation": config["grid"]["orientation"],
            "conditions": self.conditions,
            "attributes": self.attributes,
            "window_hu": self.window_hu,
            "training": {
                "data": without_file_names(config["data"]),
                **{stage: config[stage]["training"] for stage in stages_of(config) if stage in config},
            },
        }
        return write_bundle(
            target, networks, settings, _monai_metadata(config), card=card, licence_text=licence_text
        )


def _checked_window(window_hu: object) -> tuple[float, float]:
    numbers = isinstance(window_hu, list | tuple) and [n for n in window_hu if isinstance(n, int | float)]
    if not numbers or len(numbers) != 2 or not -32768 <= numbers[0] < numbers[1] <= 32767:
        raise InputError(
            f"window_hu is {window_hu}; two HU values within 16 bits are needed, the lower first."
        )
    return tuple(numbers)


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
