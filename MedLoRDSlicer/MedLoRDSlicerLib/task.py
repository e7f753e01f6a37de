"""Work that the engine does for a node of the scene: what a synthesis and a check have in common."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from medlord.errors import CancelledError, EngineError, MedlordError
from medlord.progress import Cancel, Progress, ProgressEvent

from .engine import Engine

if TYPE_CHECKING:
    from medlord.protocol import Message

PREPARING = "preparing"
RUNNING, FINISHED, FAILED, CANCELLED, DROPPED = "running", "finished", "failed", "cancelled", "dropped"
_WAIT_S = 0.02
# How long one poll may work on a result.
_PIECE_S = 0.02


class Delivery(Protocol):
    """A result on its way into the scene: call `step` until `done`."""

    @property
    def done(self) -> bool:
        """True when all pieces are made."""
        ...

    def step(self) -> None:
        """Make one more piece."""
        ...


class EngineTask:
    """What the engine works on; `poll` moves it on, in the main thread.

    state     "running"; "finished"; "failed" (see `error`); "cancelled"; "dropped": the node it came from was deleted
              or its scene closed in the meantime, so the result was not put anywhere
    event     the latest `ProgressEvent`, None before the first
    nodes     what was added to the scene, once finished; `result` is the engine's

    A subclass sends its request and sets `_job`, with `_take` as what takes the messages, and makes the two methods at
    the end. `source` names in words what the task came from.
    """

    source = "node"
    subject = "run"

    def __init__(self, engine: Engine, node):
        self.state = RUNNING
        self.event: ProgressEvent | None = None
        self._untold: list[ProgressEvent] | None = None
        self.error: MedlordError | None = None
        self.nodes = None
        self.result = None
        self._engine, self._node = engine, node
        self._scene = node.GetScene()
        self._job: str | None = None
        self._delivery: Delivery | None = None

    @property
    def done(self) -> bool:
        """True when nothing more will happen."""
        return self.state not in (PREPARING, RUNNING)

    def poll(self) -> None:
        """Take what the engine sent, or make the next piece of a result that came; short enough for a main thread.

        A task whose node is gone is cancelled and dropped.
        """
        if not self.done and self._input_is_gone():
            self._drop()
        if self._delivery is not None and not self.done:
            self._deliver_piece()
        self._engine.poll()

    def cancel(self) -> None:
        """Ask the engine to stop; the state becomes "cancelled" when it has, and nothing is added to the scene."""
        if self.done:
            return
        if self._job is None or self._delivery is not None:
            self._end(
                CANCELLED,
                CancelledError(f"The {self.subject} was cancelled; nothing was added to the scene."),
            )
        else:
            self._engine.cancel(self._job)

    def wait(
        self,
        progress: Progress | None = None,
        cancel: Cancel | None = None,
        idle: Callable[[], None] | None = None,
    ):
        """Wait for the end and return `outcome`; `progress` gets every event, `idle` is called about 50 times a second.

        Raises the task's error, or `CancelledError` when it was cancelled or dropped. An exception from a callback
        cancels the task and goes on to the caller.
        """
        if progress is not None:
            self._untold = [] if self.event is None else [self.event]
        try:
            while not self.done:
                self.poll()
                while self._untold:
                    progress(self._untold.pop(0))
                if cancel is not None and cancel():
                    self.cancel()
                if idle is not None:
                    idle()
                if self.state == RUNNING and self._delivery is None:
                    time.sleep(_WAIT_S)
        finally:
            self._untold = None
            self.cancel()
        if self.error is not None:
            raise self.error
        return self.outcome

    @property
    def outcome(self):
        """What `wait` returns."""
        return self.nodes

    def _input_is_gone(self) -> bool:
        """The node left its scene: deleted, or the scene was closed (another scene's node may have its ID now)."""
        return self._node.GetScene() is None or self._node.GetScene() is not self._scene

    def _drop(self) -> None:
        if self._job is not None:
            self._engine.cancel(self._job)
        words = (
            f"The {self.source} was deleted or its scene closed during the {self.subject}; the result was dropped. "
            "Run again if needed."
        )
        self._end(DROPPED, CancelledError(words))

    def _end(self, state: str, error: MedlordError | None) -> None:
        self.state, self.error, self._delivery = state, error, None

    def _take(self, message: Message) -> None:
        """A message of the engine for this task."""
        if self.done or self._delivery is not None:
            return
        if message.type == "progress":
            self.event = message.value
            # Several may come between two polls: who waits gets them all, who only polls sees the latest.
            if self._untold is not None:
                self._untold.append(message.value)
        elif message.type == "error":
            cancelled = isinstance(message.value, CancelledError)
            self._end(CANCELLED if cancelled else FAILED, message.value)
        elif self._input_is_gone():
            self._drop()
        else:
            self.result = message.value
            self._delivery = self._begin_delivery(message.value)

    def _deliver_piece(self) -> None:
        """A few pieces of the result; after the last one everything enters the scene at once."""
        enough = time.perf_counter() + _PIECE_S
        try:
            if self._delivery.done:
                self.nodes = self._add_to_scene(self._delivery)
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

    def _begin_delivery(self, result: Any) -> Delivery:
        """The pieces of a result that came."""
        raise NotImplementedError

    def _add_to_scene(self, delivery: Delivery):
        """Put a finished delivery into the scene and return its nodes."""
        raise NotImplementedError
