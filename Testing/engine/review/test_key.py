"""The key: owner only, encrypted when asked, and no other key fits a study."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace

import pytest
from support.simulated_review import write_study

from medlord.errors import InputError
from medlord.review.key import Key, KeyCase, KeySource, key_bytes, read_key, read_passphrase, write_key


def key() -> Key:
    """A key of one case."""
    case = KeyCase("case_0001", "scanner", "real", "folder/patient.nii.gz", "a" * 64, "b" * 64)
    return Key("0" * 32, (KeySource("scanner", "real", "folder/*"),), (case,), 5)


def test_a_key_survives_its_file_and_is_its_owners_alone(tmp_path):
    path, before = tmp_path / "study.key", os.umask(0)
    try:
        write_key(path, key_bytes(entry := key()))
    finally:
        os.umask(before)
    assert read_key(path) == entry
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["study.key"]
    with pytest.raises(InputError, match="exists already"):
        write_key(path, b"")
    assert read_key(path) == entry


def test_equal_content_gives_another_hash_every_time():
    # Else who guesses the sources could confirm the guess with the hash in study.json.
    assert key_bytes(key()) != key_bytes(key())


def test_a_passphrase_hides_the_content_and_is_needed(tmp_path):
    path = tmp_path / "study.key"
    write_key(path, key_bytes(entry := key(), "correct horse"))
    content = path.read_bytes()
    for secret in (b"scanner", b"patient", b"case_0001", b"real"):
        assert secret not in content
    assert read_key(path, "correct horse") == entry
    with pytest.raises(InputError, match="passphrase does not open"):
        read_key(path, "wrong horse")
    with pytest.raises(InputError, match="is encrypted; give its passphrase"):
        read_key(path)


@pytest.mark.parametrize("field", ["token", "salt", "n"])
def test_a_damaged_envelope_is_refused(tmp_path, field):
    path = tmp_path / "study.key"
    envelope = json.loads(key_bytes(key(), "horse"))
    envelope[field] = {"token": envelope["token"][:-9] + "AAAAAAAA=", "salt": 5, "n": 2**40}[field]
    path.write_text(json.dumps(envelope))
    with pytest.raises(InputError, match="does not open|damaged"):
        read_key(path, "horse")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "\x00\x01", '{"format": "medlord-review-key", "version": 1}']
)
def test_other_files_are_no_keys(tmp_path, content):
    path = tmp_path / "study.key"
    path.write_text(content)
    with pytest.raises(InputError, match="no key|damaged key"):
        read_key(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_key(tmp_path / "none.key")


def test_only_the_studys_own_key_fits(tmp_path):
    (tmp_path / "other").mkdir()
    study, path = write_study(tmp_path)
    _, foreign = write_study(tmp_path / "other")
    own = read_key(path, study=study)
    with pytest.raises(InputError, match="is not the key this study was made with"):
        read_key(foreign, study=study)
    exchanged = replace(
        own, cases=(replace(own.cases[0], kind="synthetic", source="model A"), *own.cases[1:])
    )
    path.write_bytes(key_bytes(exchanged))
    with pytest.raises(InputError, match="SHA-256 differs"):
        read_key(path, study=study)


def test_a_study_edited_to_fit_a_foreign_key_is_noticed(tmp_path):
    import hashlib

    study, path = write_study(tmp_path)
    own = read_key(path, study=study)
    forged = replace(own, cases=(replace(own.cases[0], case_sha256="c" * 64), *own.cases[1:]))
    content = key_bytes(forged)
    path.write_bytes(content)
    edited = replace(study, key_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(InputError, match="different cases"):
        read_key(path, study=edited)


def test_a_passphrase_file_gives_its_first_line(tmp_path):
    path = tmp_path / "passphrase"
    path.write_text("correct horse \nsecond line\n")
    assert read_passphrase(path) == "correct horse "
    path.write_text("correct horse", encoding="utf-8-sig")  # as some editors of Windows write it
    assert read_passphrase(path) == "correct horse"
    path.write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        read_passphrase(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_passphrase(tmp_path / "none")
