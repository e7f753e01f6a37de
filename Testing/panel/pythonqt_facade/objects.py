"""Qt objects as PythonQt shows them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from PySide6 import QtCore, QtGui, QtWidgets

# Used properties and signals: (class, "property" or "signal", name or signature).
usage: set[tuple[str, str, str]] = set()

# Properties whose getter is virtual: Qt itself calls the method of this name on our subclass.
_VIRTUAL = {"sizeHint", "minimumSizeHint"}
# Subclasses that PySide6 cannot make or that carry no properties worth wrapping.
_AS_THEY_ARE = {"QApplication", "QCoreApplication", "QObject"}


class FacadeObject:
    """Mixed into a PySide6 class: properties as attributes, `connect` by signature, no attribute that Qt lacks."""

    facade_name = ""
    # Signals of classes that are written in Python, where Qt knows no C++ signature: signature -> attribute.
    python_signals: dict[str, str] = {}

    def __init_subclass__(cls, **keywords):
        # Shiboken finds these two only in the class itself, never in a base.
        super().__init_subclass__(**keywords)
        cls.connect, cls.disconnect = _connect, _disconnect

    @property
    def name(self) -> str:
        """The object's name, which PythonQt offers beside `objectName`."""
        return QtCore.QObject.objectName(self)

    def findChildren(self, kind: type | str, *arguments, **keywords):
        """PythonQt also takes the name of a class."""
        kind = getattr(QtWidgets, kind) if isinstance(kind, str) else kind
        return super().findChildren(kind, *arguments, **keywords)

    def _signal(self, signal: str):
        if signal in self.python_signals:
            return getattr(self, self.python_signals[signal])
        if self.metaObject().indexOfSignal(signal) < 0:
            raise AttributeError(f"{self.facade_name} has no signal {signal}")
        name, arguments = signal.rstrip(")").split("(")
        # "clicked()" of Qt's "clicked(bool = false)": PySide6 knows the one with the argument.
        return getattr(self, name) if arguments else _WithoutArguments(getattr(self, name))

    def __setattr__(self, name: str, value: object) -> None:
        # PySide6's loader makes every child an attribute of the root; that is its habit, not the panel's.
        is_child = isinstance(value, QtCore.QObject) and QtCore.QObject.objectName(value) == name
        if not name.startswith("_") and not is_child and not hasattr(type(self), name):
            raise AttributeError(f"{self.facade_name} has no property {name}")
        super().__setattr__(name, value)


def _connect(self, signal: str, slot: Callable) -> bool:
    """Connect by the signal's full signature, such as "clicked(bool)"."""
    self._signal(signal).connect(slot)
    usage.add((self.facade_name, "signal", signal))
    return True


def _disconnect(self, signal: str, slot: Callable) -> bool:
    """Undo `connect`."""
    return bool(self._signal(signal).disconnect(slot))


class _WithoutArguments:
    """A signal whose slots are called without its arguments."""

    def __init__(self, signal):
        self._bound = signal

    def connect(self, slot: Callable):
        return self._bound.connect(lambda *_: slot())


def noted_property(owner: str, name: str, getter: Callable, setter: Callable | None) -> property:
    """A Python property that notes its use."""

    def get(self):
        usage.add((owner, "property", name))
        return getter(self)

    def put(self, value):
        usage.add((owner, "property", name))
        setter(self, value)

    return property(get, put if setter else None)


def _qt_property(owner: str, meta: QtCore.QMetaProperty) -> property:
    name = meta.name()
    setter = (
        (lambda self, value: QtCore.QObject.setProperty(self, name, value)) if meta.isWritable() else None
    )
    return noted_property(owner, name, lambda self: QtCore.QObject.property(self, name), setter)


@cache
def facade_class(name: str) -> type:
    """The class of that name of PySide6, wrapped when it is a QObject. Raises AttributeError for an unknown name."""
    for module in (QtCore, QtGui, QtWidgets):
        found = getattr(module, name, None)
        if found is not None:
            break
    else:
        raise AttributeError(f"module 'qt' has no attribute '{name}'")
    if not (isinstance(found, type) and issubclass(found, QtCore.QObject)) or name in _AS_THEY_ARE:
        return found
    meta = found.staticMetaObject
    properties = (meta.property(number) for number in range(meta.propertyCount()))
    members = {
        entry.name(): _qt_property(name, entry) for entry in properties if entry.name() not in _VIRTUAL
    }
    return type(name, (FacadeObject, found), {**members, "facade_name": name})
