"""Unblinding: what does not fit is refused and locks nothing; what fits locks the study once and for all."""

from __future__ import annotations

import json

import pytest
from support.simulated_review import read_study, skilled_judge, write_study

from medlord.errors import InputError
from medlord.review.answers import status
from medlord.review.report import write_report
from medlord.review.study import load_study, lock_of
from medlord.review.unblind import unblind_study


@pytest.fixture
def answered(tmp_path):
    study, key = write_study(tmp_path, per_source=2)
    read_study(study, "Dr Ada", skilled_judge)
    return study, key


def test_unblinding_gives_the_key_and_closes_the_study(answered):
    study, key = answered
    done = unblind_study(study.folder, key)
    assert {source.name for source in done.key.sources} == {"scanner", "model A", "model B"}
    assert done.key.case("case_0002").source == "model A"
    assert done.lock["readers"]["Dr Ada"]["confirmed"] == 6
    assert lock_of(study)["key_sha256"] == study.key_sha256
    with pytest.raises(InputError, match="takes no more answers"):
        read_study(study, "Dr Late", skilled_judge)


def test_a_second_unblinding_is_refused(answered):
    study, key = answered
    unblind_study(study, key)
    before = (study.folder / "unblinded.json").read_bytes()
    with pytest.raises(InputError, match="was unblinded at .* no second unblinding"):
        unblind_study(study, key)
    assert (study.folder / "unblinded.json").read_bytes() == before


def test_a_changed_key_is_refused_and_nothing_is_locked(answered):
    study, key = answered
    data = json.loads(key.read_text())
    data["cases"][0]["source"], data["cases"][1]["source"] = "model A", "scanner"
    key.write_text(json.dumps(data))
    with pytest.raises(InputError, match="SHA-256 differs"):
        unblind_study(study, key)
    assert lock_of(study) is None
    with pytest.raises(InputError, match="cannot be read"):
        unblind_study(study, key.with_name("other.key"))


def test_a_changed_case_is_refused_and_nothing_is_locked(answered):
    study, key = answered
    study.file("case_0003").write_bytes(b"other voxels")
    with pytest.raises(InputError, match="case_0003.nrrd was changed"):
        unblind_study(study, key)
    assert lock_of(study) is None


def test_a_case_changed_together_with_its_hash_is_refused(answered):
    study, key = answered
    content = json.loads((study.folder / "study.json").read_text())
    content["cases"][2]["sha256"] = content["cases"][1]["sha256"]
    study.file("case_0003").write_bytes(study.file("case_0002").read_bytes())
    (study.folder / "study.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="different cases"):
        unblind_study(load_study(study.folder), key)
    assert lock_of(study) is None


def test_a_wrong_passphrase_is_refused(tmp_path):
    study, key = write_study(tmp_path, per_source=1, passphrase="right horse")
    read_study(study, "Dr Ada", skilled_judge)
    with pytest.raises(InputError, match="encrypted"):
        unblind_study(study, key)
    with pytest.raises(InputError, match="does not open"):
        unblind_study(study, key, "wrong horse")
    assert lock_of(study) is None
    assert unblind_study(study, key, "right horse").key.case("case_0001").source == "scanner"


def test_without_answers_the_study_stays_open(tmp_path):
    study, key = write_study(tmp_path, per_source=1)
    with pytest.raises(InputError, match="No reader has confirmed an answer in answers"):
        unblind_study(study, key)
    assert lock_of(study) is None


def test_a_study_that_names_its_readers_takes_no_others_and_waits_for_all(tmp_path):
    study, key = write_study(tmp_path, per_source=1, readers=["Dr Ada", "Dr Ben"])
    with pytest.raises(
        InputError, match=r"'Dr Adda' is no reader of this study; its readers are Dr Ada, Dr Ben\."
    ):
        read_study(study, "Dr Adda", skilled_judge)
    assert not study.answers_folder.exists()
    read_study(study, "dr  ada", skilled_judge)
    assert [(entry.reader, entry.confirmed, entry.readings) for entry in status(study)] == [
        ("Dr Ada", 3, 3), ("Dr Ben", 0, 3),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"\(Dr Ben 0 of 3\).*--incomplete"):
        unblind_study(study, key)
    assert list(unblind_study(study, key, incomplete=True).lock["readers"]) == ["Dr Ada"]
    write_report(study, key, tmp_path / "report", bootstrap=100)
    warnings = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))["warnings"]
    (silent,) = (text for text in warnings if "Dr Ben" in text)
    assert silent.startswith("Dr Ben confirmed no case") and "mistyped" not in silent


def test_a_reader_who_has_not_finished_is_not_shut_out_by_mistake(answered):
    study, key = answered
    read_study(study, "Dr Ben", skilled_judge, stop=2)
    read_study(study, "Dr Cara", skilled_judge, stop=0)
    with pytest.raises(InputError, match=r"\(Dr Ben 2 of 6\).*--incomplete"):
        unblind_study(study, key)
    assert lock_of(study) is None
    lock = unblind_study(study, key, incomplete=True).lock
    assert lock["readers"]["Dr Ben"]["confirmed"] == 2
