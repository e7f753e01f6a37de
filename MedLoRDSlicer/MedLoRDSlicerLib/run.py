"""One synthesis on its way: from the conditions of a segmentation to nodes in the scene it came from."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from medlord.errors import CancelledError, EngineError, MedlordError
from medlord.progress import Cancel, Progress, ProgressEvent

from .conditions_table import by_hand_to_text
from .engine import Engine
from .results import Delivery, Origin, RunNodes, SampleSet, add_run
from .segments import SegmentationInput

if TYPE_CHECKING:
    from medlord.client import EngineResult
    from medlord.protocol import Message

RUNNING, FINISHED, FAILED, CANCELLED, DROPPED = "running", "finished", "failed", "cancelled", "dropped"
_WAIT_S = 0.02
# How long one poll may work on a result.
_PIECE_S = 0.02


class Run:
    """A synthesis that the engine works on; `poll` moves it on, in the main thread.

    state     "running"; "finished"; "failed" (see `error`); "cancelled"; "dropped": the node it came from was deleted
              or its scene closed in the meantime, so the result was not put anywhere
    event     the latest `ProgressEvent`, None before the first
    nodes     what was added to the scene, once finished; `result` is the engine's, with timings and peak memory
    warnings  sentences for the user, about segments that were not used and about the result; they name segments as
              the user did, so they stay in memory: `warnings_for_record` are those for logs and files

    `submit` sends the request and returns its job; it is given what takes the engine's messages. `node` is what the
    run came from: its scene gets the result, next to it. `given` is None for a recipe that is run again; `details`
    are then those of the first run.
    """

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
        self.state = RUNNING
        self.event: ProgressEvent | None = None
        self.error: MedlordError | None = None
        self.nodes: RunNodes | None = None
        self.result: EngineResult | None = None
        self.input = given
        self.warnings = given.warnings() if given else []
        self.warnings_for_record = given.warnings_for_record() if given else []
        self._engine, self._node, self._name = engine, node, name
        self._given_details, self._samples = dict(details or {}), samples
        self._reference = reference
        self._scene = node.GetScene()
        self._delivery: Delivery | None = None
        self._job = submit(self._take)

    @property
    def done(self) -> bool:
        """True when nothing more will happen."""
        return self.state != RUNNING

    @property
    def volume_node(self):
        """The synthesized CT, None unless the run is finished."""
        return self.nodes.volume if self.nodes else None

    def poll(self) -> None:
        """Take what the engine sent, or make the next piece of a result that came; short enough for a main thread.

        A run whose segmentation is gone is cancelled and dropped.
        """
        if not self.done and self._input_is_gone():
            self._drop()
        if self._delivery is not None and not self.done:
            self._deliver_piece()
        self._engine.poll()

    def cancel(self) -> None:
        """Ask the engine to stop; the state becomes "cancelled" when it has, and nothing is added to the scene."""
        if self._delivery is not None and not self.done:
            self._end(CANCELLED, CancelledError("The run was cancelled; nothing was added to the scene."))
        elif not self.done:
            self._engine.cancel(self._job)

    def wait(
        self,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        idle: Callable[[], None] | None = None,
    ):
        """Wait for the end and return the CT node; `idle` is called about 50 times a second.

        Raises the run's error, or `CancelledError` when it was cancelled or dropped. An exception from a callback
        cancels the run and goes on to the caller.
        """
        told = None
        try:
            while not self.done:
                self.poll()
                if progress is not None and self.event is not None and self.event is not told:
                    told = self.event
                    progress(told)
                if cancel is not None and cancel():
                    self.cancel()
                if idle is not None:
                    idle()
                if not self.done and self._delivery is None:
                    time.sleep(_WAIT_S)
        finally:
            self.cancel()
        if self.error is not None:
            raise self.error
        return self.volume_node

    def _input_is_gone(self) -> bool:
        """The node left its scene: deleted, or the scene was closed (another scene's node may have its ID now)."""
        return self._node.GetScene() is None or self._node.GetScene() is not self._scene

    def _drop(self) -> None:
        self._engine.cancel(self._job)
        self._end(
            DROPPED,
            CancelledError(
                "The segmentation was deleted or its scene closed during the run; the result was dropped. "
                "Run again if needed."
            ),
        )

    def _end(self, state: str, error: MedlordError | None) -> None:
        self.state, self.error, self._delivery = state, error, None

    def _take(self, message: Message) -> None:
        """A message of the engine for this run."""
        if self.done or self._delivery is not None:
            return
        if message.type == "progress":
            self.event = message.value
        elif message.type == "error":
            cancelled = isinstance(message.value, CancelledError)
            self._end(CANCELLED if cancelled else FAILED, message.value)
        elif self._input_is_gone():
            self._drop()
        else:
            self.result = message.value
            self.warnings += self.result.warnings
            self.warnings_for_record += self.result.warnings
            self._delivery = Delivery(self.result.volume, self.result.conditions)

    def _deliver_piece(self) -> None:
        """A few structures of the result; after the last one everything enters the scene at once."""
        enough = time.perf_counter() + _PIECE_S
        try:
            if self._delivery.done:
                self.nodes = self._add_to_scene()
            while self.nodes is None and not self._delivery.done and time.perf_counter() < enough:
                self._delivery.step()
        except MedlordError as error:
            self._end(FAILED, error)
        except Exception as error:
            self._end(
                FAILED,
                EngineError(
                    f"The result could not be put into the scene: {error!r}. Report it with this text."
                ),
            )
            raise
        else:
            if self.nodes is not None:
                self._end(FINISHED, None)

    def _add_to_scene(self) -> RunNodes:
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
            pieces=self._delivery,
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
