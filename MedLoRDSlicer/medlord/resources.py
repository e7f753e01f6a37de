"""Where the shipped data lies (bundled model, vocabulary), in a source tree, a Slicer installation or a wheel."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .errors import EngineError

BUNDLED_MODEL = "thorax-phantom"
"""Id of the model that is shipped and taken where none is named."""


def resource_folder() -> Path:
    """The folder that holds `vocabulary.json` and `Models/`.

    Looked for in the environment variable MEDLORD_RESOURCES, the source tree, beside the installed module of a
    Slicer extension and in the data folder of a wheel. Raises `EngineError` naming the places when none has it.
    """
    package = Path(__file__).resolve().parent
    places = [
        *([Path(os.environ["MEDLORD_RESOURCES"])] if os.environ.get("MEDLORD_RESOURCES") else []),
        package.parent.parent / "Resources",
        package.parent / "Resources" / "MedLoRD",
        Path(sys.prefix) / "share" / "medlord",
    ]
    for place in places:
        if (place / "vocabulary.json").is_file():
            return place
    raise EngineError(
        f"The shipped data (vocabulary.json) was not found in {', '.join(str(p) for p in places)}; "
        "install MedLoRDSlicer again."
    )
