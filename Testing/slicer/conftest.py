"""A scene for every test: on plain Python from the slicer-core wheel, in Slicer the application's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def scene():
    """An empty MRML scene."""
    import slicer

    from MedLoRDSlicerLib.headless import HeadlessSlicer, in_slicer_application

    if in_slicer_application():
        slicer.mrmlScene.Clear()
        yield slicer.mrmlScene
        slicer.mrmlScene.Clear()
        return
    with HeadlessSlicer() as headless:
        yield headless.scene


@pytest.fixture
def application_logic(scene):
    """The application logic that belongs to the scene."""
    import slicer

    from MedLoRDSlicerLib.headless import in_slicer_application

    if in_slicer_application():
        return slicer.app.applicationLogic()
    return slicer.modules.segmentations.logic().GetMRMLApplicationLogic()


@pytest.fixture
def editor_logic(application_logic):
    """The same, for the Segment Editor; skips where the editor's logic is still part of its widget."""
    import slicer

    if not hasattr(slicer, "vtkSlicerSegmentEditorLogic"):
        pytest.skip("this Slicer has no vtkSlicerSegmentEditorLogic (5.13 has)")
    return application_logic


@pytest.fixture
def layout(scene, application_logic):
    """Slicer's layout node; outside Slicer its logic is started here."""
    import slicer

    from MedLoRDSlicerLib.headless import in_slicer_application

    if in_slicer_application():
        yield scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        return
    from offscreen_views import add_grey_colours

    add_grey_colours(scene)
    logic = slicer.vtkMRMLLayoutLogic()
    logic.SetMRMLApplicationLogic(application_logic)
    logic.SetMRMLScene(scene)
    node = logic.GetLayoutNode()
    node.SetViewArrangement(node.SlicerLayoutFourUpView)
    yield node
    logic.SetMRMLScene(None)


@pytest.fixture
def logic(engine):
    """The logic with that worker."""
    from MedLoRDSlicerLib.logic import SynthesisLogic

    return SynthesisLogic(engine)
