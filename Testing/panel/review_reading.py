"""What tests of the review mode share: studies of small volumes, a main window around the panel, a keyboard."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
from offscreen_views import OffscreenSliceView, add_grey_colours, save_picture, side_by_side
from panel_building import DictionarySettings, process_events
from support.review_volumes import comb, quiet_air, write_source, zero_padding

SOURCES = {
    "real": None,
    "generator-alpha": quiet_air,
    "generator-beta": comb,
    "generator-gamma": zero_padding,
}
VIEW_SIZE = (300, 260)
SHOWN = ("text", "toolTip", "title", "windowTitle", "placeholderText", "plainText", "currentText")


def write_originals(folder: Path, per_source: int) -> Path:
    """Volumes of four sources in folders of their names, one more of each than `per_source`."""
    for number, (name, quirk) in enumerate(SOURCES.items()):
        write_source(folder / name, 100 * number, per_source + 1, quirk)
    return folder


def small_patterns(originals: Path) -> dict[str, str]:
    """The pattern of the files of each source of `write_originals`."""
    return {name: str(originals / name / "patient_*[0-9].nii.gz") for name in SOURCES}


def make_study(
    originals: Path, out: Path, per_source: int, names=(), masks=False, patterns=small_patterns, **plan
):
    """A study of those originals, of all their sources or those in `names`."""
    from medlord.review.create import create_study
    from medlord.review.draw import Source, StudyPlan

    files = patterns(originals)
    sources = [
        Source(
            name,
            files[name],
            "real" if name == "real" else "synthetic",
            str(originals / name / "mask_{stem}.seg.nrrd") if masks else None,
        )
        for name in names or files
    ]
    return create_study(out, sources, StudyPlan(per_source, **plan))


def make_large_study(folder: Path, shape: tuple[int, int, int]) -> Path:
    """A study of three cases of that many voxels, written as `create` writes them; returns its folder."""
    from support.simulated_review import write_study

    from medlord.review.cases import write_case
    from medlord.volumes import Grid

    study, _ = write_study(folder, per_source=1)
    content = json.loads((study.folder / "study.json").read_text(encoding="utf-8"))
    grid = Grid.centered(shape, (1.4, 1.4, 2.5), orientation="LPS")
    hu = np.random.default_rng(0).integers(-1000, 400, shape, dtype=np.int16)
    for number, entry in enumerate(content["cases"]):
        study.file(entry["case"]).unlink()
        entry["sha256"] = write_case(study.file(entry["case"]), np.roll(hu, number, 0), grid)
    (study.folder / "study.json").write_text(json.dumps(content), encoding="utf-8")
    return study.folder


def start_layout(scene):
    """Slicer's layout logic on the scene; returns the logic, which must be kept."""
    add_grey_colours(scene)
    logic = slicer.vtkMRMLLayoutLogic()
    logic.SetMRMLApplicationLogic(slicer.modules.segmentations.logic().GetMRMLApplicationLogic())
    logic.SetMRMLScene(scene)
    logic.GetLayoutNode().SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    return logic


def main_window(leak: str):
    """A window with what of Slicer's may name `leak`: recent files, console, data probe, status, title."""
    import qt

    window = qt.QMainWindow()
    window.windowTitle = leak
    menus, tools, status = qt.QMenuBar(window), qt.QToolBar(window), qt.QStatusBar(window)
    window.setMenuBar(menus)
    menus.addMenu("File").addAction(leak)
    menus.addAction(leak)
    window.addToolBar(tools)
    tools.addAction(leak)
    window.setStatusBar(status)
    status.addWidget(qt.QLabel(leak, status))
    for name in ("PythonConsoleDockWidget", "ErrorLogDockWidget"):
        dock = qt.QDockWidget(window)
        dock.objectName = name
        dock.setWidget(qt.QLabel(leak, dock))
        window.addDockWidget(qt.Qt.BottomDockWidgetArea, dock)
    return window


@dataclass
class Reading:
    """The review section in a main window, with offscreen views and a keyboard.

    `seen` says whether the reader sees the window, `seconds` what the clock shows, `view_size` the pixels of a view.
    """

    review: object
    ui: object
    window: object
    widget: object
    views: dict
    seen: list
    seconds: list
    view_size: tuple[int, int] = VIEW_SIZE

    @property
    def session(self):
        """The session of the reader."""
        return self.review.session

    def press(self, *keys: str) -> None:
        """Press keys one after the other, by their names ("n", "Tab", "Shift+Tab")."""
        from PySide6 import QtGui, QtTest, QtWidgets

        for key in keys:
            combination = QtGui.QKeySequence(key)[0]
            target = QtWidgets.QApplication.focusWidget() or self.window
            QtTest.QTest.keyClick(target, combination.key(), combination.keyboardModifiers())
            process_events()

    def type(self, text: str) -> None:
        """Write into the widget with the focus."""
        from PySide6 import QtTest, QtWidgets

        QtTest.QTest.keyClicks(QtWidgets.QApplication.focusWidget(), text)
        process_events()

    def interactor(self, name: str):
        """The interactor of an offscreen view; the view is made when it is first asked for."""
        if name not in self.views:
            node = slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode")
            logic = slicer.modules.segmentations.logic().GetMRMLApplicationLogic()
            self.views[name] = OffscreenSliceView(logic, node, self.view_size)
        return self.views[name]._interactor

    def click(self, name: str, x: int, y: int, drag: int = 0) -> None:
        """Press and release the left button in a view at display pixel (x, y); `drag` pixels apart."""
        interactor = self.interactor(name)
        interactor.SetEventPosition(x, y)
        interactor.InvokeEvent("LeftButtonPressEvent")
        interactor.SetEventPosition(x + drag, y)
        interactor.InvokeEvent("LeftButtonReleaseEvent")

    def pictures(self) -> list[np.ndarray]:
        """What the views of the room show, (row, column, RGB)."""
        return [self.views[view.name].picture() for view in self.session.room.views]

    def screenshot(self, folder: Path, name: str) -> Path:
        """Save the views and the window with the panel, beside each other, as PNG."""
        views = side_by_side([self.pictures()])
        panel = _pixels(self.window)
        height = max(len(views), len(panel))
        whole = np.zeros((height, views.shape[1] + panel.shape[1], 3), np.uint8)
        whole[: len(views), : views.shape[1]] = views
        whole[: len(panel), views.shape[1] :] = panel
        return save_picture(folder / f"{name}.png", whole)


def open_reading(scene, leak: str = "MedLoRD") -> Reading:
    """The review section of the panel in a main window."""
    import qt
    from PySide6 import QtTest

    from MedLoRDSlicerLib.panels.context import PanelContext
    from MedLoRDSlicerLib.review.review_panel import ReviewPanel
    from MedLoRDSlicerLib.settings import MachineSettings

    module = Path(__file__).resolve().parents[2] / "MedLoRDSlicer"
    window = main_window(leak)
    widget = slicer.util.loadUI(str(module / "Resources" / "UI" / "MedLoRDSlicer.ui"))
    widget.setMRMLScene(scene)
    area = qt.QScrollArea(window)
    area.widgetResizable = True
    area.setWidget(widget)
    window.setCentralWidget(area)
    ui = slicer.util.childWidgetVariables(widget)
    context = PanelContext(
        scene, None, MachineSettings(DictionarySettings({})), changed=lambda: None, show=lambda node: None
    )
    reading = Reading(None, ui, window, widget, {}, seen=[True], seconds=[100.0])
    reading.review = ReviewPanel(
        ui,
        context,
        window=window,
        interactor_of=reading.interactor,
        is_seen=lambda: reading.seen[0],
        clock=lambda: reading.seconds[0],
    )
    window.resize(480, 760)
    window.show()
    window.activateWindow()
    QtTest.QTest.qWaitForWindowActive(window)
    process_events()
    return reading


def close_reading(reading: Reading) -> None:
    """Take everything back."""
    reading.review.cleanup()
    for view in reading.views.values():
        view.close()
    reading.widget.setMRMLScene(None)
    reading.window.close()
    reading.window.deleteLater()
    process_events()


def _pixels(widget) -> np.ndarray:
    """A widget as (row, column, RGB) uint8."""
    image = widget.grab().toImage()
    image = image.convertToFormat(image.Format.Format_RGB32)
    pixels = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), -1, 4)
    return pixels[:, : image.width(), 2::-1].copy()


def texts_in_the_scene(scene) -> str:
    """Every name, attribute, property and path that the scene can tell, as the scene would write it."""
    words = []
    for number in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(number)
        words += [str(node), node.GetName() or "", node.GetDescription() or ""]
        words += [f"{name}={node.GetAttribute(name)}" for name in node.GetAttributeNames()]
        if node.IsA("vtkMRMLStorageNode"):
            words.append(node.GetFileName() or "")
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    words.append(str(hierarchy))
    return "\n".join(words)


def texts_on_the_screen(window) -> str:
    """Texts, tooltips and titles of all widgets that are visible."""
    words = [window.windowTitle]
    for widget in window.findChildren("QWidget"):
        if widget.isVisible():
            words += [str(widget.property(name)) for name in SHOWN]
    return "\n".join(words)


def tells(text: str, originals: Path, names=tuple(SOURCES)) -> list[str]:
    """Names of sources, and paths or names of originals, that occur in a text."""
    forbidden = [*(name for name in names if name != "real"), str(originals), "patient_", ".nii", ".nrrd"]
    return [word for word in forbidden if word in text]
