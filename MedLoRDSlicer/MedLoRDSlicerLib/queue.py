"""Runs that wait for their turn. What a run is made from is taken when it is added; the engine gets one at a time,
so a crash, a hang that has to be killed or a lack of memory never takes along those that wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from medlord.errors import CancelledError, EngineError, MedlordError

from .placement import grid_center
from .task import CANCELLED, DROPPED, FAILED, PREPARING
from .translation import _

if TYPE_CHECKING:
    from medlord.progress import ProgressEvent

    from .logic import SynthesisLogic
    from .run import Run

WAITING = "waiting"
_KEPT_ENTRIES = 50
# How long one `poll` may take masks; a step of that is at most some 20 ms.
_BUDGET_S = 0.015


class QueuedRun:
    """One run from the click to its end.

    title        what the list shows
    state        "preparing" (its masks are being taken), "waiting", then those of `Run`
    run          the `Run`, None before its turn
    error        why it failed or was not run
    preparation  the masks, shared by the seeds of one click; None for a recipe that brings its own
    cancelling   the user asked to stop it
    """

    def __init__(self, title: str, node, preparation, begin: Callable[[QueuedRun], Run]):
        self.title, self.preparation = title, preparation
        self.run: Run | None = None
        self.cancelling = False
        self._node, self._scene = node, node.GetScene()
        self._begin = begin
        self._ended, self._error = "", None

    @property
    def state(self) -> str:
        """See the class."""
        if self._ended:
            return self._ended
        if self.run is not None:
            return self.run.state
        return WAITING if self.preparation is None or self.preparation.done else PREPARING

    @property
    def done(self) -> bool:
        """True when nothing more will happen."""
        return bool(self._ended) or (self.run is not None and self.run.done)

    @property
    def error(self) -> MedlordError | None:
        """Why it ended without a result, None otherwise."""
        return self._error if self._ended or self.run is None else self.run.error

    @property
    def event(self) -> ProgressEvent | None:
        """The latest event of the engine."""
        return self.run.event if self.run is not None else None

    def begin(self) -> None:
        """Its turn has come: hand it to the engine."""
        try:
            self.run = self._begin(self)
        except MedlordError as error:
            self._end(FAILED, error)
        except Exception as error:
            self.fail(error)
            raise

    def fail(self, error: Exception) -> None:
        """End it after a fault of the program, so that it does not meet the same one at every `poll`."""
        self._end(FAILED, EngineError(_("It could not begin: {reason}").format(reason=repr(error))))

    def cancel(self) -> None:
        """Take it out of the queue, or ask the engine to stop it."""
        self.cancelling = True
        if self.run is not None:
            self.run.cancel()
        elif not self.done:
            self._end(CANCELLED, CancelledError(_("Cancelled before it began; nothing was added.")))

    def look(self) -> None:
        """Notice, while it waits, that its segmentation is gone or that its masks cannot be taken."""
        if self.done or self.run is not None:
            return
        if self._node.GetScene() is None or self._node.GetScene() is not self._scene:
            self._end(
                DROPPED,
                CancelledError(
                    _("The segmentation was deleted or its scene closed; the waiting run was dropped.")
                ),
            )
        elif self.preparation is not None and self.preparation.done and self.preparation.error is not None:
            self._end(FAILED, self.preparation.error)

    def _end(self, state: str, error: MedlordError) -> None:
        self._ended, self._error = state, error


class RunQueue:
    """Runs one after another, in the order in which they were added; `poll` moves them on, in the main thread.

    `on_ended` is called once with every entry that ended, however it did.
    """

    def __init__(self, logic: SynthesisLogic, on_ended: Callable[[QueuedRun], None]):
        self._logic, self._on_ended = logic, on_ended
        self.entries: list[QueuedRun] = []
        self._untold: list[QueuedRun] = []

    @property
    def current(self) -> QueuedRun | None:
        """The entry that the engine works on, or the first that waits."""
        return next((entry for entry in self.entries if not entry.done), None)

    @property
    def busy(self) -> bool:
        """True while `poll` has something to do: an entry is not done, or its end was not told."""
        return bool(self._untold)

    @property
    def open_entries(self) -> list[QueuedRun]:
        """Entries that are not done."""
        return [entry for entry in self.entries if not entry.done]

    def add(
        self, node, model: str, seeds: Sequence[int], *, place: dict[str, Any], options: dict[str, Any]
    ) -> list[QueuedRun]:
        """Queue one run per seed; they share their masks and one folder for the results.

        `place` are the arguments of `SynthesisLogic.start` that say which segment is what and where the CT goes,
        `options` the other ones. Raises `InputError` for what can be seen to be wrong now; then nothing was queued.
        """
        from .seeds import SampleSet

        if place["region"] is not None:
            # It may be moved while the run waits.
            center = grid_center(node, None, None, None, place["region"], place["center_ras_mm"])
            place = {**place, "region": None, "center_ras_mm": center}
        preparation = self._logic.prepare(node, model, by_hand=place["by_hand"])
        samples = SampleSet() if len(seeds) > 1 else None

        def begin(entry: QueuedRun, seed: int) -> Run:
            return self._logic.start(
                node, model, seed=seed, prepared=entry.preparation, samples=samples, **place, **options
            )

        added = [
            QueuedRun(
                _("{name}, seed {seed}").format(name=node.GetName(), seed=seed),
                node,
                preparation,
                lambda entry, seed=seed: begin(entry, seed),
            )
            for seed in seeds
        ]
        self._append(added)
        return added

    def add_repeat(self, volume_node, device: str) -> QueuedRun:
        """Queue the recipe inside a synthetic volume once more."""
        entry = QueuedRun(
            _("{name}, again").format(name=volume_node.GetName()),
            volume_node,
            None,
            lambda _entry: self._logic.repeat(volume_node, device=device),
        )
        self._append([entry])
        return entry

    def poll(self) -> None:
        """One small piece of work: take masks, begin what has its turn, take what the engine sent."""
        for entry in self.open_entries:
            entry.look()
        try:
            self._move_on()
        finally:
            self._tell_ended()

    def cancel(self) -> None:
        """Stop the present entry; the next one follows."""
        if self.current is not None:
            self.current.cancel()

    def cancel_all(self) -> None:
        """Stop the present entry and drop all that wait."""
        for entry in reversed(self.open_entries):
            entry.cancel()

    def _move_on(self) -> None:
        current = self.current
        if current is not None:
            if current.state == WAITING:
                current.begin()
            elif current.run is not None:
                current.run.poll()
        preparing = next((entry for entry in self.entries if entry.state == PREPARING), None)
        if preparing is not None:
            self._prepare(preparing)

    def _prepare(self, entry: QueuedRun) -> None:
        """Some masks; a fault of the program ends all that need them."""
        end = time.monotonic() + _BUDGET_S
        try:
            entry.preparation.step()
            while not entry.preparation.done and time.monotonic() < end:
                entry.preparation.step()
        except Exception as error:
            for other in self.open_entries:
                if other.preparation is entry.preparation:
                    other.fail(error)
            raise

    def _append(self, added: list[QueuedRun]) -> None:
        done = [entry for entry in self.entries if entry.done]
        forgotten = done[: max(0, len(self.entries) + len(added) - _KEPT_ENTRIES)]
        self.entries = [entry for entry in self.entries if entry not in forgotten] + added
        self._untold += added

    def _tell_ended(self) -> None:
        for entry in [entry for entry in self._untold if entry.done]:
            self._untold.remove(entry)
            self._on_ended(entry)
