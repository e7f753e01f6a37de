"""The leak test finds each way in which files give their source away, and is silent where there is none."""

from __future__ import annotations

import os

import numpy as np
import pytest
from support.review_volumes import SHAPE, SPACING_MM, comb, low_ceiling, quiet_air, thorax, zero_padding

from medlord.review.cases import nrrd_header, write_case
from medlord.review.leaks import TOGETHER, Leak, find_leaks, measure_case, measure_voxels, untested_contrasts
from medlord.volumes import Grid

CASES = 24
KINDS = ["real"] * (CASES // 2) + ["synthetic"] * (CASES // 2)
GRID = Grid.centered(SHAPE, SPACING_MM, orientation="LPS")


@pytest.fixture(scope="module")
def volumes() -> list[np.ndarray]:
    """Volumes of one and the same kind."""
    return [np.rint(thorax(seed)).astype(np.int16) for seed in range(CASES)]


def told(features: list[dict], kinds: list[str] = KINDS) -> set[str]:
    """Features that tell real from synthetic."""
    return {leak.feature for leak in find_leaks(features, kinds, kinds)}


def test_equal_volumes_raise_no_warning(volumes):
    assert told([measure_voxels(volume) for volume in volumes]) == set()


@pytest.mark.parametrize(
    ("quirk", "feature"),
    [
        (quiet_air, "noise of the air"),
        (quiet_air, "padding at the border"),
        (comb, "gaps in the histogram"),
        (zero_padding, "exact zeros"),
        (zero_padding, "constant slices"),
        (low_ceiling, "highest value"),
        (low_ceiling, "share of the highest value"),
        (lambda array, _: np.maximum(array, -1000), "lowest value"),
        (lambda array, _: array + np.where(array < -900, 30, 0), "level of the air"),
    ],
)
def test_each_way_to_stand_out_is_named(volumes, quirk, feature):
    features = []
    for number, (volume, kind) in enumerate(zip(volumes, KINDS, strict=True)):
        changed = (
            quirk(volume.astype(np.float32), np.random.default_rng(number)) if kind != "real" else volume
        )
        features.append(measure_voxels(np.rint(changed).astype(np.int16)))
    assert feature in told(features)


def test_files_tell_by_header_size_and_time(volumes, tmp_path):
    features = []
    for number, (volume, kind) in enumerate(zip(volumes, KINDS, strict=True)):
        path = tmp_path / f"{number}.nrrd"
        write_case(path, volume, GRID, "raw" if kind == "real" else "gzip")
        moment = number * 10 if kind == "real" else 100_000
        os.utime(path, (moment, moment))
        features.append(measure_case(path))
    assert {"header: encoding", "header: length", "file size", "modification time"} <= told(features)
    # Somebody who wrote the sources with two programs.
    (tmp_path / "0.nrrd").write_bytes(
        nrrd_header(GRID, "short", "raw").replace(b"\n\n", b"\nmaker:=scanner\n\n")
    )
    with (tmp_path / "0.nrrd").open("ab") as stream:
        stream.write(volumes[0].tobytes(order="F"))
    assert measure_case(tmp_path / "0.nrrd")["header: maker"] == "=scanner"


def test_a_middle_position_tells_as_well():
    generator = np.random.default_rng(0)
    outer = np.concatenate([generator.uniform(-3, -2, 6), generator.uniform(2, 3, 6)])
    features = [{"feature": float(value)} for value in (*outer, *generator.uniform(-1, 1, 12))]
    assert told(features) == {"feature"}


def test_many_weak_signs_are_found_together():
    generator = np.random.default_rng(3)
    signs = np.array([1.0 if kind == "real" else -1.0 for kind in KINDS * 3])
    # Each is blurred by a noise that the next one cancels.
    noise = generator.standard_normal(len(signs)) * 8
    features = [{"a": float(s + n), "b": float(s - n)} for s, n in zip(signs, noise, strict=True)]
    assert TOGETHER in told(features, KINDS * 3)


def test_one_synthetic_source_that_stands_out_among_the_others_is_named():
    generator = np.random.default_rng(1)
    sources = ["real", "first", "second", "third"] * 8
    kinds = ["real" if source == "real" else "synthetic" for source in sources]
    features = [{"size": generator.standard_normal() + 9 * (source == "second")} for source in sources]
    found = find_leaks(features, sources, kinds)
    assert "second and the rest" in {leak.contrast for leak in found}
    assert all(leak.accuracy > 0.5 and leak.p_value <= 0.025 for leak in found)


def test_false_alarms_are_as_rare_as_stated():
    alarms = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        features = [{str(n): float(generator.standard_normal()) for n in range(8)} for _ in range(CASES)]
        alarms += bool(told(features))
    # 2.5 % expected for this one question: 1 of 40; more than 4 would happen once in 270.
    assert alarms <= 4


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ((4, 4), ["tells real and synthetic apart, 8 of 11 needed"]),
        ((5, 6), []),
        (
            (3, 3, 3),
            [
                f"tells {who} apart, 9 of 12 needed"
                for who in ("real and synthetic", "each source and the rest")
            ],
        ),
        ((4, 4, 4), []),
    ],
)
def test_what_few_cases_cannot_tell_is_said(sizes, said):
    """A feature that tells every case is found where the study is large enough, and only there."""
    sources = [f"{number}" for number, size in enumerate(sizes) for _ in range(size)]
    kinds = ["real" if source == "0" else "synthetic" for source in sources]
    untested = [str(contrast) for contrast in untested_contrasts(sources, kinds)]
    found = find_leaks([{"size": float(source == "0")} for source in sources], sources, kinds)
    assert [text.split("anatomy ")[1] for text in untested] == said
    assert ("0 and the rest" in {leak.contrast for leak in found}) == (len(sizes) > 2 and not said)
    assert ("real and synthetic" in {leak.contrast for leak in found}) == (len(sources) > 8)


def test_a_leak_reads_well():
    text = str(Leak("file size", "real and synthetic", 0.917, 0.001))
    assert text.startswith("file size tells real and synthetic apart: 92 % right") and "\n" not in text
