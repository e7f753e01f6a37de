"""The section "CT to make": model, quality, seed, samples, control strength, device, name."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import qt

from medlord.errors import InputError, MedlordError
from medlord.generation import sampler_of

from ..model_choice import accept_licence, available_models, needs_acceptance
from ..parameters import attributes_of, seed_of
from ..seeds import random_seed
from ..settings import AUTOMATIC_DEVICE
from ..translation import _
from .context import PanelContext
from .devices import DeviceBox

if TYPE_CHECKING:
    from medlord.bundles.description import ModelDescription

REFERENCE_SAMPLER = "ddpm"
# Below model and licence.
_FIRST_ATTRIBUTE_ROW = 2


class GeneratePanel:
    """Model, attributes, quality and seed; spin boxes and texts are bound to the parameter node by name."""

    def __init__(self, ui, context: PanelContext):
        self.ui, self.context = ui, context
        self.attribute_boxes: dict[str, object] = {}
        self._attributes_of_model: dict[str, list[str]] | None = None
        self._attribute_labels: list = []
        self.devices = DeviceBox(ui, context)
        for name, title in _samplers().items():
            ui.presetComboBox.addItem(title, name)
        ui.modelComboBox.connect("currentIndexChanged(int)", self._on_model)
        ui.presetComboBox.connect("currentIndexChanged(int)", self._on_preset)
        ui.newSeedButton.connect("clicked(bool)", self._on_new_seed)
        ui.acceptLicenceButton.connect("clicked(bool)", self._on_accept)
        self.find_models()

    def find_models(self) -> None:
        """Look again which models there are."""
        box = self.ui.modelComboBox
        box.blockSignals(True)
        box.clear()
        for choice in available_models(self.context.settings.model_folder):
            # The title may be longer than the box is wide; it stands below.
            box.addItem(Path(choice.model).name, choice.model)
            box.setItemData(box.count - 1, choice.title, qt.Qt.ToolTipRole)
        box.blockSignals(False)

    def refresh(self) -> None:
        """Show what the parameter node holds."""
        parameters, description = self.context.parameters, self.context.description
        if parameters is None:
            return
        self._choose(self.ui.modelComboBox, parameters.model)
        self._choose(self.ui.presetComboBox, parameters.sampler)
        self._show_attributes(description)
        self._show_licence(description)
        is_reference = parameters.sampler == REFERENCE_SAMPLER
        self.ui.stepsSpinBox.enabled = not is_reference
        if is_reference and description is not None:
            self._take_default_steps(description)
        self.devices.refresh()

    def reason(self) -> str:
        """Why these settings cannot run, "" when they can."""
        description = self.context.description
        if description is None:
            return self.context.model_error
        if needs_acceptance(description, self.context.settings):
            return _("Read the licence of the model and accept it.")
        try:
            seed_of(self.context.parameters)
            sampler_of(description, self.context.parameters.sampler, self.context.parameters.steps)
        except MedlordError as error:
            return str(error)
        return ""

    def seeds(self) -> list[int]:
        """The seeds of this click. Raises `InputError` when the text is none."""
        parameters = self.context.parameters
        first = seed_of(parameters)
        return list(range(first, first + parameters.samples))

    def options(self) -> dict:
        """What `SynthesisLogic.start` takes beside segmentation, model, seed and place."""
        parameters, description = self.context.parameters, self.context.description
        if description is None:
            raise InputError(self.context.model_error)
        chosen = attributes_of(parameters)
        return {
            "sampler": parameters.sampler,
            "steps": parameters.steps,
            "control_scale": parameters.controlStrength,
            # A value of another model is not shown, so it is not used either.
            "attributes": {
                name: chosen[name]
                for name, values in description.attributes.items()
                if chosen.get(name) in values
            },
            "name": parameters.resultName,
            "device": self.context.settings.device or AUTOMATIC_DEVICE,
        }

    def _choose(self, box, value: str) -> None:
        """Select the entry whose data is `value`; one that is missing is added, so that nothing else seems chosen."""
        box.blockSignals(True)
        row = box.findData(value)
        if row < 0:
            box.addItem(value, value)
            row = box.findData(value)
        box.currentIndex = row
        box.blockSignals(False)

    def _show_attributes(self, description: ModelDescription | None) -> None:
        """One box per choice of the model, made anew when another model has other choices."""
        offered = dict(description.attributes) if description is not None else {}
        form = self.ui.generateCollapsibleButton.layout()
        if offered != self._attributes_of_model:
            for widget in (*self._attribute_labels, *self.attribute_boxes.values()):
                form.removeWidget(widget)
                widget.hide()
                widget.deleteLater()
            self.attribute_boxes, self._attribute_labels = {}, []
            for number, (name, values) in enumerate(offered.items()):
                box = qt.QComboBox()
                box.toolTip = _attribute_tip(name)
                # What is not chosen must not look chosen: the model then gets no word about it.
                box.addItem(_("Left to the model"), "")
                for value in values:
                    box.addItem(_value_title(value), value)
                box.connect("currentIndexChanged(int)", partial(self._on_attribute, name))
                label = qt.QLabel(_("{name}:").format(name=_attribute_title(name)))
                label.toolTip = box.toolTip
                form.insertRow(_FIRST_ATTRIBUTE_ROW + number, label, box)
                self._attribute_labels.append(label)
                self.attribute_boxes[name] = box
            self._attributes_of_model = offered
        chosen = attributes_of(self.context.parameters)
        for name, box in self.attribute_boxes.items():
            box.blockSignals(True)
            box.currentIndex = max(0, box.findData(chosen.get(name, "")))
            box.blockSignals(False)

    def _show_licence(self, description: ModelDescription | None) -> None:
        """The licence is always shown; one that asks for something has to be accepted."""
        asks = description is not None and needs_acceptance(description, self.context.settings)
        self.ui.licenceLabel.visible = description is not None
        self.ui.acceptLicenceButton.visible = asks
        if description is not None:
            self.ui.licenceLabel.text = _("{title}. Licence: {licence}").format(
                title=description.title or description.id, licence=description.licence
            )

    def _on_model(self, row: int) -> None:
        self.context.parameters.model = self.ui.modelComboBox.itemData(row)

    def _on_preset(self, row: int) -> None:
        parameters = self.context.parameters
        parameters.sampler = self.ui.presetComboBox.itemData(row)
        if self.context.description is not None:
            self._take_default_steps(self.context.description)

    def _take_default_steps(self, description: ModelDescription) -> None:
        steps = sampler_of(description, self.context.parameters.sampler, None).steps
        if self.context.parameters.steps != steps:
            self.context.parameters.steps = steps

    def _on_attribute(self, name: str, row: int) -> None:
        chosen = attributes_of(self.context.parameters)
        chosen.pop(name, None)
        if value := self.attribute_boxes[name].itemData(row):
            chosen[name] = value
        self.context.parameters.attributes = json.dumps(chosen, sort_keys=True) if chosen else ""

    def _on_new_seed(self, checked: bool = False) -> None:
        self.context.parameters.seed = str(random_seed())

    def _on_accept(self, checked: bool = False) -> None:
        accept_licence(self.context.description, self.context.settings)
        self.context.changed()


def _samplers() -> dict[str, str]:
    """Samplers by name, with a title; the two presets first."""
    return {
        "sde-dpm-solver++": _("Fast (SDE-DPM-Solver++)"),
        REFERENCE_SAMPLER: _("Reference (DDPM, all steps)"),
        "unipc": _("UniPC"),
        "dpm-solver++": _("DPM-Solver++"),
        "ddim": _("DDIM"),
    }


def _attribute_title(name: str) -> str:
    return {"contrast_phase": _("Contrast phase")}.get(name, name.replace("_", " "))


def _attribute_tip(name: str) -> str:
    tips = {
        "contrast_phase": _(
            "Contrast agent in the synthesized CT: none (native), in the arteries and heart, or in the veins."
        )
    }
    return tips.get(name, _("A choice that the model offers for the whole image."))


def _value_title(value: str) -> str:
    return {"native": _("Native"), "arterial": _("Arterial"), "venous": _("Venous")}.get(value, value)
