"""The rows of the panel's conditions table: which segment makes which condition, how large it is, what is wrong.

The choices that the user made by hand are kept as one text in the parameter node (`by_hand_to_text`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from medlord.errors import InputError, MedlordError
from medlord.vocabulary import Vocabulary, load_vocabulary
from medlord.volumes import Grid

from .mask_volumes import volume_in_pieces
from .placement import Point, grid_center, model_grid
from .segments import BY_HAND, Assignment, ByHand, Preparation, SegmentMatch, assign_segments
from .translation import _

if TYPE_CHECKING:
    from medlord.bundles.description import ModelDescription

ABSENT, EMPTY, OUTSIDE, THIN, INCOMPLETE, GONE = "absent", "empty", "outside", "thin", "incomplete", "gone"
# The limits at which the engine warns too.
_LOST_SHARE = 0.01
_KEPT_VOLUME = (0.8, 1.25)
_JUDGED_VOXELS = 20_000


@dataclass(frozen=True)
class ConditionWarning:
    """Something about one condition that the user should see: its kind (a word of this module) and the sentence."""

    kind: str
    text: str


@dataclass(frozen=True)
class ConditionRow:
    """One condition of the model.

    `title` is its name for people, `color` RGB 0..1; `how` tells what matched the segments: "terminology", "id",
    "name", "alias", "parts", "by hand" or "" (no segment: left to the model). `volume_ml` as drawn and
    `model_volume_ml` on the model's grid are None until they were measured.
    """

    condition: str
    title: str
    color: tuple[float, float, float]
    segment_ids: tuple[str, ...] = ()
    segment_names: tuple[str, ...] = ()
    how: str = ""
    volume_ml: float | None = None
    model_volume_ml: float | None = None
    warnings: tuple[ConditionWarning, ...] = ()


@dataclass(frozen=True)
class SegmentChoice:
    """A segment that can be chosen for a condition."""

    segment_id: str
    name: str


@dataclass
class ConditionsTable:
    """All rows in the model's order, the segments to choose from, those that no condition uses, and why Run cannot be.

    `reason` is "" when there is nothing against running.
    """

    rows: list[ConditionRow]
    segments: list[SegmentChoice] = field(default_factory=list)
    unused: list[SegmentMatch] = field(default_factory=list)
    reason: str = ""


class Measurement:
    """Fills the volumes and warnings of a conditions table, a small piece of work per `step`, until `done`.

    `table` can be shown from the start; its rows are replaced as they are measured. Nothing is raised for a
    segmentation that cannot be measured: `table.reason` says why. The keywords are those of `grid_center`.
    """

    def __init__(
        self,
        segmentation_node,
        description: ModelDescription,
        by_hand: ByHand | None = None,
        *,
        reference=None,
        region=None,
        center_ras_mm: Point | None = None,
    ):
        self.table = _unmeasured_table(segmentation_node, description, by_hand)
        self._node, self._description = segmentation_node, description
        self._place = {"reference": reference, "region": region, "center_ras_mm": center_ras_mm}
        self._preparation: Preparation | None = None
        self._work: Iterator[None] = iter(())
        if self.table.reason:
            return
        try:
            self._preparation = Preparation(segmentation_node, description.conditions, by_hand=by_hand)
        except InputError as error:
            self.table.reason = str(error)

    @property
    def done(self) -> bool:
        """True when nothing more will change."""
        return self._preparation is None

    def step(self) -> None:
        """Export one more structure, or measure a part of one."""
        if self.done:
            return
        try:
            if not self._preparation.done:
                self._preparation.step()
                if self._preparation.error is not None:
                    raise self._preparation.error
                if self._preparation.done:
                    self._work = self._measure_all()
            else:
                next(self._work)
        except StopIteration:
            self._preparation = None
        except MedlordError as error:
            self.table.reason = str(error)
            self._preparation = None

    def finish(self) -> ConditionsTable:
        """Do all that is left and return the table."""
        while not self.done:
            self.step()
        return self.table

    def _measure_all(self) -> Iterator[None]:
        """Volumes of all conditions as drawn and on the model's grid, and what is lost in between."""
        given = self._preparation.given
        conditions = given.conditions
        center = grid_center(self._node, conditions, self._description, **self._place)
        grid = model_grid(conditions, self._description, center)
        for number, row in enumerate(self.table.rows):
            if row.condition not in conditions:
                continue
            drawn, kept = given.volumes_ml[row.condition], 0.0
            mask = conditions[row.condition]
            for piece_ml in volume_in_pieces(mask, conditions.grid, grid):
                kept += piece_ml
                yield
            found = _placement_warnings(mask, conditions.grid, grid, drawn, kept)
            self.table.rows[number] = replace(
                row, volume_ml=drawn, model_volume_ml=kept, warnings=(*row.warnings, *found)
            )
            yield


def build_conditions_table(
    segmentation_node,
    description: ModelDescription,
    by_hand: ByHand | None = None,
    *,
    measure: bool = True,
    reference=None,
    region=None,
    center_ras_mm: Point | None = None,
) -> ConditionsTable:
    """The conditions table of a segmentation; without `measure` no voxel is read and volumes are None.

    `segmentation_node` may be None. Never raises for an empty or odd segmentation: `reason` says what is wrong.
    """
    if not measure:
        return _unmeasured_table(segmentation_node, description, by_hand)
    place = {"reference": reference, "region": region, "center_ras_mm": center_ras_mm}
    return Measurement(segmentation_node, description, by_hand, **place).finish()


def by_hand_to_text(by_hand: ByHand) -> str:
    """The user's choices as one line for the parameter node."""
    if not by_hand:
        return ""
    return json.dumps({condition: list(chosen) for condition, chosen in by_hand.items()}, sort_keys=True)


def by_hand_from_text(text: str) -> dict[str, tuple[str, ...]]:
    """Read what `by_hand_to_text` wrote. Raises `InputError` for anything else (a scene edited by hand)."""
    if not text:
        return {}
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("no object")
        for chosen in content.values():
            if not isinstance(chosen, list) or not all(isinstance(entry, str) for entry in chosen):
                raise ValueError("no lists of segment IDs")
    except ValueError as error:
        raise InputError(
            f"The scene's choice of segments cannot be read ({error}); choose the segments in the table again."
        ) from error
    return {condition: tuple(chosen) for condition, chosen in content.items()}


def _unmeasured_table(
    segmentation_node, description: ModelDescription, by_hand: ByHand | None
) -> ConditionsTable:
    vocabulary = load_vocabulary()
    if not description.conditions:
        return ConditionsTable(
            [],
            reason=_(
                "This model follows no structures, and the panel runs models that do: choose another one, or use "
                "'medlord synthesize --unconditional'."
            ),
        )
    if segmentation_node is None:
        rows = [
            ConditionRow(name, *_appearance(name, None, (), vocabulary)) for name in description.conditions
        ]
        return ConditionsTable(rows, reason=_("Choose a segmentation, or start with a new canvas."))
    assignment = assign_segments(segmentation_node, description.conditions, vocabulary, by_hand)
    segmentation = segmentation_node.GetSegmentation()
    rows = [_row(name, assignment, segmentation, vocabulary) for name in description.conditions]
    choices = [SegmentChoice(match.segment_id, match.segment_name) for match in assignment.matches]
    unused = [match for match in assignment.matches if not match.conditions]
    reason = ""
    if not assignment.matches:
        reason = _("The segmentation has no segments: draw at least one structure.")
    elif not assignment.segments:
        reason = _(
            "No segment is a structure that the model takes: choose one in the table, rename a segment or set its "
            "terminology."
        )
    return ConditionsTable(rows, choices, unused, reason)


def _row(name: str, assignment: Assignment, segmentation, vocabulary: Vocabulary) -> ConditionRow:
    ids = assignment.segments.get(name, ())
    warnings = []
    if name in assignment.gone:
        warnings.append(
            ConditionWarning(
                GONE, _("{count} chosen segments no longer exist.").format(count=len(assignment.gone[name]))
            )
        )
    if name in assignment.incomplete:
        absent = ", ".join(
            vocabulary[part].display if part in vocabulary else part for part in assignment.incomplete[name]
        )
        warnings.append(ConditionWarning(INCOMPLETE, _("Put together without {names}.").format(names=absent)))
    if assignment.segments and not (ids or warnings or assignment.how.get(name) == BY_HAND):
        warnings.append(ConditionWarning(ABSENT, _("No segment makes it; it is left to the model.")))
    title, color = _appearance(name, segmentation, ids, vocabulary)
    return ConditionRow(
        condition=name,
        title=title,
        color=color,
        segment_ids=ids,
        segment_names=tuple(segmentation.GetSegment(segment_id).GetName() for segment_id in ids),
        how=assignment.how.get(name, ""),
        warnings=tuple(warnings),
    )


def _appearance(name: str, segmentation, ids: tuple[str, ...], vocabulary: Vocabulary):
    """Title and colour: those of the one segment that makes the condition, else the vocabulary's."""
    title = vocabulary[name].display if name in vocabulary else name
    if len(ids) == 1:
        return title, tuple(segmentation.GetSegment(ids[0]).GetColor())
    color = vocabulary[name].color if name in vocabulary else (128, 128, 128)
    return title, tuple(value / 255 for value in color)


def _placement_warnings(
    mask: np.ndarray, source: Grid, target: Grid, drawn: float, kept: float
) -> list[ConditionWarning]:
    """What is lost of a mask between the user's grid and the model's; volumes in ml."""
    if not drawn:
        return [ConditionWarning(EMPTY, _("Nothing is drawn in it; it is left to the model."))]
    outside = _share_outside(mask, source, target)
    if outside > _LOST_SHARE:
        text = _("{share:.0%} lies outside the model's field of view and is left out.")
        return [ConditionWarning(OUTSIDE, text.format(share=outside))]
    if not _KEPT_VOLUME[0] < kept / drawn < _KEPT_VOLUME[1]:
        text = _("Thin for the model's grid: {drawn:.1f} ml drawn, {kept:.1f} ml on it.")
        return [ConditionWarning(THIN, text.format(drawn=drawn, kept=kept))]
    return []


def _share_outside(mask: np.ndarray, source: Grid, target: Grid) -> float:
    """Share of the mask's voxel centres that lie outside the faces of `target`, judged on some of them."""
    flat = np.flatnonzero(mask)
    flat = flat[:: max(1, len(flat) // _JUDGED_VOXELS)]
    points = np.stack([*np.unravel_index(flat, mask.shape), np.ones(len(flat))])
    index = (target.index_to_index(source) @ points)[:3]
    limits = np.asarray(target.shape)[:, None] - 0.5
    return float(1 - ((index >= -0.5) & (index <= limits)).all(axis=0).mean())
