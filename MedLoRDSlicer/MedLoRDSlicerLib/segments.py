"""From a segmentation node to the engine's conditions: which segment is what, and one binary mask per condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import slicer
import vtk

from medlord.conditions import Conditions
from medlord.errors import InputError
from medlord.vocabulary import Vocabulary, load_vocabulary

from .arrays import oriented_image
from .geometry import BINARY, set_reference_geometry, world_segmentation


@dataclass(frozen=True)
class SegmentMatch:
    """What one segment was taken for.

    `structure` is a name of the vocabulary or of the model, None when nothing tells; `how` is "terminology", "id",
    "name", "alias" or ""; `conditions` are those of the model that the segment is part of (none: it is not used).
    """

    segment_id: str
    segment_name: str
    structure: str | None
    how: str
    conditions: tuple[str, ...]


@dataclass
class SegmentationInput:
    """Conditions in world space with the account of how they came about."""

    conditions: Conditions
    matches: list[SegmentMatch]
    missing: list[str]
    incomplete: dict[str, tuple[str, ...]]

    @property
    def unmatched(self) -> list[str]:
        """Names of the segments that no condition uses."""
        return [match.segment_name for match in self.matches if not match.conditions]

    def warnings(self) -> list[str]:
        """What the user should know before believing the result, in sentences; for the screen."""
        sentences = []
        if self.unmatched:
            sentences.append(
                f"Not used, because the model has no such condition or the name is unknown: "
                f"{', '.join(self.unmatched)}. Rename a segment or set its terminology to use it."
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
        """What the recognised segments were taken for (`structure`, `how`, `conditions`), without the user's names."""
        return [
            {"structure": match.structure, "how": match.how, "conditions": list(match.conditions)}
            for match in self.matches
            if match.structure is not None
        ]

    def _incomplete_sentences(self) -> list[str]:
        """Only names of the vocabulary and of the model."""
        return [
            f"'{condition}' was put together without {', '.join(absent)}."
            for condition, absent in self.incomplete.items()
        ]


def match_segments(
    segmentation_node, wanted: Sequence[str], vocabulary: Vocabulary | None = None
) -> list[SegmentMatch]:
    """Say what every segment of a node is and which of the `wanted` conditions it belongs to, in segment order."""
    return _match(segmentation_node, wanted, vocabulary or load_vocabulary())[0]


def conditions_from_segmentation(
    segmentation_node, wanted: Sequence[str], vocabulary: Vocabulary | None = None
) -> SegmentationInput:
    """Export a `vtkMRMLSegmentationNode` as the conditions that a model takes (`wanted`, in its order).

    Every segment is exported by itself, so overlapping segments keep all their voxels; segments that make up one
    condition (five lobes, two nodules) are united. Transforms, representations and geometry: see `geometry`. The
    node is not changed. Raises `InputError` when the segmentation is empty, has no geometry or matches nothing.
    """
    world = world_segmentation(segmentation_node)
    matches, plan = _match(segmentation_node, wanted, vocabulary or load_vocabulary())
    if not plan.sources:
        names = ", ".join(f"'{match.segment_name}'" for match in matches)
        raise InputError(
            f"No segment of '{segmentation_node.GetName()}' matches a condition of the model: it has {names}; "
            f"the model takes {', '.join(wanted)}. Rename a segment or set its terminology, and run again."
        )
    masks = {}
    for condition in plan.sources:
        used = [world.mask(match.segment_id) for match in matches if condition in match.conditions]
        masks[condition] = np.logical_or.reduce(used)
    conditions = Conditions(world.grid, masks)
    if not any(mask.any() for mask in masks.values()):
        raise InputError(
            f"All matching segments of '{segmentation_node.GetName()}' are empty ({', '.join(masks)}: 0 voxels each); "
            "draw at least one structure and run again."
        )
    return SegmentationInput(conditions, matches, plan.missing, plan.incomplete)


def add_segmentation(scene, conditions: Conditions, name: str, vocabulary: Vocabulary | None = None):
    """Add a segmentation node with one segment per mask that is not empty, and return it.

    Segments get the mask's name as ID and name, and the vocabulary's terminology and colour; overlaps are kept. The
    grid of the conditions becomes the reference geometry.
    """
    vocabulary = vocabulary or load_vocabulary()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    segmentation = node.GetSegmentation()
    set_reference_geometry(segmentation, conditions.grid)
    for structure, mask in conditions.masks.items():
        if not mask.any():
            continue
        segment = slicer.vtkSegment()
        segment.SetName(structure)
        segment.AddRepresentation(BINARY, oriented_image(mask, conditions.grid.affine))
        if structure in vocabulary:
            entry = vocabulary[structure]
            segment.SetColor(*(value / 255 for value in entry.color))
            if entry.terminology:
                segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), entry.terminology)
        segmentation.AddSegment(segment, structure)
    node.CreateDefaultDisplayNodes()
    return node


def _match(segmentation_node, wanted: Sequence[str], vocabulary: Vocabulary):
    segmentation = segmentation_node.GetSegmentation()
    found = []
    for segment_id in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segment_id)
        match = vocabulary.match(_terminology(segment), segment_id, segment.GetName(), wanted)
        found.append((segment_id, segment.GetName(), match))
    plan = vocabulary.plan(list(dict.fromkeys(match.structure for *_, match in found if match)), wanted)
    matches = []
    for segment_id, name, match in found:
        structure = match.structure if match else None
        conditions = tuple(condition for condition, sources in plan.sources.items() if structure in sources)
        matches.append(SegmentMatch(segment_id, name, structure, match.how if match else "", conditions))
    return matches, plan


def _terminology(segment) -> str | None:
    """The segment's `TerminologyEntry` tag."""
    tag = vtk.reference("")
    return str(tag) if segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), tag) else None
