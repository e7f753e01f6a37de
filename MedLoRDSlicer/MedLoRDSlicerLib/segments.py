"""From a segmentation node to the engine's conditions: which segment is what, and one binary mask per condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import slicer
import vtk

from medlord.conditions import Conditions
from medlord.errors import InputError, MedlordError
from medlord.vocabulary import Vocabulary, load_vocabulary

from .arrays import oriented_image
from .geometry import BINARY, set_reference_geometry, world_segmentation

BY_HAND = "by hand"
PARTS = "parts"

ByHand = Mapping[str, Sequence[str]]
"""What the user chose: condition -> IDs of its segments (none: leave it empty); others are matched automatically."""


@dataclass(frozen=True)
class SegmentMatch:
    """What one segment was taken for.

    `structure` is a name of the vocabulary or of the model, None when nothing tells; `how` is "terminology", "id",
    "name", "alias", "by hand" or ""; `conditions` are those of the model that the segment is part of (none: it is
    not used).
    """

    segment_id: str
    segment_name: str
    structure: str | None
    how: str
    conditions: tuple[str, ...]


@dataclass(frozen=True)
class Assignment:
    """Which segments make which condition of a model.

    `segments`: condition -> IDs of its segments, for those that have any; `how`: condition -> what told it
    ("terminology", "id", "name", "alias", "parts": a union of its parts, "by hand"); `missing`: conditions without a
    segment; `incomplete`: condition -> structures that usually belong to it and are not there; `gone`: condition ->
    IDs that were chosen by hand and no longer exist.
    """

    matches: list[SegmentMatch]
    segments: dict[str, tuple[str, ...]]
    how: dict[str, str]
    missing: list[str]
    incomplete: dict[str, tuple[str, ...]]
    gone: dict[str, tuple[str, ...]]


@dataclass
class SegmentationInput:
    """Conditions in world space with the account of how they came about."""

    conditions: Conditions
    matches: list[SegmentMatch]
    missing: list[str]
    incomplete: dict[str, tuple[str, ...]]
    by_hand: dict[str, tuple[str, ...]] = field(default_factory=dict)
    volumes_ml: dict[str, float] = field(default_factory=dict)

    @property
    def unmatched(self) -> list[str]:
        """Names of the segments that no condition uses."""
        return [match.segment_name for match in self.matches if not match.conditions]

    def warnings(self) -> list[str]:
        """What the user should know before believing the result, in sentences; for the screen."""
        sentences = []
        if self.unmatched:
            sentences.append(
                f"Not used, because no structure of the model is made from it: {', '.join(self.unmatched)}. Choose it "
                "in the table, rename it or set its terminology to use it."
            )
        return sentences + self._incomplete_sentences()

    def warnings_for_record(self) -> list[str]:
        """The warnings for logs and files: names that a user typed may be a patient's, so they are only counted."""
        sentences = []
        if self.unmatched:
            sentences.append(
                f"{len(self.unmatched)} of {len(self.matches)} segments not used, because the model has no such "
                "condition or the name is unknown; the panel names them."
            )
        return sentences + self._incomplete_sentences()

    def matches_for_record(self) -> list[dict]:
        """What recognised and used segments were taken for (`structure`, `how`, `conditions`), without their names."""
        return [
            {"structure": match.structure, "how": match.how, "conditions": list(match.conditions)}
            for match in self.matches
            if match.structure is not None or match.conditions
        ]

    def _incomplete_sentences(self) -> list[str]:
        """Only names of the vocabulary and of the model."""
        return [
            f"'{condition}' was put together without {', '.join(absent)}."
            for condition, absent in self.incomplete.items()
        ]


class Preparation:
    """The export of a segmentation as conditions, in pieces that are short enough for a main thread.

    The segmentation is copied at once, so what the user draws afterwards changes nothing; `step` exports one
    condition and is called until `done`. Then `given` holds the result, or `error` what was wrong.

    Every segment is exported by itself, so overlapping segments keep all their voxels; segments that make up one
    condition (five lobes, two nodules) are united. Transforms, representations and geometry: see `geometry`. The
    node is not changed. Making one raises `InputError` when the segmentation has no segment, no geometry or nothing
    that the model takes.
    """

    def __init__(
        self,
        segmentation_node,
        wanted: Sequence[str],
        vocabulary: Vocabulary | None = None,
        by_hand: ByHand | None = None,
    ):
        self.given: SegmentationInput | None = None
        self.error: MedlordError | None = None
        self._name = segmentation_node.GetName()
        self._by_hand = {name: tuple(chosen) for name, chosen in (by_hand or {}).items()}
        self._assignment = assign_segments(segmentation_node, wanted, vocabulary, by_hand)
        if segmentation_node.GetSegmentation().GetNumberOfSegments() and not self._assignment.segments:
            names = ", ".join(f"'{match.segment_name}'" for match in self._assignment.matches)
            raise InputError(
                f"No segment of '{self._name}' matches a condition of the model: it has {names}; the model takes "
                f"{', '.join(wanted)}. Rename a segment or set its terminology, and run again."
            )
        self._world = world_segmentation(segmentation_node, snapshot=True)
        self._masks: dict[str, np.ndarray] = {}
        self._volumes_ml: dict[str, float] = {}

    @property
    def done(self) -> bool:
        """True when nothing more will happen."""
        return self.given is not None or self.error is not None

    @property
    def fraction(self) -> float:
        """How much is done, 0 to 1."""
        return len(self._masks) / len(self._assignment.segments)

    def step(self) -> None:
        """Export the next condition; after the last one `done` is true."""
        if self.done:
            return
        try:
            condition = next(name for name in self._assignment.segments if name not in self._masks)
            used = [self._world.mask(segment_id) for segment_id in self._assignment.segments[condition]]
            mask = self._masks[condition] = np.logical_or.reduce(used)
            self._volumes_ml[condition] = float(np.count_nonzero(mask)) * self._world.grid.voxel_volume_ml
            if len(self._masks) == len(self._assignment.segments):
                self.given = self._result()
        except MedlordError as error:
            self.error = error

    def finish(self) -> SegmentationInput:
        """Do all that is left and return the result. Raises `InputError` when all matching segments are empty."""
        while not self.done:
            self.step()
        if self.error is not None:
            raise self.error
        return self.given

    def _result(self) -> SegmentationInput:
        if not any(self._volumes_ml.values()):
            raise InputError(
                f"All matching segments of '{self._name}' are empty ({', '.join(self._masks)}: 0 voxels each); "
                "draw at least one structure and run again."
            )
        assignment = self._assignment
        conditions = Conditions(self._world.grid, self._masks)
        # The copy of the segmentation is as large as all masks together.
        self._world = None
        return SegmentationInput(
            conditions,
            assignment.matches,
            assignment.missing,
            assignment.incomplete,
            self._by_hand,
            self._volumes_ml,
        )


def match_segments(
    segmentation_node,
    wanted: Sequence[str],
    vocabulary: Vocabulary | None = None,
    by_hand: ByHand | None = None,
) -> list[SegmentMatch]:
    """Say what every segment of a node is and which of the `wanted` conditions it belongs to, in segment order."""
    return assign_segments(segmentation_node, wanted, vocabulary, by_hand).matches


def assign_segments(
    segmentation_node,
    wanted: Sequence[str],
    vocabulary: Vocabulary | None = None,
    by_hand: ByHand | None = None,
) -> Assignment:
    """Say which segments make which of the `wanted` conditions; no voxel is read.

    A condition in `by_hand` is made of exactly the segments named there, as far as they exist; when none of them
    does, it is matched automatically.
    """
    vocabulary = vocabulary or load_vocabulary()
    segmentation = segmentation_node.GetSegmentation()
    found = []
    for segment_id in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segment_id)
        match = vocabulary.match(_terminology(segment), segment_id, segment.GetName(), wanted)
        found.append((segment_id, segment.GetName(), match))
    plan = vocabulary.plan(list(dict.fromkeys(match.structure for *_, match in found if match)), wanted)
    present = [segment_id for segment_id, *_ in found]
    segments, how, gone = {}, {}, {}
    for condition in wanted:
        chosen = (by_hand or {}).get(condition)
        absent = tuple(segment_id for segment_id in chosen or () if segment_id not in present)
        if absent:
            gone[condition] = absent
        if chosen is not None and len(absent) < max(len(chosen), 1):
            segments[condition] = tuple(segment_id for segment_id in chosen if segment_id in present)
            how[condition] = BY_HAND
            continue
        sources = plan.sources.get(condition, ())
        own = [(segment_id, match) for segment_id, _, match in found if match and match.structure in sources]
        if own:
            segments[condition] = tuple(segment_id for segment_id, _ in own)
            how[condition] = own[0][1].how if sources == (condition,) else PARTS
    segments = {condition: ids for condition, ids in segments.items() if ids}
    return Assignment(
        [_account(*entry, segments, how) for entry in found],
        segments,
        how,
        [condition for condition in wanted if condition not in segments],
        {name: absent for name, absent in plan.incomplete.items() if how.get(name) != BY_HAND},
        gone,
    )


def conditions_from_segmentation(
    segmentation_node,
    wanted: Sequence[str],
    vocabulary: Vocabulary | None = None,
    by_hand: ByHand | None = None,
) -> SegmentationInput:
    """Export a `vtkMRMLSegmentationNode` as the conditions that a model takes (`wanted`, in its order), at once.

    See `Preparation`. Raises `InputError` when the segmentation is empty, has no geometry or matches nothing.
    """
    return Preparation(segmentation_node, wanted, vocabulary, by_hand).finish()


def condition_segments(conditions: Conditions, vocabulary: Vocabulary | None = None):
    """Make one `vtkSegment` per mask that is not empty and yield it with its ID, the mask's name.

    Name, terminology and colour are the vocabulary's; the segment is in no segmentation yet.
    """
    vocabulary = vocabulary or load_vocabulary()
    for structure, mask in conditions.masks.items():
        if mask.any():
            yield (
                structure,
                condition_segment(structure, oriented_image(mask, conditions.grid.affine), vocabulary),
            )


def condition_segment(structure: str, image, vocabulary: Vocabulary | None = None):
    """A `vtkSegment` of a structure with the vocabulary's terminology and colour; `image` None: nothing drawn yet."""
    vocabulary = vocabulary or load_vocabulary()
    segment = slicer.vtkSegment()
    segment.SetName(structure)
    if image is not None:
        segment.AddRepresentation(BINARY, image)
    if structure in vocabulary:
        entry = vocabulary[structure]
        segment.SetColor(*(value / 255 for value in entry.color))
        if entry.terminology:
            segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), entry.terminology)
    return segment


def add_segmentation(
    scene, conditions: Conditions, name: str, vocabulary: Vocabulary | None = None, segments=None
):
    """Add a segmentation node with one segment per mask that is not empty, and return it.

    Segments get the mask's name as ID and name, and the vocabulary's terminology and colour; overlaps are kept. The
    grid of the conditions becomes the reference geometry. `segments` are those of `condition_segments`, where they
    were made before.
    """
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    # First, so that every segment gets display properties when it is added.
    node.CreateDefaultDisplayNodes()
    set_reference_geometry(node.GetSegmentation(), conditions.grid)
    for structure, segment in segments or condition_segments(conditions, vocabulary):
        node.GetSegmentation().AddSegment(segment, structure)
    return node


def _account(segment_id: str, name: str, match, segments: dict, how: dict) -> SegmentMatch:
    """What a segment was taken for in the end."""
    conditions = tuple(condition for condition, ids in segments.items() if segment_id in ids)
    by_hand = any(how[condition] == BY_HAND for condition in conditions)
    told = BY_HAND if by_hand else match.how if match else ""
    return SegmentMatch(segment_id, name, match.structure if match else None, told, conditions)


def _terminology(segment) -> str | None:
    """The segment's `TerminologyEntry` tag."""
    tag = vtk.reference("")
    return str(tag) if segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag) else None
