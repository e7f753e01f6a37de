"""The panel in real Qt: inside Slicer as it is, on plain Python through the facade of `qt`, `ctk` and qMRML names."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = REPOSITORY / "MedLoRDSlicer" / "MedLoRDSlicer.py"
sys.path[:0] = [str(REPOSITORY / "Testing" / name) for name in ("panel", "slicer")]


@pytest.fixture(scope="session")
def qt_application():
    """Qt running; outside Slicer the facade is in `sys.modules` until the last panel test has run."""
    from MedLoRDSlicerLib.headless import in_slicer_application

    if in_slicer_application():
        yield None
        return
    pytest.importorskip("PySide6")
    import pythonqt_facade
    from PySide6 import QtWidgets

    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["panel"])
    pythonqt_facade.install(str(MODULE))
    before = set(sys.modules)
    # The facade's widgets observe scenes from Python. A scene and its widgets that are garbage together call each other
    # back while the collector takes them apart, which ends the process; so nothing of these tests is collected.
    gc.disable()
    yield application
    gc.freeze()
    gc.enable()
    assert unknown_to_slicer() == []
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("MedLoRDSlicer", "MedLoRDSlicerLib"):
            del sys.modules[name]
    pythonqt_facade.uninstall()


def unknown_to_slicer() -> list[tuple[str, str, str]]:
    """Properties and signals that the tests used and a running Slicer lacks; none where its classes are not here."""
    from pythonqt_facade import usage
    from pythonqt_facade.contract import Contract

    shared = Path(os.environ.get("MEDLORD_SHARED") or REPOSITORY.parent / "shared")
    path = shared / "background" / "pythonqt" / "classes.json"
    if not path.is_file():
        return []
    contract = Contract(path)
    return sorted(entry for entry in usage if entry[0] in contract and not contract.has(*entry))


@pytest.fixture
def scene(qt_application):
    """An empty scene."""
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
def screenshots(tmp_path_factory) -> Path:
    """Where pictures go: the folder in MEDLORD_SCREENSHOTS, else a temporary one."""
    folder = Path(os.environ.get("MEDLORD_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def stored() -> dict[str, str]:
    """What the machine settings of the test hold."""
    return {}


@pytest.fixture
def open_panel(scene, engine, tiny_model, stored):
    """Builds the panel from the real .ui file, as the module does, for the tiny model or another.

    `engine` replaces the session's worker; without a parameter node of the scene one is made for `model`.
    """
    import slicer
    from panel_building import DictionarySettings, OpenedPanel, parameter_node

    from MedLoRDSlicerLib.logic import SynthesisLogic
    from MedLoRDSlicerLib.panel import SynthesisPanel
    from MedLoRDSlicerLib.settings import MachineSettings

    opened = []

    def build(model: str = tiny_model, engine=engine):
        widget = slicer.util.loadUI(str(MODULE.parent / "Resources" / "UI" / "MedLoRDSlicer.ui"))
        widget.setMRMLScene(scene)
        ui = slicer.util.childWidgetVariables(widget)
        modules: list[str] = []
        panel = SynthesisPanel(
            ui,
            SynthesisLogic(engine),
            scene,
            lambda: parameter_node(scene, model),
            settings=MachineSettings(DictionarySettings(stored)),
            select_module=modules.append,
        )
        widget.show()
        opened.append((panel, widget))
        return OpenedPanel(panel, ui, widget, modules)

    yield build
    for panel, widget in opened:
        panel.cleanup()
        widget.setMRMLScene(None)
        widget.close()
        widget.deleteLater()
