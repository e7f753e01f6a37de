"""What one set of settings of the panel holds: a typed view on a parameter node, saved with the scene.

Machine settings (device, engine Python) are not here but in `settings`. Names are part of saved scenes: none of them
may change.
"""

import json
from typing import Annotated, Optional

import slicer
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from medlord.errors import InputError
from medlord.resources import BUNDLED_MODEL
from medlord.sampling.noise import SEED_LIMIT

from .translation import _

MOST_STEPS, MOST_SAMPLES, STRONGEST_CONTROL = 1000, 100, 2.0


@parameterNodeWrapper
class SynthesisParameters:
    """The settings of one parameter set.

    segmentation, reference, region   nodes: what is drawn, the CT it belongs to, where the new CT goes
    model              id or folder of the model
    attributes         choices for the whole image as JSON, e.g. {"contrast_phase": "arterial"}
    sampler, steps     how the chain runs
    seed               whole number as text: a spin box would wrap beyond 2**31 - 1 without a word
    samples            how many CTs, with seeds that follow one another
    controlStrength    0 .. 2
    resultName         of the new volume; empty for one from segmentation and seed
    conditionsByHand   what was chosen in the table of structures (`conditions_table.by_hand_to_text`)
    centerRas          middle of the new CT as JSON [R, A, S] in mm, empty for automatic; set by a reloaded recipe
    checkSegmenter     what finds the structures of a CT that is checked
    checkReference     what it is compared with: "" (that of the model), "none", a shipped name or a .json file
    checkAfterRun      "1" when every new CT is checked
    """

    segmentation: slicer.vtkMRMLSegmentationNode
    reference: slicer.vtkMRMLScalarVolumeNode
    region: slicer.vtkMRMLMarkupsROINode
    model: str = BUNDLED_MODEL
    attributes: str = ""
    sampler: str = "sde-dpm-solver++"
    steps: Annotated[int, WithinRange(1, MOST_STEPS)] = 25
    seed: str = "0"
    samples: Annotated[int, WithinRange(1, MOST_SAMPLES)] = 1
    controlStrength: Annotated[float, WithinRange(0.0, STRONGEST_CONTROL)] = 1.0
    resultName: str = ""
    conditionsByHand: str = ""
    centerRas: str = ""
    checkSegmenter: str = "hu-rules"
    checkReference: str = ""
    checkAfterRun: str = ""


def attributes_of(parameters: SynthesisParameters) -> dict[str, str]:
    """The image-level choices; those that cannot be read count as none."""
    found = _json(parameters.attributes)
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def center_of(parameters: SynthesisParameters) -> Optional[tuple[float, float, float]]:
    """The chosen middle in RAS mm, None for automatic."""
    found = _json(parameters.centerRas)
    if not isinstance(found, list) or len(found) != 3 or not {type(value) for value in found} <= {int, float}:
        return None
    return tuple(float(value) for value in found)


def seed_of(parameters: SynthesisParameters) -> int:
    """The first seed. Raises `InputError` when the text, or the last seed of the samples, is none."""
    text = parameters.seed.strip()
    if not text.isdecimal() or int(text) + parameters.samples > SEED_LIMIT:
        raise InputError(
            _("The seed '{text}' is no whole number from 0 to {limit}; correct it.").format(
                text=text, limit=SEED_LIMIT - parameters.samples
            )
        )
    return int(text)


def is_untouched(parameters: SynthesisParameters) -> bool:
    """True when nothing was chosen that somebody could miss."""
    nodes = (parameters.segmentation, parameters.reference, parameters.region)
    texts = (parameters.conditionsByHand, parameters.resultName, parameters.attributes, parameters.centerRas)
    return not any(nodes) and not any(texts)


def _json(text: str):
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None
