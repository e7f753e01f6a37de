"""medlord phantom: a procedural thorax with exact masks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .outputs import check_outputs

if TYPE_CHECKING:
    from .console import Console

SUMMARY = "make a procedural thorax CT with exact masks"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.description = (
        "Writes ct.nii.gz, segmentation.seg.nrrd and parameters.json into a folder; the segmentation can be given to "
        "synthesize."
    )
    parser.add_argument("--seed", type=int, required=True, metavar="N", help="one seed, one patient (from 0)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to (created)")
    parser.add_argument("--shape", type=int, nargs=3, metavar=("I", "J", "K"), help="voxels (128 128 64)")
    parser.add_argument("--spacing", type=float, nargs=3, metavar=("X", "Y", "Z"), help="mm (2.8 2.8 5)")
    parser.add_argument("--phase", metavar="NAME", help="native, arterial or venous (by the seed)")
    parser.add_argument("--overwrite", action="store_true", help="replace output files that exist")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Do it; the last line on stdout is the folder."""
    from ..phantom import default_grid, write_phantom
    from ..phantom.files import FILE_NAMES
    from ..volumes import Grid

    grid = default_grid()
    if arguments.shape or arguments.spacing:
        shape = tuple(arguments.shape or grid.shape)
        if min(shape) < 1 or max(shape) > 2048:
            raise InputError(f"--shape is {shape}; each axis takes 1 to 2048 voxels.")
        grid = Grid.centered(shape, tuple(arguments.spacing or grid.spacing_mm.tolist()))
    if arguments.out.is_dir():
        check_outputs([arguments.out / name for name in FILE_NAMES], arguments.overwrite)
    overrides = {"contrast_phase": arguments.phase} if arguments.phase else {}
    with console.interruptible():
        write_phantom(
            arguments.seed, arguments.out, grid,
            progress=console.progress, cancel=console.cancel, **overrides,
        )  # fmt: skip
    console.result(arguments.out)
