"""The `qt`, `ctk` and Slicer names that the panel uses, on PySide6: enough of PythonQt to run the panel in a test.

What PythonQt does differently from PySide6 and the panel relies on: Qt properties are attributes and never calls,
signals are connected by their full signature, `name` is the object's name. Everything that goes through it is noted
in `usage`, so that a test can compare it with what a running Slicer has (`contract`).
"""

from __future__ import annotations

import sys
from types import ModuleType

from . import scripted_module, slicer_widgets
from .objects import facade_class, usage

__all__ = ["install", "uninstall", "usage"]

_SLICER_WIDGETS = ("qMRMLWidget", "qMRMLNodeComboBox")
_replaced: dict[str, object] = {}


def _qt_module() -> ModuleType:
    """The module `qt`: any Q class of PySide6, wrapped when it is first asked for."""
    from .loader import UiLoader

    module = ModuleType("qt")
    module.QUiLoader = UiLoader
    module.__getattr__ = facade_class
    return module


def _ctk_module() -> ModuleType:
    module = ModuleType("ctk")
    module.ctkCollapsibleButton = slicer_widgets.ctkCollapsibleButton
    return module


def install(module_path: str) -> None:
    """Put the stand-ins into `sys.modules` and onto `slicer`; `module_path` is the file of the scripted module."""
    import slicer

    sys.modules.update({"qt": _qt_module(), "ctk": _ctk_module()})
    sys.modules.update(scripted_module.modules())
    for name in _SLICER_WIDGETS:
        setattr(slicer, name, getattr(slicer_widgets, name))
    _replaced["modulePath"] = slicer.util.modulePath
    slicer.util.modulePath = lambda name: module_path


def uninstall() -> None:
    """Take everything back."""
    import slicer

    for name in ("qt", "ctk", *scripted_module.modules()):
        sys.modules.pop(name, None)
        if name.startswith("slicer.") and hasattr(slicer, name.removeprefix("slicer.")):
            delattr(slicer, name.removeprefix("slicer."))
    for name in _SLICER_WIDGETS:
        delattr(slicer, name)
    slicer.util.modulePath = _replaced.pop("modulePath")
