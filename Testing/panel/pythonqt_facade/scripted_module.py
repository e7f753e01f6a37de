"""Stand-ins for the part of Slicer's Python layer that a scripted module starts from."""

from __future__ import annotations

import os
import unittest
from types import ModuleType, SimpleNamespace

import slicer
from PySide6 import QtWidgets


class ScriptedLoadableModule:
    """Holds what Slicer shows about a module."""

    def __init__(self, parent):
        self.parent = parent
        self.moduleName = type(self).__name__


class ScriptedLoadableModuleWidget:
    """Gives a module's widget its place and its resources; without a parent it sets itself up."""

    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Widget")
        if parent is None:
            self.parent = slicer.qMRMLWidget()
            self.parent.setLayout(QtWidgets.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        else:
            self.parent = parent
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()

    def resourcePath(self, filename: str) -> str:
        """Path of a file below the module's Resources."""
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", filename)

    def setup(self) -> None:
        """Nothing to add outside developer mode."""

    def cleanup(self) -> None:
        """Nothing to release."""


class ScriptedLoadableModuleLogic:
    """Knows the module's name and its parameter nodes."""

    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self):
        """The first parameter node of the module, made when there is none."""
        if self.isSingletonParameterNode:
            raise NotImplementedError("The stand-in knows only modules with several parameter nodes.")
        for node in slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode", slicer.mrmlScene):
            if node.GetAttribute("ModuleName") == self.moduleName:
                return node
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return slicer.mrmlScene.AddNode(node)


class ScriptedLoadableModuleTest(unittest.TestCase):
    """A unittest case that can be made without a method name."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)

    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        """In Slicer a message for the eye."""

    def runTest(self) -> None:
        """Overridden by the module's test."""


def module_parent() -> SimpleNamespace:
    """What Slicer gives a module to describe itself with."""
    return SimpleNamespace()


def modules() -> dict[str, ModuleType]:
    """The modules `slicer.ScriptedLoadableModule` and `slicer.i18n`."""
    base = ModuleType("slicer.ScriptedLoadableModule")
    for kind in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    ):
        setattr(base, kind.__name__, kind)
    translation = ModuleType("slicer.i18n")
    translation.tr = lambda text: text
    translation.translate = lambda context, text: text
    return {"slicer.ScriptedLoadableModule": base, "slicer.i18n": translation}
