"""Two quality measurements of the same phantoms side by side, judged against what another noise changes.

For example UniPC with 25 steps beside DDPM with 300: "no worse" means that the median over the phantoms is not worse
by more than the standard deviation, over noise seeds, of one phantom's number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .report_files import write_report

FILES = ("comparison.json", "comparison.md")


@dataclass(frozen=True)
class ComparedMeasure:
    """One number of every phantom in both measurements.

    first, second     medians over the phantoms
    worse_by          how much worse the first median is, in the measure's unit; negative where it is better
    noise_spread      standard deviation over noise seeds of one phantom's number, from first and third measurement
    phantoms_worse    share of the phantoms that are worse in the first
    no_worse          worse_by <= noise_spread
    """

    name: str
    first: float
    second: float
    worse_by: float
    noise_spread: float
    phantoms_worse: float
    no_worse: bool


def compare_quality(first: Path, second: Path, other_noise: Path, folder: Path) -> list[ComparedMeasure]:
    """Compare three `benchmark.json` of the same phantoms and model, and write `FILES` into `folder`.

    `other_noise` has the settings of `first` but another noise seed. Raises `InputError` when the files do not belong
    together.
    """
    reports = [_read(path) for path in (first, second, other_noise)]
    _require_comparable(*reports)
    compared = list(_compared(*reports))
    named = [
        f"{r['settings']['sampler']} {r['settings']['steps'] or '(default steps)'}, noise {r['settings']['noise_seed']}"
        for r in reports
    ]
    content = {"first": named[0], "second": named[1], "other_noise": named[2]}
    content["measures"] = [asdict(measure) for measure in compared]
    write_report(folder, FILES, content, _table(content, compared))
    return compared


def _read(path: Path) -> dict:
    if not path.is_file():
        raise InputError(f"There is no measurement {path}; make it with medlord bench quality.")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        report["settings"]["noise_seed"], report["cases"], report["weights_sha256"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no benchmark.json of medlord bench quality ({error}).") from error
    return report


def _require_comparable(first: dict, second: dict, other_noise: dict) -> None:
    for name, other in (("second", second), ("other-noise", other_noise)):
        for key in ("weights_sha256", "cases"):
            if set(first[key]) != set(other[key]) or (key == "weights_sha256" and first[key] != other[key]):
                raise InputError(
                    f"The {name} measurement has other {'phantoms' if key == 'cases' else 'weights'} than the first; "
                    "measure both with the same model, --seeds, --start and --phase."
                )
    differing = {
        key for key, value in first["settings"].items() if other_noise["settings"].get(key) != value
    } - {"second_noise_seed", "repeated", "device"}
    if differing != {"noise_seed"}:
        raise InputError(
            f"The other-noise measurement differs from the first in {', '.join(sorted(differing)) or 'nothing'}; "
            "it must differ in --noise-seed alone."
        )


def _compared(first: dict, second: dict, other_noise: dict) -> Iterable[ComparedMeasure]:
    tables = [_losses(report) for report in (first, second, other_noise)]
    for name in tables[0]:
        phantoms = sorted(set.intersection(*(set(table.get(name, {})) for table in tables)))
        if len(phantoms) < 2:
            continue
        of_first, of_second, of_other = (np.array([table[name][p] for p in phantoms]) for table in tables)
        worse_by = float(np.median(of_first) - np.median(of_second))
        spread = math.sqrt(float(np.mean((of_first - of_other) ** 2)) / 2)
        sign = -1.0 if name.startswith("Dice") else 1.0
        yield ComparedMeasure(
            name,
            float(np.median(of_first)) * sign,
            float(np.median(of_second)) * sign,
            worse_by,
            spread,
            float(np.mean(of_first > of_second)),
            worse_by <= spread,
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
        f"First: {content['first']}. Second: {content['second']}. Spread: standard deviation of one phantom's number "
        f"between the noise of the first and {content['other_noise']}.",
        "",
        "| Measure | First (median) | Second (median) | Worse by | Spread between seeds | No worse |",
        "|---|---|---|---|---|---|",
    ]
    for measure in compared:
        digits = 3 if measure.name.startswith("Dice") else 1
        numbers = (measure.first, measure.second, measure.worse_by, measure.noise_spread)
        cells = [f"{number:.{digits}f}" for number in numbers]
        lines.append(f"| {' | '.join([measure.name, *cells, 'yes' if measure.no_worse else 'no'])} |")
    return "\n".join(lines)
