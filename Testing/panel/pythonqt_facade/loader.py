"""`qt.QUiLoader`: reads a .ui file into facade widgets and makes its connections, as Slicer's does."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from PySide6 import QtCore, QtWidgets
from PySide6.QtUiTools import QUiLoader

from . import slicer_widgets
from .objects import facade_class


class UiLoader(QUiLoader):
    """Makes facade classes for all widgets."""

    def createWidget(
        self, class_name: str, parent: QtWidgets.QWidget | None = None, name: str = ""
    ) -> QtWidgets.QWidget:
        """A widget of the facade, kept alive by its parent."""
        widget = (getattr(slicer_widgets, class_name, None) or facade_class(class_name))(parent)
        widget.setObjectName(name)
        return widget

    def load(self, file: QtCore.QFile) -> QtWidgets.QWidget:
        """The widgets of the file; signals of Python classes are connected here, since Qt does not know them."""
        tree = ElementTree.fromstring(bytes(file.readAll().data()))
        connections = tree.find("connections")
        if connections is not None:
            tree.remove(connections)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(tree, encoding="utf-8"))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        widget = super().load(buffer)
        for connection in connections if connections is not None else ():
            sender, signal, receiver, slot = (
                connection.find(part).text for part in ("sender", "signal", "receiver", "slot")
            )
            self._find(widget, sender).connect(
                signal, getattr(self._find(widget, receiver), slot.split("(")[0])
            )
        return widget

    @staticmethod
    def _find(widget: QtWidgets.QWidget, name: str) -> QtWidgets.QWidget:
        found = widget if widget.name == name else widget.findChild(QtWidgets.QWidget, name)
        if found is None:
            raise RuntimeError(f"The .ui file connects '{name}', which it does not have.")
        return found
