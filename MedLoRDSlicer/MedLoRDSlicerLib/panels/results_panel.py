"""The section "Results": compare with the input, take the settings of a result, make it again, spread over seeds."""

from __future__ import annotations

import json
from collections.abc import Callable

import qt
import slicer

from medlord.errors import MedlordError

from ..compare import CompareView, input_volume_of, result_conditions
from ..conditions_table import by_hand_to_text
from ..presets import WINDOW_PRESETS, apply_window
from ..recipes import is_synthetic, segmentation_from_recipe, settings_of
from ..results import RECIPE_ATTRIBUTE
from ..seeds import add_standard_deviation, synthetic_siblings
from ..translation import _
from .context import PanelContext
from .timers import end_timer, make_timer

# Slicer and its Segment Editor use single keys and Ctrl with digits and letters.
SWAP_KEY = "Alt+X"
_FIT_AFTER_MS = 100


class ResultsPanel:
    """What can be done with a synthetic CT. `compare` shows it beside its input; `repeat` queues its recipe again."""

    def __init__(
        self,
        ui,
        context: PanelContext,
        *,
        repeat: Callable[[object], None],
        compare: CompareView | None = None,
    ):
        self.ui, self.context, self._repeat = ui, context, repeat
        self.compare = compare or CompareView(context.scene)
        self._fit_soon = make_timer(_FIT_AFTER_MS, self._fit, single_shot=True)
        self.offer()
        for key, preset in WINDOW_PRESETS.items():
            ui.windowComboBox.addItem(preset.title, key)
        ui.windowComboBox.currentIndex = ui.windowComboBox.findData("mediastinum")
        ui.resultSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._on_chosen)
        ui.compareButton.connect("toggled(bool)", self._on_compare)
        ui.swapButton.connect("clicked(bool)", self._on_swap)
        # Not the button's own: that one sleeps while the section is folded. Hidden with the module, it sleeps too.
        root = ui.runButton.parentWidget()
        self.swap_action = qt.QAction(_("Swap"), root)
        self.swap_action.setShortcut(qt.QKeySequence(SWAP_KEY))
        self.swap_action.connect("triggered()", self._on_swap)
        root.addAction(self.swap_action)
        ui.windowComboBox.connect("currentIndexChanged(int)", self._on_window)
        ui.reloadRecipeButton.connect("clicked(bool)", self._on_reload)
        ui.repeatButton.connect("clicked(bool)", self._on_repeat)
        ui.deviationButton.connect("clicked(bool)", self._on_deviation)
        self._say("")

    @property
    def result(self):
        """The chosen synthetic CT, None when there is none."""
        node = self.ui.resultSelector.currentNode()
        return node if is_synthetic(node) else None

    def offer(self) -> None:
        """Offer the synthetic volumes; again when a volume that was there before turned out to be one."""
        self.ui.resultSelector.addAttribute("vtkMRMLScalarVolumeNode", RECIPE_ATTRIBUTE)

    def refresh(self) -> None:
        """Enable what the chosen CT allows."""
        ui, result = self.ui, self.result
        active = self.compare.active
        ui.compareButton.enabled = result is not None or active
        ui.swapButton.enabled = self.swap_action.enabled = active
        ui.windowComboBox.enabled = result is not None
        for button in (ui.repeatButton, ui.deviationButton):
            button.enabled = result is not None
        ui.reloadRecipeButton.enabled = result is not None and self.context.parameters is not None
        if ui.compareButton.checked != active:
            ui.compareButton.blockSignals(True)
            ui.compareButton.checked = active
            ui.compareButton.blockSignals(False)

    def take_new(self, volume_node) -> None:
        """A run has finished: choose its CT, and show it in the comparison when that is open."""
        self.ui.resultSelector.setCurrentNode(volume_node)
        if self.compare.active:
            self._try(self._show_comparison)

    def leave(self) -> None:
        """Put back the layout of before; called when the module is left."""
        if self.compare.active:
            self.compare.leave()
        self.refresh()

    def cleanup(self) -> None:
        """Leave the comparison for ever."""
        self.leave()
        end_timer(self._fit_soon)

    def _on_chosen(self, node) -> None:
        if self.compare.active and self.result is not None:
            self._try(self._show_comparison)
        self.refresh()

    def _on_compare(self, checked: bool) -> None:
        self._try(self._show_comparison if checked else self.compare.leave)
        self.refresh()

    def _show_comparison(self) -> None:
        result, is_new = self.result, not self.compare.active
        self.compare.show(self._input_of(result), result, result_conditions(result))
        self.compare.apply_window(self._window())
        if is_new:
            # New views get their size in the event loop only, splitters in a second round of it.
            self._fit_soon.start()

    def _fit(self) -> None:
        if self.compare.active:
            self.compare.fit()

    def _input_of(self, result):
        """The CT that belongs to the masks: the one the result refers to, else the chosen one."""
        parameters = self.context.parameters
        return input_volume_of(result) or (parameters.reference if parameters is not None else None)

    def _on_swap(self, checked: bool = False) -> None:
        self.compare.swap()

    def _window(self) -> str:
        return self.ui.windowComboBox.currentData

    def _on_window(self, row: int) -> None:
        if self.compare.active:
            self.compare.apply_window(self._window())
        elif self.result is not None:
            apply_window(self.result, self._window())

    def _on_reload(self, checked: bool = False) -> None:
        def reload() -> None:
            result, parameters = self.result, self.context.parameters
            settings = settings_of(result)
            segmentation = settings.segmentation or segmentation_from_recipe(self.context.scene, result)
            # All at once, so that the panel shows and matches no mixture of two settings.
            with slicer.util.NodeModify(parameters.parameterNode):
                parameters.segmentation = segmentation
                parameters.reference, parameters.region = settings.reference, None
                parameters.model, parameters.attributes = settings.model, json.dumps(settings.attributes)
                parameters.sampler, parameters.steps = settings.sampler, settings.steps
                parameters.seed, parameters.samples = str(settings.seed), 1
                parameters.controlStrength = settings.control_scale
                parameters.conditionsByHand = by_hand_to_text(settings.by_hand)
                parameters.centerRas = json.dumps(settings.center_ras_mm)
            self._say(_("The panel is set as for '{name}'.").format(name=result.GetName()))

        self._try(reload)
        self.context.changed()

    def _on_repeat(self, checked: bool = False) -> None:
        self._try(lambda: self._repeat(self.result))
        self.context.changed()

    def _on_deviation(self, checked: bool = False) -> None:
        def add() -> None:
            node = add_standard_deviation(self.context.scene, synthetic_siblings(self.result))
            self.context.show(node)
            self._say(_("'{name}' was added.").format(name=node.GetName()))

        self._try(add)

    def _try(self, action: Callable[[], None]) -> None:
        """Do it, or say in the panel why not."""
        self._say("")
        try:
            action()
        except MedlordError as error:
            self._say(str(error))

    def _say(self, text: str) -> None:
        self.ui.resultStatusLabel.text = text
        self.ui.resultStatusLabel.visible = bool(text)
