"""medlord models: what is installed, what it is, whether its files are whole; import and delete."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MedlordError, WeightsError
from .models_import import add_import_arguments, run_import

if TYPE_CHECKING:
    from ..bundles.description import ModelDescription
    from .console import Console

SUMMARY = "list, describe, check, import or delete models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of the verb."""
    from ..cli import add_common_arguments

    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="all installed models")
    info = actions.add_parser("info", help="what a model takes and gives")
    info.add_argument("model", metavar="ID|DIR")
    verify = actions.add_parser("verify", help="compare the weight files with their SHA-256")
    verify.add_argument("model", metavar="ID|DIR", nargs="?", help="one model (all)")
    add_import_arguments(actions.add_parser("import", help="make a model of other projects' checkpoints"))
    delete = actions.add_parser("delete", help="delete an imported or downloaded model for good")
    delete.add_argument("model", metavar="ID")
    for action in actions.choices.values():
        add_common_arguments(action, default=argparse.SUPPRESS)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Do the action."""
    actions = {"list": _list, "info": _info, "verify": _verify, "import": run_import, "delete": _delete}
    actions[arguments.action](arguments, console)


def _list(arguments: argparse.Namespace, console: Console) -> None:
    from ..bundles.bundle import list_models
    from ..bundles.description import read_description

    models = list_models()
    if not models:
        console.note("No model is installed.")
    for name, folder in models.items():
        try:
            console.result(f"{name}\t{_summary(read_description(folder))}")
        except MedlordError as error:
            console.result(f"{name}\tunusable: {error}")


def _summary(description: ModelDescription) -> str:
    return f"{description.version}\t{_grid(description)}\t{description.title}"


def _grid(description: ModelDescription) -> str:
    shape = " x ".join(str(n) for n in description.grid_shape)
    return f"{shape} voxels of {' x '.join(f'{s:g}' for s in description.spacing_mm)} mm"


def _info(arguments: argparse.Namespace, console: Console) -> None:
    from ..bundles.bundle import find_model
    from ..bundles.description import OWN_RANGE, read_description
    from ..bundles.model_card import stated_settings

    folder = find_model(arguments.model)
    description = read_description(folder)
    size = sum(
        (folder / name).stat().st_size for name in description.weights_sha256 if (folder / name).is_file()
    )
    attributes = [f"{name} = {' | '.join(values)}" for name, values in description.attributes.items()]
    low, high = description.window_hu
    rows = {
        "model": f"{description.id}, version {description.version}: {description.title}",
        "folder": folder,
        "card": folder / "docs" / "README.md",
        "licence": description.licence,
        "weights": f"{size / 2**20:.1f} MB in {len(description.weights_sha256)} files",
        "grid": f"{_grid(description)}, {description.orientation}",
        "range": f"{low:g} to {high:g} HU",
        "conditions": ", ".join(description.conditions) or "none: it takes no masks",
        "attributes": "; ".join(attributes) or "none",
    }
    if description.intensity_map == OWN_RANGE:
        rows["range"] += ", relative: training volumes were scaled by their own minimum and maximum"
    for name, value in rows.items():
        console.result(f"{name:11s}{value}")
    settings = stated_settings(description)
    if settings:
        console.result(
            "\nWhat its weights do not tell, and where it came from (family: what its code always does)"
        )
    for name, value, source in settings:
        console.result(f"{name:35s}{value} ({source})")


def _delete(arguments: argparse.Namespace, console: Console) -> None:
    from ..bundles.bundle import delete_model

    console.note(f"Deleted {delete_model(arguments.model)}.")


def _verify(arguments: argparse.Namespace, console: Console) -> None:
    from ..bundles.bundle import find_model, list_models, verify_bundle

    folders: list[Path] = [find_model(arguments.model)] if arguments.model else list(list_models().values())
    if not folders:
        raise WeightsError(
            "No model is installed, so there is nothing to verify; install or import one first."
        )
    failures: dict[str, WeightsError] = {}
    for folder in folders:
        try:
            description = verify_bundle(folder)
        except WeightsError as error:
            failures[folder.name] = error
            console.result(f"{folder.name}\t{error}")
        else:
            console.result(f"{folder.name}\t{len(description.weights_sha256)} files are whole")
    if len(failures) == 1:
        raise next(iter(failures.values()))
    if failures:
        raise WeightsError(
            f"{len(failures)} of {len(folders)} models are damaged: {', '.join(failures)}; install them again."
        )
