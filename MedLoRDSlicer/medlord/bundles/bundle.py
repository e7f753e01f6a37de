"""Finding, checking, writing and loading model bundles.

A bundle is a folder: `configs/metadata.json`, `models/NAME.safetensors` for each network, `docs/README.md` (the
model card) and `LICENSE`. Weights are safetensors and their SHA-256 is pinned in the metadata.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checksums import sha256_of
from ..errors import EngineError, InputError, WeightsError
from ..output_folders import new_folder
from ..resources import resource_folder
from ..volume_files import write_atomically
from .description import NETWORKS, ModelDescription, description_to_metadata, read_description, weight_file

if TYPE_CHECKING:
    import torch

    from ..networks.autoencoder import VectorQuantizedAutoencoder
    from ..networks.control import ControlNetwork
    from ..networks.denoiser import DenoisingUNet


@dataclass
class ModelBundle:
    """A loaded model: its description and its networks on a device, in evaluation mode."""

    description: ModelDescription
    folder: Path
    device: torch.device
    autoencoder: VectorQuantizedAutoencoder
    denoiser: DenoisingUNet
    control: ControlNetwork | None

    @property
    def networks(self) -> dict[str, torch.nn.Module]:
        """The networks that the model has, by their names in the description."""
        return {name: network for name in NETWORKS if (network := getattr(self, name)) is not None}


def user_model_folder() -> Path:
    """Where imported and downloaded models of this user lie."""
    try:
        import platformdirs
    except ModuleNotFoundError:  # Slicer's own Python while the engine has another: pip brings a copy
        from pip._vendor import platformdirs

    return Path(platformdirs.user_data_dir("MedLoRDSlicer", appauthor=False)) / "Models"


def list_models() -> dict[str, Path]:
    """All installed models by id: the bundled ones, then the user's, which cannot take the place of a bundled one."""
    models = {}
    for place in (resource_folder() / "Models", user_model_folder()):
        if place.is_dir():
            for folder in sorted(place.iterdir()):
                if _is_bundle(folder):
                    models.setdefault(folder.name, folder)
    return models


def find_model(model: str | Path) -> Path:
    """The folder of a model given by its id or by a folder; raises `InputError` naming the known ids.

    An id wins over a folder of that name in the working directory; `./NAME` means the folder.
    """
    name, bundled = str(model), resource_folder() / "Models"
    is_plain_name = isinstance(model, str) and not set(name) & set("/\\.")
    if is_plain_name and _is_bundle(bundled / name):
        return bundled / name
    if not is_plain_name and _is_bundle(Path(model)):
        return Path(model).resolve()
    models = list_models()
    if name in models:
        return models[name]
    if _is_bundle(Path(model)):
        return Path(model).resolve()
    raise InputError(
        f"There is no model '{model}'; installed are {', '.join(models) or 'none'}. "
        "Give one of them or a bundle's folder."
    )


def _is_bundle(folder: Path) -> bool:
    return (folder / "configs" / "metadata.json").is_file()


def verify_bundle(folder: Path) -> ModelDescription:
    """Read the description and compare every weight file with its hash; raises `WeightsError` naming the file."""
    description = read_description(folder)
    for name, expected in description.weights_sha256.items():
        path = folder / name
        if not path.is_file():
            raise WeightsError(
                f"The weight file {name} of model '{description.id}' is missing; install the model again."
            )
        found = sha256_of(path)
        if found != expected:
            raise WeightsError(
                f"The weight file {name} of model '{description.id}' is damaged: its SHA-256 is {found[:12]}..., "
                f"{expected[:12]}... was expected; install the model again."
            )
    return description


def load_bundle(model: str | Path, device: str | torch.device = "cpu") -> ModelBundle:
    """Verify and load a model; its weights become float32 (autocast lowers the precision where a run asks for it).

    Raises `InputError` for an unknown model, `WeightsError` for missing or damaged files.
    """
    import torch

    from ..networks.build import build_autoencoder, build_control, build_denoiser

    folder = find_model(model)
    description = verify_bundle(folder)
    configs, device = description.networks, torch.device(device)
    networks: dict[str, Any] = {
        "autoencoder": build_autoencoder(configs["autoencoder"]),
        "denoiser": build_denoiser(configs["denoiser"]),
        "control": build_control(configs["control"], configs["denoiser"]) if "control" in configs else None,
    }
    for name, network in networks.items():
        if network is not None:
            _load_weights(network, folder / weight_file(name), description.id)
            network.to(device).eval().requires_grad_(False)
    return ModelBundle(description, folder, device, **networks)


def _load_weights(network: torch.nn.Module, path: Path, model: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path.name} of model '{model}' cannot be read ({error}); install the model again."
        ) from error
    missing, unexpected = network.load_state_dict(
        {key: value.float() for key, value in tensors.items()}, strict=False
    )
    missing = [key for key in missing if not _is_only_for_training(key)]
    if missing or unexpected:
        raise WeightsError(
            f"{path.name} of model '{model}' does not fit its configuration (missing {next(iter(missing), 'none')}, "
            f"unexpected {next(iter(unexpected), 'none')}); install the model again."
        )


def write_bundle(
    folder: Path,
    networks: Mapping[str, torch.nn.Module],
    settings: Mapping[str, Any],
    monai_metadata: Mapping[str, Any],
    *,
    card: str,
    licence_text: str,
    half_precision: bool = True,
) -> ModelDescription:
    """Write a bundle into `folder` (created; must not hold one yet) and return its description.

    `settings` are the fields of `ModelDescription` without the hashes; for the other arguments see `write_weights` and
    `write_documents`, which this calls.
    """
    if (folder / "configs").exists():
        raise InputError(f"{folder} holds a model already; choose another folder or delete it first.")
    hashes = {
        weight_file(name): write_weights(folder, name, network, half_precision)
        for name, network in networks.items()
    }
    description = ModelDescription(**settings, weights_sha256=hashes)
    write_documents(folder, description, monai_metadata, card=card, licence_text=licence_text)
    return description


def write_weights(folder: Path, name: str, network: torch.nn.Module, half_precision: bool) -> str:
    """Write the weights of one network into the bundle `folder` and return the SHA-256 of the file.

    They are stored as float16 when `half_precision`, except the codebook, whose rounding would move the codes. The
    codebook's running statistics, which only training needs, are left out. Raises `EngineError` for a full disk,
    `WeightsError` for values that float16 cannot hold.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {}
    for key, value in network.state_dict().items():
        if _is_only_for_training(key):
            continue
        half = half_precision and value.is_floating_point() and "quantizer" not in key
        tensors[key] = value.detach().cpu().to(torch.float16 if half else value.dtype).contiguous()
        if half and not torch.isfinite(tensors[key]).all():
            raise WeightsError(
                f"{key} of the {name} holds values that float16 cannot hold (beyond 65504, or not finite); store the "
                "weights as float32, or train again if it diverged."
            )

    def save(path: Path) -> None:
        try:
            save_file(tensors, path)
        except SafetensorError as error:
            raise OSError(str(error)) from error

    path = folder / weight_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save)
    return sha256_of(path)


def write_documents(
    folder: Path,
    description: ModelDescription,
    monai_metadata: Mapping[str, Any],
    *,
    card: str,
    licence_text: str,
) -> None:
    """Write what stands beside the weights of the bundle `folder`: metadata, model card and licence."""
    metadata = description_to_metadata(description, monai_metadata)
    texts = {
        "configs/metadata.json": json.dumps(metadata, indent=2) + "\n",
        "docs/README.md": card,
        "LICENSE": licence_text,
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, partial(Path.write_text, data=text, encoding="utf-8"))


@contextlib.contextmanager
def appearing_bundle(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder` to write a bundle into; at the end it becomes `folder` at once.

    Whatever fails leaves nothing behind. Raises `InputError` when `folder` is a file or holds anything.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} exists already and is not empty; choose another folder, or delete it first."
        )
    existed = folder.is_dir()
    with new_folder(folder.parent):
        staging = Path(tempfile.mkdtemp(prefix=".medlord-", dir=folder.parent))
        try:
            bundle = staging / "bundle"
            bundle.mkdir()
            yield bundle
            if existed:
                folder.rmdir()
            bundle.rename(folder)
        except BaseException as error:
            if existed:
                folder.mkdir(exist_ok=True)
            if isinstance(error, OSError):
                raise EngineError(
                    f"The model could not be written to {folder} ({error.strerror or error}); choose another folder."
                ) from error
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def check_new_id(model_id: str) -> None:
    """Raise `InputError` unless `model_id` can name a new model: plain and not taken."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", model_id):
        raise InputError(
            f"'{model_id[:80]}' is no id for a model; use 1 to 64 letters, digits, '-' and '_', beginning with a "
            "letter or digit."
        )
    taken = {name.casefold(): folder for name, folder in list_models().items()}
    if model_id.casefold() in taken:
        raise InputError(
            f"There is a model '{model_id}' already, in {taken[model_id.casefold()]}; choose another id, or delete "
            "that one first."
        )


def delete_model(model_id: str) -> Path:
    """Delete a model of the user's model folder and return the folder that is gone.

    Raises `InputError` for a shipped model and for an id that is not installed there: folders elsewhere are the
    user's own to delete.
    """
    folder = user_model_folder() / model_id
    if _is_bundle(resource_folder() / "Models" / model_id):
        raise InputError(f"The model '{model_id}' is shipped with the program and cannot be deleted.")
    if Path(model_id).name != model_id or not _is_bundle(folder):
        raise InputError(
            f"There is no model '{model_id}' in {user_model_folder()}; only models there can be deleted by id."
        )
    if folder.is_symlink():
        folder.unlink()
        return folder
    doomed = Path(tempfile.mkdtemp(prefix=".medlord-", dir=folder.parent))
    try:
        folder.rename(doomed / "model")
        shutil.rmtree(doomed)
    except OSError as error:
        raise EngineError(
            f"The model '{model_id}' could not be deleted completely from {folder.parent} ({error.strerror}); "
            "delete the rest by hand."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            doomed.rmdir()
    return folder


def _is_only_for_training(key: str) -> bool:
    """Running sums of the codebook update: two thirds of the codebook's size, never read at synthesis."""
    return key.endswith((".ema_cluster_size", ".ema_w"))
