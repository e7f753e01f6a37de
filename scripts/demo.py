#!/usr/bin/env python3
"""`make demo`: `medlord demo` through a MRML scene, as 3D Slicer does it, where slicer-core is installed.

Without slicer-core (no wheel for this machine) the segmentation goes straight to the engine process.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "MedLoRDSlicer"))

from medlord.cli import OneLineParser, add_common_arguments, guarded  # noqa: E402
from medlord.commands import demo  # noqa: E402
from medlord.commands.console import Console  # noqa: E402
from medlord.demo import Journey, through_worker  # noqa: E402


def main() -> int:
    """Run the demo; options and exit status are those of `medlord demo`."""

    def run() -> None:
        parser = OneLineParser(prog="demo.py")
        add_common_arguments(parser)
        demo.add_arguments(parser)
        arguments = parser.parse_args()
        console.quiet = arguments.quiet
        demo.run(arguments, console, _journey(console))

    console = Console()
    return guarded(run, console, debug="--debug" in sys.argv)


def _journey(console: Console) -> Journey:
    if importlib.util.find_spec("slicer") is None:
        console.note("slicer-core is not installed here: the demo runs without a MRML scene.")
        return through_worker
    from MedLoRDSlicerLib.demo import through_scene

    return through_scene


if __name__ == "__main__":
    sys.exit(main())
