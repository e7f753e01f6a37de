"""The pictures of docs/tutorial.md and the README's overview: `python Testing/slicer/tutorial_pictures.py [FOLDER]`.

Those of the tutorial are what the slice views of Slicer show (`offscreen_views`) of runs made on the spot with the
bundled model; the overview shows the first of these runs as reports do. All are made anew when the model changes. The
default folder is Resources/Screenshots.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

# Run as a script, this folder is on the path already; run by hand in a checkout, the module may not be.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "MedLoRDSlicer"))

import slicer  # noqa: E402  after the paths
from drawing import SegmentEditor  # noqa: E402
from offscreen_views import OffscreenSliceView, add_grey_colours, save_picture, side_by_side  # noqa: E402

from medlord.conditions import Conditions  # noqa: E402
from medlord.evaluation import pictures  # noqa: E402
from medlord.volumes import Volume  # noqa: E402
from MedLoRDSlicerLib.canvas import new_canvas, prepare_segment_editor  # noqa: E402
from MedLoRDSlicerLib.compare import LEFT, ORIENTATIONS, RIGHT, CompareView  # noqa: E402
from MedLoRDSlicerLib.engine import Engine  # noqa: E402
from MedLoRDSlicerLib.headless import HeadlessSlicer  # noqa: E402
from MedLoRDSlicerLib.logic import SynthesisLogic  # noqa: E402
from MedLoRDSlicerLib.results import SampleSet  # noqa: E402
from MedLoRDSlicerLib.sample_data import start_sample  # noqa: E402
from MedLoRDSlicerLib.seeds import add_standard_deviation  # noqa: E402

DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "Resources" / "Screenshots"
SEEDS = (7, 8, 9, 10)


class Photographer:
    """A compare layout whose views are drawn into memory."""

    def __init__(self, headless: HeadlessSlicer, folder: Path):
        add_grey_colours(headless.scene)
        layout = slicer.vtkMRMLLayoutLogic()
        layout.SetMRMLApplicationLogic(headless.application_logic)
        layout.SetMRMLScene(headless.scene)
        self._layout, self._headless, self._folder = layout, headless, folder
        self.compare = CompareView(headless.scene)
        self._views: dict[tuple[str, str], OffscreenSliceView] = {}

    def take(self, name: str, left, right, conditions, window: str | None, through=None) -> None:
        """Save the layout with these volumes as `tutorial-<name>.jpg`, slices through a point (RAS mm)."""
        self.compare.show(left, right, conditions)
        if window:
            self.compare.apply_window(window)
        for side, orientation, node in self.compare.slice_nodes():
            if (side, orientation) not in self._views:
                view = OffscreenSliceView(self._headless.application_logic, node, (330, 260))
                self._views[(side, orientation)] = view
        self.compare.fit(through)
        rows = [
            [self._views[(side, orientation)].picture() for side in (LEFT, RIGHT)]
            for orientation in ORIENTATIONS
        ]
        path = save_picture(self._folder / f"tutorial-{name}.jpg", side_by_side(rows))
        print(f"{path.name}: {path.stat().st_size // 1000} kB")

    def close(self) -> None:
        """Let go of views and layout."""
        for view in self._views.values():
            view.close()
        self._layout.SetMRMLScene(None)


def take_overview(folder: Path, volume: Volume, conditions: Conditions) -> None:
    """Save `overview.png`: what the model was given, and the CT in three windows, in two planes."""
    from PIL import Image

    def tile(*layers: bytes) -> Image.Image:
        images = [Image.open(io.BytesIO(layer)).convert("RGBA") for layer in layers]
        for image in images[1:]:
            images[0].alpha_composite(image)
        return images[0]

    names = [name for name in conditions.names if conditions[name].any()]
    colours = pictures.colours_for(names)
    outlines = [pictures.Outline(conditions[name], colours[name]) for name in names]
    rows = []
    for plane in (pictures.AXIAL, pictures.CORONAL):
        cut = (plane, pictures.most_telling_slice(conditions, plane))
        masks = pictures.picture_of_masks(volume.grid, *cut, outlines)
        lung, mediastinum, bone = (
            pictures.picture_of_ct(volume, *cut, window, "SYNTHETIC") for window in pictures.WINDOWS
        )
        contours = pictures.picture_of_outlines(volume.grid, *cut, outlines)
        rows.append([tile(masks), tile(lung), tile(mediastinum, contours), tile(bone)])
    width, gap = rows[0][0].width, 8
    heights = [row[0].height for row in rows]
    whole = Image.new("RGB", (4 * (width + gap) - gap, sum(heights) + gap), (20, 20, 24))
    for row, tiles in enumerate(rows):
        for column, image in enumerate(tiles):
            whole.paste(image.convert("RGB"), (column * (width + gap), row * (heights[0] + gap)))
    whole.save(folder / "overview.png", optimize=True)


def draw_from_nothing(headless: HeadlessSlicer, logic: SynthesisLogic):
    """Body, lungs and heart as ellipsoids, as the tutorial asks for; returns the segmentation."""
    description = logic.describe_model()
    canvas = new_canvas(headless.scene, description)
    editor_node = prepare_segment_editor(headless.scene, canvas.segmentation, description)
    editor = SegmentEditor(headless.scene, headless.application_logic, editor_node)
    editor.draw_ellipsoid("body", (0, 0, 0), (150, 105, 400))
    for side in (-1, 1):
        editor.draw_ellipsoid("lung", (side * 75, 0, 20), (52, 78, 110))
    editor.draw_ellipsoid("heart_myocardium", (-15, 35, -35), (50, 40, 45))
    return canvas


def main(arguments: list[str]) -> int:
    """Make all pictures; exit status 0."""
    folder = Path(arguments[0]) if arguments else DEFAULT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    engine = Engine()
    with HeadlessSlicer() as headless:
        photographer, logic = Photographer(headless, folder), SynthesisLogic(engine)
        try:
            sample = start_sample(headless.scene).wait()
            heart = [0.0, 0.0, 0.0]
            sample.segmentation.GetSegmentCenterRAS("heart_ventricle_left", heart)
            samples = SampleSet()
            prepared = logic.prepare(sample.segmentation)
            runs = [
                logic.start(
                    sample.segmentation,
                    seed=seed,
                    contrast_phase="arterial",
                    reference=sample.volume,
                    samples=samples,
                    prepared=prepared,
                )
                for seed in SEEDS
            ]
            cts = [run.wait() for run in runs]
            conditions = runs[0].nodes.conditions
            take_overview(folder, runs[0].result.volume, runs[0].result.conditions)
            photographer.take("sample", sample.volume, cts[0], sample.segmentation, "mediastinum", heart)
            photographer.take("compare", sample.volume, cts[0], conditions, "lung", heart)
            deviation = add_standard_deviation(headless.scene, cts)
            photographer.take("spread", cts[1], deviation, conditions, None, heart)
            canvas = draw_from_nothing(headless, logic)
            drawn = logic.start(canvas.segmentation, seed=3, contrast_phase="arterial").wait()
            photographer.take("canvas", canvas.volume, drawn, canvas.segmentation, "lung", (0, 0, 0))
        finally:
            photographer.close()
            engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
