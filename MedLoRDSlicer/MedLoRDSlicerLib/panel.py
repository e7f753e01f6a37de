"""The panel: choose a segmentation, run, watch, cancel. Everything it does is in the logic that it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import qt

from medlord.errors import MedlordError

from .logic import DEFAULT_MODEL
from .results import show_in_slices
from .run import CANCELLED, FAILED, FINISHED
from .translation import _

if TYPE_CHECKING:
    from medlord.progress import ProgressEvent

    from .logic import SynthesisLogic
    from .run import Run
    from .segments import SegmentMatch

_POLL_MS = 50


class SynthesisPanel:
    """Connects the widgets of MedLoRDSlicer.ui with a `SynthesisLogic`.

    `ui` holds the widgets by name, `scene` is the one that results belong to; `show` is called with a new CT node
    (default: put it into all slice views).
    """

    def __init__(
        self, ui, logic: SynthesisLogic, scene, model: str = DEFAULT_MODEL, show: Callable | None = None
    ):
        self.ui, self.logic, self.scene, self.model = ui, logic, scene, model
        self.run: Run | None = None
        self._show = show or (lambda node: show_in_slices(scene, node))
        self._observations: list[tuple[object, int]] = []
        self._watched = None
        self._timer = qt.QTimer()
        self._timer.interval = _POLL_MS
        self._timer.connect("timeout()", self._on_timer)
        ui.runButton.connect("clicked(bool)", self._on_run)
        ui.cancelButton.connect("clicked(bool)", self._on_cancel)
        ui.segmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_segmentation_changed)
        self._observe(scene, scene.EndCloseEvent, self._on_scene_closed)
        self._model_error = ""
        self._fill_contrast_phases()
        self._on_segmentation_changed(ui.segmentationSelector.currentNode())

    def cleanup(self) -> None:
        """Stop the run and let go of the scene; called when the module's widget is destroyed."""
        self._timer.stop()
        self._timer.deleteLater()
        if self.run is not None:
            self.run.cancel()
        self._watch(None)
        for subject, tag in self._observations:
            subject.RemoveObserver(tag)
        self._observations.clear()

    def refresh(self) -> None:
        """Look again at what the widgets show; called when the user comes back to the module."""
        self._on_segmentation_changed(self.ui.segmentationSelector.currentNode())

    def _fill_contrast_phases(self) -> None:
        names = {"native": _("Native"), "arterial": _("Arterial"), "venous": _("Venous")}
        try:
            phases = self.logic.describe_model(self.model).attributes.get("contrast_phase", [])
        except MedlordError as error:
            phases, self._model_error = [], str(error)
        self.ui.contrastPhaseComboBox.clear()
        for phase in phases:
            self.ui.contrastPhaseComboBox.addItem(names.get(phase, phase), phase)
        self.ui.contrastPhaseComboBox.enabled = bool(phases)

    def _observe(self, subject, event: int, callback: Callable) -> None:
        self._observations.append((subject, subject.AddObserver(event, callback)))

    def _watch(self, node) -> None:
        """Follow the chosen segmentation, so that drawing a segment or renaming it shows at once."""
        if self._watched is not None:
            for subject, tag in self._watched:
                subject.RemoveObserver(tag)
        self._watched = None
        if node is not None:
            segmentation = node.GetSegmentation()
            events = (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified)
            self._watched = [
                (segmentation, segmentation.AddObserver(event, self._checkCanApply)) for event in events
            ]

    def _on_segmentation_changed(self, node) -> None:
        self._watch(node)
        self._checkCanApply()

    def _on_scene_closed(self, caller=None, event=None) -> None:
        """The run notices by itself that its segmentation is gone."""
        self.refresh()

    def _checkCanApply(self, caller=None, event=None) -> None:
        """The one place that enables Run and Cancel, and says why Run is not possible."""
        reason = self._reason_against_running()
        running = self._is_running()
        self.ui.runButton.enabled = not reason and not running
        self.ui.cancelButton.enabled = running
        self.ui.reasonLabel.text = "" if running else reason
        self.ui.reasonLabel.visible = bool(self.ui.reasonLabel.text)

    def _is_running(self) -> bool:
        return self.run is not None and not self.run.done

    def _reason_against_running(self) -> str:
        node = self.ui.segmentationSelector.currentNode()
        self.ui.structuresLabel.text = ""
        if self._model_error:
            return self._model_error
        if node is None:
            return _("Choose a segmentation.")
        if node.GetSegmentation().GetNumberOfSegments() == 0:
            return _("The segmentation has no segments: draw at least one structure.")
        matches = self.logic.match_segments(node, self.model)
        self.ui.structuresLabel.text = _summary(matches)
        if not any(match.conditions for match in matches):
            return _(
                "No segment is a structure that the model takes: rename a segment or set its terminology."
            )
        return ""

    def _on_run(self, checked: bool = False) -> None:
        try:
            self.run = self.logic.start(
                self.ui.segmentationSelector.currentNode(),
                self.model,
                seed=self.ui.seedSpinBox.value,
                contrast_phase=self.ui.contrastPhaseComboBox.currentData,
                name=self.ui.resultNameLineEdit.text,
            )
        except MedlordError as error:
            self.ui.statusLabel.text = str(error)
            return
        self.ui.statusLabel.text = _("Starting the engine...")
        self._set_progress(0, 0)
        self._timer.start()
        self._checkCanApply()

    def _on_cancel(self, checked: bool = False) -> None:
        self.ui.statusLabel.text = _("Cancelling...")
        self.run.cancel()

    def _on_timer(self) -> None:
        before = self.run.event
        try:
            self.run.poll()
        finally:
            if self.run.done:
                self._on_run_ended()
            elif self.run.event is not before:
                self._show_event(self.run.event)

    def _show_event(self, event: ProgressEvent) -> None:
        # A part of one step has no progress to show: busy.
        self._set_progress(event.step, event.total if event.total > 1 else 0)
        self.ui.statusLabel.text = _describe(event)

    def _on_run_ended(self) -> None:
        self._timer.stop()
        run = self.run
        self._set_progress(int(run.state == FINISHED), 1)
        if run.state == FINISHED:
            finished = _(
                "'{name}' is ready ({seconds:.0f} s). It is synthetic: not for clinical use."
            ).format(name=run.volume_node.GetName(), seconds=run.result.timings_s.get("total", 0.0))
            self.ui.statusLabel.text = "\n".join([finished, *run.warnings])
            self._show(run.volume_node)
        elif run.state == CANCELLED:
            self.ui.statusLabel.text = _("Cancelled; nothing was added to the scene.")
        else:
            text = _("The run failed: {reason}") if run.state == FAILED else "{reason}"
            self.ui.statusLabel.text = text.format(reason=run.error)
        self._checkCanApply()

    def _set_progress(self, step: int, total: int) -> None:
        """`total` 0 means busy without a known end."""
        self.ui.progressBar.maximum = total
        self.ui.progressBar.value = step


def _describe(event: ProgressEvent) -> str:
    """An event of the engine in words."""
    phases = {
        "load": _("Loading the model"),
        "condition": _("Preparing the structures"),
        "denoise": _("Denoising"),
        "decode": _("Making the volume"),
    }
    text = phases.get(event.phase, event.phase)
    if event.total > 1:
        text = _("{phase}: step {step} of {total}").format(phase=text, step=event.step, total=event.total)
    if event.eta_s is not None and event.total > 1:
        text = _("{text}, about {seconds:.0f} s left").format(text=text, seconds=event.eta_s)
    return text


def _summary(matches: list[SegmentMatch]) -> str:
    """Which segments are used as what, and which are not used."""
    used = []
    for match in matches:
        if match.conditions == (match.segment_name,):
            used.append(match.segment_name)
        elif match.conditions:
            used.append(f"{match.segment_name} ({', '.join(match.conditions)})")
    unused = [match.segment_name for match in matches if not match.conditions]
    lines = [_("Used: {names}").format(names=", ".join(used))] if used else []
    if unused:
        lines.append(_("Not used: {names}").format(names=", ".join(unused)))
    return "\n".join(lines)
