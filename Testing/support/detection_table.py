"""How well a check tells good volumes from spoiled ones: phantoms, each good and spoiled in ten ways.

    PYTHONPATH=Testing python -m support.detection_table --phantoms 30 --jobs 2 --out out/detection

writes `detection.json` (every verdict with its reasons) and `detection.md` (the table). A run that was interrupted goes
on where it stopped. A volume counts as flagged when its verdict is red, or when the check refuses it as no CT in HU.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from medlord.conditions import Conditions
from medlord.demo import FIRST_HELD_OUT_SEED
from medlord.errors import InputError
from medlord.evaluation.reference import ReferenceDistribution, find_reference
from medlord.evaluation.scorecard import check_volume
from medlord.phantom import PhantomCase, make_phantom
from medlord.volume_files import write_atomically
from medlord.volumes import Volume

from .spoiled_phantoms import SPOILERS, spoiled_versions

FIRST_SEED = FIRST_HELD_OUT_SEED + 10_000
GOOD = "good"


def check_one(volume: Volume, masks: PhantomCase, reference: ReferenceDistribution | None) -> dict:
    """Level ("green", "amber", "red" or "refused") and reasons of one volume against the masks of a phantom."""
    conditions = Conditions(volume.grid, masks.conditions.masks)
    phase = masks.parameters.contrast_phase
    try:
        card, _ = check_volume(volume, conditions, reference=reference, contrast_phase=phase)
    except InputError as error:
        return {"level": "refused", "reasons": [str(error)]}
    return {"level": card.level, "reasons": [f"{f.level}: {f.reason}" for f in card.findings]}


def is_flagged(verdict: dict) -> bool:
    """Whether a verdict says that the volume must not be used."""
    return verdict["level"] in ("red", "refused")


def verdicts_of(
    case: PhantomCase, other: PhantomCase, seed: int, reference: ReferenceDistribution | None
) -> Iterator[tuple[str, dict]]:
    """(name, verdict) of the good volume and of its ten spoiled versions."""
    yield GOOD, check_one(case.volume, case, reference)
    for name, volume, masks in spoiled_versions(case, other, seed):
        yield name, check_one(volume, masks, reference)


def markdown(results: dict[str, dict[str, dict]]) -> str:
    """The table of all phantoms: per fault, how many were flagged."""
    lines = ["| Volume | Flagged (red or refused) | Amber | Green |", "|---|---|---|---|"]
    for name in (GOOD, *SPOILERS):
        verdicts = [result[name] for result in results.values()]
        flagged = sum(map(is_flagged, verdicts))
        counts = [sum(v["level"] == level for v in verdicts) for level in ("amber", "green")]
        lines.append(f"| {name} | {flagged} of {len(verdicts)} | {counts[0]} | {counts[1]} |")
    return "\n".join(lines) + "\n"


def results_of(seed: int, reference_name: str) -> dict[str, dict]:
    """All verdicts of one phantom, as name -> verdict."""
    reference = None if reference_name == "none" else find_reference(reference_name, "hu-rules")
    return dict(verdicts_of(make_phantom(seed), make_phantom(seed + 1), seed, reference))


def main() -> None:
    """Run all phantoms and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--phantoms", type=int, default=30)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--reference", default="thorax-phantom", help="name, file or none")
    parser.add_argument("--jobs", type=int, default=1, help="phantoms at a time")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "detection.json"
    results = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    wanted = range(arguments.first_seed, arguments.first_seed + arguments.phantoms)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        missing = [seed for seed in wanted if str(seed) not in results]
        running = {pool.submit(results_of, seed, arguments.reference): seed for seed in missing}
        for done in as_completed(running):
            results[str(running[done])] = done.result()
            text = json.dumps(dict(sorted(results.items())), indent=1) + "\n"
            write_atomically(path, lambda temporary, text=text: temporary.write_text(text, encoding="utf-8"))
            levels = {name: verdict["level"] for name, verdict in results[str(running[done])].items()}
            print(running[done], levels, flush=True)
    table = markdown({str(seed): results[str(seed)] for seed in wanted})
    write_atomically(
        arguments.out / "detection.md", lambda temporary: temporary.write_text(table, encoding="utf-8")
    )
    print(table)


if __name__ == "__main__":
    main()
