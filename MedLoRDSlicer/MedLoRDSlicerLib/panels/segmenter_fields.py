"""What only TotalSegmentator takes: a folder of weights and a licence key, kept on this computer and in no scene."""

from __future__ import annotations

import ctk

from ..check_choices import is_total_segmentator, needs_licence_key
from .context import PanelContext


class SegmenterFields:
    """Fields below the choice of the segmenter; shown for the tasks that take them.

    Both are machine settings: a path of one computer and a secret of one user are nothing to save with a scene that
    goes to others.
    """

    def __init__(self, ui, context: PanelContext):
        self.ui, self.context = ui, context
        ui.checkWeightsPathLineEdit.filters = ctk.ctkPathLineEdit.Dirs
        ui.checkWeightsPathLineEdit.currentPath = context.settings.segmenter_weights
        ui.checkLicenceKeyLineEdit.text = context.settings.segmenter_licence_key
        ui.checkWeightsPathLineEdit.connect("currentPathChanged(QString)", self._on_weights)
        ui.checkLicenceKeyLineEdit.connect("textChanged(QString)", self._on_licence_key)

    def refresh(self, segmenter: str) -> None:
        """Show what `segmenter` takes."""
        ui = self.ui
        ui.checkWeightsLabel.visible = ui.checkWeightsPathLineEdit.visible = is_total_segmentator(segmenter)
        ui.checkLicenceKeyLabel.visible = ui.checkLicenceKeyLineEdit.visible = needs_licence_key(segmenter)

    def options(self, segmenter: str) -> dict[str, str]:
        """What to pass on to `segmenter`: only what was given, and a key only to the tasks that need one."""
        settings = self.context.settings
        given = {
            "weights": settings.segmenter_weights if is_total_segmentator(segmenter) else "",
            "license_key": settings.segmenter_licence_key if needs_licence_key(segmenter) else "",
        }
        return {name: value for name, value in given.items() if value}

    def _on_weights(self, path: str) -> None:
        self.context.settings.segmenter_weights = path.strip()

    def _on_licence_key(self, text: str) -> None:
        self.context.settings.segmenter_licence_key = text.strip()
