"""The benchmark of the bundled model, run for real on a tiny model; its numbers against known volumes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.wide_range_bundle import write_wide_range_bundle

from medlord.evaluation.benchmark_bundled import Settings, compare_volumes, main, run_benchmark
from medlord.evaluation.rules import STRUCTURES, segment_by_rules
from medlord.volumes import Volume


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(write_wide_range_bundle(tmp_path_factory.mktemp("models")))


def test_benchmark_writes_numbers_and_a_table_and_goes_on_where_it_stopped(model, tmp_path, capsys):
    settings = Settings(model=model, seeds=2, steps=2, repeated=1, device="cpu")
    report = run_benchmark(settings, tmp_path)
    first, second = report["cases"].values()
    assert {"body", "lung"} <= set(first["dice"]) and first["ceiling_dice"].keys() == first["dice"].keys()
    assert set(first["two_noises"]["anatomy_dice"]) == set(STRUCTURES) and "two_noises" not in second
    assert set(second["dice_with_other_mask"]) == set(STRUCTURES)
    assert 0 < first["autoencoder_psnr_db"] < 60
    table = (tmp_path / "benchmark.md").read_text()
    assert "| Dice lung |" in table and "Autoencoder PSNR" in table and "2 held-out phantoms" in table

    stored = json.loads((tmp_path / "benchmark.json").read_text())
    assert stored == report
    stored["cases"]["900100"]["autoencoder_psnr_db"] = 12.5
    (tmp_path / "benchmark.json").write_text(json.dumps(stored))
    assert run_benchmark(settings, tmp_path)["cases"]["900100"]["autoencoder_psnr_db"] == 12.5, (
        "not measured again"
    )
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_texture_and_anatomy_of_two_volumes(arterial):
    found = segment_by_rules(arterial.volume)
    draw, lung = np.random.default_rng(3), arterial.mask("lung")
    noisy = []
    for _ in range(2):
        array = arterial.volume.array + draw.normal(0, 100, lung.shape) * lung
        noisy.append(Volume(array, arterial.volume.grid))
    same = compare_volumes(noisy[0], noisy[0], found)
    other = compare_volumes(noisy[0], noisy[1], found)
    assert same["lung_detail_correlation"] == pytest.approx(1.0)
    assert other["lung_detail_correlation"] < 0.75, "vessels are shared, noise is not"
    assert other["anatomy_dice"]["lung"] > 0.97


def test_training_seeds_are_refused(capsys, tmp_path):
    assert main(["--start", "1000", "--out", str(tmp_path)]) == 2
    assert "may have been trained on" in capsys.readouterr().err
    assert main(["--phase", "late", "--out", str(tmp_path)]) == 2
    assert not list(tmp_path.iterdir())
