"""Run, cancel, progress, live preview, queue and log."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import qt

from medlord.errors import MedlordError

from ..headless import show_status
from ..pictures import portable_graymap
from ..queue import PREPARING, WAITING, QueuedRun, RunQueue
from ..run import CANCELLED, DROPPED, FAILED, FINISHED, RUNNING
from ..translation import _
from .context import PanelContext

if TYPE_CHECKING:
    from medlord.progress import ProgressEvent

_PREVIEW_HEIGHT = 160
# A log in which nothing can be found any more helps nobody.
_LONGEST_LINE = 2000


class RunPanel:
    """Shows a `RunQueue` and steers it.

    `add_runs` queues what the panel describes (raises a `MedlordError`); `reason` says why it cannot, "" when it can;
    `on_result` gets the volume node of every finished run.
    """

    def __init__(
        self,
        ui,
        context: PanelContext,
        queue: RunQueue,
        *,
        add_runs: Callable[[], None],
        reason: Callable[[], str],
        on_result: Callable[[object], None],
    ):
        self.ui, self.context, self.queue = ui, context, queue
        self._add_runs, self._reason, self._on_result = add_runs, reason, on_result
        self._shown_event: ProgressEvent | None = None
        self._shown: tuple[QueuedRun, str] | None = None
        self._listed: list[tuple[str, str]] | None = None
        ui.runButton.connect("clicked(bool)", self._on_run)
        ui.cancelButton.connect("clicked(bool)", self._on_cancel)
        ui.cancelAllButton.connect("clicked(bool)", self._on_cancel_all)
        ui.copyLogButton.connect("clicked(bool)", self._on_copy_log)
        ui.clearLogButton.connect("clicked(bool)", self._on_clear_log)
        ui.previewLabel.visible = False
        context.logic.engine.add_log_taker(self.add_log)

    def cleanup(self) -> None:
        """Stop everything that runs or waits."""
        self.queue.cancel_all()
        self.context.logic.engine.remove_log_taker(self.add_log)

    def add_log(self, line: str) -> None:
        """Add a line to the log."""
        self.ui.logText.appendPlainText(line[:_LONGEST_LINE])

    def refresh(self) -> None:
        """The one place that enables Run and Cancel, and says why Run is not possible."""
        ui, reason = self.ui, self._reason()
        waiting = len(self.queue.open_entries)
        ui.runButton.enabled = not reason
        ui.runButton.text = _("Add to queue") if waiting else _("Run")
        ui.cancelButton.enabled = waiting > 0
        ui.cancelAllButton.enabled = waiting > 1
        ui.reasonLabel.text = reason
        ui.reasonLabel.visible = bool(reason)
        self._show_queue()

    def poll(self) -> None:
        """Move the queue on and show what it does; called from the panel's timer."""
        self.queue.poll()
        current = self.queue.current
        if current is None:
            return
        if self._shown != (current, current.state):
            self._shown, self._shown_event = (current, current.state), None
            self._begin_showing(current)
        event = current.event
        if event is not None and event is not self._shown_event and not current.cancelling:
            self._shown_event = event
            self._show_event(event)
        self._show_queue()

    def show_end(self, entry: QueuedRun) -> None:
        """An entry of the queue ended."""
        state = entry.state
        self._set_progress(int(state == FINISHED), 1)
        self._hide_preview()
        if state == FINISHED:
            run = entry.run
            finished = _(
                "'{name}' is ready ({seconds:.0f} s). It is synthetic: not for clinical use."
            ).format(name=run.volume_node.GetName(), seconds=run.result.timings_s.get("total", 0.0))
            self.ui.statusLabel.text = "\n".join([finished, *run.warnings])
            show_status(finished)
            # The next run of the queue takes the place of this text at once.
            self.add_log(" ".join([finished, *run.warnings]))
            self._on_result(run.volume_node)
        elif state == CANCELLED:
            self.ui.statusLabel.text = _("Cancelled; nothing was added to the scene.")
        else:
            text = _("The run failed: {reason}") if state == FAILED else "{reason}"
            self.ui.statusLabel.text = text.format(reason=entry.error)
            self._log_details(entry.error)
        self.refresh()

    def _begin_showing(self, entry: QueuedRun) -> None:
        if entry.state != RUNNING:
            text = _("Preparing the structures...")
        elif self.context.logic.engine.ready:
            text = _("Handing over to the engine...")
        else:
            text = _("Starting the engine...")
        self.ui.statusLabel.text = text
        self._set_progress(0, 0)

    def _show_event(self, event: ProgressEvent) -> None:
        # A part of one step has no progress to show: busy.
        self._set_progress(event.step, event.total if event.total > 1 else 0)
        self.ui.statusLabel.text = describe_event(event)
        # Seen in other modules too.
        show_status(_("MedLoRD: {text}").format(text=describe_event(event)))
        if event.preview is not None:
            self._show_preview(event.preview)

    def _show_preview(self, picture) -> None:
        pixmap = qt.QPixmap()
        if not pixmap.loadFromData(portable_graymap(picture)):
            return
        label = self.ui.previewLabel
        label.setPixmap(pixmap.scaledToHeight(_PREVIEW_HEIGHT, qt.Qt.SmoothTransformation))
        label.visible = True

    def _hide_preview(self) -> None:
        self.ui.previewLabel.clear()
        self.ui.previewLabel.visible = False

    def _show_queue(self) -> None:
        """One line per run; only lines that changed are written, so that the list does not jump."""
        states = [(entry.title, entry.state) for entry in self.queue.entries]
        if states == self._listed:
            return
        self._listed, view = states, self.ui.queueList
        lines = [_("{title}: {state}").format(title=title, state=_states()[state]) for title, state in states]
        while view.count > len(lines):
            view.takeItem(view.count - 1)
        for row, line in enumerate(lines):
            if row >= view.count:
                view.addItem(line)
            elif view.item(row).text() != line:
                view.item(row).setText(line)

    def _on_run(self, checked: bool = False) -> None:
        try:
            self._add_runs()
        except MedlordError as error:
            self.ui.statusLabel.text = str(error)
        self.context.changed()

    def _on_cancel(self, checked: bool = False) -> None:
        self.ui.statusLabel.text = _("Cancelling...")
        self.queue.cancel()
        self.context.changed()

    def _on_cancel_all(self, checked: bool = False) -> None:
        self.ui.statusLabel.text = _("Cancelling...")
        self.queue.cancel_all()
        self.context.changed()

    def _on_copy_log(self, checked: bool = False) -> None:
        self.ui.logText.selectAll()
        self.ui.logText.copy()

    def _on_clear_log(self, checked: bool = False) -> None:
        self.ui.logText.clear()

    def _log_details(self, error: MedlordError | None) -> None:
        """What the worker's log said of a failure, unless it was shown line by line already."""
        if error is None:
            return
        self.add_log(str(error))
        shown = self.ui.logText.plainText
        for line in getattr(error, "details", "").splitlines():
            if line not in shown:
                self.add_log(line)

    def _set_progress(self, step: int, total: int) -> None:
        """`total` 0 means busy without a known end."""
        self.ui.progressBar.maximum = total
        self.ui.progressBar.value = step


def describe_event(event: ProgressEvent) -> str:
    """An event of the engine in words."""
    text = _phases().get(event.phase, event.phase)
    if event.total > 1:
        text = _("{phase}: step {step} of {total}").format(phase=text, step=event.step, total=event.total)
    if event.eta_s is not None and event.total > 1:
        text = _("{text}, about {seconds:.0f} s left").format(text=text, seconds=event.eta_s)
    return text


# Cached, since Slicer looks every text up anew, which adds up while a run is followed.
@cache
def _phases() -> dict[str, str]:
    """The phases of a run in words."""
    return {
        "load": _("Loading the model"),
        "condition": _("Preparing the structures"),
        "embed": _("Handing the structures to the model"),
        "denoise": _("Denoising"),
        "decode": _("Making the volume"),
    }


@cache
def _states() -> dict[str, str]:
    """The states of an entry of the queue in words."""
    return {
        PREPARING: _("taking the structures"),
        WAITING: _("waiting"),
        RUNNING: _("running"),
        FINISHED: _("finished"),
        FAILED: _("failed"),
        CANCELLED: _("cancelled"),
        DROPPED: _("dropped"),
    }
