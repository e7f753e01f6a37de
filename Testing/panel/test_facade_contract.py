"""The facade offers nothing that a running Slicer does not have, and the panel uses nothing else."""

from __future__ import annotations

import inspect
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from panel_building import process_events
from scene_building import add_chest
from support.fake_worker import fake_engine

pytest.importorskip("PySide6", reason="in Slicer there is no facade to check")

REPOSITORY = Path(__file__).resolve().parents[2]
UI = REPOSITORY / "MedLoRDSlicer" / "Resources" / "UI" / "MedLoRDSlicer.ui"


@pytest.fixture(scope="module")
def contract(shared):
    """What Slicer's classes have."""
    from pythonqt_facade.contract import Contract

    path = shared / "background" / "pythonqt" / "classes.json"
    if not path.is_file():
        pytest.skip(f"reference data not here: {path.name}")
    return Contract(path)


def test_the_panel_uses_what_slicer_has(contract, scene, open_panel):
    from pythonqt_facade import usage

    usage.clear()
    scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    engine = fake_engine("good")
    opened = open_panel(engine=engine)
    ui = opened.ui
    opened.choose(add_chest(scene))
    ui.samplesSpinBox.value = 2
    ui.runButton.click()
    opened.finish()
    assert opened.last.state == "finished"
    opened.ui.conditionsTable.cellWidget(3, 1).currentIndex = 1
    for button in (
        ui.newSeedButton,
        ui.compareButton,
        ui.swapButton,
        ui.deviationButton,
        ui.reloadRecipeButton,
    ):
        button.click()
    for button in (
        ui.matchAgainButton,
        ui.copyLogButton,
        ui.clearLogButton,
        ui.findDevicesButton,
        ui.editButton,
    ):
        button.click()
    ui.windowComboBox.currentIndex = 0
    ui.modelFolderLineEdit.currentPath = ""
    process_events()
    engine.close()
    assert {("QPushButton", "signal", "clicked(bool)"), ("QTimer", "signal", "timeout()")} <= usage
    assert len(usage) > 45
    assert sorted(entry for entry in usage if not contract.has(*entry)) == []


def test_the_ui_file_uses_what_slicer_has(contract):
    tree = ElementTree.parse(UI)
    wrong = []
    for widget in tree.iter("widget"):
        kind = widget.get("class")
        assert kind in contract, kind
        names = [entry.get("name") for entry in widget.findall("property")]
        names = [name for name in names if name != "SlicerParameterName"]
        wrong += [(kind, name) for name in names if not contract.has(kind, "property", name)]
    kinds = {widget.get("name"): widget.get("class") for widget in tree.iter("widget")}
    for connection in tree.iter("connection"):
        sender, signal, receiver, slot = (
            connection.find(part).text for part in ("sender", "signal", "receiver", "slot")
        )
        assert contract.has(kinds[sender], "signal", signal)
        assert contract.has(kinds[receiver], "method", slot.split("(")[0])
    assert not wrong


def test_every_mrml_widget_gets_the_scene():
    tree = ElementTree.parse(UI)
    needing = {
        widget.get("name") for widget in tree.iter("widget") if widget.get("class").startswith("qMRMLNode")
    }
    assert needing == {connection.find("receiver").text for connection in tree.iter("connection")}


def test_every_input_widget_has_a_tooltip():
    tree = ElementTree.parse(UI)
    without = [
        widget.get("name")
        for widget in tree.iter("widget")
        if widget.get("class") not in ("qMRMLWidget", "ctkCollapsibleButton")
        and widget.find("property[@name='toolTip']/string") is None
    ]
    assert without == []


def test_every_bound_widget_has_its_parameter(qt_application):
    from MedLoRDSlicerLib.parameters import SynthesisParameters

    tree = ElementTree.parse(UI)
    bound = [
        entry.find("string").text
        for entry in tree.iter("property")
        if entry.get("name") == "SlicerParameterName"
    ]
    assert len(bound) == len(set(bound)) >= 8
    assert set(bound) <= set(SynthesisParameters.allParameters)


def test_the_facade_has_no_methods_of_its_own(contract, qt_application):
    from pythonqt_facade import slicer_widgets

    for kind in (
        slicer_widgets.qMRMLNodeComboBox,
        slicer_widgets.qMRMLWidget,
        slicer_widgets.ctkCollapsibleButton,
        slicer_widgets.ctkPathLineEdit,
        slicer_widgets.ctkSliderWidget,
    ):
        own = {
            name
            for name, value in vars(kind).items()
            if inspect.isfunction(value) and not name.startswith("_")
        }
        own -= {"paintEvent", "showEvent", "connect", "disconnect"}
        assert not [name for name in own if not contract.has(kind.__name__, "method", name)]
        for signature in kind.python_signals:
            assert contract.has(kind.__name__, "signal", signature)


def test_the_facade_behaves_like_pythonqt(qt_application):
    import qt

    button = qt.QPushButton("x")
    heard = []
    assert button.text == "x"
    with pytest.raises(TypeError):
        button.text()
    with pytest.raises(AttributeError):
        button.caption = "no such property"
    with pytest.raises(AttributeError):
        button.connect("pushed()", heard.append)
    with pytest.raises(AttributeError):
        qt.QNoSuchClass  # noqa: B018
    button.connect("clicked(bool)", lambda checked: heard.append(checked))
    button.connect("clicked()", lambda: heard.append("none"))
    button.click()
    assert heard == [False, "none"]
    button.objectName = "ok"
    assert button.name == "ok"


def test_a_node_box_tells_when_its_node_is_removed(scene):
    import slicer

    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes, box.noneEnabled = ["vtkMRMLSegmentationNode"], True
    box.setMRMLScene(scene)
    heard = []
    box.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: heard.append(node))
    box.connect("currentNodeIDChanged(QString)", lambda identifier: heard.append(identifier))
    node = add_chest(scene)
    box.setCurrentNode(node)
    identifier = node.GetID()
    scene.RemoveNode(node)
    assert heard == [node, identifier, None, ""]
    box.setMRMLScene(None)
