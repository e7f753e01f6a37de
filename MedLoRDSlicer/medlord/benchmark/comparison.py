"""Quality measurements of the same phantoms side by side, judged against what another noise changes.

For example UniPC with 25 steps beside DDPM with 300. All phantoms of one measurement get the same noise, so what is
particular to it does not average out over them: both sides are measured with several noises. "No worse" means that the
median over the phantoms, averaged over the noises, is not worse by more than the standard deviation, over noise seeds,
of one phantom's number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .report_files import write_report

FILES = ("comparison.json", "comparison.md")


@dataclass(frozen=True)
class ComparedMeasure:
    """One number of every phantom in both measurements.

    first, second     medians over the phantoms, averaged over the noises
    worse_by          how much worse the first is, in the measure's unit; negative where it is better
    noise_spread      standard deviation over noise seeds of one phantom's number, in the first measurements
    phantoms_worse    share of the phantoms that are worse in the first, averaged over the noises
    no_worse          worse_by <= noise_spread
    phantoms          how many of them had this number in all measurements
    """

    name: str
    first: float
    second: float
    worse_by: float
    noise_spread: float
    phantoms_worse: float
    no_worse: bool
    phantoms: int


def compare_quality(first: Sequence[Path], second: Sequence[Path], folder: Path) -> list[ComparedMeasure]:
    """Compare `benchmark.json` files of the same phantoms and model, and write `FILES` into `folder`.

    Each side needs two files or more, which differ in their noise seed alone. Raises `InputError` when
    the files do not belong together.
    """
    sides = [[_read(path) for path in paths] for paths in (first, second)]
    _require_comparable(sides)
    compared = list(_compared(*([_losses(report) for report in side] for side in sides)))
    content = dict(zip(("first", "second"), map(_named, sides), strict=True))
    content["measures"] = [asdict(measure) for measure in compared]
    write_report(folder, FILES, content, _table(content, compared))
    return compared


def _named(side: list[dict]) -> str:
    settings = side[0]["settings"]
    noises = ", ".join(str(report["settings"]["noise_seed"]) for report in side)
    return f"{settings['sampler']} {settings['steps'] or '(default steps)'}, noise {noises}"


def _read(path: Path) -> dict:
    if not path.is_file():
        raise InputError(f"There is no measurement {path}; make it with medlord bench quality.")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        report["settings"]["noise_seed"], report["cases"], report["weights_sha256"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no benchmark.json of medlord bench quality ({error}).") from error
    return report


def _require_comparable(sides: list[list[dict]]) -> None:
    reference = sides[0][0]
    for name, side in zip(("first", "second"), sides, strict=True):
        for report in side:
            for key, words in (("weights_sha256", "weights"), ("cases", "phantoms")):
                if set(reference[key]) != set(report[key]) or (
                    key == "weights_sha256" and reference[key] != report[key]
                ):
                    raise InputError(
                        f"A {name} measurement has other {words} than the first one; measure both sides with the same "
                        "model, --seeds, --start and --phase."
                    )
            if report["settings"].get("phase") != reference["settings"].get("phase"):
                raise InputError(
                    f"A {name} measurement is of another contrast phase than the first one; measure both sides with "
                    "the same --phase."
                )
            known = {**side[0]["settings"], **report["settings"]}
            differing = {
                key for key in known if report["settings"].get(key) != side[0]["settings"].get(key)
            } - {"second_noise_seed", "repeated", "device", "model", "noise_seed"}
            if differing:
                raise InputError(
                    f"The {name} measurements differ in {', '.join(sorted(differing))}; they must differ in "
                    "--noise-seed alone."
                )
        noises = [report["settings"]["noise_seed"] for report in side]
        if len(set(noises)) < len(noises) or len(noises) < 2:
            raise InputError(
                f"The {name} measurements have the noise seeds {noises}; give two or more, each with another "
                "--noise-seed."
            )


def _compared(first: list[dict], second: list[dict]) -> Iterable[ComparedMeasure]:
    for name in first[0]:
        phantoms = sorted(set.intersection(*(set(table.get(name, {})) for table in (*first, *second))))
        if len(phantoms) < 2:
            continue
        of_first, of_second = (
            np.array([[table[name][phantom] for phantom in phantoms] for table in side])
            for side in (first, second)
        )
        middle, other = (float(np.median(numbers, axis=1).mean()) for numbers in (of_first, of_second))
        spread = math.sqrt(float(of_first.var(axis=0, ddof=1).mean()))
        sign = -1.0 if name.startswith("Dice") else 1.0
        worse = of_first[:, None] > of_second[None]
        yield ComparedMeasure(
            name,
            middle * sign,
            other * sign,
            middle - other,
            spread,
            float(worse.mean()),
            middle - other <= spread,
            len(phantoms),
        )


def _losses(report: dict) -> dict[str, dict[str, float]]:
    """Per measure and phantom a number of which less is better: minus Dice, HU off the phantom's."""
    losses: dict[str, dict[str, float]] = {}
    for phantom, case in report["cases"].items():
        for structure, value in case["dice"].items():
            losses.setdefault(f"Dice {structure.replace('_', ' ')}", {})[phantom] = -value
        for structure, value in case["mean_hu"].items():
            if structure in case["phantom_mean_hu"]:
                off = abs(value - case["phantom_mean_hu"][structure])
                losses.setdefault(f"Mean HU {structure.replace('_', ' ')}, off the phantom's", {})[
                    phantom
                ] = off
    return losses


def _table(content: dict, compared: list[ComparedMeasure]) -> str:
    lines = [
        f"First: {content['first']}. Second: {content['second']}. Medians over the phantoms, averaged over the noises. "
        "Spread: standard deviation of one phantom's number over the noises of the first.",
        "",
        "| Measure | Phantoms | First (median) | Second (median) | Worse by | Spread between seeds | No worse |",
        "|---|---|---|---|---|---|---|",
    ]
    for measure in compared:
        digits = 4 if measure.name.startswith("Dice") else 1
        numbers = (measure.first, measure.second, measure.worse_by, measure.noise_spread)
        cells = [f"{number:.{digits}f}" for number in numbers]
        lines.append(
            f"| {' | '.join([measure.name, str(measure.phantoms), *cells, 'yes' if measure.no_worse else 'no'])} |"
        )
    return "\n".join(lines)
