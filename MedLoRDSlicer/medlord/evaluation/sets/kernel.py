"""Kernel distance of two sets of features (KID): a maximum mean discrepancy, unbiased also for small sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import InputError


class KernelSums:
    """Sums of the kernel over all pairs of slices of each pair of volumes, from which any resample is computed.

    The kernel is (x . y / d + 1)^3 for features of length d (Binkowski et al. 2018, arXiv:1801.01401). `real` and
    `synthetic` are the features [slices, d] of each volume. Memory: one number per pair of volumes.
    """

    def __init__(self, real: Sequence[np.ndarray], synthetic: Sequence[np.ndarray]):
        if min(len(real), len(synthetic)) < 2:
            raise InputError(
                f"There are {len(real)} real and {len(synthetic)} synthetic volumes; a kernel distance needs two each."
            )
        volumes = [*real, *synthetic]
        self.real_count, self.synthetic_count = len(real), len(synthetic)
        self._slices = np.array([len(features) for features in volumes], dtype=np.float64)
        together = np.concatenate(volumes).astype(np.float64)
        starts = np.concatenate([[0], np.cumsum(self._slices[:-1])]).astype(int)
        rows = []
        for features in volumes:
            kernel = (features.astype(np.float64) @ together.T / together.shape[1] + 1) ** 3
            rows.append(np.add.reduceat(kernel.sum(axis=0), starts))
        self._sums = np.array(rows)

    def distance(self, real: np.ndarray | None = None, synthetic: np.ndarray | None = None) -> float:
        """The squared kernel distance; `real` and `synthetic` say how often each volume is taken (once by default).

        Pairs within one volume are left out: its slices are alike, so they would bias the number. With one slice per
        volume this is the unbiased estimate of Gretton et al. 2012, equation 3. It can be slightly below zero.
        Resamples in which a set has only one volume, many times, have no such pairs: NaN.
        """
        ours = np.ones(self.real_count) if real is None else np.asarray(real, dtype=np.float64)
        theirs = (
            np.ones(self.synthetic_count) if synthetic is None else np.asarray(synthetic, dtype=np.float64)
        )
        n = self.real_count
        within_real = self._mean(slice(None, n), slice(None, n), ours, ours)
        within_synthetic = self._mean(slice(n, None), slice(n, None), theirs, theirs)
        across = self._mean(slice(None, n), slice(n, None), ours, theirs)
        return float(within_real + within_synthetic - 2 * across)

    def _mean(self, rows: slice, columns: slice, weights: np.ndarray, others: np.ndarray) -> float:
        """The weighted mean of the kernel over pairs of slices of two volumes that are not the same."""
        pairs = np.outer(weights, others)
        if rows == columns:
            np.fill_diagonal(pairs, 0)
        count = np.sum(pairs * np.outer(self._slices[rows], self._slices[columns]))
        return np.sum(pairs * self._sums[rows, columns]) / count if count else np.nan
