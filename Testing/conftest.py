"""What all tests share: no display, the folder of reference data, and the reason when there is no MRML."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Before any test imports Qt or matplotlib.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("MPLBACKEND", "Agg")

REPOSITORY = Path(__file__).resolve().parent.parent
TESTING = REPOSITORY / "Testing"

# slicer-core's `import slicer` imports all modules of every folder "slicer" under sys.path as parts of itself, and
# Testing/slicer is one. So Testing lies on the path only until `support` is found; no test has to care when it
# imports slicer.
sys.path.insert(0, str(TESTING))
importlib.import_module("support")
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != TESTING]

# Folders of tests that work on real MRML: the slicer-core wheel, or Slicer itself.
FOLDERS_ON_MRML = {TESTING / "slicer", TESTING / "panel"}
HAS_MRML = any(importlib.util.find_spec(name) for name in ("slicer_core", "vtkSlicerBaseLogicPython", "mrml"))

# Phantoms of `synthesized_volumes`: 15 cases and 2 for the training of a reader.
SYNTHESIZED = 17

# Wall time depends on the machine, so hypothesis must not judge it; the same examples in every run.
settings.register_profile("repository", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("repository")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data outside the repository (others' checkpoints, public CT); skips without it."""
    folder = Path(os.environ.get("MEDLORD_SHARED") or REPOSITORY.parent / "shared").resolve()
    if not folder.is_dir():
        pytest.skip(
            f"reference data not here: no folder {folder.name} beside the repository, MEDLORD_SHARED not set"
        )
    return folder


class ModuleWithoutMrml(pytest.Module):
    """Stands for a test module that cannot be imported on this machine: one skipped entry with the reason."""

    def collect(self):
        pytest.skip(
            "needs slicer-core, which has no wheel for this platform (pyproject.toml, extra mrml)",
            allow_module_level=True,
        )


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip, with the reason, what needs MRML where there is none; everything else is collected as usual."""
    if not HAS_MRML and FOLDERS_ON_MRML.intersection(module_path.parents):
        return ModuleWithoutMrml.from_parent(parent, path=module_path)
    return None


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """Folder of a model bundle with tiny random networks."""
    pytest.importorskip("torch")
    from support.tiny_bundle import write_tiny_bundle

    return str(write_tiny_bundle(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="session")
def synthesized_volumes(tmp_path_factory) -> Path:
    """A folder of phantoms and of what the bundled model synthesizes from them, in three qualities; for long tests.

    Made in a temporary folder, or in the one that MEDLORD_VOLUMES names, where they are kept for the next time.
    """
    from support.model_volumes import synthesize_volumes

    kept = os.environ.get("MEDLORD_VOLUMES")
    folder = Path(kept).resolve() if kept else tmp_path_factory.mktemp("hospital-archive")
    return synthesize_volumes(folder, SYNTHESIZED)


@pytest.fixture(scope="session")
def engine():
    """One real worker for all tests of the session, in Slicer's scene and in the panel."""
    from medlord.client import EngineClient
    from MedLoRDSlicerLib.engine import Engine

    # Patient: loading torch takes minutes where other work has the processor.
    engine = Engine(lambda: EngineClient(start_timeout_s=900.0))
    yield engine
    engine.close()
