"""Studies from files of several sources: what a reader gets is alike, tells nothing, and is whole or not there."""

from __future__ import annotations

import json
import os
import stat
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.review_volumes import SHAPE, comb, low_ceiling, quiet_air, thorax, write_source, zero_padding

from medlord.benchmark.review import ReviewSettings, run_review
from medlord.errors import CancelledError, InputError
from medlord.review.answer_database import ReaderAnswers
from medlord.review.cases import Equalisation, make_case, plan_grid, survey, write_case
from medlord.review.create import Created, create_study
from medlord.review.draw import Source, StudyPlan, find_volumes
from medlord.review.key import read_key
from medlord.review.study import load_study, verify_cases
from medlord.segmentation_files import write_segmentation
from medlord.volume_files import load_volume, save_volume
from medlord.volumes import Grid, Volume

SOURCES = {
    "real": None,
    "generator-alpha": quiet_air,
    "generator-beta": comb,
    "generator-gamma": zero_padding,
}
PER_SOURCE = 3


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    """A folder of volumes per source, each with its own quirk, its own orientation and field of view."""
    folder = tmp_path_factory.mktemp("hospital-archive")
    grids = {
        "real": Grid.centered((52, 50, 26), (8.0, 8.0, 8.0), (30.0, -20.0, 400.0), "RAS"),
        "generator-alpha": None,
        "generator-beta": None,
        "generator-gamma": None,
    }
    for number, (name, quirk) in enumerate(SOURCES.items()):
        ending = ".nrrd" if name == "generator-beta" else ".nii.gz"
        write_source(folder / name, 100 * number, PER_SOURCE + 1, quirk, grids[name], ending)
    return folder


def sources(originals: Path) -> list[Source]:
    """The four sources."""
    return [
        Source(name, str(originals / name / "*"), "real" if name == "real" else "synthetic")
        for name in SOURCES
    ]


@pytest.fixture(scope="module")
def created(originals, tmp_path_factory) -> Created:
    """A study of 12 cases and 4 training cases."""
    out = tmp_path_factory.mktemp("studies") / "study"
    return create_study(
        out, sources(originals), StudyPlan(PER_SOURCE, seed=5, training=1, repeats=2, blocks=2)
    )


def test_the_study_is_whole_and_the_key_fits(created):
    study, key = created.study, read_key(created.key_path, study=created.study)
    verify_cases(study)
    assert len(study.cases) == 12 and len(study.training) == 4 and len(study.items) == 12
    counts = {name: sum(c.source == name and not c.training for c in key.cases) for name in SOURCES}
    assert set(counts.values()) == {PER_SOURCE}
    assert [entry.truth for entry in study.training].count("real") == 1
    assert (study.order.repeats, study.order.blocks, study.order.going_back) == (2, 2, True)
    assert study.margin == key.margin == 0.5
    changed = deepcopy(study.content)
    changed["rubric"]["questions"][2]["options"][0]["label"] = "another wording"
    with pytest.raises(InputError, match="study.json was changed after the study was made"):
        read_key(created.key_path, study=replace(study, content=changed))
    assert created.key_path == study.folder.with_name("study.key")
    if os.name == "posix":
        assert stat.S_IMODE(created.key_path.stat().st_mode) == 0o600
        assert stat.S_IMODE(study.folder.stat().st_mode) & 0o500 == 0o500
    assert sorted(path.name for path in study.folder.parent.iterdir()) == ["study", "study.key"]


def test_numbers_do_not_follow_the_sources(created):
    key = read_key(created.key_path)
    order = [case.source for case in key.cases if not case.training]
    assert order != sorted(order, key=list(SOURCES).index)


def test_nothing_a_reader_can_reach_names_a_source_or_an_original(created, originals):
    study = created.study
    with ReaderAnswers(study, "Anna") as store:
        reading = store.next_reading()
        store.record(reading, {"comment": "looks fine"}, 3.0)
        contents = {path: path.read_bytes() for path in study.folder.rglob("*") if path.is_file()}
    assert {path.suffix for path in contents} == {".nrrd", ".json", ".sqlite", ".open"}
    key = read_key(created.key_path)
    names = {
        word for case in key.cases for word in (Path(case.file).name, Path(case.file).name.split(".")[0])
    }
    secrets = {
        *names, *SOURCES, str(originals), originals.name, "generator", "hospital", key.nonce,
        *(case.file_sha256 for case in key.cases),
    } - {"real"}  # fmt: skip
    for path, content in contents.items():
        for secret in secrets:
            assert secret.encode() not in content, f"{secret} in {path.name}"
            assert secret not in str(path.relative_to(study.folder))
    # "real" and "synthetic" are words of the rubric and of the training; the cases of the study carry neither.
    content = json.loads((study.folder / "study.json").read_text())
    assert "synthetic" not in json.dumps([content["cases"], content["items"], content["equalisation"]])
    assert not {"seed", "sources", "leaks"} & set(content)


def test_files_are_alike_in_header_size_time_range_and_air(created):
    study = created.study
    names = [entry.case for entry in (*study.cases, *study.training)]
    headers, sizes, times, lows, highs, air = set(), set(), set(), set(), set(), []
    for name in names:
        path = study.file(name)
        headers.add(path.read_bytes().split(b"\n\n", 1)[0])
        sizes.add(path.stat().st_size)
        times.add(path.stat().st_mtime_ns)
        volume = load_volume(path)
        assert volume.array.dtype == np.int16 and volume.recipe is None
        lows.add(int(volume.array.min()))
        highs.add(int(volume.array.max()) <= study.content["equalisation"]["clip_hu"][1])
        corner = volume.array[:4, :4].astype(float)
        air.append((corner.mean(), corner.std()))
        assert 0 < np.mean(volume.array[20:28, 20:28] > -200)  # the anatomy is there
    assert len(headers) == len(sizes) == len(times) == 1 and lows == {-1024} and highs == {True}
    assert np.ptp([mean for mean, _ in air]) < 3 and 8 < min(s for _, s in air) < max(s for _, s in air) < 12
    assert study.content["grid"]["shape"] == list(load_volume(study.file(names[0])).grid.shape)
    # quiet air, a comb, zeros in the corners and other fields of view are gone; only the anatomy may differ
    assert {leak.feature for leak in created.leaks} <= {"highest value", "share of the highest value"}


def test_all_files_are_born_before_the_first_case_is_made(originals, tmp_path, monkeypatch):
    # The birth of a file cannot be set afterwards, and would tell how long its case took.
    there = []

    def spy(path, *rest):
        there.append((path.stat().st_ino, len(list(path.parent.glob("*.nrrd")))))
        return write_case(path, *rest)

    monkeypatch.setattr("medlord.review.create.write_case", spy)
    study = create_study(tmp_path / "study", sources(originals)[:2], StudyPlan(2, seed=5)).study
    assert there == [(study.file(case.case).stat().st_ino, 4) for case in study.cases]


def test_interpolation_of_one_source_alone_is_warned_of(tmp_path):
    write_source(tmp_path / "real", 1, 5)
    write_source(tmp_path / "model", 50, 5, grid=Grid.centered((52, 52, 26), (7.6, 7.6, 7.6)))
    made = create_study(
        tmp_path / "study",
        [Source("real", str(tmp_path / "real"), "real"), Source("model", str(tmp_path / "model"))],
        StudyPlan(5, seed=5),
    )
    assert [(leak.feature, leak.accuracy) for leak in made.leaks if leak.feature == "interpolation"] == [
        ("interpolation", 1.0)
    ]


def test_padding_is_cut_off_and_gaps_are_filled(created):
    study, key = created.study, read_key(created.key_path)
    changes = {case.source: case.changes for case in key.cases}
    assert changes["generator-beta"]["dither_hu"] == pytest.approx(8, abs=0.5)
    assert changes["generator-gamma"]["padding_voxels"] > 1000
    for case in study.cases:
        array = load_volume(study.file(case.case)).array
        assert (array == 0).mean() < 0.01 and array[:, :, 0].std() > 100
    # zero_padding leaves 21 of 24 slices: the field of view that all share
    assert study.content["grid"]["shape"] == [48, 48, 21]


def test_the_same_seed_and_files_give_the_same_cases_and_another_seed_others(originals, tmp_path):
    def hashes(name: str, seed: int) -> list[str]:
        study = create_study(tmp_path / name, sources(originals)[:2], StudyPlan(2, seed=seed)).study
        return [case.sha256 for case in study.cases]

    first = hashes("first", 5)
    assert hashes("again", 5) == first
    assert hashes("other", 6) != first


def test_a_volume_keeps_its_orientation_and_exact_values_where_the_grid_allows(tmp_path):
    array = thorax(1)
    array[40:44, 22:26, 10:14] = 300  # something on the patient's left
    volume = Volume(array, Grid.centered(SHAPE, (8.0, 8.0, 8.0), orientation="LPS"))
    turned = Volume(
        np.ascontiguousarray(array.transpose(2, 0, 1)[:, ::-1]),
        Grid((SHAPE[2], SHAPE[0], SHAPE[1]), _turned(volume.grid)),
    )
    entries = []
    for name, saved in (("straight", volume), ("turned", turned)):
        entries.append(survey(save_volume(saved, tmp_path / f"{name}.nrrd")))
    plan = as_it_is(plan_grid(entries))
    cases = [make_case(entry, plan, np.random.default_rng(0)).array for entry in entries]
    assert np.array_equal(*cases)
    assert np.array_equal(cases[0], np.clip(np.rint(array), -1024, 1000))


def _turned(grid: Grid) -> np.ndarray:
    """The affine of the same voxels after transpose(2, 0, 1) and a flip of the second axis."""
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = grid.affine[:3, 2], -grid.affine[:3, 0], grid.affine[:3, 1]
    affine[:3, 3] = grid.affine[:3, 3] + grid.affine[:3, 0] * (grid.shape[0] - 1)
    return affine


def as_it_is(grid: Grid) -> Equalisation:
    """An equalisation that leaves the air as it is."""
    return Equalisation(grid, 1000, equal_air=False)


def test_volumes_of_other_spacing_are_resampled_to_the_coarsest(tmp_path):
    fine = Grid.centered((96, 96, 48), (4.0, 4.0, 4.0))
    coarse = Grid.centered(SHAPE, (8.0, 8.0, 8.0))
    paths = [
        save_volume(Volume(thorax(3, grid.shape, noise_hu=1.0), grid), tmp_path / f"{n}.nii.gz")
        for n, grid in enumerate((fine, coarse))
    ]
    entries = [survey(path) for path in paths]
    grid = plan_grid(entries)
    assert grid.shape == SHAPE and grid.spacing_mm.tolist() == [8.0] * 3
    arrays = [make_case(entry, as_it_is(grid), np.random.default_rng(0)).array for entry in entries]
    assert np.median(np.abs(arrays[0].astype(float) - arrays[1])) < 10


def test_pairs_have_a_real_volume_each_and_none_twice(originals, tmp_path):
    two = [sources(originals)[0], sources(originals)[1], sources(originals)[2]]
    created = create_study(tmp_path / "study", two, StudyPlan(2, seed=1, mode="pair"))
    key = read_key(created.key_path, study=created.study)
    shown = [case for item in created.study.items for case in item.cases]
    assert len(shown) == len(set(shown)) == 8
    for item in created.study.items:
        assert sorted(key.case(case).kind for case in item.cases) == ["real", "synthetic"]
    with pytest.raises(InputError, match="'real' .* has 4 volumes, and 6 are needed"):
        create_study(tmp_path / "more", two, StudyPlan(3, seed=1, mode="pair"))


def test_masks_come_along_in_the_mode_match(originals, tmp_path):
    files = find_volumes(str(originals / "real"))
    for number, path in enumerate(files):
        volume = load_volume(path)
        lung = volume.array < -600
        masks = {"lung": lung & (np.indices(lung.shape)[0] > 12), "body": volume.array > -200}
        if number:
            masks["spine"] = volume.array > 500
        write_segmentation(tmp_path / f"{path.name.split('.')[0]}_mask.seg.nrrd", volume.grid, masks)
    source = Source("real", str(originals / "real"), "real", str(tmp_path / "{stem}_mask.seg.nrrd"))
    created = create_study(tmp_path / "study", [source], StudyPlan(4, seed=1, mode="match"))
    study = created.study
    verify_cases(study)
    assert study.content["mask_labels"] == {"1": "body", "2": "lung"}  # what all masks have
    for case in study.cases:
        mask, volume = load_volume(study.mask_file(case.case)), load_volume(study.file(case.case))
        assert mask.grid.matches(volume.grid) and mask.array.dtype == np.uint8
        assert volume.array[mask.array == 1].mean() > -150
    with pytest.raises(InputError, match="does not exist; check --masks real"):
        lost = Source("real", str(originals / "real"), "real", str(tmp_path / "none_{stem}.nii.gz"))
        create_study(tmp_path / "lost", [lost], StudyPlan(4, seed=1, mode="match"))


def test_compressed_files_whose_sizes_tell_are_written_plain(tmp_path):
    def smooth(array: np.ndarray, _: np.random.Generator) -> np.ndarray:
        return sum(np.roll(array, step, axis=2) for step in range(4)) / 4

    write_source(tmp_path / "real", 0, 6)
    write_source(tmp_path / "model", 50, 6, smooth)
    both = [Source("real", str(tmp_path / "real"), "real"), Source("model", str(tmp_path / "model"))]
    plan = StudyPlan(6, seed=1, compress=True, equal_air=False)
    created = create_study(tmp_path / "study", both, plan)
    assert any("sizes of the compressed files" in note for note in created.notes)
    assert len({created.study.file(case.case).stat().st_size for case in created.study.cases}) == 1
    verify_cases(created.study)
    read_key(created.key_path, study=created.study)


@pytest.mark.parametrize("passphrase", [None, "horse"])
def test_a_passphrase_encrypts_the_key(originals, tmp_path, passphrase):
    two = sources(originals)[:2]
    created = create_study(
        tmp_path / "study", two, StudyPlan(1, seed=0), key=tmp_path / "my.key", passphrase=passphrase
    )
    assert created.key_path.name == "my.key"
    assert (b"generator-alpha" in created.key_path.read_bytes()) == (passphrase is None)
    assert len(read_key(created.key_path, passphrase, created.study).cases) == 2


def refused(tmp_path: Path, given: list[Source], plan: StudyPlan, says: str, **options) -> None:
    """Check that no study comes of it and that nothing is left behind."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=says) as caught:
        create_study(options.pop("out", tmp_path / "study"), given, plan, **options)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_requests_that_cannot_work_change_nothing(originals, tmp_path):
    four, plan = sources(originals), StudyPlan(2, seed=0)
    (tmp_path / "there").mkdir()
    (tmp_path / "old.key").touch()
    inside = tmp_path / "study" / "study.key"
    refused(tmp_path, four, plan, "exists already", out=tmp_path / "there")
    refused(tmp_path, four, plan, "would lie in the study", key=inside)
    refused(tmp_path, four, plan, "may be the key of another study", key=tmp_path / "old.key")
    refused(tmp_path, four, plan, "folder .* of the key does not exist", key=tmp_path / "none" / "x.key")
    refused(tmp_path, four, StudyPlan(9, seed=0), "'real' .* has 4 volumes, and 9 are needed")
    refused(tmp_path, four, StudyPlan(0, seed=0), "--per-source is 0")
    refused(tmp_path, four, StudyPlan(2, seed=0, window="brain"), "Window 'brain'")
    refused(tmp_path, four, StudyPlan(2, seed=0, mode="guess"), "no mode")
    refused(tmp_path, four, StudyPlan(2, seed=0, margin=0.0), "margin of equivalence is 0.0")
    refused(tmp_path, four, StudyPlan(2, seed=0, mode="pair", training=1), "mode rating alone")
    refused(tmp_path, four, StudyPlan(2, seed=0, mode="match"), "'real' has none; give --masks")
    refused(tmp_path, four, StudyPlan(2, seed=0, spacing_mm=(0.0, 1.0, 1.0)), "--spacing")
    refused(tmp_path, four, StudyPlan(2, seed=0, readers=("Dr Ada", "dr ada")), "'dr ada' was given twice")
    refused(tmp_path, four[:1], plan, "at least one must be real and one synthetic")
    refused(tmp_path, [*four, four[0]], plan, "'real' was given twice")
    refused(tmp_path, [four[0], Source("copy", four[0].pattern)], StudyPlan(4, 0), "belongs to the sources")
    refused(tmp_path, [four[0], Source("none", str(tmp_path / "*.nii"))], plan, "has 0 volumes")


def test_volumes_that_cannot_be_used_are_named(originals, tmp_path):
    real = sources(originals)[0]
    folder = tmp_path / "bad"
    folder.mkdir()
    bad = [real, Source("bad", str(folder))]
    one = StudyPlan(1, seed=0)
    (folder / "broken.nii.gz").write_bytes(b"no volume")
    refused(tmp_path, bad, one, "broken.nii.gz cannot be read")
    (folder / "broken.nii.gz").unlink()
    grid = Grid.centered(SHAPE, (8.0, 8.0, 8.0))
    save_volume(Volume(np.random.default_rng(0).uniform(0, 500, SHAPE), grid), folder / "mr.nii.gz")
    refused(tmp_path, bad, one, "mr.nii.gz has values from .* no CT")
    (folder / "mr.nii.gz").unlink()
    flat = Grid.centered((48, 48, 4), (8.0, 8.0, 8.0))
    save_volume(Volume(thorax(0, (48, 48, 4)), flat), folder / "flat.nii.gz")
    refused(tmp_path, bad, one, "flat.nii.gz is only 32 mm long")
    (folder / "flat.nii.gz").unlink()
    swapped = [Source("real", str(folder), "real"), Source("model", real.pattern)]
    save_volume(Volume(thorax(0), grid), folder / "copy.nii.gz", recipe={"seed": 1})
    refused(tmp_path, swapped, one, "copy.nii.gz was made by a model")


def test_a_phantom_may_stand_for_the_real_ones_and_that_is_said(originals, tmp_path):
    (tmp_path / "phantoms").mkdir()
    grid = Grid.centered(SHAPE, (8.0, 8.0, 8.0))
    for number, ending in enumerate((".nrrd", ".nii.gz")):
        save_volume(Volume(thorax(number), grid), tmp_path / "phantoms" / f"ct{ending}", synthetic=True)
    pair = [Source("real", str(tmp_path / "phantoms"), "real"), sources(originals)[1]]
    created = create_study(tmp_path / "study", pair, StudyPlan(2, seed=0, readers=("Dr  Ada", "Dr Ben")))
    assert created.study.readers == ("Dr Ada", "Dr Ben")
    key = read_key(created.key_path, study=created.study)
    assert [key.case(case).source for case in key.marked_synthetic] == ["real", "real"]
    note, too_few = created.notes
    assert too_few.startswith("Leak test: too few cases") and too_few.endswith("4 of 11 needed.")
    assert note.startswith("2 of 2 volumes of 'real' say that they are synthetic, as phantoms do")


def test_the_same_volume_in_two_folders_is_noticed(originals, tmp_path):
    write_source(tmp_path / "a", 0, 2)
    write_source(tmp_path / "b", 0, 2)
    both = [Source("a", str(tmp_path / "a"), "real"), Source("b", str(tmp_path / "b"))]
    refused(tmp_path, both, StudyPlan(2, seed=0), "same content")


def test_cancelling_leaves_nothing(originals, tmp_path):
    calls = []
    with pytest.raises(CancelledError):
        create_study(
            tmp_path / "study", sources(originals)[:2], StudyPlan(1, seed=0),
            cancel=lambda: len(calls) > 2 or calls.append(1),
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_the_benchmark_removes_its_own_volumes_and_no_others(tmp_path):
    own = write_source(tmp_path / "volumes", 1, 1)
    measured = run_review(ReviewSettings(per_source=1, shape=(24, 20, 20)), tmp_path)
    assert measured["volumes"] == 4 and measured["seconds"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["review.json", "review.md", "volumes"]
    assert [path.name for path in own.iterdir()] == ["patient_1.nii.gz"]


def test_a_low_maximum_becomes_the_limit_of_all(tmp_path):
    write_source(tmp_path / "real", 0, 2)
    write_source(tmp_path / "model", 50, 2, low_ceiling)
    both = [Source("real", str(tmp_path / "real"), "real"), Source("model", str(tmp_path / "model"))]
    study = create_study(tmp_path / "study", both, StudyPlan(2, seed=1)).study
    assert {int(load_volume(study.file(case.case)).array.max()) for case in study.cases} == {650}
    assert load_study(study.folder).content["equalisation"]["clip_hu"] == [-1024, 650]
