"""Stand-ins for the ctk and qMRML widgets of the panel: real behaviour towards the scene, plain looks."""

from __future__ import annotations

import weakref

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
        self._folded: list[QtWidgets.QWidget] = []
        self.setContentsMargins(0, _HEADER_HEIGHT, 0, 0)

    def _changed(self, name: str) -> None:
        if name == "collapsed":
            self._fold()
            self.contentsCollapsed.emit(self.collapsed)
        self.update()

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        """The .ui file may fold a section before it has any children."""
        super().showEvent(event)
        self._fold()

    def _fold(self) -> None:
        """Hide or show the children; one that was hidden by itself stays so."""
        children = self.findChildren(
            QtWidgets.QWidget, options=QtCore.Qt.FindChildOption.FindDirectChildrenOnly
        )
        if self.collapsed and not self._folded:
            self._folded = [child for child in children if not child.isHidden()]
            for child in self._folded:
                child.hide()
        elif not self.collapsed:
            for child in self._folded:
                child.show()
            self._folded = []

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        """The header, as a button that fills the width."""
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, QtWidgets.QWidget.width(self), _HEADER_HEIGHT - 2)
        option.text = ("▸ " if self.collapsed else "▾ ") + self.text
        self.style().drawControl(QtWidgets.QStyle.CE_PushButton, option, QtGui.QPainter(self), self)


class ctkSliderWidget(
    _widget_class(
        "ctkSliderWidget",
        **_own_properties(
            "ctkSliderWidget", value=0.0, minimum=0.0, maximum=99.0, singleStep=1.0, decimals=2
        ),
    )
):
    """A slider beside a spin box for a number."""

    valueChanged = QtCore.Signal(float)
    python_signals = {"valueChanged(double)": "valueChanged"}

    def __init__(self, parent=None):
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal, self)
        self._box = QtWidgets.QDoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self.setValue)
        self._slider.valueChanged.connect(lambda step: self.setValue(step * self.singleStep))

    def setValue(self, value: float) -> None:
        """Choose a number within the limits."""
        self.value = round(min(max(value, self.minimum), self.maximum), self.decimals)

    def _changed(self, name: str) -> None:
        for widget in (self._slider, self._box):
            widget.blockSignals(True)
        self._box.setDecimals(self.decimals)
        self._box.setSingleStep(self.singleStep)
        self._box.setRange(self.minimum, self.maximum)
        self._slider.setRange(round(self.minimum / self.singleStep), round(self.maximum / self.singleStep))
        self._box.setValue(self.value)
        self._slider.setValue(round(self.value / self.singleStep))
        for widget in (self._slider, self._box):
            widget.blockSignals(False)
        if name == "value":
            self.valueChanged.emit(self.value)


class ctkPathLineEdit(
    _widget_class("ctkPathLineEdit", **_own_properties("ctkPathLineEdit", currentPath="", filters=0))
):
    """A line for a path, with a button to look for it."""

    Dirs, Files = 0x1, 0x2  # those of QDir
    currentPathChanged = QtCore.Signal(str)
    python_signals = {"currentPathChanged(QString)": "currentPathChanged"}

    def __init__(self, parent=None):
        super().__init__(parent)
        self._line = QtWidgets.QLineEdit(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._line)
        layout.addWidget(QtWidgets.QToolButton(self))
        self._line.textEdited.connect(lambda text: setattr(self, "currentPath", text))

    def _changed(self, name: str) -> None:
        if name == "currentPath" and self._line.text() != self.currentPath:
            self._line.setText(self.currentPath)
        if name == "currentPath":
            self.currentPathChanged.emit(self.currentPath)


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
            showHidden=False,
            showChildNodeTypes=True,
            baseName="",
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
        self._attributes: dict[str, tuple[str, str | None]] = {}
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
        # Weak: a scene that is collected together with its widgets ends with events, when the widgets are half gone.
        update = weakref.WeakMethod(self._update)
        self._tags = [scene.AddObserver(event, lambda *_: (call := update()) and call()) for event in events]
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

    def addAttribute(self, kind: str, name: str, value: str | None = None) -> None:
        """Offer only nodes of `kind` whose attribute has this value (None: that have it); new nodes get it."""
        self._attributes[kind] = (name, value)
        if self._scene is not None:
            self._update()

    def setNodeTypeLabel(self, label: str, kind: str) -> None:
        """How nodes of `kind` are called in the box's menu, which the facade does not have."""

    def addNode(self) -> None:
        """What the entry "Create new" does."""
        kind = self.nodeTypes[0]
        node = self._scene.CreateNodeByClass(kind)
        node.UnRegister(None)
        if kind in self._attributes:
            node.SetAttribute(*self._attributes[kind])
        node.SetName(self._scene.GenerateUniqueName(self.baseName))
        self.setCurrentNode(self._scene.AddNode(node))

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
            (name, value) = self._attributes.get(kind, ("", None))
            nodes += [
                node
                for node in found
                if (self.showHidden or not node.GetHideFromEditors())
                and (self.showChildNodeTypes or node.GetClassName() == kind)
                and (not name or _has_attribute(node, name, value))
            ]
        self._nodes = ([None] if self.noneEnabled else []) + nodes
        before = self._node
        if self._node not in nodes:
            self._node = nodes[0] if nodes and not self.noneEnabled else None
        self._box.clear()
        self._box.addItems([node.GetName() if node else "None" for node in self._nodes])
        self._box.setCurrentIndex(self._nodes.index(self._node) if self._node in self._nodes else -1)
        if self._node is not before:
            self._tell()


def _has_attribute(node, name: str, value: str | None) -> bool:
    found = node.GetAttribute(name)
    return found is not None if value is None else found == value
