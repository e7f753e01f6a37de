"""The section "Checks": how far a CT can be trusted, at a click or after every run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import ctk
import qt

from medlord.errors import CancelledError, MedlordError

from ..check_choices import OF_THE_MODEL, references, segmenters
from ..check_failures import failure_in_words
from ..check_queue import CheckQueue
from ..check_table import SUMMARY_ATTRIBUTE, CheckRow, Column, column_meanings, column_titles
from ..checks import LABELMAP, check_of, jump_slices, show_chart_and_table
from ..compatibility import stretch_columns
from ..translation import _
from .context import PanelContext
from .segmenter_fields import SegmenterFields

if TYPE_CHECKING:
    from medlord.progress import ProgressEvent

    from ..checks import Check

# The columns of the panel; the table node has more.
_SHOWN = (Column.STRUCTURE, Column.VERDICT, Column.DICE, Column.HD95, Column.PERCENTILE)
_FORMATS = {Column.DICE: "{:.2f}", Column.HD95: "{:.1f}", Column.PERCENTILE: "{:.0f}"}
_MOST_LINES = 12
# Entry of the box of references for a file, beside what `check_choices.references` offers.
_FILE = "file"
# Readable on light and dark ground, with the word beside it.
_COLOURS = {"green": "#2e9e4f", "amber": "#d99a00", "red": "#d03a2f"}


class ChecksPanel:
    """Steers a `CheckQueue` and shows what the latest check of the chosen CT said."""

    def __init__(self, ui, context: PanelContext):
        self.ui, self.context = ui, context
        self.queue = CheckQueue(self._on_ended)
        self.fields = SegmenterFields(ui, context)
        self.rows: list[CheckRow] = []
        self._shown: tuple | None = None
        self._event: ProgressEvent | None = None
        self._offered_for = ""
        # The CT whose check lacked weights that can be downloaded.
        self._lacks_weights = None
        for name, title in segmenters().items():
            ui.checkSegmenterComboBox.addItem(title, name)
        ui.checkReferencePathLineEdit.filters = ctk.ctkPathLineEdit.Files
        self._prepare_table()
        for signal, widget, slot in (
            ("clicked(bool)", ui.checkButton, self._on_check),
            ("clicked(bool)", ui.cancelCheckButton, self._on_cancel),
            ("clicked(bool)", ui.showChartButton, self._on_show_chart),
            ("clicked(bool)", ui.downloadWeightsButton, self._on_download),
            ("toggled(bool)", ui.checkAfterRunCheckBox, self._on_after_run),
            ("currentIndexChanged(int)", ui.checkSegmenterComboBox, self._on_segmenter),
            ("currentIndexChanged(int)", ui.checkReferenceComboBox, self._on_reference),
            ("currentPathChanged(QString)", ui.checkReferencePathLineEdit, self._on_reference_file),
            ("currentNodeChanged(vtkMRMLNode*)", ui.checkVolumeSelector, self._on_chosen),
            ("currentNodeChanged(vtkMRMLNode*)", ui.checkFoundSelector, self._on_chosen),
            ("cellClicked(int,int)", ui.checkTable, self._on_row),
            ("currentCellChanged(int,int,int,int)", ui.checkTable, self._on_row),
        ):
            widget.connect(signal, slot)
        ui.checkProgressBar.visible = False
        self._say("")

    @property
    def busy(self) -> bool:
        """True while a check runs or waits."""
        return self.queue.busy

    @property
    def volume(self):
        """The CT to check, None when none is chosen."""
        return self.ui.checkVolumeSelector.currentNode()

    def refresh(self) -> None:
        """Show what the parameter set and the scene hold, and enable what is possible."""
        ui, parameters = self.ui, self.context.parameters
        if parameters is not None:
            self._show_choices()
        is_labelmap = self._segmenter() == LABELMAP
        ui.checkFoundLabel.visible = ui.checkFoundSelector.visible = is_labelmap
        self.fields.refresh(self._segmenter())
        ui.checkReferencePathLineEdit.visible = ui.checkReferenceComboBox.currentData == _FILE
        lacks_found = is_labelmap and ui.checkFoundSelector.currentNode() is None
        lacks_file = (
            ui.checkReferenceComboBox.currentData == _FILE
            and not ui.checkReferencePathLineEdit.currentPath.strip()
        )
        possible = parameters is not None and self.volume is not None and not (lacks_found or lacks_file)
        ui.checkButton.enabled = possible and not self.busy
        ui.cancelCheckButton.enabled = self.busy
        ui.downloadWeightsButton.visible = self._lacks_weights is not None and not self.busy
        ui.checkProgressBar.visible = self.busy
        self._show_rows()

    def take_new(self, volume_node) -> None:
        """A run has finished: choose its CT, and check it when that is wanted."""
        self.ui.checkVolumeSelector.setCurrentNode(volume_node)
        if self.context.parameters is not None and self.context.parameters.checkAfterRun:
            self._add(volume_node)

    def poll(self) -> None:
        """Move the checks on; called from the panel's timer while `busy`."""
        self.queue.poll()
        check = self.queue.current
        if check is None or check.event is None or check.event is self._event:
            return
        self._event = check.event
        self.ui.checkProgressBar.maximum = self._event.total if self._event.total > 1 else 0
        self.ui.checkProgressBar.value = self._event.step
        self._say(_describe(self._event))

    def stop(self) -> None:
        """Stop all checks."""
        self.queue.cancel()

    def _add(self, volume_node, **more) -> None:
        parameters, found = self.context.parameters, None
        self._lacks_weights = None
        if self._segmenter() == LABELMAP:
            found = self.ui.checkFoundSelector.currentNode()
        options = {
            "segmenter": self._segmenter(),
            "reference": self._reference(),
            "found": found,
            # The CT that the drawing belongs to has no recipe that would hold its masks.
            "masks": parameters.segmentation if volume_node is parameters.reference else None,
            **self.fields.options(self._segmenter()),
            **more,
        }
        self.queue.add(volume_node, lambda: self.context.logic.start_check(volume_node, **options))
        self.ui.checkProgressBar.maximum = 0
        self._event = None
        self._say(_("Checking '{name}'...").format(name=volume_node.GetName()))

    def _on_ended(self, volume_node, check: Check | None, error: MedlordError | None) -> None:
        if isinstance(error, CancelledError):
            self._say(str(error))
        elif error is not None:
            failure = failure_in_words(error, self._segmenter() if check is None else check.segmenter)
            self._say(failure.text)
            self._lacks_weights = volume_node if failure.can_download else None
        else:
            self._say("")
            self.ui.checkVolumeSelector.setCurrentNode(volume_node)
        self.context.changed()

    def _show_choices(self) -> None:
        """The parameter set in the boxes; a reference that is a file is shown as one."""
        ui, parameters = self.ui, self.context.parameters
        _choose(ui.checkSegmenterComboBox, parameters.checkSegmenter)
        segmenter = self._segmenter()
        box = ui.checkReferenceComboBox
        if segmenter != self._offered_for:
            self._offered_for = segmenter
            box.blockSignals(True)
            box.clear()
            for name, title in {**references(segmenter), _FILE: _("A file...")}.items():
                box.addItem(title, name)
            box.blockSignals(False)
        chosen = parameters.checkReference
        is_file = chosen.lower().endswith(".json") or (box.currentData == _FILE and not chosen)
        _choose(box, _FILE if is_file else chosen)
        line = ui.checkReferencePathLineEdit
        if is_file and chosen and line.currentPath.strip() != chosen:
            line.blockSignals(True)
            line.currentPath = chosen
            line.blockSignals(False)
        if ui.checkAfterRunCheckBox.checked != bool(parameters.checkAfterRun):
            ui.checkAfterRunCheckBox.checked = bool(parameters.checkAfterRun)

    def _show_rows(self) -> None:
        """Verdict and rows of the latest check of the chosen CT."""
        ui, found = self.ui, check_of(self.volume)
        key = (self.volume, found[0] if found else None)
        if key == self._shown:
            return
        self._shown = key
        self.rows = found[1] if found else []
        ui.checkTable.visible = ui.verdictLabel.visible = bool(found)
        ui.showChartButton.enabled = bool(found)
        # The selection of the rows before leads nowhere.
        ui.checkTable.blockSignals(True)
        ui.checkTable.rowCount = 0
        ui.checkTable.rowCount = len(self.rows)
        for number, row in enumerate(self.rows):
            self._fill_row(number, row)
        ui.checkTable.blockSignals(False)
        if found:
            ui.verdictLabel.text = _verdict_in_words(json.loads(found[0].GetAttribute(SUMMARY_ATTRIBUTE)))
            table = ui.checkTable
            # A header and at most a dozen rows; the rest can be scrolled to.
            lines = min(len(self.rows), _MOST_LINES) + 1
            table.setFixedHeight(lines * table.rowHeight(0) + 2 * table.frameWidth)

    def _fill_row(self, number: int, row: CheckRow) -> None:
        tip = row.reason or _("Nothing wrong was found.")
        if row.position_ras_mm is not None:
            tip = _("{reason}\nClick to look at it.").format(reason=tip)
        for column, shown in enumerate(_SHOWN):
            item = qt.QTableWidgetItem()
            item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
            item.setText(_cell(row, shown))
            item.setToolTip(tip)
            if shown is Column.VERDICT:
                item.setData(qt.Qt.DecorationRole, qt.QColor(_COLOURS[row.level]))
            elif shown is not Column.STRUCTURE:
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            self.ui.checkTable.setItem(number, column, item)

    def _prepare_table(self) -> None:
        table, titles, meanings = self.ui.checkTable, _short_titles(), _tips()
        table.columnCount = len(_SHOWN)
        table.setHorizontalHeaderLabels([titles[column] for column in _SHOWN])
        for number, column in enumerate(_SHOWN):
            table.horizontalHeaderItem(number).setToolTip(meanings[column])
        table.verticalHeader().hide()
        table.horizontalHeader().setHighlightSections(False)
        stretch_columns(table.horizontalHeader(), (0,), range(1, len(_SHOWN)))

    def _segmenter(self) -> str:
        return self.ui.checkSegmenterComboBox.currentData

    def _reference(self) -> str:
        chosen = self.ui.checkReferenceComboBox.currentData
        return self.ui.checkReferencePathLineEdit.currentPath.strip() if chosen == _FILE else chosen

    def _on_check(self, checked: bool = False) -> None:
        self._add(self.volume)
        self.context.changed()

    def _on_cancel(self, checked: bool = False) -> None:
        self.stop()
        self.context.changed()

    def _on_download(self, checked: bool = False) -> None:
        """The user has read what would be downloaded, and agrees."""
        self._add(self._lacks_weights, download=True)
        self.context.changed()

    def _on_after_run(self, checked: bool) -> None:
        if self.context.parameters is not None:
            self.context.parameters.checkAfterRun = "1" if checked else ""

    def _on_segmenter(self, row: int) -> None:
        """Another segmenter has other references."""
        if self.context.parameters is not None:
            chosen = self._segmenter()
            _choose(self.ui.checkReferenceComboBox, OF_THE_MODEL)
            self.context.parameters.checkReference = OF_THE_MODEL
            self.context.parameters.checkSegmenter = chosen
            self.context.changed()

    def _on_reference(self, row: int) -> None:
        if self.context.parameters is not None:
            self.context.parameters.checkReference = self._reference()
            self.context.changed()

    def _on_reference_file(self, path: str) -> None:
        if self.ui.checkReferenceComboBox.currentData == _FILE and self.context.parameters is not None:
            self.context.parameters.checkReference = self._reference()
            self.context.changed()

    def _on_chosen(self, node) -> None:
        self.refresh()

    def _on_row(self, number: int, column: int = 0, *_before: int) -> None:
        """A row was clicked, or reached with the keys."""
        if not 0 <= number < len(self.rows):
            return
        row = self.rows[number]
        self._say(row.reason)
        if row.position_ras_mm is not None:
            jump_slices(self.context.scene, row.position_ras_mm)

    def _on_show_chart(self, checked: bool = False) -> None:
        self._try(lambda: show_chart_and_table(self.context.scene, self.volume))

    def _try(self, action: Callable[[], None]) -> None:
        """Do it, or say in the panel why not."""
        try:
            action()
        except MedlordError as error:
            self._say(str(error))

    def _say(self, text: str) -> None:
        self.ui.checkStatusLabel.text = text
        self.ui.checkStatusLabel.visible = bool(text)


def _choose(box, value: str) -> None:
    """Select the entry whose data is `value`, the first one where there is none, without telling."""
    box.blockSignals(True)
    box.currentIndex = max(0, box.findData(value))
    box.blockSignals(False)


def _cell(row: CheckRow, column: Column) -> str:
    if column is Column.STRUCTURE:
        return row.structure.replace("_", " ") or _("whole volume")
    if column is Column.VERDICT:
        return _level_in_words(row.level)
    value = row.numbers[column]
    text = "" if math.isnan(value) else _FORMATS[column].format(value)
    ceiling = row.numbers[Column.CEILING]
    if column is Column.DICE and text and not math.isnan(ceiling):
        text = f"{text} ({_FORMATS[column].format(ceiling)})"
    return text


def _short_titles() -> dict[Column, str]:
    return {
        **column_titles(),
        Column.HD95: _("HD95 mm"),
        Column.PERCENTILE: _("Percentile"),
    }


def _tips() -> dict[Column, str]:
    meanings = column_meanings()
    behind = _("{meaning}; in brackets on the real CT, where there is one").format(
        meaning=meanings[Column.DICE]
    )
    return {**meanings, Column.DICE: behind}


def _level_in_words(level: str) -> str:
    return {"green": _("green"), "amber": _("amber"), "red": _("red")}[level]


def _verdict_in_words(summary: dict) -> str:
    """Verdict, who measured, against what, and what it is not."""
    reference = summary["reference"]
    if reference is None:
        against = _("no reference population")
    elif reference["comparable_field_of_view"]:
        against = _("reference {name} (N = {count})").format(name=reference["name"], count=reference["count"])
    else:
        against = _("reference {name} (N = {count}), by ml: another field of view").format(
            name=reference["name"], count=reference["count"]
        )
    # Scenes of earlier versions hold no scope. It is the engine's, as the reasons are.
    return _("Verdict: {level}, {meaning}. {scope} Segmenter {segmenter}; {against}. {notice}").format(
        scope=summary.get("scope", ""),
        level=_level_in_words(summary["verdict"]),
        meaning=summary["meaning"],
        segmenter=summary["segmenter"],
        against=against,
        notice=_("Adherence is not clinical validity."),
    )


def _describe(event: ProgressEvent) -> str:
    """An event of the engine in words."""
    phases = {
        "segment": _("Looking for structures"),
        "compare": _("Comparing with the drawn masks"),
        "measure": _("Measuring HU and image"),
    }
    text = phases.get(event.phase, event.phase)
    if event.total > 1:
        text = _("{phase}: step {step} of {total}").format(phase=text, step=event.step, total=event.total)
    return text
