"""The facade offers nothing that a running Slicer does not have, and the panel uses nothing else."""

from __future__ import annotations

import inspect
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from scene_building import add_chest

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
    opened = open_panel()
    opened.ui.segmentationSelector.setCurrentNode(add_chest(scene))
    opened.ui.runButton.click()
    while not opened.panel.run.done:
        opened.panel._on_timer()
        time.sleep(0.005)
    assert opened.panel.run.state == "finished"
    assert {("QPushButton", "signal", "clicked(bool)"), ("QTimer", "signal", "timeout()")} <= usage
    assert len(usage) > 15
    assert not [entry for entry in usage if not contract.has(*entry)]


def test_the_ui_file_uses_what_slicer_has(contract):
    tree = ElementTree.parse(UI)
    wrong = []
    for widget in tree.iter("widget"):
        kind = widget.get("class")
        assert kind in contract, kind
        names = [entry.get("name") for entry in widget.findall("property")]
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
    active = ("QPushButton", "QComboBox", "QSpinBox", "QLineEdit", "qMRMLNodeComboBox", "QProgressBar")
    for widget in tree.iter("widget"):
        if widget.get("class") in active:
            assert widget.find("property[@name='toolTip']/string").text, widget.get("name")


def test_the_facade_has_no_methods_of_its_own(contract, qt_application):
    from pythonqt_facade import slicer_widgets

    for kind in (
        slicer_widgets.qMRMLNodeComboBox,
        slicer_widgets.qMRMLWidget,
        slicer_widgets.ctkCollapsibleButton,
    ):
        own = {
            name
            for name, value in vars(kind).items()
            if inspect.isfunction(value) and not name.startswith("_")
        }
        own -= {"paintEvent", "connect", "disconnect"}
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
