"""A study as a reader gets it: a folder with cases, a rubric and rules, and nothing that names a source.

study.json           what is asked and in which order, the SHA-256 of every case and of the key
case_0001.nrrd ...   the cases (mode match: case_0001_mask.nrrd beside each)
training_0001.nrrd   cases with feedback, read before the study starts
answers/             one SQLite file per reader, unless the answers lie elsewhere
unblinded.json       the lock: from then on no answer is taken
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..checksums import sha256_of
from ..errors import InputError
from .rubric import MODES, Rubric, rubric_from_dict

FORMAT = "medlord-review-study"
VERSION = 1
STUDY_FILE = "study.json"
LOCK_FILE = "unblinded.json"
ANSWERS_FOLDER = "answers"

WINDOWS = {
    "lung": (1500.0, -600.0),
    "mediastinum": (400.0, 40.0),
    "bone": (1800.0, 400.0),
    "ccta": (800.0, 300.0),
}
"""Presets by name, for reviews and for the panel: window width and level in HU.

No standard fixes the one for coronary CTA. 800/300 shows -100 to 700 HU: fat nearly black, an opacified lumen grey,
calcium white. Its white is that of 1000/200, the default of Shmilovich et al., Academic Radiology 21(6), 2014 (stenosis
of calcified segments).
"""

LAYOUTS = ("axial", "two-planes", "three-planes")

DEFAULT_MARGIN = 0.5
"""Margin of equivalence in steps of a scale, where the author of a study names no other."""

_NAME = re.compile(r"[a-z]+_\d{4,6}")


@dataclass(frozen=True)
class CaseFile:
    """One case: its number, the SHA-256 of its file and, in the mode match, of its mask."""

    case: str
    sha256: str
    mask_sha256: str | None = None


@dataclass(frozen=True)
class TrainingCase:
    """A case with feedback; `truth` is "real" or "synthetic"."""

    case: str
    sha256: str
    truth: str


@dataclass(frozen=True)
class Item:
    """What is judged at once: one case, or the two of a pair."""

    item: str
    cases: tuple[str, ...]


@dataclass(frozen=True)
class OrderRules:
    """How orders are made: a seed (hex), items shown twice per reader, blocks, whether readers may go back."""

    seed: str
    repeats: int = 0
    blocks: int = 1
    going_back: bool = True


@dataclass(frozen=True)
class Study:
    """What `study.json` says; `content` is all of it."""

    folder: Path
    study_id: str
    mode: str
    rubric: Rubric
    cases: tuple[CaseFile, ...]
    training: tuple[TrainingCase, ...]
    items: tuple[Item, ...]
    order: OrderRules
    key_sha256: str
    content: dict = field(repr=False, compare=False)

    @property
    def margin(self) -> float | None:
        """The margin of equivalence that was fixed when the study was made; None for a study that fixed none."""
        return self.content.get("equivalence_margin")

    @property
    def readers(self) -> tuple[str, ...]:
        """The readers whom the author named, and no others may read; empty for a study that anybody may read."""
        return tuple(self.content.get("readers", ()))

    @property
    def answers_folder(self) -> Path:
        """Where answers go when no other folder is named."""
        return self.folder / ANSWERS_FOLDER

    @property
    def window(self) -> tuple[float, float]:
        """Width and level in HU that every case starts with."""
        return WINDOWS[self.content["display"]["window"]]

    @property
    def layout(self) -> str:
        """The layout of `LAYOUTS` that every case starts with."""
        return self.content["display"]["layout"]

    def file(self, case: str) -> Path:
        """The volume of a case."""
        return self.folder / f"{case}.nrrd"

    def mask_file(self, case: str) -> Path:
        """The mask of a case (mode match)."""
        return self.folder / f"{case}_mask.nrrd"

    def truth_of_training(self, case: str) -> str | None:
        """ "real" or "synthetic" for a training case, None for any other."""
        return next((entry.truth for entry in self.training if entry.case == case), None)


def load_study(folder: str | Path) -> Study:
    """Read `study.json` of a folder; raises `InputError` when there is none or it is damaged."""
    if isinstance(folder, Study):
        return folder
    folder = Path(folder)
    path = folder / STUDY_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder} is no study: it has no {STUDY_FILE}. Check the path.") from error
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); check the path and its permissions."
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is damaged (no JSON); copy the study again from its author.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is no study of MedLoRD; check the path.")
    if content.get("version") != VERSION:
        raise InputError(
            f"{path} has the version {content.get('version')!r}; this program reads version {VERSION}. Update it."
        )
    try:
        return _study(folder, content)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is damaged ({type(error).__name__}: {error}); copy the study again from its author."
        ) from error


def _study(folder: Path, content: dict) -> Study:
    mode = content["mode"]
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode}")
    cases = tuple(CaseFile(c["case"], c["sha256"], c.get("mask_sha256")) for c in content["cases"])
    training = tuple(TrainingCase(c["case"], c["sha256"], c["truth"]) for c in content.get("training", []))
    items = tuple(Item(entry["item"], tuple(entry["cases"])) for entry in content["items"])
    names = [entry.case for entry in (*cases, *training)]
    if not items or len(set(names)) < len(names) or not all(_NAME.fullmatch(name) for name in names):
        raise ValueError("no items, or names of cases that are not case_0001 and so on")
    known = {entry.case for entry in cases}
    if any(set(item.cases) - known or len(item.cases) != (2 if mode == "pair" else 1) for item in items):
        raise ValueError("an item with cases that do not fit")
    if content["display"]["window"] not in WINDOWS or content["display"]["layout"] not in LAYOUTS:
        raise ValueError("unknown window or layout")
    readers = content.get("readers", [])
    if not isinstance(readers, list) or not all(isinstance(name, str) for name in readers):
        raise ValueError("readers that are no names")
    return Study(
        folder=folder,
        study_id=content["study_id"],
        mode=mode,
        rubric=rubric_from_dict(content["rubric"], mode, "The rubric of the study"),
        cases=cases,
        training=training,
        items=items,
        order=OrderRules(**content["order"]),
        key_sha256=content["key_sha256"],
        content=content,
    )


def verify_cases(study: Study, cases: Iterable[str] | None = None) -> None:
    """Compare the files of `cases` (all) with their SHA-256; raises `InputError` that names the first that differs."""
    wanted = None if cases is None else set(cases)
    for entry in (*study.cases, *study.training):
        if wanted is not None and entry.case not in wanted:
            continue
        files = [(study.file(entry.case), entry.sha256)]
        if getattr(entry, "mask_sha256", None):
            files.append((study.mask_file(entry.case), entry.mask_sha256))
        for path, expected in files:
            if not path.is_file():
                raise InputError(
                    f"{path.name} is missing in {study.folder}; put the original back, or copy the study again from "
                    "its author."
                )
            if file_sha256(path) != expected:
                raise changed_file(path)


def changed_file(path: Path) -> InputError:
    """The error for a file of the study that is no longer the one it was made with."""
    return InputError(
        f"{path.name} was changed after the study was made (its SHA-256 is another); put the original back, or copy "
        "the study again from its author."
    )


def description_sha256(content: Mapping) -> str:
    """SHA-256 of what a study.json says but for the SHA-256 of the key, whatever the order of its fields."""
    said = {name: value for name, value in content.items() if name != "key_sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode("ascii")).hexdigest()


def check_margin(margin: float) -> None:
    """Raise `InputError` for a margin of equivalence that is not a positive number of steps."""
    if not 0 < margin < float("inf"):
        raise InputError(
            f"The margin of equivalence is {margin}; give a positive number of steps of the scale."
        )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex; raises `InputError` when it cannot be read."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


def lock_of(study: Study, answers: str | Path | None = None) -> dict | None:
    """What `unblinded.json` says, beside the answers or in the study folder; None while the study is blinded."""
    for folder in dict.fromkeys((answers_of(study, answers), study.answers_folder, study.folder)):
        path = folder / LOCK_FILE
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
        try:
            return dict(json.loads(text))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{path} is damaged; the study counts as unblinded. Restore the file from a copy."
            ) from error
    return None


def answers_of(study: Study, answers: str | Path | None) -> Path:
    """The folder of the answers: the one that is named, else the study's own."""
    return study.answers_folder if answers is None else Path(answers)
