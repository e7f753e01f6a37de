"""One synthesis on its way: from the conditions of a segmentation to nodes in the scene it came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from .conditions_table import by_hand_to_text
from .engine import Engine
from .results import Delivery, Origin, RunNodes, SampleSet, add_run
from .segments import SegmentationInput
from .task import CANCELLED, DROPPED, FAILED, FINISHED, RUNNING, EngineTask

if TYPE_CHECKING:
    from medlord.client import EngineResult
    from medlord.protocol import Message

__all__ = ["CANCELLED", "DROPPED", "FAILED", "FINISHED", "RUNNING", "Run"]


class Run(EngineTask):
    """A synthesis that the engine works on; see `EngineTask` for its states.

    nodes     what was added to the scene, once finished; `result` is the engine's, with timings and peak memory
    warnings  sentences for the user, about segments that were not used and about the result; they name segments as
              the user did, so they stay in memory: `warnings_for_record` are those for logs and files

    `submit` sends the request and returns its job; it is given what takes the engine's messages. `node` is what the
    run came from: its scene gets the result, next to it. `given` is None for a recipe that is run again; `details`
    are then those of the first run.
    """

    source = "segmentation"

    def __init__(
        self,
        engine: Engine,
        node,
        submit: Callable[[Callable[[Message], None]], str],
        name: str,
        given: SegmentationInput | None = None,
        *,
        details: dict[str, str] | None = None,
        reference=None,
        samples: SampleSet | None = None,
    ):
        super().__init__(engine, node)
        self.nodes: RunNodes | None
        self.result: EngineResult | None
        self.input = given
        self.warnings = given.warnings() if given else []
        self.warnings_for_record = given.warnings_for_record() if given else []
        self._name = name
        self._given_details, self._samples = dict(details or {}), samples
        self._reference = reference
        self._job = submit(self._take)

    @property
    def volume_node(self):
        """The synthesized CT, None unless the run is finished."""
        return self.nodes.volume if self.nodes else None

    @property
    def outcome(self):
        """The CT node."""
        return self.volume_node

    def _begin_delivery(self, result: EngineResult) -> Delivery:
        self.warnings += result.warnings
        self.warnings_for_record += result.warnings
        return Delivery(result.volume, result.conditions)

    def _add_to_scene(self, delivery: Delivery) -> RunNodes:
        given, reference = self.input, self._reference
        origin = Origin(
            segmentation=self._node if given else None,
            reference=reference if reference is not None and reference.GetScene() is self._scene else None,
            drawn_ml=given.volumes_ml if given else None,
            by_hand=by_hand_to_text(given.by_hand) if given else "",
        )
        return add_run(
            self._scene,
            self.result.volume,
            self.result.conditions,
            self._name,
            self._details(self.result),
            beside=self._node,
            origin=origin,
            samples=self._samples,
            pieces=delivery,
        )

    def _details(self, result: EngineResult) -> dict[str, str]:
        """What the CT node says of itself beside the recipe; NRRD files carry it, so it holds no name a user typed."""
        recipe = result.recipe
        details = {
            **self._given_details,
            "model": recipe.model,
            "seed": str(recipe.seed),
            "attributes": json.dumps(recipe.attributes),
            "warnings": json.dumps(self.warnings_for_record),
            "timings_s": json.dumps({name: round(value, 3) for name, value in result.timings_s.items()}),
            "peak_memory_bytes": str(result.peak_memory_bytes),
        }
        if result.energy_kwh is not None:
            details["energy_kwh"] = f"{result.energy_kwh:.6f}"
        if self.input is not None:
            details["segments"] = json.dumps(self.input.matches_for_record())
            unmatched = [
                match for match in self.input.matches if match.structure is None and not match.conditions
            ]
            details["unmatched_segments"] = str(len(unmatched))
        return details
