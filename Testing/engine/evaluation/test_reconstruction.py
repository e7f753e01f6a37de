"""What an autoencoder loses: each measure against independent numbers, the round trip, sets that stop and go on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from medlord.bundles.bundle import load_bundle
from medlord.errors import CancelledError, InputError, InsufficientMemoryError
from medlord.evaluation.reconstruction.evaluation import _spreads, evaluate_autoencoder
from medlord.evaluation.reconstruction.page import headings, in_words, render_autoencoder_page
from medlord.evaluation.reconstruction.perceptual import PerceptualNetwork
from medlord.evaluation.reconstruction.round_trip import RoundTrip
from medlord.evaluation.reconstruction.similarity import SCALE_WEIGHTS, ms_ssim, psnr_db, scales_for
from medlord.evaluation.sets.extractors import extractor_of
from medlord.evaluation.sets.slices import plane_slices, windowed
from medlord.evaluation.spread import spread_of
from medlord.volume_files import save_volume
from medlord.volumes import Grid, Volume

WINDOW = (-1000.0, 1000.0)
GRID = Grid.centered(
    (36, 36, 30), (9.0, 9.0, 8.5)
)  # 324 x 324 x 255 mm, a little more than the tiny model's grid


def chest(seed: int, grid: Grid = GRID) -> Volume:
    """A noisy box of tissue with a lung, in air."""
    draws = np.random.default_rng(seed)
    array = np.full(grid.shape, -1000.0)
    array[5:-5, 6:-6] = 40
    array[9:18, 10 : 20 + seed % 5, 6:-6] = -850
    return Volume((array + draws.normal(scale=20, size=grid.shape)).astype(np.int16), grid)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Three CT files; the second is smaller than the tiny model's grid."""
    folder = tmp_path_factory.mktemp("real")
    grids = (GRID, Grid.centered((30, 36, 30), (9.0, 9.0, 8.5), (50.0, -20.0, 900.0), "LPS"), GRID)
    for number, grid in enumerate(grids):
        save_volume(chest(number, grid), folder / f"patient_{number}.nii.gz")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def perceptual():
    """Two small layers, as a stand-in for any torch network."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 5, stride=3),
        torch.nn.ReLU(),
        torch.nn.Conv2d(6, 4, 3, stride=2),
        torch.nn.Flatten(),
    )
    return PerceptualNetwork(extractor_of(module, "two random layers"), ("1", "2"))


def noisy(volume: np.ndarray, scale_hu: float) -> np.ndarray:
    return volume + np.random.default_rng(3).normal(scale=scale_hu, size=volume.shape)


def test_psnr_is_its_definition_within_the_window():
    hu = np.array([-3000.0, -1000.0, 0.0, 400.0]).reshape(1, 2, 2)
    assert psnr_db(hu + 20, hu + 0, (-100, 500)) == pytest.approx(10 * np.log10(600**2 / (20**2 / 2)))
    assert psnr_db(np.clip(hu, -1000, None), hu, WINDOW) == np.inf, "what the window clips is no error"
    draws = np.random.default_rng(0).uniform(-900, 900, (2, 4, 5, 6))
    expected = 20 * np.log10(2000) - 10 * np.log10(np.mean((draws[0] - draws[1]) ** 2))
    assert psnr_db(*draws, WINDOW) == pytest.approx(expected, abs=1e-9)
    with pytest.raises(InputError, match=r"shape \(1, 2, 2\) and \(4, 5, 6\)"):
        psnr_db(hu, draws[0], WINDOW)


def halved(values: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 x 2 voxels."""
    return values.reshape([length for n in values.shape for length in (n // 2, 2)]).mean(axis=(1, 3, 5))


def ms_ssim_by_hand(one: np.ndarray, other: np.ndarray) -> float:
    """Wang et al. 2003, equation 7, in numpy: five scales, Gaussian window of three voxels, values from 0 to 1."""
    kernel = np.exp(-np.array([1.0, 0.0, 1.0]) / (2 * 1.5**2))
    kernel /= kernel.sum()

    def local_mean(values):
        for axis in range(3):
            values = correlate1d(values, kernel, axis)
        return values[1:-1, 1:-1, 1:-1]

    result = 1.0
    for number, weight in enumerate(SCALE_WEIGHTS):
        means = local_mean(one), local_mean(other)
        variances = local_mean(one**2) - means[0] ** 2, local_mean(other**2) - means[1] ** 2
        covariance = local_mean(one * other) - means[0] * means[1]
        structure = (2 * covariance + 0.03**2) / (variances[0] + variances[1] + 0.03**2)
        if number == len(SCALE_WEIGHTS) - 1:
            structure *= (2 * means[0] * means[1] + 0.01**2) / (means[0] ** 2 + means[1] ** 2 + 0.01**2)
        else:
            one, other = (halved(values) for values in (one, other))
        result *= np.mean(structure) ** weight
    return result


def test_ms_ssim_agrees_with_numpy_is_one_for_equal_and_falls_with_noise():
    volume = chest(0, Grid.centered((48, 48, 48), (6.0, 6.0, 6.0))).array.astype(float)
    assert ms_ssim(volume, volume, WINDOW) == (pytest.approx(1.0, abs=1e-6), 5)
    values = [ms_ssim(noisy(volume, scale), volume, WINDOW)[0] for scale in (5, 40, 160)]
    assert 1 > values[0] > values[1] > values[2] > 0
    grey = [windowed(hu, WINDOW).astype(float) for hu in (noisy(volume, 40), volume)]
    assert values[1] == pytest.approx(ms_ssim_by_hand(*grey), abs=2e-5)


def test_the_number_of_scales_follows_the_smallest_side():
    assert [scales_for((200, 200, side)) for side in (64, 48, 47, 27, 26, 12, 11, 6)] == [
        5,
        5,
        4,
        4,
        3,
        3,
        2,
        2,
    ]
    for side in (48, 27, 12, 6):
        volume = np.random.default_rng(side).uniform(-900, 900, (side,) * 3)
        assert ms_ssim(volume, volume, WINDOW) == (pytest.approx(1, abs=1e-5), scales_for(volume.shape))
    with pytest.raises(InputError, match="at least 6 voxels along every axis"):
        scales_for((64, 64, 5))


def lpips_by_hand(network: PerceptualNetwork, pictures: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Zhang et al. 2018, equation 1, in numpy, on maps that torch computes layer by layer."""
    total = np.zeros(len(pictures))
    maps = [torch.from_numpy(one)[:, None].expand(-1, 3, -1, -1) for one in (pictures, others)]
    number = 0
    for name, layer in network.extractor.module.named_children():
        with torch.no_grad():
            maps = [layer(one) for one in maps]
        if name not in network.layers:
            continue
        units = [
            one.numpy() / np.maximum(np.linalg.norm(one.numpy(), axis=1, keepdims=True), 1e-10)
            for one in maps
        ]
        squares = (units[0] - units[1]) ** 2
        weights = np.ones(squares.shape[1]) if network.weights is None else network.weights[number]
        total += np.einsum("ncij,c->n", squares, weights) / (squares.shape[2] * squares.shape[3])
        number += 1
    return total


def test_lpips_is_its_formula(perceptual):
    draws = np.random.default_rng(1)
    one, other = draws.uniform(size=(2, 3, 33, 40)).astype(np.float32)
    found = perceptual.distances(one, other)
    assert found.shape == (3,) and found == pytest.approx(lpips_by_hand(perceptual, one, other), rel=1e-4)
    weighed = PerceptualNetwork(
        perceptual.extractor, ("1", "2"), (draws.uniform(size=6), draws.uniform(size=4))
    )
    assert weighed.distances(one, other) == pytest.approx(lpips_by_hand(weighed, one, other), rel=1e-4)
    assert not perceptual.distances(one, one).any()
    near, far = (perceptual.distances(np.clip(one + step * (other - one), 0, 1), one) for step in (0.1, 0.5))
    assert (near < far).all()
    assert perceptual.to_dict() == {
        "name": "two random layers", "sha256": perceptual.extractor.sha256, "layers": ["1", "2"],
        "channel_weights_sha256": None,
    }  # fmt: skip
    assert len(weighed.to_dict()["channel_weights_sha256"]) == 64
    assert not perceptual.extractor.module[1]._forward_hooks, "nothing stays on the network"


def test_networks_that_have_no_such_maps_are_refused(perceptual):
    pictures = np.zeros((1, 40, 40), np.float32)
    with pytest.raises(InputError, match="has no layer 'layer9' to compare; choose some of 0, 1, 2, 3"):
        PerceptualNetwork(perceptual.extractor, ("1", "layer9"))
    with pytest.raises(InputError, match="weights of two random layers do not fit its 1 layers"):
        PerceptualNetwork(perceptual.extractor, ("1",), (np.ones(6), np.ones(6)))
    with pytest.raises(InputError, match="layer 3 of two random layers answers with an array of shape"):
        PerceptualNetwork(perceptual.extractor, ("3",)).distances(pictures, pictures)
    with pytest.raises(InputError, match="has 6 channels, but 5 weights were given"):
        PerceptualNetwork(perceptual.extractor, ("1",), (np.ones(5),)).distances(pictures, pictures)


def test_the_round_trip_is_the_whole_pass_and_tiles_do_not_change_it(tiny_model, monkeypatch):
    trip = RoundTrip(tiny_model, "cpu")
    original, made, window = trip(chest(0))
    assert window == WINDOW and original.grid == made.grid
    assert original.grid.shape == (16, 16, 8) and original.grid.spacing_mm.tolist() == [20, 20, 30]
    image = torch.from_numpy((original.array / 1000).astype(np.float32))[None, None]
    with torch.no_grad():
        whole = load_bundle(tiny_model).autoencoder(image)[0][0, 0].clamp(-1, 1).numpy() * 1000
    assert np.abs(made.array - whole).max() < 0.01
    own = replace(
        trip.description, preprocessing={"intensity_map": "own-minimum-and-maximum", "clip_hu": [-900, 900]}
    )
    monkeypatch.setattr(trip, "description", own)
    low, high = trip(chest(0))[2]
    assert (low, high) == (-900, np.clip(original.array.max(), -900, 900))
    monkeypatch.undo()
    # A grid of 256 x 16 x 8 voxels in less memory than it takes in one piece.
    long = replace(trip.description, grid_shape=(256, 16, 8))
    volume = chest(1, Grid.centered((256, 16, 8), (20.0, 20.0, 30.0)))
    monkeypatch.setattr(trip, "description", long)
    in_one = trip(volume)[1].array
    tiles: list = []
    monkeypatch.setattr("medlord.memory.free.budget_bytes", lambda *_: 2_900_000)
    monkeypatch.setattr(
        "medlord.evaluation.reconstruction.round_trip.in_smaller_tiles",
        lambda run, tile, smaller_than: (tiles.append(tile), (run(tile), tile))[1],
    )
    assert np.abs(trip(volume)[1].array - in_one).max() < 0.01
    assert tiles[0][0] < 64 and tiles[0][1:] == (4, 4)
    monkeypatch.setattr("medlord.memory.free.budget_bytes", lambda *_: 1000)
    with pytest.raises(
        InsufficientMemoryError, match="256 x 16 x 8 voxels needs .* on cpu and 0 MB are free"
    ):
        trip(volume)


def test_a_set_is_measured_stops_and_goes_on(tiny_model, volumes, perceptual, tmp_path, monkeypatch):
    work, events = tmp_path / "work", []
    options = {"perceptual": perceptual, "windows": {"lung": (-1350.0, 150.0)}, "slices": 3, "pixel_mm": 7.0}
    options |= {"device": "cpu", "progress": events.append}
    with pytest.raises(CancelledError, match="volume 3 of 3"):
        evaluate_autoencoder(
            tiny_model, volumes, work, cancel=lambda: len(list(work.glob("*.json"))) == 2, **options
        )
    made: list = []
    through = RoundTrip.__call__
    monkeypatch.setattr(RoundTrip, "__call__", lambda *given: (made.append(given), through(*given))[1])
    result = evaluate_autoencoder(tiny_model, volumes, work, **options)
    assert len(made) == 1, "two were kept"
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert events[-1].phase == "reconstruct" and events[-1].step == events[-1].total == 3
    assert (
        data["count"] == 3
        and data["model"]["id"] == "tiny"
        and len(data["model"]["autoencoder_sha256"]) == 64
    )
    assert data["features"]["sha256"] == perceptual.extractor.sha256
    assert data["settings"]["windows_hu"] == {"model": [-1000, 1000], "lung": [-1350, 150]}
    structure = data["settings"]["ms_ssim"]
    assert structure["scales"] == [2] and sum(structure["scale_weights"]["2"]) == pytest.approx(1.0001)
    assert [one["shape"] for one in data["volumes"]] == [[16, 16, 8], [12, 16, 8], [16, 16, 8]]
    assert "1 of the 3 CT are smaller than the model's grid" in data["warnings"][0]
    # The last volume once more, by the parts.
    original, lossy, window = RoundTrip(tiny_model, "cpu")(chest(2))
    last = data["volumes"][2]["measures"]["model"]
    assert last["psnr_db"] == pytest.approx(psnr_db(lossy.array, original.array, window), abs=1e-6)
    assert last["ms_ssim"] == pytest.approx(ms_ssim(lossy.array, original.array, window)[0], abs=1e-6)
    axial = [
        windowed(plane_slices(one, "axial", 3, 7.0, chosen_by=original), window) for one in (lossy, original)
    ]
    assert last["lpips axial"] == pytest.approx(perceptual.distances(*axial).mean(), abs=1e-6)
    assert last["lpips"] == pytest.approx(
        np.mean([last[f"lpips {p}"] for p in ("axial", "coronal", "sagittal")])
    )
    spread = data["spreads"]["model"]["psnr_db"]
    values = [one["measures"]["model"]["psnr_db"] for one in data["volumes"]]
    assert spread["median"] == sorted(values)[1] and spread["minimum"] == min(values) and spread["count"] == 3
    assert [spread["first_quartile"], spread["third_quartile"]] == pytest.approx(
        np.percentile(values, (25, 75))
    )
    page = render_autoencoder_page(result)
    assert f"{spread['median']:.2f} ({spread['first_quartile']:.2f} to" in page and "3D, 2 scales" in page
    assert perceptual.extractor.sha256 in page and "LPIPS sagittal" in page
    assert "patient" not in json.dumps(data) and not list(work.glob("*patient*"))


def test_what_cannot_be_measured_is_said_by_file_and_leaves_nothing(
    tiny_model, volumes, perceptual, tmp_path
):
    work = tmp_path / "work"
    small = tmp_path / "small.nii.gz"
    save_volume(chest(0, Grid.centered((30, 30, 30), (2.0, 2.0, 2.0))), small)
    with pytest.raises(
        InputError, match="small.nii.gz: The CT measures 60 x 60 x 60 mm .*latent voxel of 80 x 80 x 60"
    ):
        evaluate_autoencoder(tiny_model, [small], work, device="cpu")
    with pytest.raises(InputError, match="patient_0.nii.gz: The axial slices are .* at least 32"):
        evaluate_autoencoder(tiny_model, volumes, work, perceptual=perceptual, pixel_mm=19.0, device="cpu")
    with pytest.raises(InputError, match="no CT to send"):
        evaluate_autoencoder(tiny_model, [], work, device="cpu")
    with pytest.raises(InputError, match="no model 'none'"):
        evaluate_autoencoder("none", volumes, work, device="cpu")
    assert not work.exists()


def test_ms_ssim_of_different_numbers_of_scales_are_apart():
    measured = [
        {"ms_ssim_scales": scales, "measures": {"model": {"psnr_db": 30.0, "ms_ssim": value}}}
        for scales, value in ((5, 0.9), (1, 0.5), (5, 0.8))
    ]
    spreads = _spreads(measured)
    assert set(spreads["model"]) == {"psnr_db", "ms_ssim 1", "ms_ssim 5"}
    assert spreads["model"]["ms_ssim 5"].median == pytest.approx(0.85)
    assert spreads["model"]["ms_ssim 1"].count == 1
    assert list(headings(spreads["model"]).values()) == [
        "PSNR, dB", "MS-SSIM, 1 scale (N = 1)", "MS-SSIM, 5 scales (N = 2)",
    ]  # fmt: skip
    assert in_words("ms_ssim 1", spreads["model"]["ms_ssim 1"]).startswith("0.5000 (")
    assert set(_spreads(measured[::2])["model"]) == {"psnr_db", "ms_ssim"}


def test_spread_is_numpys_and_knows_what_is_missing():
    spread = spread_of([3.0, None, 1.0, float("nan"), 2.0, 10.0])
    assert (spread.count, spread.median, spread.minimum, spread.maximum) == (4, 2.5, 1.0, 10.0)
    assert (spread.first_quartile, spread.third_quartile) == (1.75, 4.75)
    assert spread_of([None]).median is None and spread_of([None]).count == 0
    endless = spread_of([30.0, float("inf"), float("inf")])
    assert endless.median is None and endless.minimum == 30.0
