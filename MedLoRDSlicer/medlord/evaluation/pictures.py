"""Pictures of a CT and of masks for reports: three planes, three windows, true to scale in mm.

Slices are shown as in radiology: axial seen from the feet, so the patient's right is on the left of the picture;
coronal seen from the front; sagittal with the front on the left. Letters at the edges say so.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..conditions import Conditions
from ..errors import InputError
from ..volumes import Grid, Volume
from .orientation import AnatomicalFrame

PIXELS_PER_MM = 1.25
_PIXELS_PER_INCH = 100.0


@dataclass(frozen=True)
class Window:
    """A grey scale of CT: `width` HU around `level` HU, darker is black, brighter is white."""

    name: str
    width: float
    level: float

    @property
    def limits_hu(self) -> tuple[float, float]:
        """HU of black and of white."""
        return self.level - self.width / 2, self.level + self.width / 2


LUNG = Window("lung", 1500.0, -600.0)
MEDIASTINAL = Window("mediastinal", 400.0, 40.0)
BONE = Window("bone", 1800.0, 400.0)
WINDOWS = (LUNG, MEDIASTINAL, BONE)


@dataclass(frozen=True)
class Plane:
    """A way to cut: `axis` is the anatomical axis (0 right, 1 anterior, 2 superior) that the plane is across."""

    name: str
    axis: int
    edges: tuple[str, str, str, str]
    """Letters at the left, right, top and bottom edge."""


AXIAL = Plane("axial", 2, ("R", "L", "A", "P"))
CORONAL = Plane("coronal", 1, ("R", "L", "S", "I"))
SAGITTAL = Plane("sagittal", 0, ("A", "P", "S", "I"))
PLANES = (AXIAL, CORONAL, SAGITTAL)


@dataclass(frozen=True)
class Outline:
    """A mask [i, j, k] to draw: `colour` as "#rrggbb", `dashed` for what was found and not drawn."""

    mask: np.ndarray
    colour: str
    dashed: bool = False


class Slicer2D:
    """Cuts arrays on `grid` along a plane and knows how large the cut is in mm."""

    def __init__(self, grid: Grid, plane: Plane):
        self._frame, self.plane, self._grid = AnatomicalFrame.of(grid), plane, grid

    @property
    def count(self) -> int:
        """How many slices there are across the plane."""
        return self._grid.shape[self._frame.order[self.plane.axis]]

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of the cut in mm."""
        across = [a for a in range(3) if a != self.plane.axis]
        sizes = [self._grid.shape[self._frame.order[a]] * self._frame.spacing_mm[a] for a in across]
        return sizes[0], sizes[1]

    def cut(self, array: np.ndarray, index: int) -> np.ndarray:
        """The slice (rows, columns) as it is shown: first row at the top, first column at the left."""
        if not 0 <= index < self.count:
            raise InputError(
                f"There is no {self.plane.name} slice {index}; the volume has 0 to {self.count - 1}."
            )
        return np.take(self._frame.to_anatomy(array), index, axis=self.plane.axis)[::-1, ::-1].T

    def position_mm(self, index: int) -> float:
        """World coordinate of the slice in mm along the patient's right, anterior or superior."""
        voxel = (np.asarray(self._grid.shape) - 1) / 2
        axis = self._frame.order[self.plane.axis]
        voxel[axis] = self._grid.shape[axis] - 1 - index if self._frame.flipped[self.plane.axis] else index
        return float((self._grid.affine[:3, :3] @ voxel + self._grid.affine[:3, 3])[self.plane.axis])


def most_telling_slice(conditions: Conditions, plane: Plane) -> int:
    """The index of the slice that shows most of the structures: each counts by its share of its own largest area."""
    slicer = Slicer2D(conditions.grid, plane)
    frame = AnatomicalFrame.of(conditions.grid)
    others = tuple(a for a in range(3) if a != plane.axis)
    score = np.zeros(slicer.count)
    for mask in conditions.masks.values():
        area = frame.to_anatomy(mask).sum(axis=others)
        score += area / max(int(area.max()), 1)
    return int(score.argmax())


def picture_of_ct(volume: Volume, plane: Plane, index: int, window: Window, caption: str = "") -> bytes:
    """PNG bytes of a slice of a CT in HU, with the edge letters and a small `caption` in a corner."""
    slicer = Slicer2D(volume.grid, plane)
    figure, axes = _canvas(slicer, transparent=False)
    low, high = window.limits_hu
    picture = slicer.cut(volume.array, index)
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, extent=_extent(slicer), interpolation="bilinear")
    _letters(axes, plane, caption)
    return _png(figure, grey=True)


def picture_of_masks(grid: Grid, plane: Plane, index: int, outlines: Sequence[Outline]) -> bytes:
    """PNG bytes of masks as coloured areas on black, in the given order (later ones lie on top)."""
    slicer = Slicer2D(grid, plane)
    figure, axes = _canvas(slicer, transparent=False)
    picture = np.zeros((*slicer.cut(np.empty(grid.shape, dtype=bool), index).shape, 3))
    for outline in outlines:
        colour = np.array([int(outline.colour[n : n + 2], 16) for n in (1, 3, 5)]) / 255
        inside = slicer.cut(outline.mask, index)
        picture[inside] = 0.25 * picture[inside] + 0.75 * colour
    axes.imshow(picture, extent=_extent(slicer), interpolation="nearest")
    _letters(axes, plane, "")
    return _png(figure)


def picture_of_outlines(grid: Grid, plane: Plane, index: int, outlines: Sequence[Outline]) -> bytes:
    """PNG bytes of mask contours on a transparent ground, to be laid over `picture_of_ct` of the same slice."""
    slicer = Slicer2D(grid, plane)
    figure, axes = _canvas(slicer, transparent=True)
    width, height = slicer.size_mm
    for outline in outlines:
        cut = np.pad(slicer.cut(outline.mask, index).astype(float), 1)
        if not cut.any():
            continue
        rows, columns = (n - 2 for n in cut.shape)
        across = (np.arange(-1, columns + 1) + 0.5) * width / columns
        down = height - (np.arange(-1, rows + 1) + 0.5) * height / rows
        style = "dashed" if outline.dashed else "solid"
        axes.contour(across, down, cut, [0.5], colors=[outline.colour], linewidths=1.1, linestyles=style)
    return _png(figure)


def colours_for(names: Sequence[str]) -> dict[str, str]:
    """A colour "#rrggbb" per structure, from a list that stays apart for the eye on grey; it repeats after twelve."""
    palette = (
        "#3d9be9", "#2fbf71", "#f2c14e", "#e4572e", "#4bc6d8", "#b04ad9", "#f28cb8", "#8d6e63", "#ff3b3b", "#5b6cff",
        "#12a594", "#d6e02e",
    )  # fmt: skip
    return {name: palette[n % len(palette)] for n, name in enumerate(names)}


def _extent(slicer: Slicer2D) -> tuple[float, float, float, float]:
    width, height = slicer.size_mm
    return 0.0, width, 0.0, height


def _canvas(slicer: Slicer2D, transparent: bool):
    """A matplotlib figure without a window whose axes fill it, in mm, at `PIXELS_PER_MM`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = slicer.size_mm
    scale = PIXELS_PER_MM / _PIXELS_PER_INCH
    ground = "none" if transparent else "black"
    figure = Figure(figsize=(width * scale, height * scale), dpi=_PIXELS_PER_INCH, facecolor=ground)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    return figure, axes


def _letters(axes, plane: Plane, caption: str) -> None:
    left, right, top, bottom = plane.edges
    places = ((left, 0.01, 0.5, "left", "center"), (right, 0.99, 0.5, "right", "center"))
    places += ((top, 0.5, 0.985, "center", "top"), (bottom, 0.5, 0.015, "center", "bottom"))
    places += ((caption, 0.015, 0.015, "left", "bottom"),)
    for text, x, y, across, down in places:
        axes.text(x, y, text, color="white", fontsize=9, ha=across, va=down, transform=axes.transAxes)


def _png(figure, grey: bool = False) -> bytes:
    """Render to PNG; `grey` stores one channel, at a third of the size."""
    from PIL import Image

    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba()).copy())
    if grey:
        image = image.convert("L")
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
