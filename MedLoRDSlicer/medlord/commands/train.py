"""medlord train: the stages of training, each of which resumes where it stopped."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..resources import BUNDLED_MODEL
from ..training.stages import DESCRIPTIONS

if TYPE_CHECKING:
    from .console import Console

SUMMARY = "train a model stage by stage, or rebuild the bundled one"
_BUNDLED_FOLDER = Path("out") / "train-bundled"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One stage per call; a working folder holds what the stages share."""
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, text in {**DESCRIPTIONS, "all": "all of these, one after the other"}.items():
        stage = stages.add_parser(name, help=text)
        _add_shared(stage, folder=None)
        stage.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration (YAML)")
    export = stages.add_parser("export", help="write the trained networks as a model folder")
    _add_shared(export, folder=None)
    export.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration (YAML)")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="new model folder")
    bundled = stages.add_parser("bundled", help="the bundled model from nothing; hours on a CPU")
    _add_shared(bundled, folder=_BUNDLED_FOLDER)
    bundled.add_argument("--out", type=Path, metavar="DIR", help=f"new model folder (FOLDER/{BUNDLED_MODEL})")


def _add_shared(parser: argparse.ArgumentParser, folder: Path | None) -> None:
    parser.add_argument(
        "--folder", type=Path, default=folder, required=folder is None, metavar="DIR",
        help="working folder that the stages share" + (f" ({folder})" if folder else ""),
    )  # fmt: skip
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N (auto)")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Run the stage; the last line on stdout is the folder that holds what was made."""
    from ..training import commands

    options = {"progress": console.progress, "cancel": console.cancel}
    with console.interruptible():
        if arguments.stage == "bundled":
            target = arguments.out or arguments.folder / BUNDLED_MODEL
            console.result(
                commands.train_bundled(arguments.folder, target, device=arguments.device, **options)
            )
        elif arguments.stage == "export":
            if arguments.out.exists() and any(arguments.out.iterdir()):
                raise InputError(f"{arguments.out} is not empty; name a new folder for the model.")
            console.result(commands.export_model(arguments.config, arguments.folder, arguments.out))
        else:
            stages = None if arguments.stage == "all" else [arguments.stage]
            console.result(
                commands.train(arguments.config, stages, arguments.folder, device=arguments.device, **options)
            )
