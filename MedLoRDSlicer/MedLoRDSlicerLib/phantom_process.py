"""Makes one phantom in a process of its own: `python -m MedLoRDSlicerLib.phantom_process REQUEST.json`.

Painting a phantom takes seconds, in which Slicer must stay usable. It needs numpy and scipy, neither torch nor MRML.
The request is {"seed", "grid", "structures", "overrides", "folder"}; the files of the answer go to the folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

from medlord import exchange
from medlord.conditions import Conditions
from medlord.phantom import make_phantom
from medlord.phantom.labels import AGGREGATES, FLAGS, VALUES
from medlord.volumes import Grid

VOLUME_FILE, CONDITIONS_FILE = "volume.npz", "conditions.npz"


def main(arguments: list[str]) -> int:
    """Read the request, paint, write the answer; the exit status is 0 only when both files are there."""
    request = exchange.read_json(Path(arguments[0]))
    folder = Path(request["folder"])
    case = make_phantom(request["seed"], Grid.from_dict(request["grid"]), **request["overrides"])
    known = {*AGGREGATES, *FLAGS, *VALUES}
    masks = {name: case.mask(name) for name in request["structures"] if name in known}
    exchange.write_volume(folder / VOLUME_FILE, case.volume)
    exchange.write_conditions(folder / CONDITIONS_FILE, Conditions(case.volume.grid, masks))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
