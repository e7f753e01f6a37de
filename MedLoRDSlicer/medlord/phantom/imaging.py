"""From exact tissue to a CT picture: point spread, reconstruction kernel, noise.

The scanner's blur is a Gaussian in millimetres (soft kernel 1.8 mm full width at half maximum, lung kernel 1.2 mm with
edge enhancement). Noise has a Gaussian autocorrelation; on a coarse grid a voxel averages over it, so its deviation
falls as that of the scanner's would. The level follows the attenuation of the patient, exp(mu D / 2) with the
water-equivalent diameter D (AAPM Report 220, 2014), and the inverse root of the dose.
"""

from __future__ import annotations

import numpy as np

# kernel: blur in plane and along the axis (mm), edge enhancement, noise deviation (HU) on a fine grid at D = 280 mm
# and standard dose, correlation length (mm) in plane and along the axis.
KERNELS = {
    "soft": {"blur": (0.76, 0.85), "enhance": 0.0, "noise": 15.0, "correlation": (0.9, 1.5)},
    "lung": {"blur": (0.5, 0.75), "enhance": 0.45, "noise": 25.0, "correlation": (0.5, 1.3)},
}
REFERENCE_DIAMETER_MM = 280.0
WATER_ATTENUATION_PER_MM = 0.0195


def apply_kernel(hu, spacing, kernel: str):
    """Blur [k, j, i] in place as the scanner does, and sharpen edges where the kernel does."""
    from scipy.ndimage import gaussian_filter1d

    settings = KERNELS[kernel]
    sigmas = [settings["blur"][0 if axis < 2 else 1] / spacing[axis] for axis in range(3)]
    _blur(hu, sigmas, gaussian_filter1d)
    if settings["enhance"]:
        soft = hu.copy()
        _blur(soft, [1.1 / spacing[0], 1.1 / spacing[1], 0], gaussian_filter1d)
        soft -= hu
        soft *= np.float32(-settings["enhance"])
        hu += soft
    return hu


def _blur(hu, sigmas_ijk, gaussian_filter1d):
    for axis, sigma in zip((2, 1, 0), sigmas_ijk):
        if sigma > 0.12:
            gaussian_filter1d(hu, sigma, axis=axis, output=hu, mode="nearest", truncate=3.0)


def add_noise(hu, spacing, kernel: str, seed: int, level):
    """Add correlated noise in place; `level` (broadcasts over [k, j, i]) multiplies the kernel's deviation."""
    from scipy.ndimage import gaussian_filter1d

    settings = KERNELS[kernel]
    rng = np.random.default_rng([seed, 7003])
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    gain = settings["noise"]
    for axis, number in ((2, 0), (1, 1), (0, 2)):
        length = settings["correlation"][0 if number < 2 else 1]
        sigma = length / spacing[number]
        if sigma > 0.25:
            gaussian_filter1d(noise, sigma, axis=axis, output=noise, mode="wrap", truncate=3.0)
            gain /= _kernel_norm(sigma)
        gain *= np.sqrt(_box_variance(spacing[number] / (2 * length)))
    noise *= np.float32(gain)
    noise *= level
    hu += noise
    return hu


def _kernel_norm(sigma: float) -> float:
    """Root of the sum of squares of the truncated discrete Gaussian: what the filter leaves of white noise."""
    reach = int(3.0 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return float(np.sqrt((weights**2).sum()) / weights.sum())


def _box_variance(a: float) -> float:
    """Variance left when noise of autocorrelation exp(-d^2 / 4 s^2) is averaged over a box of width 2 a s."""
    from math import erf, exp, pi, sqrt

    return (sqrt(pi) * a * erf(a) - 1 + exp(-a * a)) / (a * a)


def noise_level(scene, grid):
    """Relative noise [k, j, i] (broadcastable): higher in thick sections and towards the middle of the body."""
    p, wall = scene.parameters, scene.wall
    shape = (len(wall.z), -1)
    step = 2 * np.pi / wall.theta.size
    scale = p.chest_width * p.chest_depth
    body = 0.5 * ((wall.muscle.reshape(shape) + wall.fat.reshape(shape)) ** 2).sum(axis=1) * step * scale
    cage = 0.5 * (wall.cage.reshape(shape) ** 2).sum(axis=1) * step * scale
    lung = 1 / (1 + np.exp(-(wall.z - scene.lungs.dome_right + 25) / 15)) / (1 + np.exp((wall.z - 105) / 12))
    diameter = 2 * np.sqrt(np.maximum(body - 0.55 * cage * lung, 1.0) / np.pi)
    level = np.exp(0.5 * WATER_ATTENUATION_PER_MM * (diameter - REFERENCE_DIAMETER_MM)) / np.sqrt(p.dose)
    i, j, k = (np.arange(n) for n in grid.shape)
    center = np.asarray(grid.shape) / 2
    middle = (
        grid.affine[:3, :3]
        @ np.array([np.full_like(k, center[0], dtype=float), np.full_like(k, center[1], dtype=float), k])
        + grid.affine[:3, 3:]
    )
    along = np.interp((middle[2] - p.position_mm[2]) / p.chest_length, wall.z, level)
    along = np.clip(along, 0.55, 1.5)
    axis = (np.linalg.inv(grid.affine) @ [*p.position_mm, 1.0])[:3]
    spacing = grid.spacing_mm
    square = ((i - axis[0]) * spacing[0]) ** 2 + (((j - axis[1]) * spacing[1]) ** 2)[:, None]
    across = 0.7 + 0.4 * np.exp(-square / (2 * 115.0**2))
    return along.astype(np.float32)[:, None, None], across.astype(np.float32)[None]
