"""Which models the panel offers, and whose licence has to be accepted first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from medlord.bundles.bundle import find_model, list_models, user_model_folder
from medlord.bundles.description import ModelDescription
from medlord.errors import InputError
from medlord.resources import resource_folder

from .settings import MachineSettings

# Licences that ask for nothing before the use; any other one is shown and accepted first.
OPEN_LICENCES = ("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0", "MIT")


@dataclass(frozen=True)
class ModelChoice:
    """A model as `find_model` takes it (its id, or the folder outside the known places) and its name for people."""

    model: str
    title: str


def available_models(extra_folder: str = "") -> list[ModelChoice]:
    """The bundled models, the user's, then those in `extra_folder`; a folder that is none is left out."""
    folders = {name: (name, folder) for name, folder in _known_models().items()}
    if extra_folder and Path(extra_folder).is_dir():
        for folder in sorted(Path(extra_folder).iterdir()):
            if (folder / "configs" / "metadata.json").is_file():
                folders.setdefault(folder.name, (str(folder), folder))
    return [ModelChoice(model, _title(folder) or model) for model, folder in folders.values()]


@dataclass(frozen=True)
class ModelPlace:
    """The folder in which a model lies, its size in bytes, and whether it is the user's own to delete by its id."""

    folder: Path
    size_bytes: int
    deletable: bool


def place_of(model: str) -> ModelPlace | None:
    """Where a model (its id or folder) lies on this computer; None when it is not here."""
    try:
        folder = find_model(model)
    except InputError:
        return None
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return ModelPlace(folder, size, folder.name == model and folder.parent == user_model_folder())


def needs_acceptance(description: ModelDescription, settings: MachineSettings) -> bool:
    """Whether the licence of a model is neither open nor accepted on this computer."""
    return description.licence not in OPEN_LICENCES and _entry(description) not in settings.accepted_licences


def accept_licence(description: ModelDescription, settings: MachineSettings) -> None:
    """Remember on this computer that the licence of a model was accepted."""
    settings.accepted_licences = (*settings.accepted_licences, _entry(description))


def _entry(description: ModelDescription) -> str:
    return f"{description.id}: {' '.join(description.licence.split())}"


def _known_models() -> dict[str, Path]:
    """All installed models; before the engine's packages are installed only the bundled ones can be found."""
    try:
        return list_models()
    except ModuleNotFoundError:
        places = sorted((resource_folder() / "Models").iterdir())
        return {folder.name: folder for folder in places if (folder / "configs" / "metadata.json").is_file()}


def _title(folder: Path) -> str:
    """The title in a bundle's metadata, empty when it has none or cannot be read (choosing it says why)."""
    try:
        content = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
        return str(content["medlord"].get("title", ""))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return ""
