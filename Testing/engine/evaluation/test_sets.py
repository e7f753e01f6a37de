"""Sets of volumes: slices as pictures, extractors, stored features, resuming, warnings, the page."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from medlord.conditions import Conditions
from medlord.errors import CancelledError, InputError, WeightsError
from medlord.evaluation.segmenters import HuRules
from medlord.evaluation.sets.evaluation import EvaluationSettings, evaluate_sets
from medlord.evaluation.sets.extractors import _resnet50, extractor_of, load_radimagenet
from medlord.evaluation.sets.features import FeatureSettings
from medlord.evaluation.sets.page import render_evaluation_page
from medlord.evaluation.sets.regional import measure_set
from medlord.evaluation.sets.slices import WINDOWS, plane_slices, windowed
from medlord.evaluation.sets.store import WorkFolder, hashed_files, volume_files_of
from medlord.volume_files import save_volume
from medlord.volumes import Grid, Volume

GRID = Grid.centered((40, 36, 34), (8.0, 8.0, 8.0))


def body(seed: int, lung_hu: float = -850.0, grid: Grid = GRID) -> Volume:
    """A noisy box of tissue with a lung of varying size, in air."""
    draws = np.random.default_rng(seed)
    array = np.full(grid.shape, -1000.0, dtype=np.float32)
    array[5:35, 6:30, 2:32] = 40
    array[9:18, 10 : 20 + seed % 5, 6 : 22 + seed % 7] = lung_hu
    array += draws.normal(scale=15, size=grid.shape)
    return Volume(array.astype(np.int16), grid)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Folders with four real and three synthetic volumes; the synthetic lungs are much too dense."""
    folder = tmp_path_factory.mktemp("sets")
    for name, seeds, lung_hu in (("real", range(4), -850.0), ("synthetic", range(10, 13), -500.0)):
        (folder / name).mkdir()
        for seed in seeds:
            save_volume(body(seed, lung_hu), folder / name / f"patient_{seed}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def extractor():
    """A small network with maps as output, as a stand-in for any torch extractor."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 5, stride=3), torch.nn.Tanh())
    return extractor_of(module, "six random filters")


def files(sets):
    return volume_files_of(sets / "real", "real"), volume_files_of(sets / "synthetic", "synthetic")


def settings(**changes) -> FeatureSettings:
    windows = {name: WINDOWS[name] for name in ("wide", "lung")}
    return FeatureSettings(**{"slices": 6, "pixel_mm": 8.0, "windows": windows, **changes})


def test_slices_are_turned_as_they_are_read_and_their_pixels_are_equal():
    grid = Grid.centered((40, 50, 60), (2.0, 2.0, 4.0))
    array = np.full(grid.shape, -1000, dtype=np.int16)
    array[4:36, 5:45, 10:50] = 0
    array[4:12, 20:30, 44:48] = 700  # at the patient's left (RAS: low i is left), high up
    array[18:22, 36:44, 20:40] = 300  # in front
    volume = Volume(array, grid)
    axial = plane_slices(volume, "axial", 100, 2.0)
    assert axial.shape == (40, 50, 40), "slices without tissue are passed over"
    assert axial[20, 9, 20] == 300, "anterior is up"
    coronal = plane_slices(volume, "coronal", 100, 2.0)
    assert coronal.shape == (40, 120, 40), "slices of 4 mm have two pixels of 2 mm"
    level = coronal[20]
    assert level[:60, 20:].max() > 600 > level[:60, :20].max(), "left is at the right side, superior is up"
    sagittal = plane_slices(volume, "sagittal", 3, 2.0)
    assert sagittal.shape == (3, 120, 50) and sagittal[1, 60, 9] == pytest.approx(300), "anterior is left"
    # The same anatomy stored along other axes gives the same pictures.
    turned = Volume(
        array[::-1].transpose(2, 0, 1),
        Grid((60, 40, 50), grid.affine @ _reversed_first(40) @ np.eye(4)[:, [2, 0, 1, 3]]),
    )
    for plane, pictures in (("axial", axial), ("coronal", coronal)):
        assert np.array_equal(plane_slices(turned, plane, 100, 2.0), pictures)
    with pytest.raises(InputError, match="axial slices are 8 x 10 pixels of 10 mm; at least 32"):
        plane_slices(volume, "axial", 4, 10.0)
    assert len(plane_slices(Volume(np.full_like(array, -1000), grid), "axial", 7, 2.0)) == 7, "air counts too"


def _reversed_first(count: int) -> np.ndarray:
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = count - 1
    return flip


def test_windows_go_from_black_to_white():
    hu = np.array([-2000.0, -160.0, 40.0, 240.0, 3000.0], dtype=np.float32)
    assert windowed(hu, WINDOWS["soft tissue"]).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert set(WINDOWS) == {"wide", "lung", "vessel", "soft tissue", "bone"}


def test_an_evaluation_states_everything_and_tells_spoiled_from_real(sets, extractor, tmp_path):
    result = evaluate_sets(
        *files(sets), tmp_path / "work", extractor=extractor, segmenter=HuRules(),
        feature_settings=settings(), settings=EvaluationSettings(replicates=6, splits=2),
    )  # fmt: skip
    data = json.loads(json.dumps(result.to_dict()))
    assert data["volumes"] == {"real": 4, "synthetic": 3}
    assert data["features"] == {"name": "six random filters", "sha256": extractor.sha256, "dimension": 6}
    assert data["slices"]["axial"] == {"real": 24, "synthetic": 18}
    assert (
        data["settings"]["windows_hu"]["lung"] == [-1350, 150] and data["settings"]["volumes_at_floor"] == 2
    )
    assert data["geometry"]["real"] == {"field_of_view_mm": [320, 288, 272], "spacing_mm": [8, 8, 8]}
    lung = data["distances"]["lung"]
    assert set(lung) == {"axial", "coronal", "sagittal", "mean"}
    assert lung["mean"]["fid"] == pytest.approx(
        np.mean([lung[p]["fid"] for p in ("axial", "coronal", "sagittal")])
    )
    assert lung["mean"]["fid_low"] < lung["mean"]["fid"] < lung["mean"]["fid_high"]
    assert lung["mean"]["fid_at_floor"] > 2 * lung["mean"]["fid_floor"]
    rows = {(row["structure"], row["measure"]): row for row in data["regions"]["rows"]}
    assert rows["body", "ml"]["count"] == 3 and rows["body", "ml"]["reference_count"] == 4
    page = render_evaluation_page(result)
    assert extractor.sha256 in page and "N = 4" in page
    assert "patient_" not in page and "patient_" not in json.dumps(data), "names of files tell of patients"
    assert "<h2>Lung <small>-1350 to 150 HU" in page and "<h2>lung</h2>" in page, "a window and a structure"


def test_what_was_computed_is_kept_and_taken_again(sets, tmp_path):
    calls = []

    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.filters = torch.nn.Conv2d(3, 4, 3)
            torch.nn.init.constant_(self.filters.weight, 0.1)

        def forward(self, pictures):
            calls.append(len(pictures))
            return self.filters(pictures).square()

    chosen = settings(windows={"wide": WINDOWS["wide"]})
    few = EvaluationSettings(replicates=0, splits=0)
    real, synthetic = files(sets)
    work = tmp_path / "work"
    counting = extractor_of(Counting(), "counting")
    events = []

    def stop_after_two():
        return len([event for event in events if event.phase.startswith("features")]) == 2

    options = {"feature_settings": chosen, "settings": few}
    with pytest.raises(CancelledError, match="volume 3 of 4"):
        evaluate_sets(
            real,
            synthetic,
            work,
            extractor=counting,
            progress=events.append,
            cancel=stop_after_two,
            **options,
        )
    assert len(list(work.glob("*.npz"))) == 2 and len(calls) == 6
    whole = evaluate_sets(real, synthetic, work, extractor=counting, **options)
    assert len(calls) == 3 * 7, "two of the seven volumes were there already"
    damaged = sorted(work.glob("*.npz"))[0]
    damaged.write_bytes(damaged.read_bytes()[:1000])
    again = evaluate_sets(real, synthetic, work, extractor=counting, **options)
    assert len(calls) == 3 * 8 and again.distances == whole.distances
    content = bytearray(damaged.read_bytes())
    content[400:430] = bytes(30)
    damaged.write_bytes(content)
    with pytest.raises(InputError, match=f"{damaged.name} in .* is damaged .*delete it and run again"):
        evaluate_sets(real, synthetic, work, extractor=counting, **options)
    damaged.unlink()
    evaluate_sets(real, synthetic, work, extractor=counting, **options)
    assert len(calls) == 3 * 9
    assert not [path for path in work.iterdir() if "patient" in path.name]
    evaluate_sets(
        real, synthetic, work, extractor=counting, feature_settings=settings(slices=2), settings=few
    )
    assert len(calls) == 3 * 9 + 2 * 3 * 7, "other settings, other features"


class Counted:
    """Finds tissue and air by HU; asked for a subset, it has the same name and version, as TotalSegmentator does."""

    name, version = "counted", "1"

    def __init__(self, *structures: str):
        self.structures, self.calls = structures, 0

    def segment(self, volume, structures, progress=None, cancel=None):
        self.calls += 1
        known = {"body": volume.array > -500, "lung": volume.array < -500}
        return Conditions(volume.grid, {name: known[name] for name in structures})


def test_a_subset_of_structures_is_not_taken_for_the_whole(sets, tmp_path):
    real, _ = files(sets)
    hashed, work = hashed_files(real[:2]), WorkFolder(tmp_path)
    few, all_of_them = Counted("body"), Counted("body", "lung")
    assert list(measure_set(hashed, few, work, name="x").structures) == ["body"]
    assert list(measure_set(hashed, all_of_them, work, name="x").structures) == ["body", "lung"]
    measure_set(hashed, all_of_them, work, name="x")
    assert (few.calls, all_of_them.calls) == (2, 2), "the same once more is taken from the folder"


def test_copies_other_fields_of_view_and_few_slices_are_told(sets, extractor, tmp_path):
    real, _ = files(sets)
    wide = Grid.centered((40, 36, 34), (10.0, 10.0, 10.0))
    for seed in (1, 2):
        save_volume(body(seed, grid=wide), tmp_path / f"{seed}.nii.gz")
    result = evaluate_sets(
        real[:2], [real[0], *volume_files_of(tmp_path, "synthetic")], tmp_path / "work", extractor=extractor,
        feature_settings=settings(slices=1), settings=EvaluationSettings(replicates=0, splits=3),
    )  # fmt: skip
    told = " ".join(result.warnings)
    assert "1 file in both sets" in told and "400 x 360 x 340 mm synthetic" in told
    assert "2 slices for 6 features" in told and "no floor" in told and "--pixel-mm 10" in told
    assert result.distances["lung"]["mean"].fid_floor is None
    assert "Of 2 volumes intervals are not given: 20 or more" in told


def test_what_cannot_be_evaluated_leaves_nothing_behind(sets, extractor, tmp_path):
    real, synthetic = files(sets)
    work = tmp_path / "work"
    with pytest.raises(InputError, match="weights of a feature extractor, a segmenter, or both"):
        evaluate_sets(real, synthetic, work)
    with pytest.raises(InputError, match="4 real and 1 synthetic"):
        evaluate_sets(real, synthetic[:1], work, extractor=extractor)
    save_volume(Volume(np.zeros(GRID.shape, np.int16), GRID), tmp_path / "zero.nii.gz")
    with pytest.raises(InputError, match="zero.nii.gz has values from 0 to 0"):
        evaluate_sets([tmp_path / "zero.nii.gz", *real], synthetic, work, extractor=extractor)
    with pytest.raises(InputError, match="patient_0.nii.gz: The axial slices are 16 x 14 pixels of 20 mm"):
        evaluate_sets(real, synthetic, work, extractor=extractor, feature_settings=settings(pixel_mm=20))
    assert not work.exists()
    with pytest.raises(InputError, match="has 0 real volumes"):
        volume_files_of(sets, "real")
    with pytest.raises(InputError, match="must rise"):
        settings(windows={"odd": (10.0, 10.0)})
    flat = extractor_of(torch.nn.Flatten(0), "flat")
    with pytest.raises(InputError, match=r"flat answers 6 pictures with an array of shape"):
        evaluate_sets(real, synthetic, work, extractor=flat, feature_settings=settings())


@pytest.fixture(scope="module")
def resnet():
    """ResNet50 with random weights and norms that do something."""
    torch.manual_seed(0)
    module = _resnet50(from_keras=False)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 2)
    return module.eval()


def test_radimagenet_weights_of_both_torch_layouts_are_the_same_network(resnet, tmp_path):
    pictures = np.random.default_rng(0).random((2, 40, 33), dtype=np.float32)
    weights = {name: value.half() for name, value in resnet.state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "named.pt")
    numbers = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    numbered = {
        f"backbone.{numbers[n.partition('.')[0]]}.{n.partition('.')[2]}": v for n, v in weights.items()
    }
    torch.save({**numbered, "fc.weight": torch.zeros(165, 2048)}, tmp_path / "numbered.pt")
    named, other = load_radimagenet(tmp_path / "named.pt"), load_radimagenet(tmp_path / "numbered.pt")
    found = named.features(pictures)
    assert found.shape == (2, 2048) and np.array_equal(found, other.features(pictures))
    assert named.sha256 != other.sha256 and len(named.sha256) == 64
    with torch.inference_mode():
        expected = named.module(torch.from_numpy(pictures)[:, None].expand(-1, 3, -1, -1) * 2 - 1)
    assert np.array_equal(found, expected.numpy())


def test_radimagenet_weights_from_keras_have_biases_and_their_strides_elsewhere(resnet, tmp_path):
    """The biases are folded into the norms; a stem written out by hand says what they are."""
    torch.manual_seed(1)
    weights = {name: value for name, value in resnet.state_dict().items() if not name.startswith("fc.")}
    for name in [n for n, v in weights.items() if n.endswith("weight") and v.ndim == 4]:
        weights[name.replace("weight", "bias")] = torch.randn(len(weights[name])) * 0.1
    torch.save(weights, tmp_path / "keras.pth")
    extractor = load_radimagenet(tmp_path / "keras.pth")
    assert "from Keras" in extractor.name
    pictures = torch.rand(1, 1, 32, 32)
    prepared = extractor.prepare(pictures)
    assert torch.allclose(prepared[0, :, 0, 0], pictures[0, 0, 0, 0] - torch.tensor([0.406, 0.456, 0.485]))
    with torch.inference_mode():
        stem = torch.nn.functional.conv2d(
            prepared, weights["conv1.weight"], weights["conv1.bias"], stride=2, padding=3
        )
        expected = torch.nn.functional.batch_norm(
            stem, weights["bn1.running_mean"], weights["bn1.running_var"], weights["bn1.weight"], weights["bn1.bias"],
            eps=1.001e-5,
        )  # fmt: skip
        module = extractor.module
        assert torch.allclose(module.bn1(module.conv1(prepared)), expected, atol=1e-4)
    block = module.layer2[0]
    assert (block.conv1.stride, block.conv2.stride, block.downsample[0].stride) == ((2, 2), (1, 1), (2, 2))
    folded = weights["layer3.0.downsample.1.running_mean"] - weights["layer3.0.downsample.0.bias"]
    assert torch.allclose(module.layer3[0].downsample[1].running_mean, folded)


def test_files_that_are_no_resnet_are_refused_with_a_way_out(tmp_path):
    with pytest.raises(WeightsError, match="no weights r.pt .*RadImageNet.*nothing is downloaded"):
        load_radimagenet(tmp_path / "r.pt")
    (tmp_path / "r.pt").write_text("none")
    with pytest.raises(WeightsError, match="r.pt cannot be read as weights"):
        load_radimagenet(tmp_path / "r.pt")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "r.pt")
    with pytest.raises(WeightsError, match="r.pt is no ResNet50 .* weights are missing and 1 are unknown"):
        load_radimagenet(tmp_path / "r.pt")
    torch.save({"conv1.weight": torch.zeros(3, 3)}, tmp_path / "r.pt")
    with pytest.raises(WeightsError, match="r.pt is no ResNet50 .size mismatch") as caught:
        load_radimagenet(tmp_path / "r.pt")
    assert len(str(caught.value).splitlines()) == 1
