"""The section "Engine and this computer": which Python runs the engine, where models lie, what was accepted."""

from __future__ import annotations

from collections.abc import Callable

import ctk
import qt
import slicer

from medlord.bundles.bundle import delete_model
from medlord.errors import MedlordError
from medlord.memory.sizes import in_words

from ..installation import PythonCheck, accept_python, installation_was_interrupted
from ..model_choice import ModelPlace, place_of
from ..translation import _
from .context import PanelContext


class SettingsPanel:
    """Machine settings. `on_models` is called after the models on this computer changed.

    `confirm` asks the user a question before a model is deleted (default: a dialog of Slicer).
    """

    def __init__(
        self,
        ui,
        context: PanelContext,
        on_models: Callable[[], None],
        confirm: Callable[[str], bool] | None = None,
    ):
        self.ui, self.context, self._on_models = ui, context, on_models
        self.confirm = confirm or (lambda question: slicer.util.confirmOkCancelDisplay(question))
        self._placed: tuple[str, ModelPlace | None] = ("", None)
        self.check: PythonCheck | None = None
        ui.pythonPathLineEdit.filters = ctk.ctkPathLineEdit.Files
        ui.modelFolderLineEdit.filters = ctk.ctkPathLineEdit.Dirs
        ui.pythonPathLineEdit.currentPath = context.settings.engine_python
        ui.modelFolderLineEdit.currentPath = context.settings.model_folder
        ui.checkPythonButton.connect("clicked(bool)", self._on_check)
        ui.ownPythonButton.connect("clicked(bool)", self._on_own)
        ui.modelFolderLineEdit.connect("currentPathChanged(QString)", self._on_model_folder)
        ui.forgetLicencesButton.connect("clicked(bool)", self._on_forget)
        ui.openModelButton.connect("clicked(bool)", self._on_open_model)
        ui.deleteModelButton.connect("clicked(bool)", self._on_delete_model)
        self._say(self._present())

    @property
    def busy(self) -> bool:
        """True while a Python is looked at."""
        return self.check is not None

    def refresh(self) -> None:
        """Enable what is possible now."""
        ui, accepted = self.ui, self.context.settings.accepted_licences
        ui.checkPythonButton.enabled = not self.busy
        ui.ownPythonButton.enabled = not self.busy and bool(self.context.settings.engine_python)
        ui.licencesLabel.text = (
            _("Accepted licences: {names}").format(names="; ".join(accepted))
            if accepted
            else _("No licence had to be accepted.")
        )
        ui.forgetLicencesButton.visible = bool(accepted)
        self._show_model()

    def poll(self) -> None:
        """Take what the look at a Python found; called from the panel's timer while `busy`."""
        check = self.check
        if not check.done:
            return
        self.check = None
        if check.error is not None:
            self._say(str(check.error))
        else:
            accept_python(check.python)
            self._say(_("In use: {summary}").format(summary=check.report.summary()))
        self.context.changed()

    def _present(self) -> str:
        if self.context.settings.engine_python:
            return _("The engine runs in {python}.").format(python=self.context.settings.engine_python)
        if installation_was_interrupted():
            return _("The installation of the engine was interrupted; press Run to go on with it.")
        return _(
            "The engine runs in Slicer's own Python; what it needs is installed at the first run, after a question."
        )

    def _on_check(self, checked: bool = False) -> None:
        path = self.ui.pythonPathLineEdit.currentPath.strip()
        if not path:
            self._say(_("Choose a Python program first."))
            return
        self.check = PythonCheck(path)
        self._say(_("Looking at {python}...").format(python=path))
        self.context.changed()

    def _on_own(self, checked: bool = False) -> None:
        accept_python(None)
        self.ui.pythonPathLineEdit.currentPath = ""
        self._say(self._present())
        self.context.changed()

    def _on_model_folder(self, path: str) -> None:
        self.context.settings.model_folder = path.strip()
        self._on_models()
        self.context.changed()

    def _on_forget(self, checked: bool = False) -> None:
        self.context.settings.accepted_licences = ()
        self.context.changed()

    def _show_model(self) -> None:
        """Where the chosen model lies and how large it is; looked at once per choice."""
        parameters = self.context.parameters
        model = parameters.model if parameters is not None else ""
        if model != self._placed[0]:
            self._placed = (model, place_of(model) if model else None)
        place = self._placed[1]
        self.ui.openModelButton.enabled = place is not None
        self.ui.deleteModelButton.enabled = place is not None and place.deletable
        text = _("The chosen model is not on this computer.")
        if place is not None:
            text = _("The chosen model takes {size} in {folder}.").format(
                size=in_words(place.size_bytes), folder=place.folder
            )
        self.ui.modelPlaceLabel.text = text

    def _on_open_model(self, checked: bool = False) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._placed[1].folder)))

    def _on_delete_model(self, checked: bool = False) -> None:
        model = self.context.parameters.model
        question = _("Delete the model '{model}' from this computer for good?").format(model=model)
        if not self.confirm(question):
            return
        try:
            delete_model(model)
        except MedlordError as error:
            self._say(str(error))
        self._placed = ("", None)
        self._on_models()
        self.context.forget_description()
        self.context.changed()

    def _say(self, text: str) -> None:
        self.ui.pythonStatusLabel.text = text
