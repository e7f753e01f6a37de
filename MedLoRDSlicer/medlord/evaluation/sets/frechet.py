"""Frechet distance of two sets of features, the number behind FID.

FID is |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2)) for the means m and covariances C of the features of two sets
of pictures, taken as normal distributions (Heusel et al. 2017, arXiv:1706.08500; Dowson and Landau 1982).
"""

from __future__ import annotations

import numpy as np

from ...errors import InputError


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared Frechet distance of two sets of features [pictures, features], with the covariances over n - 1.

    The root of C1 C2 is never formed: with C = F^T F the trace of the root is the sum of the singular values of
    F1 F2^T. This is exact where the covariances are singular, that is with fewer pictures than features, where roots of
    matrices lose digits or turn complex.
    Raises `InputError` for fewer than two pictures, for unlike numbers of features and for values that are not finite.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    _require_features(first, second)
    # Distances do not depend on the origin; near zero fewer digits are lost.
    origin = second.mean(axis=0)
    first, second = first - origin, second - origin
    shift = first.mean(axis=0) - second.mean(axis=0)
    one, two = _covariance_factor(first), _covariance_factor(second)
    root = np.linalg.svd(one @ two.T, compute_uv=False).sum()
    distance = shift @ shift + np.sum(one**2) + np.sum(two**2) - 2 * root
    return max(float(distance), 0.0)


def in_common_coordinates(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sets [pictures, features] in an orthonormal basis of the space that they span together.

    Frechet distances of parts of the sets stay as they are, and cost less where there are fewer pictures than features.
    """
    together = np.concatenate([first, second]).astype(np.float64)
    together -= together.mean(axis=0)
    if len(together) <= together.shape[1]:
        basis, _ = np.linalg.qr(together.T)
        together = together @ basis
    return together[: len(first)], together[len(first) :]


def _covariance_factor(features: np.ndarray) -> np.ndarray:
    """F with C = F^T F, with as few rows as possible."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.linalg.qr(centred, mode="r") if len(centred) > centred.shape[1] else centred


def _require_features(first: np.ndarray, second: np.ndarray) -> None:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise InputError(
            f"Features of shape {first.shape} and {second.shape} cannot be compared; both need [pictures, features] "
            "with equally many features."
        )
    if min(len(first), len(second)) < 2:
        raise InputError(
            f"There are {len(first)} and {len(second)} pictures; a covariance needs at least two of each set."
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InputError("The features hold values that are not finite; check the weights of the extractor.")
