"""`medlord evaluate` and `medlord segment` as people use them: real files in, numbers and pages out, exit codes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from medlord.cli import main
from medlord.evaluation.sets.extractors import _resnet50
from medlord.segmentation_files import read_labels, read_segmentation
from medlord.volume_files import save_volume
from medlord.volumes import Grid, Volume

GRID = Grid.centered((40, 36, 34), (8.0, 8.0, 8.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sets of three volumes, and random weights of a ResNet50."""
    folder = tmp_path_factory.mktemp("evaluate")
    for number, name in enumerate(("real", "synthetic")):
        (folder / name).mkdir()
        for seed in range(3):
            draws = np.random.default_rng(10 * number + seed)
            array = np.full(GRID.shape, -1000.0)
            array[5:35, 6:30, 2:32] = 40
            array[9:18, 10:24, 6:28] = -850
            array += draws.normal(scale=20, size=GRID.shape)
            save_volume(Volume(array.astype(np.int16), GRID), folder / name / f"{seed}.nrrd")
    (folder / "real" / "drawn.seg.nrrd").write_text("no CT")
    torch.manual_seed(0)
    weights = {name: value.half() for name, value in _resnet50(from_keras=False).state_dict().items()}
    torch.save(weights, folder / "ResNet50.pt")
    return folder


def run(folder, *words: str) -> int:
    return main(
        [
            "evaluate",
            "--real",
            str(folder / "real"),
            "--synthetic",
            str(folder / "synthetic" / "*.nrrd"),
            *words,
        ]
    )


def test_numbers_and_page_of_two_folders(folder, tmp_path, capsys):
    out, html = tmp_path / "sets.json", tmp_path / "sets.html"
    words = [
        "--features",
        str(folder / "ResNet50.pt"),
        "--segmenter",
        "hu-rules",
        "--windows",
        "lung,soft-tissue",
    ]
    words += ["--slices", "2", "--pixel-mm", "8", "--bootstrap", "3", "--device", "cpu"]
    assert run(folder, *words, "--out", str(out), "--html", str(html)) == 0
    said = capsys.readouterr()
    assert said.out.split() == [str(out), str(html)]
    assert "lung         2.5D FID" in said.err and "Note: There are 6 slices for 2048 features" in said.err
    data = json.loads(out.read_text())
    assert data["format"] == "medlord-set-evaluation" and data["volumes"] == {"real": 3, "synthetic": 3}
    assert set(data["distances"]) == {"lung", "soft tissue"} and data["features"]["dimension"] == 2048
    assert {row["structure"] for row in data["regions"]["rows"]} >= {"body", "lung"}
    assert data["features"]["sha256"] in html.read_text()
    assert len(list((tmp_path / "sets.work").iterdir())) == 12
    # Again, from what is kept.
    assert run(folder, *words, "--out", str(out), "--overwrite", "--quiet") == 0
    assert json.loads(out.read_text())["distances"] == data["distances"]


def test_errors_are_one_line_and_leave_nothing(folder, tmp_path, capsys):
    out = str(tmp_path / "sets.json")
    cases = [
        (4, "FID needs the weights of a feature extractor: --features FILE", []),
        (4, "no weights none.pt", ["--features", str(folder / "none.pt")]),
        (
            2,
            "no window 'heart'; choose some of wide, lung",
            ["--segmenter", "hu-rules", "--windows", "heart"],
        ),
        (2, "Pixels of 50 mm are out of range", ["--segmenter", "hu-rules", "--pixel-mm", "50"]),
        (2, "no segmenter 'nnunet'", ["--segmenter", "nnunet"]),
        (2, "hu-rules has no options (subset)", ["--segmenter", "hu-rules", "--subset", "lung"]),
    ]
    for code, reason, words in cases:
        assert run(folder, *words, "--out", out) == code
        said = capsys.readouterr()
        assert not said.out and len(said.err.splitlines()) == 1 and reason in said.err
    assert not list(tmp_path.iterdir())


def test_an_autoencoder_is_measured_on_real_volumes(folder, tiny_model, tmp_path, capsys):
    out, html = tmp_path / "autoencoder.json", tmp_path / "autoencoder.html"
    words = ["evaluate", "--real", str(folder / "real"), "--autoencoder", tiny_model, "--device", "cpu"]
    words += ["--out", str(out)]
    assert main([*words, "--windows", "lung", "--html", str(html)]) == 0
    said = capsys.readouterr()
    assert said.out.split() == [str(out), str(html)]
    assert "3 CT through the autoencoder of tiny" in said.err and "--features FILE" in said.err
    data = json.loads(out.read_text())
    assert data["count"] == 3 and set(data["spreads"]) == {"model", "lung"} and data["features"] is None
    assert f"PSNR, dB {data['spreads']['model']['psnr_db']['median']:.2f} (" in said.err
    features = ["--features", str(folder / "ResNet50.pt"), "--slices", "1", "--pixel-mm", "7", "--overwrite"]
    assert main([*words, *features]) == 0
    data = json.loads(out.read_text())
    assert data["features"]["layers"] == ["layer1", "layer2", "layer3", "layer4"]
    assert data["spreads"]["model"]["lpips"]["median"] > 0
    capsys.readouterr()
    for reason, more in (
        ("--segmenter has no effect on the evaluation of an autoencoder", ["--segmenter", "hu-rules"]),
        ("no model 'none'", ["--autoencoder", "none", "--overwrite"]),
        ("not allowed with argument --autoencoder", ["--synthetic", "here"]),
    ):
        assert main([*words, *more]) == 2
        assert reason in capsys.readouterr().err
    assert main(["evaluate", "--autoencoder", tiny_model, "--out", str(tmp_path / "x.json")]) == 2
    assert "No real CT were given" in capsys.readouterr().err


def test_reports_of_checks_become_a_table(folder, tmp_path, capsys):
    body = np.zeros(GRID.shape, np.uint8)
    body[5:35, 6:30, 2:32] = 1
    save_volume(Volume(body, GRID), tmp_path / "body.nrrd")
    for number in range(2):
        words = [
            "--ct",
            str(folder / "synthetic" / f"{number}.nrrd"),
            "--condition",
            f"body={tmp_path / 'body.nrrd'}",
        ]
        words += [
            "--real",
            str(folder / "real" / f"{number}.nrrd"),
            "--out",
            str(tmp_path / f"check{number}.json"),
        ]
        assert main(["check", *words]) == 0
    capsys.readouterr()
    out, html = tmp_path / "table.json", tmp_path / "table.html"
    words = ["evaluate", "--checks", str(tmp_path / "check*.json"), "--out", str(out), "--html", str(html)]
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out.split() == [str(out), str(html)]
    row = json.loads(out.read_text())["structures"]["body"]
    dices = [json.loads((tmp_path / f"check{n}.json").read_text())["structures"][0]["dice"] for n in range(2)]
    assert row["count"] == 2 and row["measures"]["dice"]["median"] == pytest.approx(np.mean(dices))
    assert row["ceilings"]["dice"]["count"] == 2 and "Ceiling" in html.read_text()
    assert f"N 2  Dice {np.mean(dices):.3f} (" in said.err
    assert main([*words, "--overwrite", "--real", "here"]) == 2
    assert "--real has no effect on reports" in capsys.readouterr().err


def test_a_ct_is_segmented(folder, tmp_path, capsys):
    ct, out = str(folder / "real" / "0.nrrd"), tmp_path / "found.seg.nrrd"
    assert main(["segment", "--ct", ct, "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.split() == [str(out)] and "body" in said.err
    body = read_segmentation(out).conditions(["body"]).conditions["body"]
    assert body.sum() == pytest.approx(30 * 24 * 30, rel=0.05)
    assert main(["segment", "--ct", ct, "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    for words, reason in (
        (["--out", str(tmp_path / "found.nrrd")], "use .seg.nrrd, or .nii.gz for a labelmap"),
        (
            ["--out", str(tmp_path / "b.seg.nrrd"), "--labels-out", "b.json"],
            "--labels-out has no effect on .seg",
        ),
        (["--out", str(tmp_path / "b.nii.gz"), "--labels-out", str(tmp_path / "b.csv")], "use .json"),
    ):
        assert main(["segment", "--ct", ct, *words]) == 2
        assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [out]


def test_a_segmentation_as_nifti_holds_all_structures_whole(folder, tmp_path, capsys):
    ct, out, drawn = str(folder / "real" / "0.nrrd"), str(tmp_path / "a.nii.gz"), str(tmp_path / "a.seg.nrrd")
    assert main(["segment", "--ct", ct, "--out", drawn]) == 0
    assert main(["segment", "--ct", ct, "--out", out]) == 0
    said = capsys.readouterr()
    assert said.out.split() == [drawn, out, str(tmp_path / "a.json")]
    assert "read both with --labelmap a.nii.gz --labels a.json" in said.err
    again = read_segmentation(out, read_labels(tmp_path / "a.json")).conditions(["body", "lung"]).conditions
    for name, mask in read_segmentation(drawn).conditions(["body", "lung"]).conditions.masks.items():
        assert mask.any() and np.array_equal(again[name], mask)
    assert (again["body"] & again["lung"]).sum() == again["lung"].sum()
    words = ["--out", str(tmp_path / "b.nii.gz"), "--labels-out", str(tmp_path / "a.json")]
    assert main(["segment", "--ct", ct, *words]) == 2
    assert "a.json exists already" in capsys.readouterr().err and not (tmp_path / "b.nii.gz").exists()


def test_a_labelmap_with_its_table_is_checked_like_the_segmentation_it_came_from(folder, tmp_path, capsys):
    ct, labelmap, table = (
        str(folder / "real" / "0.nrrd"),
        str(tmp_path / "a.nii.gz"),
        str(tmp_path / "a.json"),
    )
    drawn, report = str(tmp_path / "a.seg.nrrd"), tmp_path / "check.json"
    for out in (drawn, labelmap):
        assert main(["segment", "--ct", ct, "--out", out]) == 0
    reports = []
    for found in (["--found", drawn], ["--found", labelmap, "--found-labels", table]):
        words = ["--ct", ct, "--labelmap", drawn, *found, "--overwrite", "--out", str(report)]
        assert main(["check", *words]) == 0
        reports.append(json.loads(report.read_text()))
    # Beside them a labelmap differs only by having no structures without voxels.
    assert {row["name"]: row["dice"] for row in reports[0]["structures"]}["lung"] == 1
    assert reports[0]["structures"] == reports[1]["structures"]
    capsys.readouterr()
    words = ["--ct", ct, "--labelmap", drawn, "--found", labelmap, "--overwrite", "--out", str(report)]
    assert main(["check", *words]) == 2
    assert (
        "a.nii.gz holds no names for its label values; give them with --found-labels"
        in capsys.readouterr().err
    )
    assert main(["check", "--ct", ct, "--found-labels", table, "--overwrite", "--out", str(report)]) == 2
    assert "--found-labels names the values" in capsys.readouterr().err
