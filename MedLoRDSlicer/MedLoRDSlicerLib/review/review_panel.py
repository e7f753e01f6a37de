"""The section "Review" of the panel: start, the page with the rating form, the keyboard, and the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import ctk
import slicer

from medlord.errors import EngineError, InputError, MedlordError
from medlord.review.rubric import Question
from medlord.review.study import LAYOUTS, WINDOWS

from ..headless import in_slicer_application
from ..panels.context import PanelContext
from ..panels.timers import end_timer, make_timer
from ..presets import WINDOW_PRESETS
from ..translation import _
from .form import RatingForm
from .keys import ReviewKeys
from .marks import ViewClicks
from .room import ReadingRoom
from .states import FINISHED, INTRODUCTION, PAUSED, READING
from .surroundings import Surroundings
from .words import LAYOUT_TITLES, keys_in_words, letters_of, message_of

if TYPE_CHECKING:
    from .session import ReviewSession

_PAGE = Path(__file__).resolve().parents[2] / "Resources" / "UI" / "MedLoRDReview.ui"
_VISIBLE_MS = 200
_MOST_OPTIONS = 9


class ReviewPanel:
    """Reads a study in the views and in the place of all other sections.

    window         the main window, whose keys are taken (default: Slicer's; without one the panel's own)
    interactor_of  the interactor of a slice view by its name, None for a view that is not on the screen
    is_seen        whether the reader can see the window now (default: whether it is the active one)
    reason         why nobody can read now, "" when somebody can
    clock          seconds
    """

    def __init__(
        self,
        ui,
        context: PanelContext,
        *,
        window=None,
        interactor_of: Callable[[str], object] | None = None,
        is_seen: Callable[[], bool] | None = None,
        reason: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.monotonic,
    ):
        self.ui, self.context, self._clock = ui, context, clock
        in_slicer = in_slicer_application()
        self._window = window or (slicer.util.mainWindow() if in_slicer else None)
        self._interactor_of = interactor_of or (_interactor_in_slicer if in_slicer else lambda name: None)
        self._is_seen, self._reason = is_seen or self._is_window_active, reason
        self.session: ReviewSession | None = None
        self.page = self.page_ui = self.form = self._keys = self._clicks = None
        self._notice = ""
        self._surroundings = Surroundings(self._window)
        self._hidden: list = []
        self._visible_timer = make_timer(_VISIBLE_MS, self._on_visible_timer)
        # New views get their size in the event loop only.
        self._fit_soon = make_timer(0, self._on_fit_soon, single_shot=True)
        ui.reviewStudyLineEdit.filters = ctk.ctkPathLineEdit.Dirs
        ui.reviewAnswersLineEdit.filters = ctk.ctkPathLineEdit.Dirs
        ui.reviewStartButton.connect("clicked(bool)", self._on_start)
        self._say("")

    @property
    def active(self) -> bool:
        """True while somebody reads."""
        return self.session is not None

    def start(
        self, study_folder: str | Path, reader: str, answers: str | Path | None = None
    ) -> ReviewSession:
        """Take over views and panel, and show the introduction of the study; the reader goes on with the key N.

        Raises `InputError` for a bad study or reader, and while a study is being read; nothing is changed then.
        """
        if self.active:
            raise InputError(_("A study is being read; leave it first."))
        if self._reason():
            raise InputError(self._reason())
        self.session = _session_class()(
            study_folder, reader, answers, self._room, changed=self.draw, clock=self._clock
        )
        self._surroundings.hide()
        self._hide_sections()
        self._open_page()
        self._keys = ReviewKeys(self._window or self.page, self._actions())
        self._clicks = ViewClicks(self.session.room, self._interactor_of, self._on_click)
        self._clicks.watch()
        self._visible_timer.start()
        self._say("")
        self.draw()
        return self.session

    def leave(self) -> None:
        """End the mode: what was answered is stored, layout, displays and panel are as before."""
        if self.session is None:
            return
        self.form.stop_typing()
        session, self.session = self.session, None
        self._visible_timer.stop()
        self._fit_soon.stop()
        self._keys.leave()
        self._clicks.leave()
        self.page.setParent(None)
        self.page.deleteLater()
        self.page = self.page_ui = self.form = None
        for widget in self._hidden:
            widget.visible = True
        self._hidden = []
        self._surroundings.restore()
        try:
            session.close()
        except MedlordError as error:
            self._say(str(error))
        self.context.changed()

    def cleanup(self) -> None:
        """Leave for ever."""
        self.leave()
        end_timer(self._visible_timer)
        end_timer(self._fit_soon)

    def draw(self) -> None:
        """Show the state of the session."""
        session, ui = self.session, self.page_ui
        if session is None or ui is None:
            return
        reading = session.state == READING
        ui.caseLabel.text = session.title
        done, total = session.progress
        ui.readingProgressBar.maximum, ui.readingProgressBar.value = total, done
        ui.messageLabel.text = self._notice or message_of(session)
        ui.messageLabel.visible = bool(ui.messageLabel.text)
        ui.questionsWidget.visible = reading
        self.form.show(session.values(), session.armed)
        ui.backButton.enabled = session.can_go_back and session.state not in (INTRODUCTION, PAUSED)
        ui.pauseButton.enabled = reading
        ui.nextButton.text = _("Next (N)") if reading else _("Go on (N)")
        ui.nextButton.enabled = session.state != FINISHED
        for box in (ui.readingWindowComboBox, ui.layoutComboBox):
            box.enabled = session.case_is_visible
        self._surroundings.tell(session.title)

    def _room(self, sides: int, mask_names: tuple[str, ...]) -> ReadingRoom:
        return ReadingRoom(self.context.scene, sides, mask_names)

    def _open_page(self) -> None:
        self.page = slicer.util.loadUI(str(_PAGE))
        self.page_ui = ui = slicer.util.childWidgetVariables(self.page)
        self.ui.reviewCollapsibleButton.layout().addWidget(self.page)
        self.form = RatingForm(ui.questionsWidget, self.session.study.rubric, self._on_chosen)
        for name in WINDOWS:
            ui.readingWindowComboBox.addItem(WINDOW_PRESETS[name].title, name)
        for name in LAYOUTS:
            ui.layoutComboBox.addItem(LAYOUT_TITLES[name], name)
        ui.keysLabel.text = keys_in_words(self.session.study)
        self._reset_boxes()
        ui.readingWindowComboBox.connect("currentIndexChanged(int)", self._on_window)
        ui.layoutComboBox.connect("currentIndexChanged(int)", self._on_layout)
        ui.backButton.connect("clicked(bool)", lambda checked=False: self._do(self._back))
        ui.pauseButton.connect("clicked(bool)", lambda checked=False: self._do(self._pause))
        ui.nextButton.connect("clicked(bool)", lambda checked=False: self._do(self._next))
        ui.leaveButton.connect("clicked(bool)", lambda checked=False: self.leave())

    def _hide_sections(self) -> None:
        """All of the panel but this section; results and inputs carry names."""
        section = self.ui.reviewCollapsibleButton
        section.collapsed = False
        own = section.children()
        others = [child for child in section.parent().children() if child != section]
        # Layouts are children too, and have nothing to hide.
        widgets = [child for child in (*own, *others) if hasattr(child, "isHidden")]
        self._hidden = [widget for widget in widgets if not widget.isHidden()]
        for widget in self._hidden:
            widget.visible = False

    def _actions(self) -> dict[str, Callable[[], None]]:
        """What every key does."""
        session, form = self.session, self.form

        def act(action: Callable[[], object]) -> Callable[[], None]:
            return lambda: self._do(action)

        actions = {
            "N": self._next, "Return": self._return, "Enter": self._return, "B": self._back, "P": self._pause,
            "Space": self._pause, "Tab": lambda: form.step(1), "Shift+Tab": lambda: form.step(-1),
            "Up": lambda: self._move(1), "Down": lambda: self._move(-1),
            "PgUp": lambda: self._move(10), "PgDown": lambda: self._move(-10),
            "Right": lambda: self._choose_view(1), "Left": lambda: self._choose_view(-1),
            "W": lambda: _step_box(self.page_ui.readingWindowComboBox),
            "V": lambda: _step_box(self.page_ui.layoutComboBox),
            "A": lambda: self._open_kind("artefacts"), "C": lambda: self._open_kind("text"),
            "Backspace": session.take_back_mark, "O": session.room.toggle_mask, "Escape": form.stop_typing,
        }  # fmt: skip
        for number in range(1, _MOST_OPTIONS + 1):
            actions[str(number)] = lambda number=number: session.state == READING and form.press(number)
        for letter, question, value in letters_of(session.study.rubric):
            actions[letter] = lambda question=question, value=value: self._on_chosen(question, value)
        return {key: act(action) for key, action in actions.items()}

    def _do(self, action: Callable[[], object]) -> None:
        """Do it, or say on the page why not."""
        if self.session is None:
            return
        notice, self._notice = self._notice, ""
        try:
            action()
        except MedlordError as error:
            self._notice = str(error)
        if notice or self._notice:
            self.draw()

    def _next(self) -> None:
        session, form = self.session, self.form
        form.stop_typing()
        if session.state == READING and session.missing():
            form.open_first_missing()
            raise InputError(
                _("Still open: {questions}").format(questions="; ".join(q.text for q in session.missing()))
            )
        self._change_case(session.go_on)

    def _return(self) -> None:
        if self.form.typing:
            self.form.stop_typing()
        else:
            self._next()

    def _back(self) -> None:
        self.form.stop_typing()
        self._change_case(self.session.back)

    def _pause(self) -> None:
        self.form.stop_typing()
        if self.session.state == READING:
            self.session.pause()
        elif self.session.state == PAUSED:
            self._change_case(self.session.go_on)

    def _change_case(self, change: Callable[[], None]) -> None:
        before = self.session.shown
        layout = self.session.room.layout
        try:
            change()
        finally:
            if self.session.shown is not before:
                self._reset_boxes()
                self.form.open_first_missing()
            if before is None or self.session.room.layout != layout:
                self._clicks.watch()
                self._fit_soon.start()

    def _reset_boxes(self) -> None:
        """Every case begins in the window and the layout of the study."""
        display, ui = self.session.study.content["display"], self.page_ui
        for box, value in (
            (ui.readingWindowComboBox, display["window"]),
            (ui.layoutComboBox, display["layout"]),
        ):
            box.blockSignals(True)
            box.currentIndex = box.findData(value)
            box.blockSignals(False)

    def _move(self, slices: int) -> None:
        if self.session.case_is_visible:
            self.session.room.move(slices)

    def _choose_view(self, steps: int) -> None:
        if self.session.case_is_visible:
            view = self.session.room.choose_view(steps)
            self._notice = _("The arrow keys move: {view}").format(
                view=f"{view.orientation} {view.side}".strip()
            )

    def _open_kind(self, kind: str) -> None:
        question = next((q for q in self.session.study.rubric.questions if q.kind == kind), None)
        if question is not None and self.session.state == READING:
            self.form.open(question)

    def _on_chosen(self, question: Question, value: object) -> None:
        """An option was chosen or a text is complete."""
        session = self.session
        if session is None or session.state != READING:
            return
        if question.kind == "artefacts":
            session.choose_artefact(question, value)
        elif question.kind == "text":
            if value != session.values().get(question.id, ""):
                session.answer(question.id, value)
        else:
            session.answer(question.id, value)
            self.form.open_next_missing()

    def _on_click(self, view, position_ras_mm: list[float]) -> None:
        self._do(lambda: self.session.mark(position_ras_mm))

    def _on_window(self, row: int) -> None:
        if self.session is not None:
            self.session.room.set_window(*WINDOWS[self.page_ui.readingWindowComboBox.currentData])

    def _on_layout(self, row: int) -> None:
        if self.session is not None:
            self.session.set_layout(self.page_ui.layoutComboBox.currentData)
            self._clicks.watch()
            self._fit_soon.start()

    def _on_fit_soon(self) -> None:
        if self.session is not None and self.session.case_is_visible:
            self.session.room.fit()

    def _on_visible_timer(self) -> None:
        if self.session is not None:
            self.session.set_visible(self._is_seen())

    def _is_window_active(self) -> bool:
        window = self._window or self.page
        return bool(window.isActiveWindow and window.visible and not window.minimized)

    def _on_start(self, checked: bool = False) -> None:
        ui = self.ui
        study, reader = ui.reviewStudyLineEdit.currentPath.strip(), ui.reviewReaderLineEdit.text.strip()
        if not study or not reader:
            self._say(_("Choose the folder of the study and write your name, then press Start reading."))
            return
        try:
            self.start(study, reader, ui.reviewAnswersLineEdit.currentPath.strip() or None)
        except MedlordError as error:
            self._say(str(error))

    def _say(self, text: str) -> None:
        self.ui.reviewStatusLabel.text = text
        self.ui.reviewStatusLabel.visible = bool(text)


def _session_class() -> type[ReviewSession]:
    """The session, imported when somebody reads: it needs SQLite, without which the rest of the panel works."""
    try:
        from .session import ReviewSession
    except ModuleNotFoundError as error:
        if error.name not in ("sqlite3", "_sqlite3"):
            raise
        raise EngineError(
            _(
                "This program's Python has no SQLite, which keeps the answers; use another version of Slicer, or read "
                "with 'medlord review answer'."
            )
        ) from error
    return ReviewSession


def _interactor_in_slicer(name: str):
    """The interactor of a slice view on the screen."""
    widget = slicer.app.layoutManager().sliceWidget(name)
    return widget.sliceView().interactor() if widget is not None else None


def _step_box(box) -> None:
    """Choose the next entry of a box, the first after the last."""
    if box.enabled:
        box.currentIndex = (box.currentIndex + 1) % box.count
