"""What of Slicer's window could tell a reader where a case comes from: hidden while one reads, restored afterwards.

The File menu lists recent files, the toolbars and menus open other modules, the data probe and the corner annotations
name volumes, the Python console shows what was typed before, and the window's title may name a file.
"""

from __future__ import annotations

import slicer

_KINDS = ("QMenuBar", "QToolBar", "QStatusBar")
_NAMES = ("PythonConsoleDockWidget", "ErrorLogDockWidget", "DataProbeCollapsibleWidget")


class Surroundings:
    """The parts of a main window around views and panel. `window` None: there is none, nothing is done."""

    def __init__(self, window):
        self._window = window
        self._hidden: list = []
        self._title: str | None = None
        self._annotations: bool | None = None

    def hide(self) -> None:
        """Hide what is visible of them."""
        if self._window is None:
            return
        self._title = self._window.windowTitle
        found = [widget for kind in _KINDS for widget in self._window.findChildren(kind)]
        found += [widget for name in _NAMES for widget in self._window.findChildren("QWidget", name)]
        self._hidden = [widget for widget in found if widget.visible]
        for widget in self._hidden:
            widget.visible = False
        annotations = _annotations()
        if annotations is not None:
            self._annotations = annotations.sliceViewAnnotationsEnabled
            self._set_annotations(False)

    def tell(self, title: str) -> None:
        """Call the window by the case that is read."""
        if self._window is not None:
            self._window.windowTitle = title

    def restore(self) -> None:
        """Show again what `hide` hid; safe when it was never called."""
        if self._title is not None:
            self._window.windowTitle = self._title
        for widget in self._hidden:
            widget.visible = True
        if self._annotations is not None:
            self._set_annotations(self._annotations)
        self._hidden, self._title, self._annotations = [], None, None

    @staticmethod
    def _set_annotations(enabled: bool) -> None:
        annotations = _annotations()
        annotations.sliceViewAnnotationsEnabled = enabled
        annotations.updateSliceViewFromGUI()


def _annotations():
    """Slicer's corner annotations, None in a program without them."""
    probe = getattr(slicer.modules, "DataProbeInstance", None)
    return probe.infoWidget.sliceAnnotations if probe is not None else None
