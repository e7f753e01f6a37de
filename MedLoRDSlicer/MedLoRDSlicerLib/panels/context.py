"""What all sections of the panel share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from medlord.errors import MedlordError

if TYPE_CHECKING:
    from medlord.bundles.description import ModelDescription

    from ..logic import SynthesisLogic
    from ..parameters import SynthesisParameters
    from ..settings import MachineSettings


class PanelContext:
    """Scene, logic, machine settings, and the parameter set that the panel shows now.

    parameters    None while there is none (the scene is being closed)
    changed       called by a section after it changed something that others show
    show          puts a volume into all slice views
    """

    def __init__(
        self,
        scene,
        logic: SynthesisLogic,
        settings: MachineSettings,
        *,
        changed: Callable[[], None],
        show: Callable[[object], None],
    ):
        self.scene, self.logic, self.settings = scene, logic, settings
        self.changed, self.show = changed, show
        self.parameters: SynthesisParameters | None = None
        self.model_error = ""
        self._described: tuple[str, ModelDescription | None] = ("", None)

    @property
    def description(self) -> ModelDescription | None:
        """What the chosen model takes and makes; None when it cannot be read, `model_error` then says why."""
        if self.parameters is None:
            return None
        model = self.parameters.model
        if self._described[0] != model or self._described[1] is None:
            self.model_error = ""
            try:
                self._described = (model, self.logic.describe_model(model))
            except MedlordError as error:
                self._described, self.model_error = (model, None), str(error)
        return self._described[1]

    def forget_description(self) -> None:
        """Read what the model takes and makes again: it may have changed or be gone."""
        self._described = ("", None)

    def place(self) -> dict:
        """The arguments of `SynthesisLogic.prepare`: which segment is what, and where the new CT goes."""
        from ..conditions_table import by_hand_from_text
        from ..parameters import center_of

        parameters = self.parameters
        return {
            "by_hand": by_hand_from_text(parameters.conditionsByHand),
            "reference": parameters.reference,
            "region": parameters.region,
            "center_ras_mm": center_of(parameters),
        }
