"""Is this the picture of a CT at all: air, noise, sharpness, saturation, and breaks between slices.

All measures look at the voxels and at the mask of the body only. They are cheap on purpose: whole-array differences,
no filters larger than three voxels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ..volumes import Volume
from .morphology import erode_mm
from .orientation import AnatomicalFrame

AXES = ("right-left", "anterior-posterior", "superior-inferior")
"""The anatomical axes in the order of `AnatomicalFrame`."""

# Scanners and programs fill what they did not measure with values from here down (-1024, -2000, -3024).
_PADDING_HU = -1020.0
_SOFT_TISSUE_HU = (-150.0, 250.0)
_EVEN_TISSUE_HU = (-200.0, 400.0)
_SMALLEST_SAMPLE_VOXELS = 200
_FEWEST_SLICES = 12
# Seams are sought so far below the skin: layers of fat and muscle run along it, at the back as flat as a slice.
_SEAM_DEPTH_MM = 20.0
# A slice is divided into so many fields along each of its axes; parts of a field with fewer voxels, and slices with
# fewer fields, say too little. What at least 80 % of the fields show runs across the whole slice.
_FIELDS, _FEWEST_FIELDS, _SMALLEST_FIELD_VOXELS = 6, 6, 20
_FIELDS_WITHOUT = 20
# Between thicker slices anatomy itself breaks off (the dome of the diaphragm in two phantoms with slices of 7 mm).
_THICKEST_SLICE_MM = 6.0
# Smaller breaks are usual everywhere; in a picture without noise any step would be many times what is usual.
_LEAST_BREAK_HU = 5.0
# Median of |x| to standard deviation, for normal x.
_NORMAL_MEDIAN = 0.6745
# Mean |difference| of two slices of independent noise of one HU, averaged over 3 x 3 voxels: sqrt(2) sqrt(2 / pi) / 3.
_MEAN_NOISE_DIFFERENCE = 0.376
# Voxels on either side of the skin that make a profile across it.
_PROFILE_REACH = 4


@dataclass(frozen=True)
class ImageQuality:
    """What is measured of one volume; None where there is too little to measure.

    outside_air_hu       median HU outside the body, without the padding of scanners; -1000 by the definition of HU
    saturated_low, _high share (0 to 1) of the body's voxels that have exactly the lowest or highest value of the volume
    noise_hu             standard deviation of noise in soft tissue, from second differences within axial slices; noise
                         that is correlated over several voxels counts less
    edge_width_mm        length over which HU rise from air to tissue across the skin, at the steepest step
    edge_width_voxels    the same in voxels
    incoherence          per axis: mean difference of neighbouring slices over that of slices two apart, in the body;
                         anatomy goes on from slice to slice (0.5 to 0.9), slices in a random order give 1; None where
                         only noise differs
    seam                 per axis: the largest break between two slices, as a multiple of what is usual nearby; None
                         for slices thicker than 6 mm
    seam_position        per axis: number of the slice after which it lies, from the left, back and bottom
    """

    outside_air_hu: float | None
    saturated_low: float
    saturated_high: float
    noise_hu: float | None
    edge_width_mm: float | None
    edge_width_voxels: float | None
    incoherence: tuple[float | None, float | None, float | None]
    seam: tuple[float | None, float | None, float | None]
    seam_position: tuple[int | None, int | None, int | None]

    def to_dict(self) -> dict:
        """JSON form."""
        return {"axes": list(AXES), **asdict(self)}

    def measures(self) -> dict[str, float | None]:
        """The numbers that a reference distribution keeps, flat: name to value."""
        flat = {
            "noise_hu": self.noise_hu,
            "edge_width_mm": self.edge_width_mm,
            "outside_air_hu": self.outside_air_hu,
        }
        for number, axis in enumerate(AXES):
            flat[f"incoherence {axis}"] = self.incoherence[number]
            flat[f"seam {axis}"] = self.seam[number]
        return flat


def measure_image_quality(volume: Volume, body: np.ndarray) -> ImageQuality:
    """Measure a CT in HU [i, j, k]; `body` is the mask of the body on its grid (see `rules.find_body`)."""
    frame = AnatomicalFrame.of(volume.grid)
    hu = np.ascontiguousarray(frame.to_anatomy(volume.array), dtype=np.float32)
    inside = np.ascontiguousarray(frame.to_anatomy(body))
    width = edge_width_voxels(hu, inside)
    in_plane = float(np.mean(frame.spacing_mm[:2]))
    smooth = {axis: _mean_across(hu, axis) for axis in range(3)}
    deep = erode_mm(inside, _SEAM_DEPTH_MM, frame.spacing_mm)
    thin = [spacing <= _THICKEST_SLICE_MM for spacing in frame.spacing_mm]
    seams = [_largest_seam(smooth[axis], deep, axis) if thin[axis] else (None, None) for axis in range(3)]
    low, high, noise = float(hu.min()), float(hu.max()), noise_hu(hu, inside)
    count = max(int(np.count_nonzero(inside)), 1)
    return ImageQuality(
        outside_air_hu=outside_air_hu(hu, inside),
        saturated_low=int(np.count_nonzero(inside & (hu == low))) / count,
        saturated_high=int(np.count_nonzero(inside & (hu == high))) / count,
        noise_hu=noise,
        edge_width_mm=None if width is None else width * in_plane,
        edge_width_voxels=width,
        incoherence=tuple(_incoherence(smooth[axis], inside, axis, noise or 0.0) for axis in range(3)),
        seam=tuple(seam for seam, _ in seams),
        seam_position=tuple(position for _, position in seams),
    )


def outside_air_hu(hu: np.ndarray, body: np.ndarray) -> float | None:
    """Median HU outside the body; None where a scanner's padding or the body fills nearly everything."""
    outside = hu[~body]
    values = outside[outside > _PADDING_HU]
    # A few values above the padding are the rim of the body.
    enough = values.size >= max(0.01 * hu.size, 0.2 * outside.size)
    return float(np.median(values)) if enough else None


def noise_hu(hu: np.ndarray, body: np.ndarray) -> float | None:
    """Standard deviation in HU of the noise in soft tissue (axes right, anterior, superior).

    From second differences along both axes of the axial slices, a - 2b + c over sqrt(6), whose median is not moved by
    the edges of organs. Voxels count where all three lie in the body between -150 and 250 HU.
    """
    soft = body & (hu > _SOFT_TISSUE_HU[0]) & (hu < _SOFT_TISSUE_HU[1])
    found = []
    for axis in (0, 1):
        values, mask = np.moveaxis(hu, axis, 0), np.moveaxis(soft, axis, 0)
        whole = mask[:-2] & mask[1:-1] & mask[2:]
        found.append(np.abs(values[:-2] - 2 * values[1:-1] + values[2:])[whole])
    found = np.concatenate(found)
    if found.size < _SMALLEST_SAMPLE_VOXELS:
        return None
    return float(np.median(found) / (_NORMAL_MEDIAN * np.sqrt(6)))


def edge_width_voxels(hu: np.ndarray, body: np.ndarray) -> float | None:
    """How many voxels HU take to rise from air to tissue across the skin, in axial slices; None without skin in sight.

    Along a row of eight voxels across the skin, it is the rise from the outer two to the inner two over the steepest
    step between two neighbours; 1 is a rise within one step. The median over all rows with a rise above 400 HU.
    """
    widths = []
    for axis in (0, 1):
        values, mask = np.moveaxis(hu, axis, 0), np.moveaxis(body, axis, 0)
        for turned_values, turned_mask in ((values, mask), (values[::-1], mask[::-1])):
            widths.append(_widths(turned_values, turned_mask))
    widths = np.concatenate(widths)
    return float(np.median(widths)) if widths.size >= _SMALLEST_SAMPLE_VOXELS else None


def _widths(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Edge widths of all rows along axis 0 that go from outside to inside."""
    reach = _PROFILE_REACH
    start, second, third = np.nonzero(~mask[:-1] & mask[1:])
    fits = (start + 1 >= reach) & (start + reach < len(values))
    start, second, third = start[fits], second[fits], third[fits]
    steps = np.arange(1 - reach, reach + 1)
    profile = values[start[:, None] + steps, second[:, None], third[:, None]]
    rise = profile[:, -2:].mean(axis=1) - profile[:, :2].mean(axis=1)
    steepest = np.diff(profile, axis=1).max(axis=1)
    clear = rise > 400
    return rise[clear] / steepest[clear]


def _mean_across(hu: np.ndarray, axis: int) -> np.ndarray:
    """`hu` averaged over 3 x 3 voxels within every slice across `axis`: noise falls, breaks stay."""
    from scipy import ndimage

    size = [3, 3, 3]
    size[axis] = 1
    return ndimage.uniform_filter(hu, size, mode="nearest")


def _incoherence(smooth: np.ndarray, body: np.ndarray, axis: int, noise: float) -> float | None:
    """As in `ImageQuality`; None where slices two apart differ hardly more than `noise` (HU) alone would make them."""
    values, mask = np.moveaxis(smooth, axis, 0), np.moveaxis(body, axis, 0)
    both = mask[:-2] & mask[1:-1] & mask[2:]
    if np.count_nonzero(both) < _SMALLEST_SAMPLE_VOXELS:
        return None
    next_one = np.abs(values[1:-1] - values[:-2])[both].mean(dtype=np.float64)
    one_after = np.abs(values[2:] - values[:-2])[both].mean(dtype=np.float64)
    by_noise_alone = _MEAN_NOISE_DIFFERENCE * noise
    return float(next_one / one_after) if one_after > 2 * by_noise_alone else None


def _largest_seam(smooth: np.ndarray, body: np.ndarray, axis: int) -> tuple[float | None, int | None]:
    """(break as a multiple of what is usual nearby, number of the slice after which it lies) across `axis`."""
    values, mask = np.moveaxis(smooth, axis, 0), np.moveaxis(body, axis, 0)
    mask = mask & (values > _EVEN_TISSUE_HU[0]) & (values < _EVEN_TISSUE_HU[1])
    whole = mask[:-3] & mask[1:-2] & mask[2:-1] & mask[3:]
    counts = whole.sum(axis=(1, 2))
    usable = np.flatnonzero(counts >= max(0.3 * counts.max(initial=0), _SMALLEST_SAMPLE_VOXELS))
    if len(usable) < _FEWEST_SLICES:
        return None, None
    breaks = np.array([_break(values[level : level + 4], whole[level]) for level in usable])
    usable, breaks = usable[np.isfinite(breaks)], breaks[np.isfinite(breaks)]
    if len(usable) < _FEWEST_SLICES:
        return None, None
    ratio = np.empty(len(usable))
    for number in range(len(usable)):
        # The slices next to a break are disturbed by it, so they are no measure of what is usual.
        distance = np.abs(np.arange(len(usable)) - number)
        usual = np.median(breaks[(distance > 2) & (distance <= 10)])
        ratio[number] = breaks[number] / max(usual, _LEAST_BREAK_HU)
    worst = int(ratio.argmax())
    return float(ratio[worst]), int(usable[worst]) + 1


def _break(slices: np.ndarray, mask: np.ndarray) -> float:
    """How far the second of four slices (array [4, rows, columns]) is off the third, HU; `mask` is [rows, columns].

    That is (c - b) - ((b - a) + (d - c)) / 2 for slices a, b, c, d: what changes steadily cancels. In each of 6 x 6
    fields of the slice its median is taken, where the edges of organs, up here and down there, cancel too, while a tile
    that is off is off in one direction. The break is the 20th percentile of their absolute values: a layer of fat that
    runs along the slice shows in some fields only. NaN where tissue fills too few fields.
    """
    a, b, c, d = slices
    jump = 1.5 * (c - b) + 0.5 * (a - d)
    rows, columns = np.nonzero(mask)
    field = np.minimum(rows * _FIELDS // mask.shape[0], _FIELDS - 1) * _FIELDS
    field += np.minimum(columns * _FIELDS // mask.shape[1], _FIELDS - 1)
    values = jump[rows, columns]
    # All medians at once: by field, then by value, so that each lies in the middle of its run.
    values = values[np.lexsort((values, field))].astype(np.float64)
    counts = np.bincount(field, minlength=_FIELDS**2)
    starts, enough = np.cumsum(counts) - counts, counts >= _SMALLEST_FIELD_VOXELS
    starts, counts = starts[enough], counts[enough]
    if len(counts) < _FEWEST_FIELDS:
        return np.nan
    medians = np.abs(values[starts + (counts - 1) // 2] + values[starts + counts // 2]) / 2
    return float(np.percentile(medians, _FIELDS_WITHOUT))
