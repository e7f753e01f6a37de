"""What tests of the panel share: opening one, waiting in the event loop, pictures in light and dark, layout faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# The machine may be busy with other tests; what is waited for comes at once on an idle one.
PATIENCE_S = 900.0
PANEL_WIDTH = 460


@dataclass
class OpenedPanel:
    """A panel with its widgets; `modules` are those that it asked Slicer to switch to."""

    panel: object
    ui: object
    widget: object
    modules: list[str]

    def choose(self, node) -> None:
        """Select a segmentation and wait until its structures were measured."""
        self.ui.segmentationSelector.setCurrentNode(node)
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is being measured."""
        process_events()
        wait_until(lambda: not self.panel.conditions.measuring)

    def finish(self) -> None:
        """Wait until the queue is empty."""
        wait_until(lambda: not self.panel.queue.busy)

    @property
    def last(self):
        """The newest entry of the queue."""
        return self.panel.queue.entries[-1]


class DictionarySettings:
    """`qt.QSettings` on a dictionary."""

    def __init__(self, values: dict[str, str]):
        self._values = values

    def value(self, key: str, default: str = "") -> str:
        """What was set, or the default."""
        return self._values.get(key, default)

    def setValue(self, key: str, value: str) -> None:
        """Keep a value."""
        self._values[key] = value


def parameter_node(scene, model: str):
    """The first parameter node of the module in the scene, made for `model` when there is none."""
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLScriptedModuleNode")
        if node.GetAttribute("ModuleName") == "MedLoRDSlicer":
            return node
    node = scene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
    node.UnRegister(None)
    node.SetAttribute("ModuleName", "MedLoRDSlicer")
    node.SetName(scene.GenerateUniqueName("Synthesis"))
    node.SetParameter("model", model)
    node.SetParameter("steps", "2")
    return scene.AddNode(node)


def process_events() -> None:
    """Let Qt do what is due, deletions included."""
    from MedLoRDSlicerLib.headless import in_slicer_application

    if in_slicer_application():
        import slicer

        slicer.app.processEvents()
    else:
        from PySide6.QtCore import QCoreApplication, QEvent

        QCoreApplication.processEvents()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)


def wait_until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
    """Process events until something happens; fails when it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        process_events()
        time.sleep(0.002)


def pictures(opened: OpenedPanel, folder: Path, name: str) -> None:
    """Save the panel as NAME-light.png and NAME-dark.png; fails when a text is cut or widgets lie on each other.

    In Slicer, which has a theme of its own, one picture.
    """
    from MedLoRDSlicerLib.headless import in_slicer_application

    if in_slicer_application():
        assert opened.widget.grab().save(str(folder / f"{name}.png"))
        return
    from PySide6 import QtWidgets

    before = QtWidgets.QApplication.palette()
    try:
        for theme, palette in (("light", _palette(False)), ("dark", _palette(True))):
            QtWidgets.QApplication.setPalette(palette)
            _fit(opened.widget)
            pixmap = opened.widget.grab()
            assert pixmap.save(str(folder / f"{name}-{theme}.png"))
            image = pixmap.toImage()
            pixels = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), -1, 4)
            assert pixels[..., :3].std() > 0
            assert (pixels[..., :3].mean() < 128) == (theme == "dark")
            faults = list(layout_faults(opened.widget))
            assert not faults, faults
    finally:
        QtWidgets.QApplication.setPalette(before)


def layout_faults(widget) -> Iterator[str]:
    """Texts that do not fit into their widget, and widgets that lie on another one, in words."""
    from PySide6 import QtCore, QtWidgets

    children = [child for child in widget.findChildren(QtWidgets.QWidget) if child.isVisibleTo(widget)]
    for child in children:
        kind, name = type(child).__name__, QtCore.QObject.objectName(child)
        width, height = QtWidgets.QWidget.width(child), QtWidgets.QWidget.height(child)
        metrics = QtWidgets.QWidget.fontMetrics(child)
        if isinstance(child, QtWidgets.QLabel):
            text = QtWidgets.QLabel.text(child)
            if QtWidgets.QLabel.wordWrap(child) and height < child.heightForWidth(width):
                yield f"the text of {name} is cut: {text}"
            if not QtWidgets.QLabel.wordWrap(child) and metrics.horizontalAdvance(text) > width:
                yield f"the text of {name} is too wide: {text}"
        if isinstance(child, QtWidgets.QPushButton):
            text = QtWidgets.QAbstractButton.text(child)
            if metrics.horizontalAdvance(text) > width or metrics.height() > height:
                yield f"the button {name} is too small for: {text}"
        if not name or kind.startswith(("QScrollBar", "QHeaderView")):
            continue
        for other in children:
            if other is child or other.parent() is not child.parent() or not QtCore.QObject.objectName(other):
                continue
            own, its = (QtWidgets.QWidget.geometry(one) for one in (child, other))
            if own.intersects(its) and not own.isEmpty() and not its.isEmpty():
                yield f"{name} lies on {QtCore.QObject.objectName(other)}"


def _fit(widget) -> None:
    """As wide as Slicer's module panel and as high as needed, as in its scroll area."""
    from PySide6 import QtWidgets

    for _round in range(3):
        process_events()
        height = QtWidgets.QWidget.layout(widget).totalHeightForWidth(PANEL_WIDTH)
        QtWidgets.QWidget.resize(widget, PANEL_WIDTH, max(height, 200))
    process_events()


def _palette(dark: bool):
    """A whole palette, for enabled and disabled widgets."""
    from PySide6.QtGui import QColor, QPalette

    roles = QPalette.ColorRole
    window, base, text, dim = ("#353535", "#232323", "#f0f0f0", "#808080") if dark else (
        "#efefef", "#ffffff", "#101010", "#9a9a9a",
    )  # fmt: skip
    palette = QPalette(QColor(window), QColor(window))
    for role in (roles.WindowText, roles.Text, roles.ButtonText, roles.ToolTipText):
        palette.setColor(QPalette.ColorGroup.All, role, QColor(text))
        palette.setColor(QPalette.ColorGroup.Disabled, role, QColor(dim))
    palette.setColor(QPalette.ColorGroup.All, roles.Base, QColor(base))
    palette.setColor(QPalette.ColorGroup.All, roles.PlaceholderText, QColor(dim))
    palette.setColor(QPalette.ColorGroup.All, roles.Highlight, QColor("#2a82da"))
    return palette
