"""The verb `check` of the engine process: a CT and its masks in, scorecard and found masks out.

Files of the answer, below `folder`:
    scorecard   JSON: {"report": `evaluation.scorecard.Scorecard.to_dict`,
                       "positions_ras_mm": {structure: [R, A, S] of the worst slice, or of the structure's middle},
                       "measure": "rvr" | "ml",
                       "distributions": {structure: {"value", "percentile", "reference": [...]}}}
    found       masks that the segmenter found (see `exchange`), on the grid of the volume
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import exchange
from .progress import Cancel, Progress
from .recipe import Recipe

if TYPE_CHECKING:
    from .conditions import Conditions
    from .evaluation.reference import ReferenceDistribution
    from .evaluation.scorecard import Scorecard
    from .evaluation.segmenters import Segmenter
    from .volumes import Volume

NO_REFERENCE = "none"


def check(
    *,
    folder: str,
    volume: str,
    progress: Progress,
    cancel: Cancel,
    conditions: str | None = None,
    found: str | None = None,
    real: str | None = None,
    segmenter: str = "hu-rules",
    reference: str | None = None,
    contrast_phase: str | None = None,
    **segmenter_options: Any,
) -> dict[str, Any]:
    """Check the CT in the file `volume`; the arguments that are paths name files of `exchange`.

    Without `conditions` the masks are those of the recipe in the volume; a volume without one is judged by itself.
    `found` is a segmentation of the CT that exists already: the segmenter is then not asked. `real` is a CT to which
    the masks belong, for the segmenter's own ceiling, which an existing segmentation has not. `reference` is a shipped
    name, a .json file, "none", or None for that of the model in the recipe. `segmenter_options` are those of
    `find_segmenter`: weights, download (the user agreed to it), license_key. Raises what `check_volume` raises.
    """
    from .evaluation.scorecard import check_volume
    from .evaluation.segmenters import Labelmap, find_segmenter
    from .volumes import require_ct

    checked = exchange.read_volume(Path(volume))
    require_ct(checked, "The volume to check")
    masks = _masks(checked, conditions)
    if found:
        chosen = Labelmap(exchange.read_conditions(Path(found)))
    else:
        given = {name: value for name, value in segmenter_options.items() if value}
        chosen = find_segmenter(segmenter, **given)
    card, regions = check_volume(
        checked,
        masks,
        chosen,
        reference=_reference(reference, checked, chosen),
        real_ct=exchange.read_volume(Path(real)) if real and masks and not found else None,
        contrast_phase=contrast_phase,
        progress=progress,
        cancel=cancel,
    )
    return _answer(card, regions, Path(folder))


def _masks(volume: Volume, conditions: str | None) -> Conditions | None:
    """The masks that were given, else those of the recipe, else none."""
    if conditions is not None:
        return exchange.read_conditions(Path(conditions))
    return Recipe.from_dict(volume.recipe).unpack_conditions() if volume.recipe else None


def _reference(name: str | None, volume: Volume, segmenter: Segmenter) -> ReferenceDistribution | None:
    from .evaluation.reference import find_reference
    from .evaluation.scorecard import reference_for

    if name == NO_REFERENCE:
        return None
    return find_reference(name, segmenter.name) if name else reference_for(volume, segmenter.name)


def _answer(card: Scorecard, found: Conditions, folder: Path) -> dict[str, str]:
    scorecard, masks = folder / "result-scorecard.json", folder / "result-found.npz"
    measure, distributions = _distributions(card)
    exchange.write_conditions(masks, found)
    data = {
        "report": card.to_dict(),
        "positions_ras_mm": _positions(card, found),
        "measure": measure,
        "distributions": distributions,
    }
    exchange.write_json(scorecard, data)
    return {"scorecard": str(scorecard), "found": str(masks)}


def _positions(card: Scorecard, found: Conditions) -> dict[str, list[float]]:
    """Where to look at each structure: its worst slice, or its middle where nothing was compared or all agrees."""
    from .evaluation.worst_slices import centre_ras_mm

    positions = {
        name: [float(x) for x in centre_ras_mm(mask, found.grid)]
        for name, mask in found.masks.items()
        if mask.any()
    }
    for row in card.adherence.structures if card.adherence else ():
        if row.worst_slice is not None:
            positions[row.name] = list(row.worst_slice.position_ras_mm)
    return positions


def _distributions(card: Scorecard) -> tuple[str, dict[str, dict[str, Any]]]:
    """The measure of size that can be compared with the reference, and its values per structure.

    None among the values of a reference that is too small: it does not say what is usual.
    """
    comparable = any(row.measures.get("rvr") is not None for row in card.regions)
    measure = "rvr" if comparable else "ml"
    distributions = {}
    for row in () if card.reference_too_small else card.regions:
        placed = row.measures.get(measure)
        if placed is not None:
            distributions[row.name] = {
                "value": placed.value,
                "percentile": placed.percentile,
                "reference": card.reference.values(row.name, measure).tolist(),
            }
    return measure, distributions
