"""medlord synthesize: from masks, or from a recipe, to a CT."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..memory.sizes import in_words, parse_memory
from ..resources import BUNDLED_MODEL
from .inputs import SAMPLER_HELP, add_mask_arguments, check_mask_arguments, name_and_value, read_masks
from .outputs import all_or_nothing, check_outputs, siblings

if TYPE_CHECKING:
    from ..bundles.description import ModelDescription
    from ..synthesis import Result
    from .console import Console

SUMMARY = "synthesize a CT from a segmentation, or repeat a recipe"
# What a recipe fixes: with --recipe none of these can be chosen again.
_CHOICES = {
    "seed": 0,
    "steps": None,
    "sampler": "sde-dpm-solver++",
    "control_scale": 1.0,
    "count": 1,
    "precision": "auto",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb; those that a recipe fixes have no default here, so that giving them is noticed."""
    parser.description = (
        "Makes a CT from masks, without masks (--unconditional), or again from the recipe of an earlier one. Values in "
        "brackets are the defaults."
    )
    add_mask_arguments(parser)
    parser.add_argument(
        "--recipe", type=Path, metavar="FILE",
        help="make a volume again: the recipe's JSON, or a synthetic volume (NIfTI, NRRD) that carries it",
    )  # fmt: skip
    parser.add_argument(
        "--model", metavar="ID|DIR", help=f"installed model or folder of one ({BUNDLED_MODEL})"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="CT to write: .nii.gz, .nii or .nrrd"
    )
    parser.add_argument("--recipe-out", type=Path, metavar="FILE", help="also write the recipe, as JSON")
    parser.add_argument("--overwrite", action="store_true", help="replace output files that exist")
    run = parser.add_argument_group("synthesis")
    run.add_argument(
        "--seed", type=int, metavar="N", help="seed of the noise (0); the same seed, the same volume"
    )
    run.add_argument("--count", type=int, metavar="N", help="volumes of N seeds, written as NAME_seed (1)")
    run.add_argument("--sampler", metavar="NAME", help=SAMPLER_HELP)
    run.add_argument("--steps", type=int, metavar="N", help="denoising steps (the sampler's default)")
    run.add_argument("--control-scale", type=float, metavar="X", help="how strongly masks steer, 0 to 2 (1)")
    run.add_argument(
        "--attribute", type=name_and_value, action="append", metavar="NAME=VALUE",
        help="choice for the whole volume, for example contrast_phase=arterial (the first one that the model has)",
    )  # fmt: skip
    run.add_argument(
        "--reference", type=Path, metavar="FILE", help="CT that the masks belong to; places the grid"
    )
    run.add_argument(
        "--center", type=float, nargs=3, metavar=("R", "A", "S"),
        help="middle of the volume in world space, RAS mm (the masks' middle; the origin where there are none)",
    )  # fmt: skip
    run.add_argument(
        "--unconditional", action="store_true",
        help="no masks: a volume that follows the seed alone; models that take no masks make no other",
    )  # fmt: skip
    run.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N (auto)")
    run.add_argument(
        "--memory-limit", type=parse_memory, metavar="SIZE",
        help="memory that the program may hold in all, on a GPU there, for example 8GB: smaller tiles, the same volume "
        "(what is free)",
    )  # fmt: skip
    run.add_argument("--precision", metavar="NAME", help="auto, float32, bfloat16 or float16 (auto)")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Do it; the last lines on stdout are the files that were written."""
    volumes, recipes = _outputs(arguments)
    check_outputs([*volumes, *recipes], arguments.overwrite)
    if arguments.recipe:
        _repeat(arguments, volumes[0], recipes, console)
    else:
        _synthesize(arguments, volumes, recipes, console)


def _outputs(arguments: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Check how the options go together; fill in defaults; return the volumes and the recipes to write."""
    from ..volume_files import file_kind

    file_kind(arguments.out)
    given = [name for name in _CHOICES if getattr(arguments, name) is not None]
    if arguments.recipe:
        fixed = ("labelmap", "labels", "condition", "attribute", "reference", "center", "unconditional")
        given += [name for name in fixed if getattr(arguments, name)]
        if given:
            option = given[0].replace("_", "-")
            raise InputError(f"The recipe fixes --{option}; leave it away, or leave --recipe away.")
    else:
        check_mask_arguments(arguments, needed=False)
        if arguments.unconditional and arguments.control_scale is not None:
            raise InputError("--control-scale has no effect with --unconditional; leave one away.")
    for name, default in _CHOICES.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
    if arguments.count < 1:
        raise InputError(f"--count is {arguments.count}; at least 1 volume can be made.")
    if arguments.recipe_out and arguments.recipe_out.suffix.lower() != ".json":
        raise InputError(f"{arguments.recipe_out.name} has the wrong ending for a recipe; use .json.")
    recipe = [arguments.recipe_out] if arguments.recipe_out else []
    if arguments.count == 1:
        return [arguments.out], recipe
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    return siblings(arguments.out, seeds), [path for r in recipe for path in siblings(r, seeds)]


def _synthesize(
    arguments: argparse.Namespace, volumes: list[Path], recipes: list[Path], console: Console
) -> None:
    from ..bundles.bundle import find_model
    from ..bundles.description import read_description
    from ..bundles.loaded_models import LoadedModels
    from ..condition_channels import check_attributes
    from ..devices import choose_device
    from ..sampling.registry import SAMPLERS
    from ..synthesis import follows_masks, synthesize
    from ..volume_files import load_volume
    from ..volumes import require_ct

    model = find_model(arguments.model or BUNDLED_MODEL)
    description = read_description(model)
    if arguments.sampler not in SAMPLERS:
        raise InputError(f"Unknown sampler '{arguments.sampler}'; known are {', '.join(SAMPLERS)}.")
    attributes = dict(arguments.attribute or ())
    given = ["labelmap"] if arguments.labelmap else [name for name, _ in arguments.condition or ()]
    if description.takes_masks and not given and not arguments.unconditional:
        raise InputError(
            "No masks were given; add --labelmap FILE or --condition NAME=FILE, or --unconditional for a volume that "
            "follows none."
        )
    follows = follows_masks(description, given, arguments.unconditional, attributes)
    check_attributes(attributes, description.attributes)
    reference = load_volume(arguments.reference) if arguments.reference else None
    if reference is not None:
        require_ct(reference, f"The reference {arguments.reference.name}")
    conditions = read_masks(arguments, description.conditions, console) if follows else None
    choose_device(arguments.device)
    if follows:
        _say_attributes(attributes, description, console)
    center = tuple(arguments.center) if arguments.center else None
    models = LoadedModels()
    for number, path in enumerate(volumes):
        with console.interruptible():
            result = synthesize(
                conditions, model, seed=arguments.seed + number, sampler=arguments.sampler, steps=arguments.steps,
                control_scale=arguments.control_scale, attributes=attributes, device=arguments.device,
                precision=arguments.precision, reference=reference, center_ras_mm=center,
                unconditional=arguments.unconditional, models=models,
                memory_limit=arguments.memory_limit, progress=console.progress, cancel=console.cancel,
            )  # fmt: skip
        _write(result, path, recipes[number] if recipes else None, console, warn=number == 0)


def _say_attributes(chosen: Mapping[str, str], description: ModelDescription, console: Console) -> None:
    """Which value of each attribute the volume gets; for a default also how to get another."""
    for name, value in {**description.default_attributes, **chosen}.items():
        others = " or ".join(other for other in description.attributes[name] if other != value)
        hint = f"; --attribute {name}={others}" if others else ""
        console.note(f"{_in_words(name)} {value}" + ("." if name in chosen else f" (default{hint})."))


def _in_words(attribute: str) -> str:
    return attribute.replace("_", " ").capitalize()


def _repeat(arguments: argparse.Namespace, volume: Path, recipes: list[Path], console: Console) -> None:
    from ..recipe import load_recipe
    from ..synthesis import repeat_recipe

    recipe = load_recipe(arguments.recipe)
    for name, value in recipe.attributes.items():
        console.note(f"{_in_words(name)} {value} (from the recipe).")
    with console.interruptible():
        result = repeat_recipe(
            recipe, model=arguments.model, device=arguments.device, memory_limit=arguments.memory_limit,
            progress=console.progress, cancel=console.cancel,
        )  # fmt: skip
    _write(result, volume, recipes[0] if recipes else None, console, warn=True)


def _write(result: Result, path: Path, recipe: Path | None, console: Console, warn: bool) -> None:
    """Save the volume (its recipe inside) and the recipe; say how it went."""
    from ..volume_files import save_volume, write_atomically

    for warning in result.warnings if warn else ():
        console.note(warning if warning.startswith("Note: ") else f"Warning: {warning}")
    with all_or_nothing([path]):
        save_volume(result.volume, path, synthetic=True)
        if recipe:
            text = result.recipe.to_json() + "\n"
            write_atomically(recipe, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    console.note(
        f"Seed {result.recipe.seed}, {result.recipe.sampler}, {result.recipe.steps} steps, "
        f"{result.timings_s['total']:.1f} s, {in_words(result.peak_memory_bytes)} of memory at most."
    )
    console.result(path)
