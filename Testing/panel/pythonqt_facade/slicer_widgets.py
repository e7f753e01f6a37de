"""Stand-ins for the ctk and qMRML widgets of the panel: real behaviour towards the scene, plain looks."""

from __future__ import annotations

import slicer
from PySide6 import QtCore, QtGui, QtWidgets

from .objects import facade_class, noted_property

_HEADER_HEIGHT = 26


def _own_properties(owner: str, **defaults: object) -> dict[str, property]:
    """Properties that are kept as dynamic ones, as the .ui loader sets them, with their default values."""

    def make(name: str, default: object) -> property:
        def get(self):
            value = QtCore.QObject.property(self, name)
            return default if value is None else value

        def put(self, value):
            QtCore.QObject.setProperty(self, name, value)
            self._changed(name)

        return noted_property(owner, name, get, put)

    return {name: make(name, default) for name, default in defaults.items()}


def _widget_class(name: str, **own: property) -> type:
    base = facade_class("QWidget")
    return type(
        name,
        (base,),
        {
            **{key: _renamed(name, key) for key in ("enabled", "visible", "toolTip")},
            **own,
            "facade_name": name,
        },
    )


def _renamed(owner: str, name: str) -> property:
    """A QWidget property, noted under the subclass."""
    return noted_property(
        owner,
        name,
        lambda self: QtCore.QObject.property(self, name),
        lambda self, value: QtCore.QObject.setProperty(self, name, value),
    )


class ctkCollapsibleButton(
    _widget_class("ctkCollapsibleButton", **_own_properties("ctkCollapsibleButton", text="", collapsed=False))
):
    """A titled section that can be folded."""

    contentsCollapsed = QtCore.Signal(bool)
    python_signals = {"contentsCollapsed(bool)": "contentsCollapsed"}

    def __init__(self, parent=None):
        super().__init__(parent)
        self.setContentsMargins(0, _HEADER_HEIGHT, 0, 0)

    def _changed(self, name: str) -> None:
        if name == "collapsed":
            for child in self.findChildren(QtWidgets.QWidget):
                child.setVisible(not self.collapsed)
            self.contentsCollapsed.emit(self.collapsed)
        self.update()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        """The header, as a button that fills the width."""
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, QtWidgets.QWidget.width(self), _HEADER_HEIGHT - 2)
        option.text = ("▸ " if self.collapsed else "▾ ") + self.text
        self.style().drawControl(QtWidgets.QStyle.CE_PushButton, option, QtGui.QPainter(self), self)


class qMRMLWidget(_widget_class("qMRMLWidget")):
    """A widget with a scene."""

    mrmlSceneChanged = QtCore.Signal(object)
    python_signals = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}

    def setMRMLScene(self, scene) -> None:
        """Tell the scene to the widgets that the .ui file connects."""
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        """The scene."""
        return self._scene


class qMRMLNodeComboBox(
    _widget_class(
        "qMRMLNodeComboBox",
        **_own_properties(
            "qMRMLNodeComboBox",
            nodeTypes=[],
            noneEnabled=False,
            addEnabled=True,
            removeEnabled=True,
            renameEnabled=False,
        ),
    )
):
    """Chooses a node of the scene, follows what is added, removed and renamed."""

    currentNodeChanged = QtCore.Signal(object)
    currentNodeIDChanged = QtCore.Signal(str)
    python_signals = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeIDChanged(QString)": "currentNodeIDChanged",
    }

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._node, self._nodes, self._tags = None, None, [], []
        self._box = QtWidgets.QComboBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.activated.connect(lambda row: self.setCurrentNode(self._nodes[row]))

    def setMRMLScene(self, scene) -> None:
        """Offer the nodes of `scene`; a first node is chosen unless none is allowed."""
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene = scene
        events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent) if scene else ()
        self._tags = [scene.AddObserver(event, lambda *_: self._update()) for event in events]
        self._update()

    def mrmlScene(self):
        """The scene."""
        return self._scene

    def currentNode(self):
        """The chosen node, None when there is none."""
        return self._node

    def setCurrentNode(self, node) -> None:
        """Choose a node, by itself or by its ID; None for none."""
        if isinstance(node, str):
            node = self._scene.GetNodeByID(node)
        if node is not self._node:
            self._node = node
            self._update()
            self._tell()

    def nodeCount(self) -> int:
        """How many nodes are offered."""
        return len([node for node in self._nodes if node is not None])

    def _changed(self, name: str) -> None:
        if self._scene is not None:
            self._update()

    def _tell(self) -> None:
        self.currentNodeChanged.emit(self._node)
        self.currentNodeIDChanged.emit(self._node.GetID() if self._node else "")

    def _update(self) -> None:
        nodes = []
        for kind in self.nodeTypes:
            found = slicer.util.getNodesByClass(kind, self._scene)
            nodes += [node for node in found if not node.GetHideFromEditors()]
        self._nodes = ([None] if self.noneEnabled else []) + nodes
        before = self._node
        if self._node not in nodes:
            self._node = nodes[0] if nodes and not self.noneEnabled else None
        self._box.clear()
        self._box.addItems([node.GetName() if node else "None" for node in self._nodes])
        self._box.setCurrentIndex(self._nodes.index(self._node) if self._node in self._nodes else -1)
        if self._node is not before:
            self._tell()
