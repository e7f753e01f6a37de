"""From a segmentation in the scene to a synthetic CT in the same place: the module's logic, without any widget."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import slicer

from medlord.bundles.bundle import find_model
from medlord.bundles.description import read_description
from medlord.condition_channels import check_attributes
from medlord.errors import InputError
from medlord.evaluation.segmenters import find_segmenter
from medlord.progress import Cancel, Progress

from .check_choices import structures_to_check
from .checks import HU_RULES, LABELMAP, Check
from .conditions_table import ConditionsTable, Measurement, build_conditions_table
from .engine import Engine, shared_engine
from .file_recipes import adopt_recipe
from .headless import in_slicer_application
from .placement import Point, grid_center
from .recipes import recipe_in
from .results import SampleSet
from .run import Run
from .seeds import sibling_seeds
from .segments import ByHand, Preparation, SegmentMatch, match_segments

if TYPE_CHECKING:
    from medlord.bundles.description import ModelDescription

DEFAULT_MODEL = "thorax-phantom"
_FIRST_RUN_DETAILS = ("segments", "unmatched_segments")


class SynthesisLogic:
    """Synthesis for the panel and for Python. `engine` replaces the worker that the whole program shares."""

    def __init__(self, engine: Engine | None = None):
        self.engine = engine or shared_engine()

    def describe_model(self, model: str = DEFAULT_MODEL) -> ModelDescription:
        """What a model takes and makes. Raises `InputError` for an unknown model."""
        return read_description(find_model(model))

    def match_segments(
        self, segmentation_node, model: str = DEFAULT_MODEL, by_hand: ByHand | None = None
    ) -> list[SegmentMatch]:
        """What every segment of a node would be taken for. Raises `InputError` for an unknown model."""
        return match_segments(segmentation_node, self.describe_model(model).conditions, by_hand=by_hand)

    def conditions_table(
        self,
        segmentation_node,
        model: str = DEFAULT_MODEL,
        by_hand: ByHand | None = None,
        *,
        measure: bool = True,
        **place: Any,
    ) -> ConditionsTable:
        """The rows of the conditions table; `place`: reference, region, center_ras_mm as in `start`.

        Raises `InputError` for an unknown model; what is wrong with the segmentation is the table's `reason`.
        """
        description = self.describe_model(model)
        return build_conditions_table(segmentation_node, description, by_hand, measure=measure, **place)

    def measure(
        self, segmentation_node, model: str = DEFAULT_MODEL, by_hand: ByHand | None = None, **place: Any
    ) -> Measurement:
        """`conditions_table` in pieces: call `step` until `done`; `table` can be shown from the start."""
        return Measurement(segmentation_node, self.describe_model(model), by_hand, **place)

    def prepare(
        self, segmentation_node, model: str = DEFAULT_MODEL, *, by_hand: ByHand | None = None
    ) -> Preparation:
        """Copy a segmentation and export it in pieces: call `step` until `done`, then give it to `start`.

        Raises `InputError` for what can be seen to be wrong at once.
        """
        _require_segmentation(segmentation_node)
        return Preparation(segmentation_node, self.describe_model(model).conditions, by_hand=by_hand)

    def start(
        self,
        segmentation_node,
        model: str = DEFAULT_MODEL,
        *,
        seed: int = 0,
        contrast_phase: str | None = None,
        attributes: Mapping[str, str] | None = None,
        name: str | None = None,
        by_hand: ByHand | None = None,
        reference=None,
        region=None,
        center_ras_mm: Point | None = None,
        samples: SampleSet | None = None,
        prepared: Preparation | None = None,
        **options: Any,
    ) -> Run:
        """Begin a synthesis and return at once; call the run's `poll` (from a timer) until it is `done`.

        contrast_phase  short for `attributes={"contrast_phase": ...}`
        name            of the new volume (default: from segmentation and seed; with `samples` the seed is added)
        by_hand         conditions whose segments the user chose, by ID; the others are matched automatically
        reference       volume node of the CT that the segmentation belongs to: the grid is centred on it if all
                        masks fit there; a canvas that the segmentation was drawn on is one by itself
        region          markups ROI node, or `center_ras_mm` a point: the grid is centred there
        samples         given to several runs: their volumes lie in one folder
        prepared        what `prepare` made of this segmentation; it may serve several runs
        options         sampler, steps, control_scale, device, precision, see `medlord.synthesis.synthesize`

        Raises `InputError` for what can be seen to be wrong before the engine starts; then nothing was changed.
        """
        _require_segmentation(segmentation_node)
        description = self.describe_model(model)
        chosen = dict(attributes or {})
        if contrast_phase is not None:
            chosen["contrast_phase"] = contrast_phase
        check_attributes(chosen, description.attributes)
        preparation = prepared or Preparation(segmentation_node, description.conditions, by_hand=by_hand)
        given = preparation.finish()
        options = {"model": model, "seed": seed, "attributes": chosen, **options}
        place = grid_center(
            segmentation_node, given.conditions, description, reference, region, center_ras_mm
        )
        if place is not None:
            options["center_ras_mm"] = place
        return Run(
            self.engine,
            segmentation_node,
            lambda take: self.engine.submit_synthesis(given.conditions, take, **options),
            _volume_name(segmentation_node, name, seed, samples),
            given,
            reference=reference,
            samples=samples,
        )

    def repeat(self, volume_node, *, name: str | None = None, device: str = "auto", **options: Any) -> Run:
        """Begin the recipe inside a synthetic volume once more: the same volume, next to the first.

        `options` may name the folder of a `model` that is not installed. Raises `InputError` when the volume
        carries no recipe.
        """
        if volume_node is None or volume_node.GetScene() is None:
            raise InputError("A synthesized volume in the scene is needed; choose one.")
        recipe = recipe_in(volume_node).to_dict()
        details = {
            key: volume_node.GetAttribute(f"MedLoRD.{key}")
            for key in _FIRST_RUN_DETAILS
            if volume_node.GetAttribute(f"MedLoRD.{key}") is not None
        }
        return Run(
            self.engine,
            volume_node,
            lambda take: self.engine.submit_repeat(recipe, take, device=device, **options),
            (name or "").strip() or f"{volume_node.GetName()} again",
            details=details,
        )

    def synthesize(
        self,
        segmentation_node,
        model: str = DEFAULT_MODEL,
        *,
        wait: bool = True,
        count: int = 1,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        **options: Any,
    ):
        """Make a synthetic CT of a segmentation and return its volume node; with `wait=False` return the `Run`.

        `count` above 1 makes as many, with the seeds from `seed` on, and returns a list. The other arguments are
        those of `start`. While it waits, Slicer's events are processed, so the application stays usable. What the
        user should know (segments not used, structures outside the field of view) is logged and kept in the volume's
        attribute `MedLoRD.warnings`. Neither holds the names of segments, which may be a patient's: `match_segments`
        and the warnings of a `Run` do. Raises a `MedlordError`; then nothing was changed by the run that failed.
        """
        if count < 1:
            raise InputError(f"The number of samples is {count}; at least 1 is needed.")
        if count > 1:
            return self._synthesize_seeds(segmentation_node, model, wait, count, progress, cancel, options)
        run = self.start(segmentation_node, model, **options)
        return _finished(run, progress, cancel) if wait else run

    def start_check(
        self,
        volume_node,
        *,
        segmenter: str = HU_RULES,
        reference: str = "",
        contrast_phase: str = "",
        masks=None,
        found=None,
        **options: Any,
    ) -> Check:
        """Begin a check of a CT and return at once; call its `poll` (from a timer) until it is `done`.

        segmenter       hu-rules, another one of the engine, or "labelmap" for a segmentation that exists
        reference       a shipped one, a .json file, "none", or "" for that of the model that made the CT
        contrast_phase  "native", "arterial", "venous"; "" for what the recipe in the CT says
        masks           segmentation node of what was drawn (default: the masks in the recipe of the CT, else none)
        found           segmentation node of what is in the CT, for "labelmap"
        options         of TotalSegmentator: weights (absolute path of a folder), download (True: you agree to size and
                        licence), license_key

        Raises `InputError` for what can be seen to be wrong before the engine starts; then nothing was changed.
        """
        if volume_node is None or volume_node.GetScene() is None:
            raise InputError("A CT in the scene is needed to check; choose a volume.")
        if reference.lower().endswith(".json"):
            reference = str(Path(reference).expanduser().absolute())
        adopt_recipe(volume_node)
        if segmenter != LABELMAP:
            find_segmenter(segmenter)
        wanted = structures_to_check(volume_node, segmenter)
        return Check(
            self.engine,
            volume_node,
            segmenter=segmenter,
            reference=reference,
            contrast_phase=contrast_phase,
            masks=None if masks is None else Preparation(masks, wanted),
            found=None if found is None else Preparation(found, wanted),
            **options,
        )

    def check(
        self,
        volume_node,
        *,
        wait: bool = True,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        **options: Any,
    ):
        """Check a CT and return its `CheckNodes` (verdict, rows, report, nodes); arguments as in `start_check`.

        With `wait=False` returns the `Check`. While it waits, Slicer's events are processed. Raises a `MedlordError`;
        then nothing was added to the scene.
        """
        check = self.start_check(volume_node, **options)
        return check.wait(progress, cancel, _event_processing()) if wait else check

    def _synthesize_seeds(self, segmentation_node, model, wait, count, progress, cancel, options) -> list:
        options = {"samples": SampleSet(), **options}
        first = options.pop("seed", 0)
        if options.get("prepared") is None:
            options["prepared"] = self.prepare(segmentation_node, model, by_hand=options.get("by_hand"))
        runs = [
            self.start(segmentation_node, model, seed=seed, **options) for seed in sibling_seeds(first, count)
        ]
        if not wait:
            return runs
        try:
            return [_finished(run, progress, cancel) for run in runs]
        finally:
            for run in runs:
                run.cancel()


def _require_segmentation(node) -> None:
    """Raise `InputError` unless `node` is a segmentation in a scene."""
    if node is None or not node.IsA("vtkMRMLSegmentationNode"):
        found = "nothing" if node is None else f"'{node.GetName()}'"
        raise InputError(f"A segmentation is needed, {found} was given; choose a segmentation node.")
    if node.GetScene() is None:
        raise InputError(f"The segmentation '{node.GetName()}' is in no scene; add it to one first.")


def _volume_name(segmentation_node, name: str | None, seed: int, samples: SampleSet | None) -> str:
    """The name of a run's volume; the first run of a sample set names its folder too."""
    given = (name or "").strip()
    base = given or f"{segmentation_node.GetName()} synthetic CT"
    if samples is not None and samples.name is None:
        samples.name = f"{base} samples"
    return given if given and samples is None else f"{base} seed {seed}"


def _finished(run: Run, progress: Progress | None, cancel: Cancel | None):
    """Wait for a run, log its warnings, return its volume."""
    volume_node = run.wait(progress, cancel, _event_processing())
    for sentence in run.warnings_for_record:
        logging.warning("MedLoRD: %s", sentence)
    return volume_node


def _event_processing() -> Callable[[], None] | None:
    """What keeps Slicer alive during a wait; nothing is needed on plain Python."""
    return slicer.app.processEvents if in_slicer_application() else None
