"""The `qt`, `ctk` and Slicer names that the panel uses, on PySide6: enough of PythonQt to run the panel in a test.

What PythonQt does differently from PySide6 and the panel relies on: Qt properties are attributes and never calls,
signals are connected by their full signature, `name` is the object's name. Everything that goes through it is noted
in `usage`, so that a test can compare it with what a running Slicer has (`contract`).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from types import ModuleType

from . import parameter_node, scripted_module, slicer_widgets
from .objects import facade_class, usage

__all__ = ["install", "uninstall", "usage"]

_SLICER_WIDGETS = ("qMRMLWidget", "qMRMLNodeComboBox")
# What Slicer's own parameter node wrapper can bind beside the widgets of the panel.
_UNUSED_WIDGETS = ("qMRMLRangeWidget", "qMRMLSliderWidget", "qMRMLSpinBox", "qSlicerWidget")
_replaced: dict[str, object] = {}
# References that no session uses up.
_ENDLESS = 1 << 40


def _qt_module() -> ModuleType:
    """The module `qt`: any Q class of PySide6, wrapped when it is first asked for."""
    from .loader import UiLoader

    module = ModuleType("qt")
    module.QUiLoader = UiLoader
    module.__getattr__ = facade_class
    return module


def _ctk_module() -> ModuleType:
    module = ModuleType("ctk")
    for name in ("ctkCollapsibleButton", "ctkPathLineEdit", "ctkSliderWidget"):
        setattr(module, name, getattr(slicer_widgets, name))
    return module


def _real_layer() -> str:
    """The folder with Slicer's own Python package `slicer`, empty when it is not here."""
    return os.environ.get("MEDLORD_SLICER_PYTHON", "")


def _modules() -> dict[str, ModuleType]:
    found = {"qt": _qt_module(), "ctk": _ctk_module(), **scripted_module.modules()}
    if _real_layer():
        _make_room_for_real_layer(found)
    else:
        found["slicer.parameterNodeWrapper"] = parameter_node.module()
    return found


def _make_room_for_real_layer(found: dict[str, ModuleType]) -> None:
    """Slicer's own `parameterNodeWrapper` names classes that the panel does not use: any will do."""

    def unused(name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})

    found["ctk"].__getattr__ = unused
    for name in _UNUSED_WIDGETS:
        setattr(slicer_widgets, name, unused(name))


class Application:
    """The part of `slicer.app` that the module uses: what is connected to the start is kept in `at_startup`."""

    def __init__(self):
        self.at_startup: list[Callable[[], None]] = []

    def connect(self, signal: str, slot: Callable[[], None]) -> bool:
        """Connect to the end of Slicer's start."""
        if signal != "startupCompleted()":
            raise AttributeError(f"slicer.app has no signal {signal}")
        self.at_startup.append(slot)
        return True


def _keep_constants_alive() -> None:
    """Make None, True and False immortal, as they are from Python 3.12 on (PEP 683).

    PySide6's wheels rely on that: in Python 3.11 most calls that return one of them (processing events, reading a
    property that is not set, emitting a signal) take away a reference, and after half a minute of waiting in the
    event loop the process ends with "deallocating None".
    """
    if sys.version_info < (3, 12):
        for constant in (None, True, False):
            ctypes.c_ssize_t.from_address(id(constant)).value += _ENDLESS


def install(module_path: str) -> None:
    """Put the stand-ins into `sys.modules` and onto `slicer`; `module_path` is the file of the scripted module."""
    import slicer

    _keep_constants_alive()
    made = _modules()
    sys.modules.update(made)
    _replaced["modules"] = list(made)
    if _real_layer():
        slicer.__path__.append(os.path.join(_real_layer(), "slicer"))
    _replaced["widgets"] = _SLICER_WIDGETS + (_UNUSED_WIDGETS if _real_layer() else ())
    for name in _replaced["widgets"]:
        setattr(slicer, name, getattr(slicer_widgets, name))
    _replaced["modulePath"] = slicer.util.modulePath
    slicer.util.modulePath = lambda name: module_path
    slicer.app = Application()


def uninstall() -> None:
    """Take everything back."""
    import slicer

    for name in _replaced.pop("modules"):
        sys.modules.pop(name, None)
        if name.startswith("slicer.") and hasattr(slicer, name.removeprefix("slicer.")):
            delattr(slicer, name.removeprefix("slicer."))
    for name in _replaced.pop("widgets"):
        delattr(slicer, name)
    slicer.util.modulePath = _replaced.pop("modulePath")
    del slicer.app
