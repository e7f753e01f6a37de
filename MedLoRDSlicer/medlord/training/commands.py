"""Training as people start it: one stage, or the bundled model from nothing to bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from ..bundles.bundle import verify_bundle
from ..devices import choose_device
from ..errors import EngineError, InputError
from ..progress import Cancel, Progress
from ..resources import BUNDLED_MODEL, resource_folder
from .config import load_config
from .data_settings import without_file_names
from .pipeline import TrainingPlan
from .stages import stages_of


def train(
    config: str | Path,
    stages: list[str] | None,
    folder: str | Path,
    *,
    device: str = "auto",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Path:
    """Run `stages` (of `STAGES`, in order; None for all that `config` asks for) with the working folder `folder`.

    Finished and half-finished stages in `folder` go on where they stopped. Returns the folder.
    """
    content = load_config(config)
    plan = TrainingPlan(content, Path(folder), str(choose_device(device)))
    for stage in stages_of(content) if stages is None else stages:
        plan.run(stage, progress, cancel)
    return plan.folder


def export_model(config: str | Path, folder: str | Path, target: str | Path) -> Path:
    """Write the networks trained in `folder` as a bundle to `target`, with the model card beside the configuration.

    The card is the file named as the configuration with the ending `.md`. The bundle's `LICENSE` is the text of
    Apache-2.0 where that is the configuration's `licence`, and otherwise says what the configuration states. The names
    of the files in `data` stay behind: they can tell patients.
    """
    config, target = Path(config), Path(target)
    card = config.with_suffix(".md")
    if not card.is_file():
        raise InputError(
            f"There is no model card {card.name} beside {config.name}; write one, the bundle needs it."
        )
    content = load_config(config)
    plan = TrainingPlan(content, Path(folder))
    plan.export(target, card.read_text(encoding="utf-8"), _licence_text(content["licence"]))
    _write_config(config, content, target / "configs" / "train.yaml")
    verify_bundle(target)
    return target


def _write_config(source: Path, content: dict, target: Path) -> None:
    """The configuration as it is, comments too; with `data.files`, what is in it but the files."""
    data = without_file_names(content["data"])
    if data == content["data"]:
        shutil.copyfile(source, target)
        return
    text = yaml.safe_dump({**content, "data": data}, sort_keys=False, allow_unicode=True)
    target.write_text(f"# The files of the cases are not named here.\n{text}", encoding="utf-8")


def train_bundled(
    folder: str | Path,
    target: str | Path,
    *,
    device: str = "auto",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Path:
    """Rebuild the bundled model from nothing: phantoms, all stages, bundle in `target`. Hours on a CPU."""
    target = Path(target)
    if (target / "configs").exists():
        raise InputError(f"{target} holds a model already; choose another folder for the new one.")
    config = resource_folder() / "Training" / f"{BUNDLED_MODEL}.yaml"
    train(config, None, folder, device=device, progress=progress, cancel=cancel)
    return export_model(config, folder, target)


def _licence_text(licence: str) -> str:
    """What is stated; of Apache-2.0 the text, from the source tree or, where that is installed, the bundled model."""
    if licence != "Apache-2.0":
        return f"Licence of these weights, as stated where they were trained: {licence}\n"
    places = (
        resource_folder().parent / "LICENSE.txt",
        resource_folder() / "Models" / BUNDLED_MODEL / "LICENSE",
    )
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise EngineError(
            f"There is no licence text {' or '.join(map(str, places))}; install MedLoRDSlicer again."
        )
    return found.read_text(encoding="utf-8")
