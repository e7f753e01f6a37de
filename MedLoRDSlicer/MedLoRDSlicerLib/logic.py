"""From a segmentation in the scene to a synthetic CT in the same place: the module's logic, without any widget."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import slicer

from medlord.bundles.bundle import find_model
from medlord.bundles.description import read_description
from medlord.condition_channels import check_attributes
from medlord.errors import InputError
from medlord.progress import Cancel, Progress

from .engine import Engine, shared_engine
from .headless import in_slicer_application
from .run import Run
from .segments import SegmentMatch, conditions_from_segmentation, match_segments

if TYPE_CHECKING:
    from medlord.bundles.description import ModelDescription

DEFAULT_MODEL = "thorax-phantom"


class SynthesisLogic:
    """Synthesis for the panel and for Python. `engine` replaces the worker that the whole program shares."""

    def __init__(self, engine: Engine | None = None):
        self.engine = engine or shared_engine()

    def describe_model(self, model: str = DEFAULT_MODEL) -> ModelDescription:
        """What a model takes and makes. Raises `InputError` for an unknown model."""
        return read_description(find_model(model))

    def match_segments(self, segmentation_node, model: str = DEFAULT_MODEL) -> list[SegmentMatch]:
        """What every segment of a node would be taken for. Raises `InputError` for an unknown model."""
        return match_segments(segmentation_node, self.describe_model(model).conditions)

    def start(
        self,
        segmentation_node,
        model: str = DEFAULT_MODEL,
        *,
        seed: int = 0,
        contrast_phase: str | None = None,
        attributes: Mapping[str, str] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> Run:
        """Begin a synthesis and return at once; call the run's `poll` (from a timer) until it is `done`.

        `contrast_phase` is short for `attributes={"contrast_phase": ...}`; `name` is that of the new volume (default:
        from segmentation and seed). `options`: sampler, steps, control_scale, device, precision, center_ras_mm, see
        `medlord.synthesis.synthesize`. Raises `InputError` for what can be seen to be wrong before the engine starts;
        then nothing was changed.
        """
        if segmentation_node is None or not segmentation_node.IsA("vtkMRMLSegmentationNode"):
            found = "nothing" if segmentation_node is None else f"'{segmentation_node.GetName()}'"
            raise InputError(f"A segmentation is needed, {found} was given; choose a segmentation node.")
        if segmentation_node.GetScene() is None:
            raise InputError(
                f"The segmentation '{segmentation_node.GetName()}' is in no scene; add it to one first."
            )
        description = self.describe_model(model)
        chosen = dict(attributes or {})
        if contrast_phase is not None:
            chosen["contrast_phase"] = contrast_phase
        check_attributes(chosen, description.attributes)
        given = conditions_from_segmentation(segmentation_node, description.conditions)
        name = (name or "").strip() or f"{segmentation_node.GetName()} synthetic CT seed {seed}"
        return Run(
            self.engine,
            segmentation_node,
            given,
            name,
            {"model": model, "seed": seed, "attributes": chosen, **options},
        )

    def synthesize(
        self,
        segmentation_node,
        model: str = DEFAULT_MODEL,
        *,
        wait: bool = True,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        **options: Any,
    ):
        """Make a synthetic CT of a segmentation and return its volume node; with `wait=False` return the `Run`.

        The other arguments are those of `start`. While it waits, Slicer's events are processed, so the application
        stays usable. What the user should know (segments not used, structures outside the field of view) is logged
        and kept in the volume's attribute `MedLoRD.warnings`. Neither holds the names of segments, which may be a
        patient's: `match_segments` and the warnings of a `Run` do. Raises a `MedlordError`; then nothing was changed.
        """
        run = self.start(segmentation_node, model, **options)
        if not wait:
            return run
        volume_node = run.wait(progress, cancel, _event_processing())
        for sentence in run.warnings_for_record:
            logging.warning("MedLoRD: %s", sentence)
        return volume_node


def _event_processing() -> Callable[[], None] | None:
    """What keeps Slicer alive during a wait; nothing is needed on plain Python."""
    return slicer.app.processEvents if in_slicer_application() else None
