"""The benchmark of the bundled model, run for real on a tiny model; its numbers against known volumes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.wide_range_bundle import write_wide_range_bundle

from medlord.benchmark.comparison import compare_quality
from medlord.benchmark.quality import QualitySettings, compare_volumes, run_quality
from medlord.errors import CancelledError, InputError
from medlord.evaluation.rules import STRUCTURES, segment_by_rules
from medlord.volumes import Volume


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(write_wide_range_bundle(tmp_path_factory.mktemp("models")))


def test_benchmark_writes_numbers_and_a_table_and_goes_on_where_it_stopped(model, tmp_path, capsys):
    settings = QualitySettings(model=model, seeds=2, steps=2, repeated=1, device="cpu")
    report = run_quality(settings, tmp_path)
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
    assert run_quality(settings, tmp_path)["cases"]["900100"]["autoencoder_psnr_db"] == 12.5, (
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


def test_the_edge_of_the_lung_does_not_pass_for_detail(arterial):
    """Two lungs of nothing but their own noise beside one chest wall: no detail is shared."""
    found, draw = segment_by_rules(arterial.volume), np.random.default_rng(4)
    lung = found["lung"]
    plain = np.where(lung, -850.0, arterial.volume.array)
    noisy = [Volume(plain + draw.normal(0, 20, lung.shape) * lung, arterial.volume.grid) for _ in range(2)]
    assert abs(compare_volumes(*noisy, found)["lung_detail_correlation"]) < 0.05


def test_training_seeds_are_refused(tmp_path):
    for settings, said in (
        (QualitySettings(start=1000), "may have been trained on"),
        (QualitySettings(phase="late"), "Unknown contrast phase 'late'"),
        (QualitySettings(seeds=0), "0 phantoms cannot be measured"),
    ):
        with pytest.raises(InputError, match=said):
            run_quality(settings, tmp_path)
    assert not list(tmp_path.iterdir())


def test_cancel_keeps_what_is_measured(model, tmp_path):
    with pytest.raises(CancelledError, match="0 of 2 phantoms measured; the same command goes on"):
        run_quality(QualitySettings(model=model, seeds=2), tmp_path, cancel=lambda: True)


def report_of(path, dice: list[float], lung_hu: list[float], **settings) -> None:
    """A benchmark.json of as many phantoms as there are numbers."""
    cases = {
        str(900100 + n): {
            "dice": {"lung": d},
            "mean_hu": {"lung": hu},
            "phantom_mean_hu": {"lung": -800.0},
        }
        for n, (d, hu) in enumerate(zip(dice, lung_hu, strict=True))
    }
    chosen = {"sampler": "unipc", "steps": 25, "noise_seed": 1, **settings}
    path.write_text(json.dumps({"settings": chosen, "cases": cases, "weights_sha256": {"a": "b"}}))


def test_two_samplers_are_judged_by_the_spread_between_seeds(tmp_path):
    first, second, other, fourth = (tmp_path / f"{name}.json" for name in ("a", "b", "c", "d"))
    report_of(first, [0.90, 0.92, 0.94], [-790.0, -780.0, -770.0])
    report_of(other, [0.92, 0.94, 0.96], [-791.0, -781.0, -771.0], noise_seed=2)
    # Dice 0.01 better than the first's mean over the noises, HU 19.5 nearer to the phantom's
    report_of(second, [0.91, 0.93, 0.95], [-800.0, -810.0, -790.0], sampler="ddpm", steps=300)
    report_of(fourth, [0.93, 0.95, 0.97], [-800.0, -800.0, -800.0], sampler="ddpm", steps=300, noise_seed=2)
    (tmp_path / "out").mkdir()
    dice, hu = compare_quality([first, other], [second, fourth], tmp_path / "out")
    assert (dice.first, dice.second) == pytest.approx((0.93, 0.94))
    assert dice.worse_by == pytest.approx(0.01)
    # every phantom changes by 0.02 between the two seeds: a standard deviation of 0.02 / sqrt(2)
    assert dice.noise_spread == pytest.approx(0.02 / np.sqrt(2))
    assert dice.no_worse and dice.phantoms_worse == pytest.approx((3 + 3 + 0 + 3) / 12)
    assert hu.worse_by == pytest.approx(19.5 - 5) and hu.noise_spread == pytest.approx(1 / np.sqrt(2))
    assert not hu.no_worse
    table = (tmp_path / "out" / "comparison.md").read_text()
    assert "| Dice lung | 3 | 0.9300 | 0.9400 | 0.0100 | 0.0141 | yes |" in table
    assert "unipc 25, noise 1, 2" in table and "ddpm 300, noise 1, 2" in table


def test_measurements_that_do_not_belong_together_are_refused(tmp_path):
    first, second, other, longer = (
        tmp_path / f"{name}.json" for name in ("first", "second", "other", "longer")
    )
    report_of(first, [0.9, 0.9], [-800.0, -800.0])
    report_of(second, [0.9], [-800.0])
    report_of(other, [0.9, 0.9], [-800.0, -800.0], noise_seed=2)
    report_of(longer, [0.9, 0.9], [-800.0, -800.0], noise_seed=2, steps=50)
    report_of(venous := tmp_path / "venous.json", [0.9, 0.9], [-800.0, -800.0], phase="venous")
    (tmp_path / "out").mkdir()
    for files, said in (
        (([first, other], [second, other]), "A second measurement has other phantoms"),
        (([first, first], [other]), r"first measurements have the noise seeds \[1, 1\]; give two or more"),
        (([first, other], [other]), r"second measurements have the noise seeds \[2\]"),
        (
            ([first, other], [other, other]),
            r"second measurements have the noise seeds \[2, 2\]; give two or more",
        ),
        (([first, longer], [other]), "first measurements differ in steps"),
        (([first, other], [venous, other]), "another contrast phase"),
        (([first, tmp_path / "none.json"], [other]), "no measurement"),
    ):
        with pytest.raises(InputError, match=said):
            compare_quality(*files, tmp_path / "out")
    other.write_text("{}")
    with pytest.raises(InputError, match=r"other\.json is no benchmark\.json"):
        compare_quality([first, other], [first], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
