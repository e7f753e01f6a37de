"""medlord models import: other projects' checkpoints become a model bundle."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from .console import Console

FAMILIES, LATER_FAMILIES = ("medlord",), ("voldit", "cardiodit", "maisi")
_WEIGHTS = ("model", "ema")


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the action."""
    parser.description = (
        "Turns checkpoints into a model bundle. What shapes of weights tell is inferred; the rest comes from the "
        "configurations or from options, and is refused rather than guessed. All that is missing is told at once."
    )
    parser.add_argument(
        "--family", required=True, metavar="NAME", help="whose checkpoints they are: medlord (voldit, cardiodit and "
        "maisi are not yet supported)",
    )  # fmt: skip
    parser.add_argument(
        "--id", required=True, metavar="NAME", help="id of the new model: letters, digits, - and _"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR",
        help="folder that becomes the bundle (the id, among the user's models: ~/.local/share/MedLoRDSlicer/Models on "
        "Linux, ~/Library/Application Support/MedLoRDSlicer/Models on macOS, %%LOCALAPPDATA%%/MedLoRDSlicer/Models on "
        "Windows)",
    )  # fmt: skip
    parser.add_argument("--title", metavar="TEXT", help="what the model is, in a few words")
    parser.add_argument("--licence", metavar="NAME", help="licence of the weights (not stated)")
    parser.add_argument("--licence-file", type=Path, metavar="FILE", help="its text, kept with the model")
    parser.add_argument(
        "--store", choices=("float32", "float16"), default="float32",
        help="numbers in the weight files (float32; float16 halves them and moves results a little)",
    )  # fmt: skip
    parser.add_argument(
        "--check-scale-factor", type=Path, nargs="+", metavar="FILE", default=(),
        help="NIfTI volumes in HU, like those of the training: the scale factor is compared with 1/std of their "
        "latents; more than 5 %% away is told, more than 25 %% refused",
    )  # fmt: skip
    _add_files(parser)
    _add_grid(parser)
    _add_networks(parser)


def _add_files(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files")
    parts = {
        "stage1": "autoencoder (VQ-GAN trainer)",
        "diffusion": "U-Net (diffusion trainer)",
        "controlnet": "ControlNet; without it the model takes no masks",
    }
    for name, words in parts.items():
        files.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"checkpoint of the {words}")
        files.add_argument(
            f"--{name}-config", type=Path, metavar="FILE", help="configuration it was trained with (.yaml)"
        )


def _add_grid(parser: argparse.ArgumentParser) -> None:
    grid = parser.add_argument_group("volumes of the training, which no weight tells")
    grid.add_argument(
        "--window", dest="window_hu", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="HU to which volumes were clipped, -1000 1000 in MedLoRD's code: what the networks see as -1 and 1; "
        "a wrong window shifts and stretches the HU of every CT",
    )  # fmt: skip
    grid.add_argument(
        "--shape", type=int, nargs=3, metavar=("I", "J", "K"),
        help="voxels (the ControlNet's training.roi_size)",
    )  # fmt: skip
    grid.add_argument(
        "--spacing",
        dest="spacing_mm",
        type=float,
        nargs=3,
        metavar=("I", "J", "K"),
        help="distance of voxels in mm, for example 0.8 0.8 1.5; a wrong one makes bodies of a wrong size and gives "
        "masks to the networks at a wrong scale",
    )
    grid.add_argument(
        "--orientation", metavar="AXES",
        help="where the voxel axes point, as nibabel's aff2axcodes tells of a training volume: LPS is to the left, "
        "back and head; wrong letters mirror or turn masks and CT",
    )  # fmt: skip
    grid.add_argument(
        "--intensity-map", metavar="NAME",
        help="own-minimum-and-maximum (MedLoRD's way: HU are then relative) or fixed-window",
    )  # fmt: skip
    grid.add_argument(
        "--volume-fit", metavar="NAME", help="resize, or centre-crop-and-pad (with a ControlNet)"
    )
    grid.add_argument(
        "--padding-value", type=float, metavar="X", help="value beyond a volume, after scaling (0)"
    )


def _add_networks(parser: argparse.ArgumentParser) -> None:
    networks = parser.add_argument_group("networks and noise, where the configurations do not say it")
    for name in ("diffusion", "controlnet"):
        networks.add_argument(
            f"--{name}-weights",
            choices=_WEIGHTS,
            help="raw weights or their moving average, where the file has both; the original scripts sample "
            + {"diffusion": "with masks with model, without masks with ema", "controlnet": "with ema"}[name],
        )
    networks.add_argument(
        "--scale-factor",
        type=float,
        metavar="X",
        help="factor on latents before diffusion, the one that the U-Net was trained with; about 1/std of the latents",
    )
    networks.add_argument("--schedule", metavar="NAME", help="cosine, linear_beta or scaled_linear_beta")
    networks.add_argument("--num-train-timesteps", type=int, metavar="T", help="steps of the noise schedule")
    networks.add_argument("--prediction-type", metavar="NAME", help="v_prediction, epsilon or sample")
    networks.add_argument(
        "--condition-keys", nargs="+", metavar="NAME", help="masks in the order of the ControlNet's channels"
    )
    networks.add_argument("--strides", type=int, nargs="+", metavar="N", help="of the autoencoder, per level")
    for prefix, words in (("", "U-Net"), ("control-", "ControlNet")):
        networks.add_argument(
            f"--{prefix}norm-num-groups", type=int, metavar="N", help=f"groups of the {words}'s normalisation"
        )
        networks.add_argument(
            f"--{prefix}num-head-channels", type=int, nargs="+", metavar="N",
            help=f"width of the {words}'s attention heads: one, or one per level",
        )  # fmt: skip
    networks.add_argument(
        "--initial-stride", type=int, metavar="N", help="of the ControlNet's first convolution on masks"
    )


def run_import(arguments: argparse.Namespace, console: Console) -> None:
    """Do it; the last line on stdout is the bundle's folder."""
    _require_family(arguments.family)
    licence_text = _licence_text(arguments.licence_file) if arguments.licence_file else None

    from ..bundles.import_medlord import import_medlord
    from ..bundles.medlord_options import MedlordFiles, MedlordOptions

    given = {name: getattr(arguments, name) for name in MedlordOptions.__dataclass_fields__}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    for name in ("num_head_channels", "control_num_head_channels"):
        if given[name] is not None and len(given[name]) == 1:
            given[name] = given[name][0]
    with console.interruptible():
        imported = import_medlord(
            MedlordFiles(**{name: getattr(arguments, name) for name in MedlordFiles.__dataclass_fields__}),
            arguments.id,
            MedlordOptions(**given),
            out=arguments.out,
            title=arguments.title,
            licence=arguments.licence or "not stated",
            licence_text=licence_text,
            half_precision=arguments.store == "float16",
            check_volumes=arguments.check_scale_factor,
            progress=console.progress,
            cancel=console.cancel,
        )
    for warning in imported.warnings:
        console.note(f"Warning: {warning}")
    check = imported.description.provenance["scale_factor_check"]
    if check:
        console.note(
            f"Scale factor {imported.description.scale_factor:g}; 1/std of the latents of {check['volumes']} volumes "
            f"is {check['measured']:.4g}."
        )
    console.result(imported.folder)


def _require_family(family: str) -> None:
    if family.lower() in LATER_FAMILIES:
        raise InputError(f"The family '{family}' is not yet supported; supported is {', '.join(FAMILIES)}.")
    if family.lower() not in FAMILIES:
        raise InputError(f"Unknown family '{family}'; supported is {', '.join(FAMILIES)}.")


def _licence_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise InputError(f"The licence {path.name} cannot be read ({reason}); give a text file.") from error
