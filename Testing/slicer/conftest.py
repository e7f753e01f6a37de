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


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """Folder of a model bundle with tiny random networks."""
    pytest.importorskip("torch")
    from support.tiny_bundle import write_tiny_bundle

    return str(write_tiny_bundle(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="session")
def engine():
    """One real worker for all tests of the session."""
    from medlord.client import EngineClient
    from MedLoRDSlicerLib.engine import Engine

    # Patient: loading torch takes minutes where other work has the processor.
    engine = Engine(lambda: EngineClient(start_timeout_s=900.0))
    yield engine
    engine.close()


@pytest.fixture
def logic(engine):
    """The logic with that worker."""
    from MedLoRDSlicerLib.logic import SynthesisLogic

    return SynthesisLogic(engine)
