"""The scripted module: what Slicer loads, and what loading it must not do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from scene_building import add_chest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def module(scene):
    """The imported module file."""
    import MedLoRDSlicer

    return MedLoRDSlicer


def test_the_module_describes_itself(module):
    described = module.MedLoRDSlicer(SimpleNamespace(path=module.__file__)).parent
    assert described.categories == ["Image Synthesis"] and "not for clinical use" in described.helpText
    assert described.dependencies == ["Segmentations", "Volumes", "Markups", "SubjectHierarchy"]


def test_the_widget_builds_the_panel(module, scene, engine):
    drawing = add_chest(scene)
    widget = module.MedLoRDSlicerWidget(logic=module.MedLoRDSlicerLogic(engine))
    widget.ui.segmentationSelector.setCurrentNode(drawing)
    widget.enter()
    assert widget.panel.ui.segmentationSelector.currentNode() is drawing
    (node,) = [node for node in nodes_of(scene) if node.GetAttribute("ModuleName") == "MedLoRDSlicer"]
    assert widget.panel.parameters.parameterNode is node
    widget.exit()
    widget.cleanup()
    widget.cleanup()
    assert widget.panel is None
    widget.exit()
    widget.parent.setMRMLScene(None)


def nodes_of(scene) -> list:
    """All parameter nodes of a scene."""
    kind = "vtkMRMLScriptedModuleNode"
    return [scene.GetNthNodeByClass(number, kind) for number in range(scene.GetNumberOfNodesByClass(kind))]


def test_the_logic_runs_from_the_console(module, scene, engine, tiny_model):
    logic = module.MedLoRDSlicerLogic(engine)
    node = logic.synthesize(add_chest(scene), model=tiny_model, seed=3, steps=1)
    assert node.GetScene() is scene and node.GetAttribute("MedLoRD.seed") == "3"


def test_without_an_engine_of_its_own_the_logic_shares_one(module, scene):
    from MedLoRDSlicerLib.engine import shared_engine

    assert (
        module.MedLoRDSlicerLogic().synthesis.engine
        is shared_engine()
        is module.MedLoRDSlicerLogic().synthesis.engine
    )
    assert shared_engine().pid is None


def test_the_module_tests_itself(module):
    module.MedLoRDSlicerTest().runTest()


def in_a_fresh_interpreter(code: str) -> dict[str, list[str]]:
    """Run code after the facade was installed; what it prints, by the first word of each line."""
    begin = (
        "import sys, time; sys.path[:0] = ['Testing/panel', 'MedLoRDSlicer']\n"
        "import pythonqt_facade; pythonqt_facade.install('MedLoRDSlicer/MedLoRDSlicer.py')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", begin + code], cwd=REPOSITORY, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}


@pytest.mark.skipif("PythonQt" in sys.modules, reason="starts a plain Python")
def test_importing_the_module_loads_no_engine_library():
    printed = in_a_fresh_interpreter(
        "before = set(sys.modules)\n"
        "import MedLoRDSlicer\n"
        "print('MODULE', *(set(sys.modules) - before))\n"
        "import MedLoRDSlicerLib.panel, MedLoRDSlicerLib.logic, MedLoRDSlicerLib.installation\n"
        "print('ALL', *{name.split('.')[0] for name in sys.modules})\n"
    )
    # The module itself costs Slicer's start nothing: no engine, no panel, not even numpy.
    assert printed["MODULE"] == ["MedLoRDSlicer"]
    assert not {"torch", "monai", "scipy", "nibabel", "SimpleITK"} & set(printed["ALL"])


@pytest.mark.skipif("PythonQt" in sys.modules, reason="starts a plain Python")
def test_importing_the_module_takes_no_time():
    """Processor time, which does not depend on what else the machine does."""
    printed = in_a_fresh_interpreter(
        "begin = time.process_time()\nimport MedLoRDSlicer\nprint('MS', 1000 * (time.process_time() - begin))\n"
    )
    assert float(printed["MS"][0]) < 50
