"""The section "Structures": which segment makes which condition of the model, and what is wrong with it."""

from __future__ import annotations

import time
from functools import cache, partial
from typing import TYPE_CHECKING

import qt
import slicer

from medlord.errors import MedlordError

from ..compatibility import stretch_columns
from ..conditions_table import by_hand_from_text, by_hand_to_text
from ..placement import is_frame_of_sequence
from ..translation import _
from .context import PanelContext
from .timers import end_timer, make_timer
from .watching import Watch

if TYPE_CHECKING:
    from ..conditions_table import ConditionRow, ConditionsTable

TITLE, SEGMENT, HOW, VOLUME, WARNING = range(5)
AUTOMATIC, LEAVE_EMPTY = 0, 1  # the first two entries of a row's box; the segments follow
_MEASURE_AFTER_MS = 300
# How long one tick of measuring may keep the application from its events.
_BUDGET_S = 0.015


class ConditionsPanel:
    """The table of structures, kept in the parameter node; volumes are measured bit by bit while Slicer is idle."""

    def __init__(self, ui, context: PanelContext):
        self.ui, self.context = ui, context
        self.table: ConditionsTable | None = None
        self._error = ""
        self._boxes: list = []
        self._boxes_for: list[str] = []
        self._choices: list[tuple[str, str]] | None = None
        self._key: tuple | None = None
        self._measurement = None
        self._drawing = Watch(self._on_drawn)
        self._naming = Watch(self._on_segments_changed)
        self._delay = make_timer(_MEASURE_AFTER_MS, self._begin_measuring, single_shot=True)
        self._work = make_timer(0, self._measure)
        ui.matchAgainButton.connect("clicked(bool)", self._on_match_again)
        table = ui.conditionsTable
        table.columnCount = WARNING + 1
        table.setHorizontalHeaderLabels([_("Structure"), _("Segment"), _("Matched by"), _("ml"), ""])
        table.verticalHeader().hide()
        stretch_columns(table.horizontalHeader(), (TITLE, SEGMENT), (HOW, VOLUME, WARNING))

    @property
    def reason(self) -> str:
        """Why these structures cannot be run, "" when they can."""
        return self.table.reason if self.table is not None else self._error

    @property
    def measuring(self) -> bool:
        """True while volumes are being measured or soon will be."""
        return self._delay.active or self._work.active

    def refresh(self) -> None:
        """Look whether other nodes or another model were chosen; then match and measure again."""
        parameters = self.context.parameters
        node = parameters.segmentation if parameters is not None else None
        segmentation = node.GetSegmentation() if node is not None else None
        self._watch(segmentation)
        key = None
        if parameters is not None:
            nodes = (node, parameters.reference, parameters.region)
            key = (*nodes, parameters.model, parameters.conditionsByHand, parameters.centerRas)
        if key != self._key:
            self._key = key
            self._match()

    def forget(self) -> None:
        """Match again at the next `refresh`, whatever changed."""
        self._key = None

    def cleanup(self) -> None:
        """Let go of the segmentation."""
        self._stop_measuring()
        self._watch(None)
        for timer in (self._delay, self._work):
            end_timer(timer)

    def _watch(self, segmentation) -> None:
        kind = slicer.vtkSegmentation
        self._naming.on(segmentation, (kind.SegmentAdded, kind.SegmentRemoved, kind.SegmentModified))
        self._drawing.on(segmentation, (kind.SourceRepresentationModified,))

    def _on_segments_changed(self, caller=None, event=None) -> None:
        self._match()
        self.context.changed()

    def _on_drawn(self, caller=None, event=None) -> None:
        self._stop_measuring()
        self._delay.start()

    def _match(self) -> None:
        """What every segment is, without looking at a voxel; the volumes follow."""
        self._stop_measuring()
        parameters = self.context.parameters
        self.table, self._error = None, ""
        if parameters is not None and self.context.description is not None:
            try:
                self.table = self.context.logic.conditions_table(
                    parameters.segmentation, parameters.model, measure=False, **self.context.place()
                )
            except MedlordError as error:
                self._error = str(error)
        self.ui.conditionsTable.visible = self.table is not None
        if self.table is None:
            self.ui.conditionsTable.rowCount = 0
            # The boxes are gone with their rows.
            self._boxes, self._boxes_for = [], []
        else:
            self._fill()
            if not self.table.reason:
                self._delay.start()
        self._say_rest()

    def _begin_measuring(self) -> None:
        parameters = self.context.parameters
        if parameters is None or parameters.segmentation is None:
            return
        self._measurement = self.context.logic.measure(
            parameters.segmentation, parameters.model, **self.context.place()
        )
        self._work.start()

    def _measure(self) -> None:
        """One tick of measuring: at least one structure, no more than fit into the budget."""
        end = time.monotonic() + _BUDGET_S
        self._measurement.step()
        while not self._measurement.done and time.monotonic() < end:
            self._measurement.step()
        if self._measurement.done:
            measured = self._measurement.table
            self._stop_measuring()
            self.table = measured
            self._fill()
            self._say_rest()
            self.context.changed()

    def _stop_measuring(self) -> None:
        self._delay.stop()
        self._work.stop()
        self._measurement = None

    def _fill(self) -> None:
        """Show the table; the boxes are filled anew only when there are other segments."""
        table, rows = self.ui.conditionsTable, self.table.rows
        if self._boxes_for != [row.condition for row in rows]:
            self._boxes_for = [row.condition for row in rows]
            table.rowCount = 0
            table.rowCount = len(rows)
            self._boxes = [self._make_box(number, row) for number, row in enumerate(rows)]
            self._choices = None
        choices = [(choice.segment_id, choice.name) for choice in self.table.segments]
        if choices != self._choices:
            self._choices = choices
            for box in self._boxes:
                _offer(box, [name for _identifier, name in choices])
        by_hand = by_hand_from_text(self.context.parameters.conditionsByHand)
        for number, row in enumerate(rows):
            self._fill_row(number, row, by_hand.get(row.condition))
        # As high as its rows, so that it never scrolls inside the scrolling panel.
        header_height = table.rowHeight(0)
        table.horizontalHeader().setFixedHeight(header_height)
        table.setFixedHeight(header_height + table.verticalHeader().length() + 2 * table.frameWidth)

    def _make_box(self, number: int, row: ConditionRow):
        box = qt.QComboBox()
        box.sizeAdjustPolicy = qt.QComboBox.AdjustToMinimumContentsLengthWithIcon
        box.minimumContentsLength = 6
        box.connect("currentIndexChanged(int)", partial(self._on_chosen, row.condition))
        self.ui.conditionsTable.setCellWidget(number, SEGMENT, box)
        return box

    def _fill_row(self, number: int, row: ConditionRow, chosen: tuple[str, ...] | None) -> None:
        tip = "\n".join(warning.text for warning in row.warnings)
        # The title may be cut where the panel is narrow.
        self._set(number, TITLE, row.title, f"{row.title} ({row.condition})").setData(
            qt.Qt.DecorationRole, qt.QColor(*(round(255 * value) for value in row.color))
        )
        self._set(number, HOW, _ways().get(row.how, row.how), "")
        volume = "" if row.volume_ml is None or not row.segment_ids else f"{row.volume_ml:.1f}"
        item = self._set(number, VOLUME, volume, _("Volume as it is drawn, in ml"))
        item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        self._set(number, WARNING, "\N{WARNING SIGN}" if row.warnings else "", tip)
        box = self._boxes[number]
        names = ", ".join(row.segment_names)
        box.blockSignals(True)
        box.setItemText(AUTOMATIC, _("Automatic") if chosen is not None else names or "\N{EM DASH}")
        # Names may be cut where the panel is narrow.
        box.toolTip = _("The segment that makes '{name}': {segments}").format(
            name=row.title, segments=names or _("none, it is left to the model")
        )
        box.currentIndex = self._index_of(chosen)
        box.blockSignals(False)

    def _index_of(self, chosen: tuple[str, ...] | None) -> int:
        """The entry of a box for what was chosen by hand; several segments or none that is left are automatic."""
        if chosen is None:
            return AUTOMATIC
        if not chosen:
            return LEAVE_EMPTY
        ids = [choice.segment_id for choice in self.table.segments]
        return ids.index(chosen[0]) + 2 if len(chosen) == 1 and chosen[0] in ids else AUTOMATIC

    def _set(self, number: int, column: int, text: str, tip: str):
        table = self.ui.conditionsTable
        item = table.item(number, column)
        if item is None:
            item = qt.QTableWidgetItem()
            item.setFlags(qt.Qt.ItemIsEnabled)
            table.setItem(number, column, item)
        item.setText(text)
        item.setToolTip(tip)
        return item

    def _on_chosen(self, condition: str, index: int) -> None:
        parameters = self.context.parameters
        by_hand = by_hand_from_text(parameters.conditionsByHand)
        if index == AUTOMATIC:
            by_hand.pop(condition, None)
        else:
            by_hand[condition] = () if index == LEAVE_EMPTY else (self.table.segments[index - 2].segment_id,)
        parameters.conditionsByHand = by_hand_to_text(by_hand)

    def _on_match_again(self, checked: bool = False) -> None:
        self.context.parameters.conditionsByHand = ""

    def _say_rest(self) -> None:
        """Warnings and unused segments below the table."""
        rows = self.table.rows if self.table is not None else []
        # One line per warning: a new canvas has a dozen structures in which nothing is drawn.
        concerned: dict[str, list[str]] = {}
        for row in rows:
            for warning in row.warnings:
                concerned.setdefault(warning.text, []).append(row.title)
        warnings = [
            _("{names}: {warning}").format(names=", ".join(titles), warning=text)
            for text, titles in concerned.items()
        ]
        parameters = self.context.parameters
        if self.table is not None and parameters.segmentation is not None:
            if is_frame_of_sequence(parameters.segmentation):
                warnings.append(
                    _(
                        "This segmentation is a frame of a sequence: one CT is made, of the frame that is shown."
                    )
                )
        self._say(warnings, [match.segment_name for match in self.table.unused] if self.table else [])

    def _say(self, warnings: list[str], unused: list[str]) -> None:
        ui = self.ui
        ui.conditionsWarningLabel.text = "\n".join(warnings)
        ui.conditionsWarningLabel.visible = bool(warnings)
        ui.unusedLabel.text = _("Not used: {names}").format(names=", ".join(unused)) if unused else ""
        ui.unusedLabel.visible = bool(unused)
        parameters = self.context.parameters
        ui.matchAgainButton.visible = parameters is not None and bool(parameters.conditionsByHand)


def _offer(box, names: list[str]) -> None:
    """Fill a box: automatic, leave empty, the segments."""
    box.blockSignals(True)
    box.clear()
    for text in ("", _("(leave empty)"), *names):
        box.addItem(text)
    box.blockSignals(False)


@cache
def _ways() -> dict[str, str]:
    """How a segment can be matched, in words; cached, since Slicer looks every text up anew."""
    return {
        "terminology": _("terminology"),
        "id": _("ID"),
        "name": _("name"),
        "alias": _("alias"),
        "parts": _("parts"),
        "by hand": _("by hand"),
    }
