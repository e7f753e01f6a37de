"""Volumes in world space: a grid, the voxels on it, files and resampling.

Arrays are indexed [i, j, k] along the voxel axes of the affine; the affine maps ijk to RAS millimetres
(nibabel's convention). CT is in Hounsfield units: int16 on disk, float32 or int16 in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .errors import InputError

AIR_HU = -1000.0
_SHEAR_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Grid:
    """A regular voxel grid: `shape` (i, j, k) and the 4x4 `affine` from ijk (voxel centres) to RAS mm."""

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "affine", np.array(self.affine, dtype=np.float64))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Grid)
            and self.shape == other.shape
            and np.array_equal(self.affine, other.affine)
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    @classmethod
    def centered(
        cls,
        shape: tuple[int, int, int],
        spacing_mm: tuple[float, float, float],
        center_ras_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
        orientation: str = "RAS",
    ) -> Grid:
        """A grid whose middle lies at `center_ras_mm`; `orientation` says where each axis points, e.g. "RAS", "LPS"."""
        directions = np.zeros((3, 3))
        for axis, letter in enumerate(orientation):
            row = next((n for n, pair in enumerate(("RL", "AP", "SI")) if letter in pair), None)
            if row is None or len(orientation) != 3:
                raise InputError(
                    f"Orientation '{orientation}' is not three of R/L, A/P, S/I; use for example 'RAS'."
                )
            directions[row, axis] = 1.0 if letter in "RAS" else -1.0
        affine = np.eye(4)
        affine[:3, :3] = directions * np.asarray(spacing_mm, dtype=float)
        affine[:3, 3] = np.asarray(center_ras_mm) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
        grid = cls(tuple(shape), affine)
        grid.validate()
        return grid

    @property
    def spacing_mm(self) -> np.ndarray:
        """Distance between neighbouring voxel centres along i, j, k in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def center_ras_mm(self) -> np.ndarray:
        """World position of the middle of the grid in RAS mm."""
        return self.affine[:3, :3] @ ((np.asarray(self.shape) - 1) / 2) + self.affine[:3, 3]

    def index_to_index(self, target: Grid) -> np.ndarray:
        """4x4 matrix that maps voxel indices of `target` to (fractional) voxel indices of this grid."""
        return np.linalg.inv(self.affine) @ target.affine

    def matches(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """True when both grids have the same shape and no voxel centre lies further apart than `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=float)
        corners[:, :3] *= np.asarray(self.shape) - 1
        return bool(np.abs(corners @ (self.affine - other.affine).T).max() <= tolerance_mm)

    def validate(self, what: str = "The grid") -> None:
        """Raise `InputError` when no world space can be made of this grid (NaN, singular, sheared, no voxels)."""
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise InputError(f"{what} has shape {self.shape}; three axes of at least 1 voxel are needed.")
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise InputError(
                f"{what} has an affine with values that are not finite; every entry must be a number in mm. "
                "Save the file again with a valid geometry."
            )
        directions, spacing = self.affine[:3, :3], self.spacing_mm
        if spacing.min() <= 1e-6 or abs(np.linalg.det(directions / np.maximum(spacing, 1e-6))) < 1e-3:
            raise InputError(
                f"{what} has a singular affine (spacing {np.round(spacing, 4).tolist()} mm): its axes do not span "
                "three dimensions. Save the file again with a valid geometry."
            )
        cosines = (directions / spacing).T @ (directions / spacing) - np.eye(3)
        if np.abs(cosines).max() > _SHEAR_TOLERANCE:
            raise InputError(
                f"{what} has a sheared affine (axes off a right angle by a cosine of {np.abs(cosines).max():.4f}, "
                f"limit {_SHEAR_TOLERANCE}). Resample the volume to perpendicular axes first."
            )

    def to_dict(self) -> dict:
        """JSON form: shape and affine (rows)."""
        return {"shape": list(self.shape), "affine": self.affine.tolist()}

    @classmethod
    def from_dict(cls, data: dict) -> Grid:
        """Read what `to_dict` wrote."""
        return cls(tuple(data["shape"]), np.array(data["affine"], dtype=float))


@dataclass
class Volume:
    """Voxels [i, j, k] (HU for CT) on a `grid`, with the recipe they were made by when they are synthetic."""

    array: np.ndarray
    grid: Grid
    recipe: dict | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if tuple(self.array.shape) != self.grid.shape:
            raise InputError(
                f"The voxel array has shape {tuple(self.array.shape)} but its grid {self.grid.shape}; they must agree."
            )


def require_ct(volume: Volume, what: str = "The volume") -> None:
    """Raise `InputError` unless the voxel values can be a CT in HU.

    A chest CT holds air or lung, so its lowest value lies below -200 HU, and nothing exceeds the 16-bit range
    of scanners. MR, PET and images scaled to [0, 1] fail here.
    """
    if not np.isfinite(volume.array).all():
        raise InputError(f"{what} holds values that are not finite; a CT in HU is needed.")
    low, high = float(volume.array.min()), float(volume.array.max())
    if low > -200 or high < -100 or low < -32768 or high > 32767:
        raise InputError(
            f"{what} has values from {low:g} to {high:g}: that is no CT in HU (air near -1000 is missing or the "
            "range is impossible). Give a CT in HU."
        )


def resample_volume(volume: Volume, grid: Grid, outside_hu: float = AIR_HU) -> Volume:
    """Resample HU values to `grid`: Gaussian anti-aliasing where the target is coarser, trilinear, air outside."""
    if volume.grid.matches(grid):
        return Volume(volume.array.copy(), grid, volume.recipe, dict(volume.metadata))
    smooth = _smooth_for(volume.array.astype(np.float32), volume.grid, grid)
    values = _sample(smooth, volume.grid.index_to_index(grid), grid.shape, outside_hu)
    return Volume(values, grid, volume.recipe, dict(volume.metadata))


def resample_mask(mask: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Resample a binary mask [i, j, k] from `source` to `target`; thin structures survive.

    A target voxel is set where the anti-aliased fraction of the mask in it is at least one half. Parts of the
    mask that leave no such voxel near them are kept by setting the target voxels that hold them, and what hangs
    together in the mask is joined, so a vessel stays connected at the price of being a voxel wide (DESIGN 3).
    """
    from scipy import ndimage

    mask = np.asarray(mask, dtype=bool)
    if source.matches(target):
        return mask.copy()
    box = ndimage.find_objects(mask.astype(np.uint8))
    if not box:
        return np.zeros(target.shape, dtype=bool)
    matrix = source.index_to_index(target)
    margin = np.ceil(2 * _coarsening(matrix)).astype(int) + 1
    start = np.array([s.start for s in box[0]]) - margin
    stop = np.array([s.stop for s in box[0]]) + margin
    part = _crop_edge(mask, start, stop)
    smooth = _smooth_for(part.astype(np.float32), source, target)
    shifted = matrix.copy()
    shifted[:3, 3] -= start
    result = _sample(smooth, shifted, target.shape, 0.0) >= 0.5
    result &= _inside(matrix, source.shape, target.shape)
    shell = np.argwhere(part & ~_interior(part)) + start  # inside a thick object nothing can be lost
    shell = shell[((shell >= 0) & (shell < mask.shape)).all(axis=1)]
    # Not rint: it rounds halves to even numbers and leaves gaps in a row of them.
    index = np.floor((shell - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T + 0.5).astype(int)
    index = index[((index >= 0) & (index < target.shape)).all(axis=1)]
    holds = np.zeros(target.shape, dtype=bool)
    holds[tuple(index.T)] = True
    near = ndimage.binary_dilation(result, np.ones((3, 3, 3), bool))
    result |= holds & ~near
    _join_parts(result, holds & ~result)
    return result


def _interior(mask: np.ndarray) -> np.ndarray:
    """Voxels of the mask all of whose six neighbours belong to it (as erosion by a cross, but much faster)."""
    inner = mask.copy()
    for axis in range(3):
        moved, inner_moved = np.moveaxis(mask, axis, 0), np.moveaxis(inner, axis, 0)
        inner_moved[1:] &= moved[:-1]
        inner_moved[:-1] &= moved[1:]
    return inner


def _join_parts(mask: np.ndarray, spare: np.ndarray) -> None:
    """Set, in place, as few of the `spare` voxels as join the parts of `mask` that they connect.

    Parts hang together over faces, edges and corners. Every spare voxel touches a part, so one or two of them
    bridge any gap; parts are joined as in Kruskal's algorithm, which never closes a ring.
    """
    from scipy import ndimage

    parts, count = ndimage.label(mask, np.ones((3, 3, 3), bool))
    voxels = np.argwhere(spare)
    if count < 2 or not len(voxels):
        return
    padded = np.pad(parts, 1)
    around = np.stack([padded[tuple((voxels + offset).T)] for offset in np.ndindex(3, 3, 3)])
    highest, lowest = around.max(axis=0), np.where(around > 0, around, count + 1).min(axis=0)
    group = list(range(count + 1))

    def root(part: int) -> int:
        while group[part] != part:
            part = group[part]
        return part

    def join(numbers: np.ndarray, touched: set[int]) -> None:
        roots = {root(part) for part in touched}
        if len(roots) > 1:
            mask[tuple(voxels[numbers].T)] = True
            for part in roots:
                group[part] = min(roots)

    for number in np.flatnonzero(highest > lowest):
        join(np.array([number]), set(around[:, number].tolist()) - {0})
    places = np.zeros(padded.shape, dtype=np.int64)
    places[tuple((voxels + 1).T)] = np.arange(1, len(voxels) + 1)
    for offset in list(np.ndindex(3, 3, 3))[14:]:
        other = places[tuple((voxels + offset).T)] - 1
        for number in np.flatnonzero((other >= 0) & (highest > 0) & (highest != highest[other])):
            if highest[other[number]]:
                join(np.array([number, other[number]]), {int(highest[number]), int(highest[other[number]])})


def _coarsening(matrix: np.ndarray) -> np.ndarray:
    """How many source voxels one target voxel spans along each source axis."""
    return np.linalg.norm(matrix[:3, :3], axis=1)


def _smooth_for(array: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Blur as a target voxel averages: a box of n source voxels has the variance (n^2 - 1) / 12 of the extra blur."""
    from scipy import ndimage

    ratio = _coarsening(source.index_to_index(target))
    sigma = np.sqrt(np.maximum(ratio**2 - 1, 0) / 12)
    if sigma.max() < 0.05:
        return array
    return ndimage.gaussian_filter(array, sigma, mode="nearest", truncate=3.0)


def _sample(array: np.ndarray, matrix: np.ndarray, shape: tuple[int, int, int], outside: float) -> np.ndarray:
    """Trilinear samples at the target voxels; the border voxel reaches to its own face, `outside` beyond it."""
    from scipy import ndimage

    values = ndimage.affine_transform(
        array,
        matrix[:3, :3],
        offset=matrix[:3, 3],
        output_shape=shape,
        order=1,
        mode="nearest",
        output=np.float32,
    )
    values[~_inside(matrix, array.shape, shape)] = outside
    return values


def _inside(matrix: np.ndarray, source_shape: tuple, target_shape: tuple) -> np.ndarray:
    """Which target voxel centres lie within the faces of the source grid."""
    inside = np.ones(target_shape, dtype=bool)
    axes = np.ogrid[tuple(slice(0, n) for n in target_shape)]
    for row in range(3):
        position = sum(matrix[row, column] * axes[column] for column in range(3)) + matrix[row, 3]
        inside &= (position >= -0.5 - 1e-6) & (position <= source_shape[row] - 0.5 + 1e-6)
    return inside


def _crop_edge(mask: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Cut [start, stop) out of a mask; beyond its border the edge voxel goes on, as in the untruncated anatomy."""
    index = [np.clip(np.arange(a, b), 0, n - 1) for a, b, n in zip(start, stop, mask.shape)]
    return mask[np.ix_(*index)]
