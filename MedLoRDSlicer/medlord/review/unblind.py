"""The end of the blinded part: key and cases are checked, then the study takes no more answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .answers import lock_study, read_answers, status
from .key import Key, read_key
from .study import Study, load_study, lock_of, verify_cases


@dataclass(frozen=True)
class Unblinding:
    """What `unblind_study` did: the key that fits, and the content of unblinded.json that locked the study."""

    key: Key
    lock: Mapping


def unblind_study(
    study: Study | str | Path,
    key_path: str | Path,
    passphrase: str | None = None,
    answers: str | Path | None = None,
    *,
    incomplete: bool = False,
) -> Unblinding:
    """Check the key against the study and the case files against their hashes, then lock the study for good.

    `answers` is the folder of the readers' databases, by default the study's own. Nothing is locked unless everything
    fits. Raises `InputError`: the study is unblinded already, the key is missing, changed or does not open with
    `passphrase`, a case file was changed, no reader has confirmed an answer, or, without `incomplete`, a reader whom
    the study names, or who has confirmed some, has not read everything.
    """
    study = study if isinstance(study, Study) else load_study(study)
    refuse_second_unblinding(study, answers)
    key = read_key(key_path, passphrase, study=study)
    verify_cases(study)
    if not read_answers(study, answers):
        raise InputError(
            f"No reader has confirmed an answer in {Path(answers or study.answers_folder).name}; unblinding would "
            "close the study for good. Choose the folder with the answers, or let the readers read first."
        )
    if not incomplete:
        _refuse_unfinished_readers(study, answers)
    return Unblinding(key, lock_study(study, answers))


def refuse_second_unblinding(study: Study, answers: str | Path | None = None) -> None:
    """Raise `InputError` when the study was unblinded before; the report can be written as often as wanted."""
    lock = lock_of(study, answers)
    if lock is not None:
        raise InputError(
            f"This study was unblinded at {lock['unblinded_at']} and takes no second unblinding; "
            "write its report with 'medlord review report'."
        )


def _refuse_unfinished_readers(study: Study, answers: str | Path | None) -> None:
    """Raise `InputError` that names the readers who have not finished.

    Where the study names no readers, who has confirmed nothing may be a name that was mistyped once, and loses nothing.
    """
    unfinished = [
        f"{entry.reader} {entry.confirmed} of {entry.readings}"
        for entry in status(study, answers)
        if entry.confirmed < entry.readings and (entry.confirmed or entry.reader in study.readers)
    ]
    if unfinished:
        raise InputError(
            f"Not everything is read yet ({'; '.join(unfinished)}), and after the unblinding nobody can go on. Let the "
            "readers finish, or unblind without the rest (--incomplete)."
        )
