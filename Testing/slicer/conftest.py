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
def logic(engine):
    """The logic with that worker."""
    from MedLoRDSlicerLib.logic import SynthesisLogic

    return SynthesisLogic(engine)
