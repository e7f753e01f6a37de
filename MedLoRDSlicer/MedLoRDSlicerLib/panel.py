"""The panel: brings its sections together. Everything it does is in the logic that it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import vtk

from medlord.errors import InputError

from .panels.checks_panel import ChecksPanel
from .panels.conditions_panel import ConditionsPanel
from .panels.context import PanelContext
from .panels.file_watch import FileWatch
from .panels.generate_panel import GeneratePanel
from .panels.inputs_panel import InputsPanel
from .panels.results_panel import ResultsPanel
from .panels.run_panel import RunPanel
from .panels.settings_panel import SettingsPanel
from .panels.timers import end_timer, make_timer
from .panels.watching import Watch
from .parameters import SynthesisParameters, is_untouched
from .queue import QueuedRun, RunQueue
from .results import show_in_slices
from .review.review_panel import ReviewPanel
from .settings import MachineSettings, machine_settings
from .translation import _

if TYPE_CHECKING:
    from .logic import SynthesisLogic

_POLL_MS = 50
_PREVIEW_EVERY = 2
MODULE_NAME = "MedLoRDSlicer"
_PARAMETER_NODE = "vtkMRMLScriptedModuleNode"


class SynthesisPanel:
    """Connects the widgets of MedLoRDSlicer.ui with a `SynthesisLogic`.

    ui                   the widgets by name
    scene                the one that parameter sets and results belong to
    parameter_node       gives the parameter node to begin with, made when there is none
    show                 called with a new volume (default: put it into all slice views)
    select_module        switches Slicer to another module
    window               the main window, for the review mode (default: Slicer's)
    """

    def __init__(
        self,
        ui,
        logic: SynthesisLogic,
        scene,
        parameter_node: Callable[[], object],
        *,
        settings: MachineSettings | None = None,
        show: Callable[[object], None] | None = None,
        select_module: Callable[[str], None] | None = None,
        window=None,
    ):
        self.ui, self.logic, self.scene = ui, logic, scene
        self._parameter_node = parameter_node
        # Looked up once: widgets inside others come and go, and PythonQt raises for one that is gone.
        self._bound_widgets = _bound_widgets(ui)
        self._gui_tag = None
        self._refreshing = self._working = self._scene_is_closing = self._is_cleaned_up = False
        self._is_shown = False
        # The ID of the newest result while another module is open.
        self._unseen = ""
        self.context = PanelContext(
            scene,
            logic,
            settings or machine_settings(),
            changed=self.refresh,
            show=show or (lambda node: show_in_slices(scene, node)),
        )
        self.queue = RunQueue(logic, self._on_run_ended)
        self.inputs = InputsPanel(ui, self.context, select_module)
        self.conditions = ConditionsPanel(ui, self.context)
        self.generate = GeneratePanel(ui, self.context)
        self.runs = RunPanel(
            ui,
            self.context,
            self.queue,
            add_runs=self._add_runs,
            reason=self._reason_against_running,
            on_result=self._on_result,
        )
        self.results = ResultsPanel(ui, self.context, repeat=self._repeat)
        self.checks = ChecksPanel(ui, self.context)
        self.settings = SettingsPanel(ui, self.context, self.generate.find_models)
        self.review = ReviewPanel(ui, self.context, window=window, reason=self._reason_against_reading)
        self.files = FileWatch(scene, self._on_recipes_found)
        self._timer = make_timer(_POLL_MS, self._on_timer)
        self._parameters_watch = Watch(self._on_parameters_changed)
        self._scene_watches = self._watch_scene()
        self._sets_before_import: list = []
        ui.parameterSetSelector.addAttribute(_PARAMETER_NODE, "ModuleName", MODULE_NAME)
        ui.parameterSetSelector.setNodeTypeLabel(_("parameter set"), _PARAMETER_NODE)
        ui.parameterSetSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_parameter_set)
        self.enter()

    @property
    def parameters(self) -> SynthesisParameters | None:
        """The parameter set that is shown; None while the scene is being closed."""
        return self.context.parameters

    def enter(self) -> None:
        """The module is opened: show the present parameter set, look again at what may have changed."""
        self._is_shown = True
        if self.parameters is None:
            node = self._parameter_node()
            self.ui.parameterSetSelector.setCurrentNode(node)
            # The box tells nothing when it had chosen that node by itself.
            if self.parameters is None:
                self._bind(node)
        self.conditions.forget()
        self.files.look()
        self.refresh()
        unseen, self._unseen = self.scene.GetNodeByID(self._unseen) if self._unseen else None, ""
        if unseen is not None:
            self._show_result(unseen)

    def exit(self) -> None:
        """Another module is opened: layout and keys are its own; runs go on."""
        self._is_shown = False
        self.results.leave()
        self.review.leave()

    def cleanup(self) -> None:
        """Stop the runs and let go of the scene; called when the module's widget is destroyed."""
        if self._is_cleaned_up:
            return
        self._is_cleaned_up = True
        end_timer(self._timer)
        self.inputs.stop()
        self.checks.stop()
        for section in (self.runs, self.results, self.conditions):
            section.cleanup()
        self.review.cleanup()
        self.files.cleanup()
        self.generate.devices.cleanup()
        self._bind(None)
        for watch in self._scene_watches:
            watch.on(None, ())

    def _watch_scene(self) -> list[Watch]:
        """Follow closing and loading of the scene."""
        scene, watches = self.scene, []
        for event, callback in (
            (scene.StartCloseEvent, self._on_scene_closing),
            (scene.EndCloseEvent, self._on_scene_closed),
            (scene.StartImportEvent, self._on_scene_importing),
            (scene.EndImportEvent, self._on_scene_imported),
        ):
            watch = Watch(callback)
            watch.on(scene, (event,))
            watches.append(watch)
        return watches

    def refresh(self) -> None:
        """Show what the parameter set, the queue and the scene hold now."""
        if self._refreshing or self._is_cleaned_up or self.review.active:
            return
        self._refreshing = True
        try:
            # Without a parameter set there is nothing that these could change.
            for part in (
                self.ui.inputsCollapsibleButton,
                self.ui.conditionsCollapsibleButton,
                self.ui.generateCollapsibleButton,
            ):
                part.enabled = self.parameters is not None
            for section in (
                self.generate,
                self.inputs,
                self.conditions,
                self.runs,
                self.results,
                self.checks,
                self.settings,
            ):
                section.refresh()
        finally:
            self._refreshing = False
        if self._is_busy() and not self._timer.active:
            self._timer.start()

    def _is_busy(self) -> bool:
        sections = (self.queue, self.inputs, self.checks, self.settings, self.logic.engine)
        return any(section.busy for section in sections)

    def _on_timer(self) -> None:
        # A question to the user in the middle of it (installation) processes events, this timer's too.
        if self._working:
            return
        self._working = True
        try:
            if self.queue.busy:
                self.runs.poll()
            else:
                self.logic.engine.poll()
            for section in (self.inputs, self.checks, self.settings):
                if section.busy:
                    section.poll()
        finally:
            self._working = False
            if not self._is_busy():
                self._timer.stop()

    def _reason_against_reading(self) -> str:
        if self.queue.busy:
            return _("Runs are under way; wait for them or cancel them first.")
        return _("A check is under way; wait for it or cancel it first.") if self.checks.busy else ""

    def _reason_against_running(self) -> str:
        if self.parameters is None:
            return _("Make a parameter set first.")
        return self.generate.reason() or self.conditions.reason

    def _add_runs(self) -> None:
        parameters = self.parameters
        reason = self._reason_against_running()
        if reason:
            raise InputError(reason)
        self.queue.add(
            parameters.segmentation,
            parameters.model,
            self.generate.seeds(),
            place=self.context.place(),
            options={**self.generate.options(), "preview_every": _PREVIEW_EVERY},
        )

    def _repeat(self, volume_node) -> None:
        self.queue.add_repeat(volume_node, self.context.settings.device)

    def _on_run_ended(self, entry: QueuedRun) -> None:
        self.runs.show_end(entry)
        self.generate.devices.ask_if_alive()
        self.refresh()

    def _on_result(self, volume_node) -> None:
        # Who draws in another module meanwhile keeps what the views show.
        if self._is_shown:
            self._show_result(volume_node)
        else:
            self._unseen = volume_node.GetID()
        self.results.take_new(volume_node)
        self.checks.take_new(volume_node)

    def _on_recipes_found(self) -> None:
        self.results.offer()
        self.refresh()

    def _show_result(self, volume_node) -> None:
        if not self.results.compare.active:
            self.context.show(volume_node)

    def _bind(self, node) -> None:
        """Connect the widgets with a parameter node (None: with none)."""
        if self.parameters is not None:
            self.parameters.disconnectGui(self._gui_tag)
        self._parameters_watch.on(None, ())
        self.context.parameters = None
        if node is not None:
            # Bound before the widgets are, so that what they do while they are connected finds a parameter set.
            self.context.parameters = SynthesisParameters(node)
            self._gui_tag = self.context.parameters.connectParametersToGui(self._bound_widgets)
            self._parameters_watch.on(self.context.parameters, (vtk.vtkCommand.ModifiedEvent,))

    def _on_parameter_set(self, node) -> None:
        # While a scene is closed the box goes from set to set until none is left.
        if not (self._scene_is_closing or self._is_cleaned_up):
            self._bind(node)
            self.refresh()

    def _on_parameters_changed(self, caller=None, event=None) -> None:
        self.refresh()

    def _on_scene_closing(self, caller=None, event=None) -> None:
        self._scene_is_closing = True
        self._unseen = ""
        self.inputs.stop()
        self.review.leave()
        self.results.leave()
        self._bind(None)
        self.refresh()

    def _on_scene_closed(self, caller=None, event=None) -> None:
        """Runs notice by themselves that what they came from is gone.

        Somebody who works with another module gets no parameter node into a new scene.
        """
        self._scene_is_closing = False
        if self._is_shown:
            self.enter()
        else:
            self.refresh()

    def _on_scene_importing(self, caller=None, event=None) -> None:
        self._sets_before_import = self._parameter_sets()

    def _on_scene_imported(self, caller=None, event=None) -> None:
        """A scene was loaded: go on with its parameter set; the present one goes when nothing was set in it."""
        loaded = [node for node in self._parameter_sets() if node not in self._sets_before_import]
        present = self.ui.parameterSetSelector.currentNode()
        if not loaded:
            return
        untouched = self.parameters is not None and is_untouched(self.parameters)
        self.ui.parameterSetSelector.setCurrentNode(loaded[0])
        if untouched and present is not None:
            self.scene.RemoveNode(present)

    def _parameter_sets(self) -> list:
        """The parameter nodes of this module."""
        count = self.scene.GetNumberOfNodesByClass(_PARAMETER_NODE)
        nodes = [self.scene.GetNthNodeByClass(number, _PARAMETER_NODE) for number in range(count)]
        return [node for node in nodes if node.GetAttribute("ModuleName") == MODULE_NAME]


def _bound_widgets(ui) -> dict[str, object]:
    """The widgets that the .ui file binds to a parameter, by its name.

    `connectGui` would find them too, but gives no tag in some versions of Slicer, so that nothing could be unbound.
    """
    named = {widget.property("SlicerParameterName"): widget for widget in vars(ui).values()}
    return {name: widget for name, widget in named.items() if name}
