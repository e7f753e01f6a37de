"""Where the engine computes: the choice, the free memory there, and what this run would take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medlord.errors import MedlordError
from medlord.memory.sizes import in_words

from ..settings import AUTOMATIC_DEVICE
from ..translation import _
from .context import PanelContext
from .timers import end_timer, make_timer

if TYPE_CHECKING:
    from medlord.protocol import Message

_ESTIMATE_AFTER_MS = 400


class DeviceBox:
    """The choice of the device, kept for this computer; what there is, the engine is asked for.

    A worker is started for it only when the user asks ("Find"); one that runs is asked again after each run.
    """

    def __init__(self, ui, context: PanelContext):
        self.ui, self.context = ui, context
        self._found: dict[str, dict] = {}
        self._automatic = ""
        self._note = ""
        self._estimated_for: tuple | None = None
        self._delay = make_timer(_ESTIMATE_AFTER_MS, self._ask_estimate, single_shot=True)
        self._show_estimate("")
        box = ui.deviceComboBox
        for name, title in ((AUTOMATIC_DEVICE, _("Automatic")), ("cpu", _("Processor (cpu)"))):
            box.addItem(title, name)
        self._add_if_new(context.settings.device, context.settings.device)
        box.currentIndex = box.findData(context.settings.device)
        box.connect("currentIndexChanged(int)", self._on_chosen)
        ui.findDevicesButton.connect("clicked(bool)", self._on_find)
        self.refresh()

    def refresh(self) -> None:
        """Show the memory of the chosen device."""
        name = self.context.settings.device
        device = self._found.get(self._automatic if name == AUTOMATIC_DEVICE else name)
        if device is not None:
            text = _("{free} of {total} on {name} ({kind})").format(
                free=in_words(device["free_bytes"]),
                total=in_words(device["total_bytes"]),
                name=device["name"],
                kind=device["kind"],
            )
        else:
            text = self._note or _("not asked yet")
        self.ui.memoryLabel.text = text
        if self.context.logic.engine.ready and self._settings() not in (None, self._estimated_for):
            self._delay.start()

    def cleanup(self) -> None:
        """Ask nothing any more."""
        end_timer(self._delay)

    def ask_if_alive(self) -> None:
        """Ask the engine for its devices when it runs anyway."""
        if self.context.logic.engine.alive:
            self._ask()

    def _on_chosen(self, row: int) -> None:
        self.context.settings.device = self.ui.deviceComboBox.itemData(row)
        self.refresh()
        self.context.changed()

    def _on_find(self, checked: bool = False) -> None:
        self._note = _("asking the engine...")
        self._ask()
        self.refresh()
        self.context.changed()

    def _ask(self) -> None:
        self._estimated_for = None
        try:
            self.context.logic.engine.ask("describe", self._take)
        except MedlordError as error:
            self._note = str(error)

    def _settings(self) -> tuple | None:
        """What the memory of a run depends on; None while there is nothing to estimate."""
        parameters = self.context.parameters
        if parameters is None or self.context.description is None:
            return None
        return parameters.model, self.context.settings.device, parameters.controlStrength > 0

    def _ask_estimate(self) -> None:
        settings = self._settings()
        if settings is None or not self.context.logic.engine.alive:
            return
        self._estimated_for = settings
        model, device, has_control = settings
        arguments = {"model": model, "device": device, "control_scale": 1.0 if has_control else 0.0}
        try:
            self.context.logic.engine.ask("estimate", self._take_estimate, arguments)
        except MedlordError as error:
            self._show_estimate(str(error))
        self.context.changed()

    def _take_estimate(self, message: Message) -> None:
        if message.type == "error":
            self._show_estimate(str(message.value))
            return
        found = message.value
        text = _("at most {needed}; {free} are free").format(
            needed=in_words(found["needed_bytes"]), free=in_words(found["free_bytes"])
        )
        self._show_estimate(found["message"] or text)

    def _show_estimate(self, text: str) -> None:
        self.ui.estimateLabel.text = text
        for widget in (self.ui.estimateCaptionLabel, self.ui.estimateLabel):
            widget.visible = bool(text)

    def _take(self, message: Message) -> None:
        """The engine's answer."""
        if message.type == "error":
            self._note = str(message.value)
        else:
            self._note = ""
            self._automatic = message.value["device"]
            self._found = {device["name"]: device for device in message.value["devices"]}
            for name, device in self._found.items():
                self._add_if_new(name, f"{device['kind']} ({name})")
        self.refresh()

    def _add_if_new(self, name: str, title: str) -> None:
        if self.ui.deviceComboBox.findData(name) < 0:
            self.ui.deviceComboBox.addItem(title, name)
