"""medlord worker: the resident engine process (see `medlord.worker`, which reads its options itself)."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .console import Console

SUMMARY = "engine process: JSON lines on stdin and stdout"
OWN_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing to add: `medlord.worker` reads all options."""


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Serve until stdin closes."""
    from ..worker import main

    return main(arguments.rest)
