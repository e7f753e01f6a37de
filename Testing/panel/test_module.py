"""The scripted module: what Slicer loads, and what loading it must not do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from scene_building import add_chest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def module(scene):
    """The imported module file."""
    import MedLoRDSlicer

    return MedLoRDSlicer


def test_the_module_describes_itself(module):
    from pythonqt_facade.scripted_module import module_parent

    described = module.MedLoRDSlicer(module_parent()).parent
    assert described.categories == ["Image Synthesis"] and "not for clinical use" in described.helpText
    assert described.dependencies == ["Segmentations", "Volumes"]


def test_the_widget_builds_the_panel(module, scene, engine):
    drawing = add_chest(scene)
    widget = module.MedLoRDSlicerWidget(logic=module.MedLoRDSlicerLogic(engine))
    widget.ui.segmentationSelector.setCurrentNode(drawing)
    widget.enter()
    assert widget.panel.ui.segmentationSelector.currentNode() is drawing
    panel = widget.panel
    widget.cleanup()
    widget.cleanup()
    assert widget.panel is None and panel.run is None
    widget.parent.setMRMLScene(None)


def test_the_logic_runs_from_the_console(module, scene, engine, tiny_model):
    logic = module.MedLoRDSlicerLogic(engine)
    node = logic.synthesize(add_chest(scene), model=tiny_model, seed=3, steps=1)
    assert node.GetScene() is scene and node.GetAttribute("MedLoRD.seed") == "3"


def test_without_an_engine_of_its_own_the_logic_shares_one(module, scene):
    from MedLoRDSlicerLib.engine import shared_engine

    assert (
        module.MedLoRDSlicerLogic()._logic.engine
        is shared_engine()
        is module.MedLoRDSlicerLogic()._logic.engine
    )
    assert shared_engine().pid is None


def test_the_module_tests_itself(module):
    module.MedLoRDSlicerTest().runTest()


def test_importing_the_module_loads_no_engine_library():
    code = (
        "import sys; sys.path[:0] = ['Testing/panel', 'MedLoRDSlicer']\n"
        "import pythonqt_facade; pythonqt_facade.install('MedLoRDSlicer/MedLoRDSlicer.py')\n"
        "before = set(sys.modules)\n"
        "import MedLoRDSlicer\n"
        "print('MODULE', *(set(sys.modules) - before))\n"
        "import MedLoRDSlicerLib.panel, MedLoRDSlicerLib.logic, MedLoRDSlicerLib.installation\n"
        "print('ALL', *{name.split('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    by_module, everything = (
        line.split()[1:] for line in done.stdout.splitlines() if line[:3] in ("MOD", "ALL")
    )
    # The module itself costs Slicer's start nothing: no engine, no panel, not even numpy.
    assert by_module == ["MedLoRDSlicer"]
    assert not {"torch", "monai", "scipy", "nibabel", "SimpleITK"} & set(everything)
