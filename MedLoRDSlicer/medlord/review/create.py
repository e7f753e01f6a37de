"""Make a study: draw the cases, make them look alike, shuffle them, test for leaks, write study and key.

Nothing is written in place before all has worked: the study is built in a hidden folder beside its target and moved
there at the end. One volume is in memory at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import EngineError, InputError
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ..volume_files import free_bytes
from .cases import Equalisation, make_case, plan_ceiling, plan_grid, write_case
from .draw import (
    Drawn,
    Source,
    StudyPlan,
    check_request,
    draw,
    generator_for,
    notes_on_reals,
    numbered,
    secret_of,
    stem_of,
    survey_all,
)  # fmt: skip
from .key import Key, KeyCase, KeySource, key_bytes, require_cryptography, write_key
from .leaks import Leak, find_leaks, measure_case, untested_contrasts
from .masks import CaseMasks
from .order import checked_reader
from .rubric import default_rubric
from .study import FORMAT, STUDY_FILE, VERSION, Study, description_sha256, load_study


@dataclass(frozen=True)
class Created:
    """The new study, its key's path, what the leak test found, and notes: real volumes that say they are synthetic,
    cases that could not be equalised, what the leak test could not test."""

    study: Study
    key_path: Path
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]


def create_study(
    out: str | Path,
    sources: Sequence[Source],
    plan: StudyPlan,
    *,
    key: str | Path | None = None,
    passphrase: str | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Created:
    """Make the study folder `out` and its key (default: OUT.key beside it, readable by its owner alone).

    The draw depends on the seed; the numbers of the cases on the seed and on the originals' content, so that who
    has the study alone cannot recompute them. Raises `InputError` when a folder or key exists, a source has too few
    files, a file is unreadable, no CT, in two sources, or made by a model in a real source; `CancelledError` when
    `cancel` answers true. Nothing is left behind then.
    """
    out = Path(out)
    key_path = Path(key) if key is not None else out.with_name(f"{out.name}.key")
    check_request(out, key_path, sources, plan)
    if passphrase is not None:
        require_cryptography()
    drawn = survey_all(draw(sources, plan), progress, cancel)
    equal = Equalisation(
        plan_grid([entry.survey for entry in drawn], plan.spacing_mm, plan.shape),
        plan_ceiling([entry.survey for entry in drawn]),
        equal_air=plan.equal_air,
    )
    _check_room(out.parent, equal, len(drawn))
    with _staging(out) as staging:
        build = _Build(staging, plan, equal, sources, drawn)
        build.write_cases(progress, cancel)
        leaks = build.test_for_leaks()
        description = build.description()
        content = key_bytes(build.key(leaks, description), passphrase)
        build.write_description({**description, "key_sha256": hashlib.sha256(content).hexdigest()})
        _same_times(staging)
        write_key(key_path, content)
        try:
            _move(staging, out)
        except BaseException:
            key_path.unlink(missing_ok=True)
            raise
    return Created(load_study(out), key_path, tuple(leaks), tuple(build.notes))


class _Build:
    """The study while it is made in `folder`."""

    def __init__(
        self,
        folder: Path,
        plan: StudyPlan,
        equal: Equalisation,
        sources: Sequence[Source],
        drawn: list[Drawn],
    ):
        self.folder, self.plan, self.equal, self.sources = folder, plan, equal, sources
        self.study_id = uuid.uuid4().hex
        self.notes = notes_on_reals(drawn)
        self._secret = secret_of(plan.seed, drawn)
        self.numbered = numbered(drawn, self._generator("numbers"))
        self.entries: dict[str, KeyCase] = {}
        self.features: dict[str, dict] = {}
        self.masks = CaseMasks.of(self.numbered_masks()) if plan.mode == "match" else None
        self.mask_sha256: dict[str, str] = {}

    def numbered_masks(self) -> dict[str, Path]:
        """The file of the mask of each case; raises `InputError` when one is missing."""
        found = {}
        for case, entry in self.numbered.items():
            stem = stem_of(entry.survey.path)
            path = Path(str(entry.source.masks).replace("{stem}", stem))
            if not path.is_file():
                raise InputError(
                    f"The mask {path} of {entry.survey.path.name} does not exist; check --masks {entry.source.name}=..."
                )
            found[case] = path
        return found

    def write_cases(self, progress: Progress | None, cancel: Cancel | None) -> None:
        """Make and write every case, one after the other, and measure the file as a reader would."""
        clock = PhaseClock("cases", len(self.numbered), progress)
        self._make_files()
        encoding = "gzip" if self.plan.compress else "raw"
        for number, (case, entry) in enumerate(self.numbered.items()):
            raise_if_cancelled(cancel, f"the making of case {number + 1} of {len(self.numbered)}")
            clock.report(number)
            made = make_case(entry.survey, self.equal, self._generator("voxels", case))
            path = self.folder / f"{case}.nrrd"
            sha256 = write_case(path, made.array, self.equal.grid, encoding)
            if made.changes.get("air", "replaced") != "replaced":
                self.notes.append(f"{entry.survey.path.name}: {made.changes['air']}.")
            self.entries[case] = KeyCase(
                case, entry.source.name, entry.source.kind, str(entry.survey.path.resolve()), entry.survey.sha256,
                sha256, entry.training, made.changes,
            )  # fmt: skip
            self.features[case] = self._features(case)
            if self.masks is not None:
                labels = self.masks.labelmap(case, entry.survey, self.equal)
                self.mask_sha256[case] = write_case(self._mask_path(case), labels, self.equal.grid)
        clock.report(len(self.numbered))

    def _make_files(self) -> None:
        """Make all files, empty and at once: the time of a file's birth, which no program can set and every file
        manager shows, would tell how long its case took, and so what its original was like."""
        for case in self.numbered:
            self._path(case).touch()
            if self.masks is not None:
                self._mask_path(case).touch()

    def _features(self, case: str) -> dict[str, float | str]:
        """The nuisance features of a case: those of its file, and what was done to some originals alone."""
        return {
            **measure_case(self._path(case)),
            # All files get one time when the study is complete.
            "modification time": 0.0,
            # It smooths; where only one source had to be interpolated, its cases may look smoother for it.
            "interpolation": float(self.entries[case].changes["resampled"]),
        }

    def test_for_leaks(self) -> list[Leak]:
        """The leak test; compressed files whose sizes tell are written again without compression."""
        leaks = self._leaks()
        if self.plan.compress and any(leak.feature == "file size" for leak in leaks):
            self.notes.append(
                "The sizes of the compressed files told the sources apart, so they are uncompressed."
            )
            self._decompress()
            self.features = {case: self._features(case) for case in self.entries}
            leaks = self._leaks()
        untested = untested_contrasts(*self._sources_and_kinds())
        self.notes += [f"Leak test: {contrast}." for contrast in untested]
        return leaks

    def _leaks(self) -> list[Leak]:
        return find_leaks(list(self.features.values()), *self._sources_and_kinds())

    def _sources_and_kinds(self) -> tuple[list[str], list[str]]:
        entries = self.entries.values()
        return [entry.source for entry in entries], [entry.kind for entry in entries]

    def _decompress(self) -> None:
        from ..volume_files import load_volume

        for case, entry in self.entries.items():
            array = load_volume(self._path(case)).array
            sha256 = write_case(self._path(case), array, self.equal.grid)
            self.entries[case] = replace(entry, case_sha256=sha256)

    def _path(self, case: str) -> Path:
        return self.folder / f"{case}.nrrd"

    def _mask_path(self, case: str) -> Path:
        return self.folder / f"{case}_mask.nrrd"

    def key(self, leaks: list[Leak], description: dict) -> Key:
        """The key of the study that `description` describes."""
        sources = tuple(KeySource(source.name, source.kind, source.pattern) for source in self.sources)
        cases = tuple(self.entries.values())
        found = tuple(leak.to_dict() for leak in leaks)
        marked = tuple(
            case for case, entry in self.numbered.items()
            if entry.source.kind == "real" and entry.survey.marked_synthetic
        )  # fmt: skip
        return Key(
            self.study_id, sources, cases, self.plan.seed, found, margin=self.plan.margin,
            description_sha256=description_sha256(description), marked_synthetic=marked,
        )  # fmt: skip

    def description(self) -> dict:
        """The content of study.json, but for the SHA-256 of the key."""
        plan, grid = self.plan, self.equal.grid
        rubric = plan.rubric or default_rubric(plan.mode)
        cases = [entry for entry in self.entries.values() if not entry.training]
        content = {
            "format": FORMAT, "version": VERSION, "study_id": self.study_id, "mode": plan.mode,
            "rubric": rubric.to_dict(),
            "order": {
                "seed": hashlib.sha256(self._secret + b"order").hexdigest(),
                "repeats": plan.repeats, "blocks": plan.blocks, "going_back": plan.going_back,
            },
            "display": {"window": plan.window, "layout": plan.layout},
            "grid": {**grid.to_dict(), "spacing_mm": grid.spacing_mm.tolist()},
            "equalisation": self.equal.to_dict(),
            "cases": [self._case_entry(entry) for entry in cases],
            "training": [
                {"case": entry.case, "sha256": entry.case_sha256, "truth": entry.kind}
                for entry in self.entries.values() if entry.training
            ],
            "items": self._items(cases),
            "equivalence_margin": plan.margin,
        }  # fmt: skip
        if self.masks is not None:
            content["mask_labels"] = self.masks.names
        if plan.readers:
            content["readers"] = [checked_reader(name) for name in plan.readers]
        return content

    def write_description(self, content: dict) -> None:
        """Write study.json."""
        path = self.folder / STUDY_FILE
        with path.open("x", encoding="utf-8") as stream:
            stream.write(json.dumps(content, indent=1) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _case_entry(self, entry: KeyCase) -> dict:
        masks = {"mask_sha256": self.mask_sha256[entry.case]} if entry.case in self.mask_sha256 else {}
        return {"case": entry.case, "sha256": entry.case_sha256, **masks}

    def _items(self, cases: list[KeyCase]) -> list[dict]:
        """What is judged at once. No real case serves in two pairs, or its return would tell that it is real."""
        if self.plan.mode != "pair":
            return [{"item": entry.case, "cases": [entry.case]} for entry in cases]
        generator = self._generator("pairs")
        real = [entry.case for entry in cases if entry.kind == "real"]
        synthetic = [entry.case for entry in cases if entry.kind == "synthetic"]
        pairs = [sorted(pair) for pair in zip(generator.permutation(real), synthetic, strict=True)]
        return [
            {"item": f"item_{number:04d}", "cases": [str(case) for case in pairs[index]]}
            for number, index in enumerate(generator.permutation(len(pairs)), 1)
        ]

    def _generator(self, *what: str) -> np.random.Generator:
        """Random numbers for one purpose."""
        return generator_for(self._secret, *what)


def _check_room(folder: Path, equal: Equalisation, cases: int) -> None:
    needed = 2 * cases * int(np.prod(equal.grid.shape, dtype=np.int64)) + 2**20
    if free_bytes(folder) < needed:
        raise EngineError(
            f"The study needs {needed / 2**20:.0f} MB in {folder}, and {free_bytes(folder) / 2**20:.0f} MB are free. "
            "Free some room, choose another folder, or give a coarser --spacing."
        )


@contextlib.contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A hidden folder beside the study, gone when anything fails."""
    staging = Path(tempfile.mkdtemp(prefix=".medlord-", dir=out.parent))
    try:
        yield staging
    except OSError as error:
        raise EngineError(
            f"The study could not be written to {out.parent} ({error.strerror}); free some room or choose another "
            "folder."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _same_times(folder: Path) -> None:
    """One time for all files: their order of making and what slowed it down tell nothing."""
    moment = int(time.time()) * 10**9
    for path in (*folder.iterdir(), folder):
        os.utime(path, ns=(moment, moment))


def _move(staging: Path, out: Path) -> None:
    """Give the finished study its name; a temporary folder is its owner's alone, a study is for its readers."""
    umask = os.umask(0)
    os.umask(umask)
    staging.chmod(0o777 & ~umask)
    os.rename(staging, out)
