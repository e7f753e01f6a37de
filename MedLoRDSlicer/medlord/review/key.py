"""The key of a study: which case came from which source. It lies outside the study and never reaches a reader.

A plain key is JSON that only its owner may read. With a passphrase it is encrypted and authenticated by Fernet
(AES-128-CBC with HMAC-SHA-256) of the library `cryptography`, under a key that scrypt (RFC 7914) derives from the
passphrase. `study.json` carries the SHA-256 of the key's file, so a key cannot be exchanged afterwards; a random
number in the key keeps that SHA-256 from confirming a guess at its content.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import EngineError, InputError
from .study import Study, description_sha256

FORMAT = "medlord-review-key"
ENCRYPTED_FORMAT = "medlord-review-key-encrypted"
VERSION = 1
KINDS = ("real", "synthetic")

_SCRYPT = {"n": 2**16, "r": 8, "p": 1}
"""64 MB and a fraction of a second for each guess at the passphrase."""
_LARGEST_KEY = 64 * 2**20


@dataclass(frozen=True)
class KeySource:
    """A source: its name, whether it is "real" or "synthetic", and the pattern its files were found by."""

    name: str
    kind: str
    pattern: str


@dataclass(frozen=True)
class KeyCase:
    """Where a case came from, with the SHA-256 of the original file and of the case; `changes` made to it."""

    case: str
    source: str
    kind: str
    file: str
    file_sha256: str
    case_sha256: str
    training: bool = False
    changes: dict = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Key:
    """All that readers must not know; `leaks` are the findings of the leak test at the creation.

    `margin` is the margin of equivalence, here because study.json carries the SHA-256 of the key: what is in it was
    chosen before anybody read. None in the key of a study that fixed none. `description_sha256` is that of study.json
    without the SHA-256 of the key: it shows when rubric, pairs or rules were changed later; None in a key without it.
    `marked_synthetic` are the cases of real sources whose originals say of themselves that they are synthetic, as
    phantoms do; None in a key that does not tell.
    """

    study_id: str
    sources: tuple[KeySource, ...]
    cases: tuple[KeyCase, ...]
    seed: int
    leaks: tuple[dict, ...] = ()
    nonce: str = field(default_factory=lambda: secrets.token_hex(32))
    margin: float | None = None
    description_sha256: str | None = None
    marked_synthetic: tuple[str, ...] | None = None

    def case(self, case: str) -> KeyCase:
        """The entry of a case; raises `InputError` when the key has none."""
        entry = next((entry for entry in self.cases if entry.case == case), None)
        if entry is None:
            raise InputError(f"The key has no case {case}: it belongs to another study.")
        return entry

    def to_dict(self) -> dict:
        """JSON form."""
        return {
            "format": FORMAT, "version": VERSION, "study_id": self.study_id, "nonce": self.nonce, "seed": self.seed,
            "sources": [asdict(source) for source in self.sources],
            "cases": [asdict(case) for case in self.cases],
            "leaks": list(self.leaks), "equivalence_margin": self.margin,
            "description_sha256": self.description_sha256,
            "marked_synthetic": None if self.marked_synthetic is None else list(self.marked_synthetic),
        }  # fmt: skip


def key_bytes(key: Key, passphrase: str | None = None) -> bytes:
    """The content of a key's file: JSON, or an encrypted envelope when a passphrase is given."""
    plain = (json.dumps(key.to_dict(), indent=1, sort_keys=True) + "\n").encode("utf-8")
    if passphrase is None:
        return plain
    salt = secrets.token_bytes(16)
    token = _fernet(passphrase, salt, _SCRYPT).encrypt(plain)
    envelope = {
        "format": ENCRYPTED_FORMAT, "version": VERSION, "kdf": "scrypt", **_SCRYPT,
        "salt": base64.b64encode(salt).decode("ascii"), "token": token.decode("ascii"),
    }  # fmt: skip
    return (json.dumps(envelope, indent=1) + "\n").encode("utf-8")


def write_key(path: Path, content: bytes) -> None:
    """Write a key's file, readable by its owner alone from its first byte on, at once or not at all.

    Raises `InputError` when there is a file already, `EngineError` when it cannot be written.
    """
    if path.exists():
        raise InputError(f"{path} exists already and may be the key of another study; choose another --key.")
    try:
        handle, name = tempfile.mkstemp(prefix=".medlord-", dir=path.parent)
    except OSError as error:
        raise InputError(
            f"The key cannot be written to {path.parent} ({error.strerror}); choose another --key."
        ) from error
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise EngineError(
            f"The key {path} could not be written ({error.strerror}); choose another --key."
        ) from error


def read_key(path: str | Path, passphrase: str | None = None, study: Study | None = None) -> Key:
    """Read the key of a study.

    With `study`, its SHA-256 is compared first, then whether it speaks of the same cases. Raises `InputError` for a
    missing or changed file, a wrong or missing passphrase, and a file that is no key.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_KEY:
            raise InputError(f"{path.name} is no key of a study: it is larger than any key. Check the path.")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"The key {path} cannot be read ({error.strerror}); check the path.") from error
    if study is not None and hashlib.sha256(content).hexdigest() != study.key_sha256:
        raise InputError(
            f"{path.name} is not the key this study was made with: its SHA-256 differs from the one in study.json. It "
            "was changed or belongs to another study; give the original file."
        )
    data = _json(content, path)
    if data.get("format") == ENCRYPTED_FORMAT:
        data = _json(_decrypt(data, passphrase, path), path)
    if data.get("format") != FORMAT or data.get("version") != VERSION:
        raise InputError(f"{path.name} is no key of a study; check the path.")
    try:
        key = Key(
            study_id=data["study_id"],
            sources=tuple(KeySource(**entry) for entry in data["sources"]),
            cases=tuple(KeyCase(**entry) for entry in data["cases"]),
            seed=data["seed"],
            leaks=tuple(data.get("leaks", [])),
            nonce=data["nonce"],
            margin=data.get("equivalence_margin"),
            description_sha256=data.get("description_sha256"),
            marked_synthetic=None
            if data.get("marked_synthetic") is None
            else tuple(data["marked_synthetic"]),
        )
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path.name} is a damaged key ({type(error).__name__}: {error}); give the original file."
        ) from error
    if study is not None:
        _check_fits(key, study, path)
    return key


def _check_fits(key: Key, study: Study, path: Path) -> None:
    """A key made for other cases cannot have the right SHA-256, unless somebody edited study.json with it."""
    of_key = {entry.case: entry.case_sha256 for entry in key.cases}
    of_study = {entry.case: entry.sha256 for entry in (*study.cases, *study.training)}
    if (key.study_id, of_key, key.margin) != (study.study_id, of_study, study.margin):
        raise InputError(
            f"{path.name} and study.json speak of different cases or margins: one of them was changed after the study "
            "was made. Give the originals."
        )
    if key.description_sha256 not in (None, description_sha256(study.content)):
        raise InputError(
            "study.json was changed after the study was made (rubric, order, display or readers; its content has "
            f"another SHA-256 than {path.name} says); give the original study.json."
        )


def _json(content: bytes, path: Path) -> dict:
    try:
        data = json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise InputError(f"{path.name} is no key of a study (no JSON); check the path.") from error
    if not isinstance(data, dict):
        raise InputError(f"{path.name} is no key of a study; check the path.")
    return data


def _decrypt(envelope: dict, passphrase: str | None, path: Path) -> bytes:
    if passphrase is None:
        raise InputError(
            f"The key {path.name} is encrypted; give its passphrase with --passphrase-file FILE."
        )
    cryptography = require_cryptography()
    try:
        scrypt = {name: int(envelope[name]) for name in ("n", "r", "p")}
        salt, token = base64.b64decode(envelope["salt"]), envelope["token"].encode("ascii")
        # A forged file must not make the program take all memory.
        if scrypt["n"] * scrypt["r"] > 2**24 or scrypt["p"] > 16:
            raise ValueError("parameters of scrypt beyond any sense")
        return _fernet(passphrase, salt, scrypt).decrypt(token)
    except cryptography.InvalidToken as error:
        raise InputError(f"The passphrase does not open {path.name}; check --passphrase-file.") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path.name} is a damaged encrypted key ({error}); give the original file."
        ) from error


def _fernet(passphrase: str, salt: bytes, scrypt: dict[str, int]):
    """The cipher of a passphrase."""
    cryptography = require_cryptography()
    derived = cryptography.Scrypt(salt=salt, length=32, **scrypt).derive(passphrase.encode("utf-8"))
    return cryptography.Fernet(base64.urlsafe_b64encode(derived))


def require_cryptography():
    """The classes that encrypt; raises `EngineError` where the library `cryptography` is not installed."""
    from types import SimpleNamespace

    try:
        from cryptography.fernet import Fernet, InvalidToken
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    except ImportError as error:
        raise EngineError(
            "A key with a passphrase needs the library cryptography, which is not installed; install medlord-slicer "
            "with its extra 'review', or leave the passphrase away."
        ) from error
    return SimpleNamespace(Fernet=Fernet, InvalidToken=InvalidToken, Scrypt=Scrypt)


def read_passphrase(path: str | Path) -> str:
    """The first line of a file; raises `InputError` when it cannot be read or is empty."""
    path = Path(path)
    try:
        # Some editors of Windows begin a text file with a mark that is no part of the passphrase.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise InputError(f"The passphrase file {path} cannot be read ({reason}); check the path.") from error
    if not lines or not lines[0].strip():
        raise InputError(
            f"The passphrase file {path.name} is empty; write the passphrase into its first line."
        )
    return lines[0]
