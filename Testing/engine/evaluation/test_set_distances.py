"""FID and KID of features: closed forms, torchmetrics on the same features, resampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg

from medlord.errors import InputError
from medlord.evaluation.sets.distances import Resampling, mean_of, measure_distances
from medlord.evaluation.sets.frechet import frechet_distance, in_common_coordinates
from medlord.evaluation.sets.kernel import KernelSums


def exact_sample(mean, covariance, count: int, seed: int) -> np.ndarray:
    """`count` vectors whose mean and covariance (over n - 1) are those given, to rounding."""
    draws = np.random.default_rng(seed).normal(size=(count, len(mean)))
    draws -= draws.mean(axis=0)
    white = draws @ np.linalg.inv(np.linalg.cholesky(draws.T @ draws / (count - 1))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_gaussians_in_closed_form():
    # Covariances that share their axes: tr(C1 + C2 - 2 (C1 C2)^(1/2)) is the sum of (s1 - s2)^2.
    turn = linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    first, second = np.array([1.0, 2.0, 3.0, 0.5, 0.1]), np.array([2.0, 2.0, 1.0, 0.5, 0.4])
    one = exact_sample(np.arange(5.0) + 100, turn @ np.diag(first**2) @ turn.T, 60, seed=1)
    two = exact_sample(np.full(5, 101.0), turn @ np.diag(second**2) @ turn.T, 45, seed=2)
    expected = np.sum((np.arange(5.0) - 1) ** 2) + np.sum((first - second) ** 2)
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-10)
    # General covariances, by a matrix root.
    spread = np.cov(np.random.default_rng(3).normal(size=(5, 30)))
    three = exact_sample(np.zeros(5), spread, 50, seed=4)
    c1, c2 = turn @ np.diag(first**2) @ turn.T, spread
    root = linalg.sqrtm(c1 @ c2).real
    expected = np.sum((np.arange(5.0) + 100) ** 2) + np.trace(c1 + c2 - 2 * root)
    assert frechet_distance(one, three) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("count", [400, 40])
def test_frechet_distance_is_that_of_torchmetrics(count):
    """With more pictures than features, and with fewer, where the covariances are singular."""
    fid = pytest.importorskip("torchmetrics.image.fid", reason="torchmetrics is not installed")
    draws = np.random.default_rng(count)
    mix = draws.normal(size=(64, 64)) / 8
    one = draws.normal(size=(count, 64)) @ mix
    two = draws.normal(size=(count + 7, 64)) @ mix * 1.2 + 0.1

    def moments(features: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(features.mean(axis=0)), torch.from_numpy(np.cov(features.T))

    theirs = float(fid._compute_fid(*moments(one), *moments(two)))
    assert frechet_distance(one, two) == pytest.approx(theirs, rel=1e-6)
    assert frechet_distance(*in_common_coordinates(one, two)) == pytest.approx(theirs, rel=1e-6)


def test_features_that_cannot_be_compared_are_refused():
    good = np.random.default_rng(0).normal(size=(4, 3))
    with pytest.raises(InputError, match=r"shape \(4, 3\) and \(4, 2\)"):
        frechet_distance(good, good[:, :2])
    with pytest.raises(InputError, match="4 and 1 pictures"):
        frechet_distance(good, good[:1])
    with pytest.raises(InputError, match="not finite"):
        frechet_distance(good, good * np.nan)


def test_kernel_distance_with_one_slice_per_volume_is_that_of_torchmetrics():
    kid = pytest.importorskip("torchmetrics.image.kid", reason="torchmetrics is not installed")
    draws = np.random.default_rng(5)
    one, two = draws.normal(size=(30, 16)), draws.normal(size=(30, 16)) + 0.3
    sums = KernelSums([row[None] for row in one], [row[None] for row in two])
    theirs = float(kid.poly_mmd(torch.from_numpy(one), torch.from_numpy(two)))
    assert sums.distance() == pytest.approx(theirs, rel=1e-10)
    # A resample is what the distance of the drawn volumes would be, without the pairs of a volume with itself.
    times = np.bincount(draws.integers(30, size=30), minlength=30)
    drawn = [(n, row) for n, row in enumerate(one) for _ in range(times[n])]
    pairs = [(x @ y / 16 + 1) ** 3 for a, x in drawn for b, y in drawn if a != b]
    kernel = (two @ two.T / 16 + 1) ** 3
    within = (kernel.sum() - np.trace(kernel)) / (30 * 29)
    across = np.mean([(x @ y / 16 + 1) ** 3 for _, x in drawn for y in two])
    assert sums.distance(real=times) == pytest.approx(np.mean(pairs) + within - 2 * across, rel=1e-10)


def test_kernel_distance_does_not_grow_with_slices_that_are_alike():
    """Volumes of 20 nearly equal slices: pairs within a volume would say that sets of one population differ."""
    found, by_slices = [], []
    for seed in range(60):
        draws = np.random.default_rng(seed)
        sets = [
            [row + 0.01 * draws.normal(size=(20, 8)) for row in draws.normal(size=(6, 1, 8))]
            for _ in range(2)
        ]
        found.append(KernelSums(*sets).distance())
        by_slices.append(
            KernelSums(*([row[None] for one in side for row in one] for side in sets)).distance()
        )
    assert np.mean(by_slices) > 2 and abs(np.mean(found)) < 0.1 * np.mean(by_slices)


def volumes(seed: int, count: int, shift: float = 0.0) -> list[np.ndarray]:
    """Features [10, 6] of `count` volumes: each has its own place, around a common one."""
    draws = np.random.default_rng(seed)
    return [shift + draws.normal(size=6) + draws.normal(size=(10, 6)) for _ in range(count)]


def test_intervals_and_floor_tell_unlike_sets_from_like_ones():
    real = volumes(0, 24)
    resampling = Resampling.draw(24, 20, replicates=40, splits=4, seed=3)
    assert all(int(a.sum()) == 24 and int(b.sum()) == 20 for a, b in resampling.replicates)
    assert all(len({*one, *other}) == 24 and len(made) == 12 for one, other, made in resampling.halves)
    steps = []
    like = measure_distances(real, volumes(1, 20), resampling, lambda: steps.append(1)).summary()
    unlike_plane = measure_distances(real, volumes(2, 20, shift=1.5), resampling)
    unlike = unlike_plane.summary()
    assert len(steps) == 1 + 40 + 4
    assert like.fid_low < like.fid < like.fid_high and like.kid_low < 0 < like.kid_high
    assert like.fid_at_floor < 2 * like.fid_floor and unlike.fid_at_floor > 3 * unlike.fid_floor
    assert unlike.fid_low > like.fid_high and unlike.kid_low > like.kid_high
    # The interval is that of the volumes: slices alone would make it much narrower.
    together = np.concatenate(real)
    one_each = [row[None] for row in together]
    others = [row[None] for row in np.concatenate(volumes(2, 20, shift=1.5))]
    by_slices = measure_distances(one_each, others, Resampling.draw(240, 200, 40, 0, seed=3)).summary()
    assert unlike.fid_high - unlike.fid_low > 1.5 * (by_slices.fid_high - by_slices.fid_low)
    assert by_slices.fid == pytest.approx(unlike.fid) and by_slices.fid_floor is None
    mean = mean_of([unlike_plane, unlike_plane])
    assert mean == unlike


def test_draws_are_those_of_the_seed_and_few_volumes_have_no_floor():
    one, same = (Resampling.draw(5, 3, 2, 2, seed=9) for _ in range(2))
    assert all(
        (a == b).all()
        for x, y in zip(one.halves, same.halves, strict=True)
        for a, b in zip(x, y, strict=True)
    )
    assert len(one.halves[0][0]) == 2
    assert not Resampling.draw(3, 9, 2, 2, seed=9).halves
    assert not Resampling.draw(2, 9, 4, 2, seed=9).replicates, (
        "of two volumes KID would have an interval of no width"
    )
    bare = measure_distances(volumes(0, 3), volumes(1, 3), Resampling.draw(3, 3, 0, 5, seed=0)).summary()
    assert bare.fid > 0 and bare.fid_low is None and bare.fid_floor is None
