"""A simulated reader who judges a case by its voxels, as a person judges a picture, and knows nothing else of it."""

from __future__ import annotations

import zlib
from collections import Counter

import numpy as np

SCALES = ("realism", "anatomy", "consistency", "image_quality", "diagnostic_quality", "interest")
# HU of what noise and blur are judged in: soft tissue with blood and marrow, and lung; the air around has neither.
TISSUES = ((-200.0, 400.0), (-950.0, -500.0))
# Differences below this (of logarithms, about a share) are hard to see.
_VISIBLE = 0.1


def texture(array: np.ndarray) -> np.ndarray:
    """How a volume [i, j, k] in HU looks: logarithms of the mean step between neighbouring voxels in each tissue (its
    noise), and of the largest steps (its sharpness), along each axis; float (9,)."""
    hu = array.astype(np.float32)
    found = []
    for axis in range(3):
        first, second = np.moveaxis(hu, axis, 0)[:-1], np.moveaxis(hu, axis, 0)[1:]
        steps = np.abs(second - first)
        for low, high in TISSUES:
            inside = (first > low) & (first < high) & (second > low) & (second < high)
            found.append(steps[inside].mean() if inside.any() else 0.0)
        found.append(np.percentile(steps, 99))
    return np.log1p(np.array(found))


class ImageReader:
    """Learns from training cases how real and synthetic volumes look, and then judges others.

    `wavering` is the standard deviation of what the reader adds to the evidence of the picture, where -1 is how a real
    and +1 how a synthetic training case looks on average: the larger, the worse the eye. It is the same for the same
    picture in every run, whenever it comes, and another one when it comes again.
    """

    def __init__(self, name: str, wavering: float):
        self.name, self.wavering = name, wavering
        self._seen: dict[str, list[np.ndarray]] = {"real": [], "synthetic": []}
        self._shown: Counter[int] = Counter()

    def learn(self, look: np.ndarray, truth: str) -> None:
        """Remember what a case that looked so (`texture`) truly was: "real" or "synthetic"."""
        self._seen[truth].append(look)

    def values(self, look: np.ndarray) -> dict[str, object]:
        """Answers to all required questions of the default rubric for a case that looks so (`texture`)."""
        evidence = self._evidence(look) + self.wavering * self._mood(look)
        grade = int(np.clip(np.rint(3 - evidence), 1, 4))
        return {
            "real_or_synthetic": "synthetic" if evidence > 0 else "real",
            "confidence": int(np.clip(1 + 2 * abs(evidence), 1, 5)),
            **dict.fromkeys(SCALES, grade),
        }

    def _mood(self, look: np.ndarray) -> float:
        """A standard normal number of the reader, the picture and how often it has come."""
        picture = zlib.crc32(np.round(look, 2).tobytes())
        self._shown[picture] += 1
        return np.random.default_rng([*self.name.encode(), picture, self._shown[picture]]).standard_normal()

    def _evidence(self, look: np.ndarray) -> float:
        """Where the look lies between the real and the synthetic ones seen: Fisher's discriminant, axis by axis."""
        if not all(self._seen.values()):
            return 0.0
        real, synthetic = (np.array(self._seen[kind]) for kind in ("real", "synthetic"))
        middles = real.mean(axis=0), synthetic.mean(axis=0)
        apart = middles[1] - middles[0]
        left = np.concatenate([real - middles[0], synthetic - middles[1]])
        weights = apart / (left.var(axis=0) + _VISIBLE**2)
        return float(2 * weights @ (look - (middles[0] + middles[1]) / 2) / (weights @ apart))
