"""What a study is to be, and which volumes the seed draws for it."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ..volume_files import check_writable_folder
from .cases import Survey, survey
from .order import checked_reader
from .rubric import MODES, Rubric
from .study import DEFAULT_MARGIN, LAYOUTS, WINDOWS, check_margin

VOLUME_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr")
MOST_CASES = 9999


@dataclass(frozen=True)
class Source:
    """Where volumes come from: a name, a pattern of files (or a folder), "real" or "synthetic".

    `masks` (mode match) is the path of a volume's mask, with {stem} for the volume's name without its ending.
    """

    name: str
    pattern: str
    kind: str = "synthetic"
    masks: str | None = None


@dataclass(frozen=True)
class StudyPlan:
    """What the study is to be; `spacing_mm` and `shape` (to left, posterior, superior) default to what fits all.

    `training` cases are drawn from each source besides the `per_source`; `repeats` items come twice for each reader.
    `margin` is the difference from real, in steps of a scale, that will count as none: chosen before anybody reads.
    Only `readers` may read, where any are named.
    """

    per_source: int
    seed: int
    mode: str = "rating"
    rubric: Rubric | None = None
    training: int = 0
    repeats: int = 0
    blocks: int = 1
    going_back: bool = True
    window: str = "lung"
    layout: str = "three-planes"
    spacing_mm: tuple[float, float, float] | None = None
    shape: tuple[int, int, int] | None = None
    equal_air: bool = True
    compress: bool = False
    margin: float = DEFAULT_MARGIN
    readers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """A volume that was drawn: its source, what it is, whether it is for training."""

    source: Source
    survey: Survey
    training: bool


def check_request(out: Path, key_path: Path, sources: Sequence[Source], plan: StudyPlan) -> None:
    """Raise `InputError` for what can be known to be wrong before any volume is read."""
    if out.exists():
        raise InputError(f"{out} exists already; choose a new folder for the study.")
    if not out.name:
        raise InputError(f"{out} cannot name a study; choose a new folder.")
    check_writable_folder(out.parent)
    if key_path.resolve().is_relative_to(out.resolve()):
        raise InputError(
            f"The key {key_path} would lie in the study, where readers find it; choose another --key."
        )
    if key_path.exists():
        raise InputError(
            f"{key_path} exists already and may be the key of another study; choose another --key."
        )
    if not key_path.parent.is_dir():
        raise InputError(
            f"The folder {key_path.parent} of the key does not exist; create it or choose another."
        )
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"The source '{twice}' was given twice; join its files in one pattern.")
    if plan.mode not in MODES:
        raise InputError(f"'{plan.mode}' is no mode of reading; use {', '.join(MODES)}.")
    if plan.mode != "match" and {source.kind for source in sources} != {"real", "synthetic"}:
        raise InputError(
            f"The sources are {', '.join(names) or 'none'}: at least one must be real and one synthetic. A source "
            "named 'real' counts as real; name others with --real NAME."
        )
    if plan.mode == "match" and (missing := next((s.name for s in sources if not s.masks), None)):
        raise InputError(
            f"The mode match shows masks, and '{missing}' has none; give --masks {missing}=PATH."
        )
    if plan.mode != "rating" and plan.training:
        raise InputError(
            "Training cases with feedback exist in the mode rating alone; leave --training away."
        )
    limits = {
        "--per-source": (plan.per_source, 1), "--training": (plan.training, 0), "--repeats": (plan.repeats, 0),
        "--blocks": (plan.blocks, 1), "--seed": (plan.seed, 0),
    }  # fmt: skip
    for option, (value, lowest) in limits.items():
        if value < lowest:
            raise InputError(f"{option} is {value}; it takes a whole number from {lowest}.")
    if plan.window not in WINDOWS or plan.layout not in LAYOUTS:
        raise InputError(
            f"Window '{plan.window}' or layout '{plan.layout}' is unknown; windows are {', '.join(WINDOWS)}, layouts "
            f"{', '.join(LAYOUTS)}."
        )
    check_margin(plan.margin)
    _check_readers(plan.readers)
    for option, triple, limits in (
        ("--spacing", plan.spacing_mm, (0.1, 20.0)),
        ("--shape", plan.shape, (16, 1024)),
    ):
        if triple is not None and not limits[0] <= min(triple) <= max(triple) <= limits[1]:
            raise InputError(f"{option} is {triple}; each of the three takes {limits[0]} to {limits[1]}.")


def _check_readers(readers: Sequence[str]) -> None:
    """Raise `InputError` for a name that cannot be one, and for two that only capitals tell apart."""
    seen = set()
    for name in readers:
        folded = checked_reader(name).casefold()
        if folded in seen:
            raise InputError(f"The reader '{name}' was given twice (capitals do not count); name each once.")
        seen.add(folded)


def draw(sources: Sequence[Source], plan: StudyPlan) -> list[tuple[Source, Path, bool]]:
    """The files of each source that the seed draws: (source, file, for training)."""
    drawn, seen = [], {}
    synthetic = sum(source.kind == "synthetic" for source in sources)
    real = max(1, sum(source.kind == "real" for source in sources))
    for source in sources:
        files = find_volumes(source.pattern)
        count = plan.per_source
        if plan.mode == "pair" and source.kind == "real":
            # Every pair needs a real volume of its own.
            share, rest = divmod(plan.per_source * synthetic, real)
            position = [s.name for s in sources if s.kind == "real"].index(source.name)
            count = share + (position < rest)
        needed = count + plan.training
        if len(files) < needed:
            raise InputError(
                f"The source '{source.name}' ({source.pattern}) has {len(files)} volumes, and {needed} are needed; "
                "give more files or a smaller --per-source."
            )
        order = generator_for(str(plan.seed).encode(), "draw", source.name).permutation(len(files))
        for number, index in enumerate(order[:needed]):
            path = files[index]
            if path.resolve() in seen:
                raise InputError(
                    f"{path.name} belongs to the sources '{seen[path.resolve()]}' and '{source.name}'; make the "
                    "patterns disjoint."
                )
            seen[path.resolve()] = source.name
            drawn.append((source, path, number >= count))
    if len(drawn) > MOST_CASES:
        raise InputError(f"The study would have {len(drawn)} cases (limit {MOST_CASES}); lower --per-source.")
    return drawn


def find_volumes(pattern: str) -> list[Path]:
    """Volumes that a pattern (* ? [] **) or a folder names, sorted; hidden files are left out."""
    path = Path(pattern).expanduser()
    found = path.iterdir() if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))
    return sorted(
        entry
        for entry in found
        if entry.name.lower().endswith(VOLUME_ENDINGS) and not entry.name.startswith(".") and entry.is_file()
    )


def survey_all(
    drawn: list[tuple[Source, Path, bool]], progress: Progress | None, cancel: Cancel | None
) -> list[Drawn]:
    """Look at every drawn volume; raises `InputError` for one that cannot be used."""
    clock, result = PhaseClock("survey", len(drawn), progress), []
    contents: dict[str, Path] = {}
    for number, (source, path, training) in enumerate(drawn):
        raise_if_cancelled(cancel, f"the survey of volume {number + 1} of {len(drawn)}")
        clock.report(number)
        entry = survey(path)
        if entry.sha256 in contents:
            raise InputError(
                f"{path} has the same content as {contents[entry.sha256]}; a volume may be in a study only once."
            )
        contents[entry.sha256] = path
        if source.kind == "real" and entry.has_recipe:
            raise InputError(
                f"{path.name} was made by a model (a recipe is in it), but '{source.name}' is a real source; check the "
                "pattern."
            )
        result.append(Drawn(source, entry, training))
    clock.report(len(drawn))
    return result


def notes_on_reals(drawn: Sequence[Drawn]) -> list[str]:
    """What the author must know of real sources whose volumes say of themselves that they are synthetic.

    A phantom does, and may well stand for the real ones; a model's volume that lost its recipe does, too.
    """
    found = []
    for source in dict.fromkeys(entry.source for entry in drawn if entry.source.kind == "real"):
        surveys = [entry.survey for entry in drawn if entry.source == source]
        marked = sorted(survey.path.name for survey in surveys if survey.marked_synthetic)
        if marked:
            found.append(
                f"{len(marked)} of {len(surveys)} volumes of '{source.name}' say that they are synthetic, as phantoms "
                f"do (first {marked[0]}); they count as real here."
            )
    return found


def secret_of(seed: int, drawn: list[Drawn]) -> bytes:
    """What all random numbers of the study come from: seed and originals, which the reader's side does not have."""
    words = [str(seed), *sorted(f"{entry.source.name} {entry.survey.sha256}" for entry in drawn)]
    return hashlib.sha256("\n".join(words).encode("utf-8")).digest()


def generator_for(secret: bytes, *what: str) -> np.random.Generator:
    digest = hashlib.sha256(secret + "\n".join(("", *what)).encode("utf-8")).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def numbered(drawn: list[Drawn], generator: np.random.Generator) -> dict[str, Drawn]:
    """case_0001... and training_0001... for the drawn volumes, shuffled."""
    order = [drawn[index] for index in generator.permutation(len(drawn))]
    result = {}
    for prefix, wanted in (("case", False), ("training", True)):
        chosen = [entry for entry in order if entry.training == wanted]
        result |= {f"{prefix}_{number:04d}": entry for number, entry in enumerate(chosen, 1)}
    return result


def stem_of(path: Path) -> str:
    name = path.name
    ending = next(e for e in sorted(VOLUME_ENDINGS, key=len, reverse=True) if name.lower().endswith(e))
    return name[: -len(ending)]
