"""A MRML scene in plain Python, with the module logics that Slicer's application would have registered.

It stands on the `slicer-core` wheel: real nodes, real conversions, real storage, no windows. Tests and
`make demo` use it. Inside the Slicer application it refuses to run, since the scene there belongs to the user.
"""

from __future__ import annotations

import contextlib
import sys
from types import SimpleNamespace

import slicer

from medlord.errors import EngineError


def in_slicer_application() -> bool:
    """True inside the Slicer application (it embeds PythonQt); False on plain Python."""
    return "PythonQt" in sys.modules


def rendering_paused():
    """A context in which Slicer draws no view, so that many nodes appear at once; nothing on plain Python."""
    return slicer.util.RenderBlocker() if in_slicer_application() else contextlib.nullcontext()


def in_testing_mode() -> bool:
    """True in a Slicer that was started for tests: questions are answered with yes there, by nobody."""
    return in_slicer_application() and slicer.app.testingEnabled()


def show_status(text: str) -> None:
    """One line in the status bar of Slicer's window for some seconds; nothing on plain Python."""
    if in_slicer_application():
        slicer.util.showStatusMessage(text, 5000)


class HeadlessSlicer:
    """A scene with the logics that segmentations, volumes and the subject hierarchy need.

    Sets `slicer.mrmlScene` and `slicer.modules`, so that `slicer.util` works on it; `close` restores both.
    """

    def __init__(self):
        if in_slicer_application():
            raise EngineError(
                "A headless scene was asked for inside the Slicer application; use slicer.mrmlScene instead."
            )
        self.scene = slicer.vtkMRMLScene()
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene)
        self.application_logic = slicer.vtkSlicerApplicationLogic()
        self.application_logic.SetMRMLScene(self.scene)
        self._logics = {}
        for name, kind in _LOGICS.items():
            logic = getattr(slicer, kind)()
            logic.SetMRMLApplicationLogic(self.application_logic)
            logic.SetMRMLScene(self.scene)
            self.application_logic.SetModuleLogic(name.capitalize(), logic)
            self._logics[name] = logic
        self._previous = {name: getattr(slicer, name, None) for name in ("mrmlScene", "modules")}
        slicer.mrmlScene = self.scene
        slicer.modules = SimpleNamespace(
            **{name: SimpleNamespace(logic=lambda logic=logic: logic) for name, logic in self._logics.items()}
        )

    def close(self) -> None:
        """Empty the scene, release the logics and put back what `slicer` held before."""
        self.scene.Clear(True)
        for name, value in self._previous.items():
            if value is None:
                delattr(slicer, name)
            else:
                setattr(slicer, name, value)

    def __enter__(self) -> HeadlessSlicer:
        return self

    def __exit__(self, *details) -> None:
        self.close()


_LOGICS = {
    "segmentations": "vtkSlicerSegmentationsModuleLogic",
    "volumes": "vtkSlicerVolumesLogic",
    "subjecthierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "tables": "vtkSlicerTablesLogic",
}
