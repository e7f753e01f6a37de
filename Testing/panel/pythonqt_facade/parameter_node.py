"""A stand-in for `slicer.parameterNodeWrapper`: typed fields on a parameter node, bound to widgets by name.

Only what the panel uses: str, int, float and node fields, `WithinRange`, spin boxes, sliders, line edits and node
boxes. MEDLORD_SLICER_PYTHON (a folder that holds Slicer's own Python package `slicer`) takes the real one instead, and
the same tests run with it.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from types import ModuleType

import slicer
import vtk


class WithinRange:
    """Allows values from `minimum` to `maximum`, both included."""

    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value) -> None:
        """Raise ValueError outside the range."""
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within {self.minimum} and {self.maximum}")


class Field:
    """One typed field: how it is written to a parameter node and read from it."""

    def __init__(self, name: str, hint: object, default: object):
        arguments = typing.get_args(hint)
        self.name, self.kind = name, arguments[0] if arguments else hint
        self.limits = [entry for entry in arguments[1:] if isinstance(entry, WithinRange)]
        self.is_node = issubclass(self.kind, slicer.vtkMRMLNode)
        self.default = default if default is not None or self.is_node else self.kind()

    def read(self, node):
        """The value in a parameter node."""
        if self.is_node:
            return node.GetNodeReference(self.name)
        return self.kind(node.GetParameter(self.name))

    def write(self, node, value) -> None:
        """Put a value into a parameter node. Raises for a wrong type, ValueError for a value out of range."""
        allowed = (int, float) if self.kind is float else self.kind
        if not (self.is_node and value is None) and not isinstance(value, allowed):
            raise TypeError(f"{self.name} cannot be {value!r}")
        for limit in self.limits:
            limit.validate(value)
        if self.is_node:
            node.SetParameter(self.name, "")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
        else:
            node.SetParameter(self.name, str(value))


class Binding:
    """One widget that shows one field."""

    # class of the widget -> (name of the signal, read, write)
    _KINDS: typing.ClassVar = {
        "QSpinBox": ("valueChanged(int)", lambda w: w.value, lambda w, v: setattr(w, "value", v)),
        "ctkSliderWidget": ("valueChanged(double)", lambda w: w.value, lambda w, v: setattr(w, "value", v)),
        "QLineEdit": ("textChanged(QString)", lambda w: w.text, lambda w, v: setattr(w, "text", v)),
        "qMRMLNodeComboBox": (
            "currentNodeChanged(vtkMRMLNode*)",
            lambda w: w.currentNode(),
            lambda w, v: w.setCurrentNode(v),
        ),
    }

    def __init__(self, widget, field: Field):
        self._widget = widget
        self._signal, self._read, self._write = self._KINDS[widget.facade_name]
        for limit in field.limits:
            widget.minimum, widget.maximum = limit.minimum, limit.maximum
        self._callback = None

    def connect(self, callback: Callable[[object], None]) -> None:
        """Tell `callback` the widget's value whenever it changes."""
        self._callback = lambda *_: callback(self._read(self._widget))
        self._widget.connect(self._signal, self._callback)

    def disconnect(self) -> None:
        """Undo `connect`."""
        self._widget.disconnect(self._signal, self._callback)

    def show(self, value) -> None:
        """Put a value into the widget."""
        self._write(self._widget, value)


def _initialise(self, parameter_node) -> None:
    self.parameterNode = parameter_node
    self._bound: dict[int, dict[str, Binding]] = {}
    self._observers: dict[int, int] = {}
    self._showing = False
    for field in self.allParameters.values():
        if not parameter_node.HasParameter(field.name):
            field.write(parameter_node, field.default)


def _bind(self, mapping: dict[str, object]) -> int:
    tag = len(self._bound) + 1
    self._bound[tag] = {}
    for name, widget in mapping.items():
        binding = Binding(widget, self.allParameters[name])
        binding.show(getattr(self, name))
        binding.connect(lambda value, name=name: None if self._showing else setattr(self, name, value))
        self._bound[tag][name] = binding
    self._observers[tag] = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: _show(self))
    return tag


def _show(self) -> None:
    if self._showing:
        return
    self._showing = True
    try:
        for bindings in self._bound.values():
            for name, binding in bindings.items():
                binding.show(getattr(self, name))
    finally:
        self._showing = False


def _unbind(self, tag: int) -> None:
    for binding in self._bound.pop(tag, {}).values():
        binding.disconnect()
    if tag in self._observers:
        self.RemoveObserver(self._observers.pop(tag))


def parameterNodeWrapper(kind: type) -> type:
    """Make a class with annotated fields a typed view on a parameter node."""
    fields = {
        name: Field(name, hint, getattr(kind, name, None))
        for name, hint in typing.get_type_hints(kind, include_extras=True).items()
    }
    kind.allParameters, kind.__init__ = fields, _initialise
    for field in fields.values():
        setattr(
            kind,
            field.name,
            property(
                lambda self, field=field: field.read(self.parameterNode),
                lambda self, value, field=field: field.write(self.parameterNode, value),
            ),
        )
    kind.connectParametersToGui, kind.disconnectGui = _bind, _unbind
    kind.AddObserver = lambda self, event, callback, priority=0.0: self.parameterNode.AddObserver(
        event, callback, priority
    )
    kind.RemoveObserver = lambda self, tag: self.parameterNode.RemoveObserver(tag)
    return kind


def module() -> ModuleType:
    """The module `slicer.parameterNodeWrapper`."""
    made = ModuleType("slicer.parameterNodeWrapper")
    made.parameterNodeWrapper, made.WithinRange = parameterNodeWrapper, WithinRange
    return made
