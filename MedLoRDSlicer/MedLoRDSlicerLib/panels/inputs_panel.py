"""The section "Inputs": what the CT is made from, and ways to get something to draw on."""

from __future__ import annotations

from collections.abc import Callable

import slicer

from medlord.errors import MedlordError

from ..canvas import new_canvas, prepare_segment_editor, start_body_template
from ..parameters import center_of
from ..sample_data import start_sample
from ..translation import _
from .context import PanelContext


class InputsPanel:
    """New canvas, body template, sample, Segment Editor; the selectors are bound to the parameter node by name.

    `select_module` switches Slicer to another module (default: `slicer.util.selectModule`).
    """

    def __init__(self, ui, context: PanelContext, select_module: Callable[[str], None] | None = None):
        self.ui, self.context = ui, context
        self._select_module = select_module or (lambda name: slicer.util.selectModule(name))
        self.job = None
        self._job_has_ct = False
        self._job_parameters = None
        ui.newCanvasButton.connect("clicked(bool)", self._on_new_canvas)
        ui.templateButton.connect("clicked(bool)", self._on_template)
        ui.sampleButton.connect("clicked(bool)", self._on_sample)
        ui.editButton.connect("clicked(bool)", self._on_edit)
        ui.stopJobButton.connect("clicked(bool)", self._on_stop)
        ui.clearCenterButton.connect("clicked(bool)", self._on_clear_center)
        self._say("")

    @property
    def busy(self) -> bool:
        """True while a template or sample is being made."""
        return self.job is not None

    def refresh(self) -> None:
        """Enable what is possible now."""
        ui, parameters = self.ui, self.context.parameters
        for widget in (ui.newCanvasButton, ui.templateButton):
            widget.enabled = self.context.description is not None and not self.busy
        ui.sampleButton.enabled = parameters is not None and not self.busy
        ui.editButton.enabled = parameters is not None and parameters.segmentation is not None
        ui.stopJobButton.visible = self.busy
        center = center_of(parameters) if parameters is not None else None
        for widget in (ui.centerLabel, ui.clearCenterButton):
            widget.visible = center is not None
        if center is not None:
            ui.centerLabel.text = _(
                "The recipe puts the middle at R {x:.1f}, A {y:.1f}, S {z:.1f} mm."
            ).format(x=center[0], y=center[1], z=center[2])

    def poll(self) -> None:
        """Move on what is being made; called from the panel's timer while `busy`."""
        job = self.job
        job.poll()
        if not job.done:
            return
        self.job = None
        if job.error is not None:
            self._say(str(job.error))
        else:
            self._say("")
            self._use(job.nodes, self._job_has_ct, self._job_parameters)
        self.context.changed()

    def stop(self) -> None:
        """End what is being made."""
        if self.job is not None:
            self.job.cancel()
            self.job = None
        self._say("")

    def _on_new_canvas(self, checked: bool = False) -> None:
        center = center_of(self.context.parameters) or (0.0, 0.0, 0.0)
        self._try(
            lambda: self._use(
                new_canvas(self.context.scene, self.context.description, center_ras_mm=center),
                False,
                self.context.parameters,
            )
        )

    def _on_template(self, checked: bool = False) -> None:
        self._begin(
            _("Making the body template..."),
            lambda: start_body_template(self.context.scene, self.context.description),
            has_ct=False,
        )

    def _on_sample(self, checked: bool = False) -> None:
        self._begin(_("Making the sample..."), lambda: start_sample(self.context.scene), has_ct=True)

    def _on_edit(self, checked: bool = False) -> None:
        parameters = self.context.parameters

        def open_editor() -> None:
            prepare_segment_editor(
                self.context.scene, parameters.segmentation, self.context.description, parameters.reference
            )
            self._select_module("SegmentEditor")

        self._try(open_editor)

    def _on_stop(self, checked: bool = False) -> None:
        self.stop()
        self.context.changed()

    def _on_clear_center(self, checked: bool = False) -> None:
        self.context.parameters.centerRas = ""

    def _begin(self, text: str, start: Callable, has_ct: bool) -> None:
        def begin() -> None:
            self.job, self._job_has_ct = start(), has_ct
            self._job_parameters = self.context.parameters
            self._say(text)

        self._try(begin)

    def _try(self, action: Callable[[], None]) -> None:
        """Do it, or say in the panel why not."""
        self._say("")
        try:
            action()
        except MedlordError as error:
            self._say(str(error))
        self.context.changed()

    def _use(self, nodes, has_ct: bool, parameters) -> None:
        """Take new nodes as inputs of the parameter set that asked for them, and show the volume.

        A blank canvas is no CT to compare with, and neither is the one of the segmentation before.
        """
        if parameters.parameterNode.GetScene() is self.context.scene:
            parameters.segmentation = nodes.segmentation
            parameters.reference = nodes.volume if has_ct else None
        self.context.show(nodes.volume)

    def _say(self, text: str) -> None:
        self.ui.jobLabel.text = text
        self.ui.jobLabel.visible = bool(text)
        self.ui.stopJobButton.visible = self.busy
