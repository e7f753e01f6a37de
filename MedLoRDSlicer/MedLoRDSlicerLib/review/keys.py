"""The keyboard of the review mode: shortcuts of the window that exist only while a reader reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import qt

# Keys that do the same again while they are held.
REPEATING = ("Up", "Down", "PgUp", "PgDown")


class ReviewKeys:
    """Shortcuts on `window`: key as in "N" or "Shift+Tab" -> what it does. `leave` takes them away.

    A line of text that has the focus gets its letters and digits before any shortcut.
    """

    def __init__(self, window, actions: Mapping[str, Callable[[], None]]):
        self._shortcuts = []
        for key, action in actions.items():
            shortcut = qt.QShortcut(window)
            shortcut.setKey(qt.QKeySequence(key))
            shortcut.autoRepeat = key in REPEATING
            # Without arguments, whatever the signal brings.
            call = self._without_arguments(action)
            shortcut.connect("activated()", call)
            # Another shortcut of the window has the same key: this one is meant while a reader reads.
            shortcut.connect("activatedAmbiguously()", call)
            self._shortcuts.append(shortcut)

    def leave(self) -> None:
        """Give the keys back."""
        for shortcut in self._shortcuts:
            shortcut.enabled = False
            shortcut.deleteLater()
        self._shortcuts = []

    @staticmethod
    def _without_arguments(action: Callable[[], None]) -> Callable:
        return lambda *_arguments: action()
