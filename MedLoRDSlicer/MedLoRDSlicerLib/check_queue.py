"""Checks that wait for their turn: the engine gets one at a time, so that one that fails takes along no other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from medlord.errors import CancelledError, MedlordError

from .translation import _

if TYPE_CHECKING:
    from .checks import Check

Ended = Callable[[object, "Check | None", "MedlordError | None"], None]


class CheckQueue:
    """Begins one check after the other; `poll` moves them on, in the main thread.

    `on_ended` is called once for every volume: (volume node, its check or None when none could begin, error or None).
    """

    def __init__(self, on_ended: Ended):
        self._on_ended = on_ended
        self._waiting: deque[tuple[object, Callable[[], Check]]] = deque()
        self.current: Check | None = None

    @property
    def busy(self) -> bool:
        """True while a check runs or waits."""
        return self.current is not None or bool(self._waiting)

    def add(self, volume_node, begin: Callable[[], Check]) -> None:
        """Check a volume when it has its turn; `begin` makes the check then."""
        self._waiting.append((volume_node, begin))

    def poll(self) -> None:
        """One small piece of work."""
        if self.current is None and self._waiting:
            self._begin_next()
        if self.current is None:
            return
        self.current.poll()
        if self.current.done:
            check, self.current = self.current, None
            self._on_ended(check.volume_node, check, check.error)

    def cancel(self) -> None:
        """Stop the check that runs and drop all that wait."""
        dropped = [volume_node for volume_node, _begin in self._waiting]
        self._waiting.clear()
        if self.current is not None:
            self.current.cancel()
        for volume_node in dropped:
            words = _("Cancelled before the check began; nothing was added.")
            self._on_ended(volume_node, None, CancelledError(words))

    def _begin_next(self) -> None:
        volume_node, begin = self._waiting.popleft()
        if volume_node.GetScene() is None:
            words = _("The volume was deleted or its scene closed; it was not checked.")
            self._on_ended(volume_node, None, CancelledError(words))
            return
        try:
            self.current = begin()
        except MedlordError as error:
            self._on_ended(volume_node, None, error)
