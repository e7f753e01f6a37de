"""What a check can be made with: segmenters, references, and the structures to take from a segmentation."""

from __future__ import annotations

from medlord.evaluation.adherence import BLOOD_POOL_PARTS
from medlord.evaluation.reference import shipped_references
from medlord.evaluation.segmenters import find_segmenter, segmenter_names
from medlord.evaluation.total_segmentator.process import LICENSED_TASKS
from medlord.vocabulary import load_vocabulary

from .checks import HU_RULES, LABELMAP
from .recipes import is_synthetic
from .results import recipe_of
from .translation import _

OF_THE_MODEL, NO_REFERENCE = "", "none"
TOTAL_SEGMENTATOR = "totalsegmentator"


def segmenters() -> dict[str, str]:
    """Name -> title of every segmenter, that of an existing segmentation last."""
    titles = {
        HU_RULES: _("HU rules (built in, seconds)"),
        TOTAL_SEGMENTATOR: _("TotalSegmentator"),
        f"{TOTAL_SEGMENTATOR}:fast": _("TotalSegmentator, fast (3 mm)"),
        f"{TOTAL_SEGMENTATOR}:lung_vessels": _("TotalSegmentator, lung vessels"),
        f"{TOTAL_SEGMENTATOR}:body": _("TotalSegmentator, body"),
        f"{TOTAL_SEGMENTATOR}:heartchambers_highres": _("TotalSegmentator, heart chambers (licence key)"),
    }
    # Those with a title also where this Python lacks them: the engine may run in another one, and says what is missing.
    offered = dict.fromkeys([*titles, *segmenter_names()])
    return {**{name: titles.get(name, name) for name in offered}, LABELMAP: _("A segmentation I have")}


def is_total_segmentator(segmenter: str) -> bool:
    """Whether a segmenter is a task of TotalSegmentator, which has weights of its own."""
    return segmenter.partition(":")[0] == TOTAL_SEGMENTATOR


def needs_licence_key(segmenter: str) -> bool:
    """Whether a segmenter is a task for which TotalSegmentator asks for a licence key."""
    return is_total_segmentator(segmenter) and segmenter.partition(":")[2] in LICENSED_TASKS


def references(segmenter: str) -> dict[str, str]:
    """Name -> title of every reference for a segmenter; files are chosen beside them."""
    shipped = [name for name, made_with in shipped_references() if made_with == segmenter]
    return {
        OF_THE_MODEL: _("That of the model"),
        NO_REFERENCE: _("None"),
        **{name: name for name in shipped},
    }


def structures_to_check(volume_node, segmenter: str) -> list[str]:
    """The conditions to take from a segmentation: those of the recipe in the CT and what the HU rules find.

    For other segmenters, which would have to be asked, all that the vocabulary names.
    """
    made_from = list(recipe_of(volume_node).get("conditions", {})) if is_synthetic(volume_node) else []
    if segmenter != HU_RULES:
        return made_from or list(load_vocabulary().structures)
    names = [*made_from, *find_segmenter(segmenter).structures]
    if not made_from:
        names += [*BLOOD_POOL_PARTS, "heart_myocardium", "lung_nodules"]
    return [name for name in dict.fromkeys(names) if name != "blood_pool"]
