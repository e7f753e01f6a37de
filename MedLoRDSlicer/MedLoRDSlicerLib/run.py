"""One synthesis on its way: from the conditions of a segmentation to nodes in the scene it came from."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from medlord.errors import CancelledError, EngineError, MedlordError
from medlord.progress import Cancel, Progress, ProgressEvent

from .engine import Engine
from .results import RunNodes, add_run
from .segments import SegmentationInput

if TYPE_CHECKING:
    from medlord.client import EngineResult
    from medlord.protocol import Message

RUNNING, FINISHED, FAILED, CANCELLED, DROPPED = "running", "finished", "failed", "cancelled", "dropped"
_WAIT_S = 0.02


class Run:
    """A synthesis that the engine works on; `poll` moves it on, in the main thread.

    state     "running"; "finished"; "failed" (see `error`); "cancelled"; "dropped": the segmentation was deleted or
              its scene closed in the meantime, so the result was not put anywhere
    event     the latest `ProgressEvent`, None before the first
    nodes     what was added to the scene, once finished; `result` is the engine's, with timings and peak memory
    warnings  sentences for the user, about segments that were not used and about the result; they name segments as
              the user did, so they stay in memory: `warnings_for_record` are those for logs and files
    """

    def __init__(
        self, engine: Engine, segmentation_node, given: SegmentationInput, name: str, options: dict[str, Any]
    ):
        self.state = RUNNING
        self.event: ProgressEvent | None = None
        self.error: MedlordError | None = None
        self.nodes: RunNodes | None = None
        self.result: EngineResult | None = None
        self.input = given
        self.warnings = given.warnings()
        self.warnings_for_record = given.warnings_for_record()
        self._engine, self._node, self._name = engine, segmentation_node, name
        self._scene = segmentation_node.GetScene()
        self._job = engine.submit_synthesis(given.conditions, self._take, **options)

    @property
    def done(self) -> bool:
        """True when nothing more will happen."""
        return self.state != RUNNING

    @property
    def volume_node(self):
        """The synthesized CT, None unless the run is finished."""
        return self.nodes.volume if self.nodes else None

    def poll(self) -> None:
        """Take what the engine sent. A run whose segmentation is gone is cancelled and dropped."""
        if not self.done and self._input_is_gone():
            self._drop()
        self._engine.poll()

    def cancel(self) -> None:
        """Ask the engine to stop; the state becomes "cancelled" when it has, and nothing is added to the scene."""
        if not self.done:
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
                if not self.done:
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
        self.state, self.error = state, error

    def _take(self, message: Message) -> None:
        """A message of the engine for this run."""
        if self.done:
            return
        if message.type == "progress":
            self.event = message.value
        elif message.type == "error":
            cancelled = isinstance(message.value, CancelledError)
            self._end(CANCELLED if cancelled else FAILED, message.value)
        elif self._input_is_gone():
            self._drop()
        else:
            self._deliver(message.value)

    def _deliver(self, result: EngineResult) -> None:
        self.result = result
        self.warnings += result.warnings
        self.warnings_for_record += result.warnings
        try:
            self.nodes = add_run(
                self._scene,
                result.volume,
                result.conditions,
                self._name,
                self._details(result),
                beside=self._node,
            )
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
            self._end(FINISHED, None)

    def _details(self, result: EngineResult) -> dict[str, str]:
        """What the CT node says of itself beside the recipe; NRRD files carry it, so it holds no name a user typed."""
        recipe = result.recipe
        return {
            "model": recipe.model,
            "seed": str(recipe.seed),
            "attributes": json.dumps(recipe.attributes),
            "segments": json.dumps(self.input.matches_for_record()),
            "unmatched_segments": str(sum(match.structure is None for match in self.input.matches)),
            "warnings": json.dumps(self.warnings_for_record),
        }
