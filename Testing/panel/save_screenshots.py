"""Saves a picture of every state of the panel in light and dark, to be looked at: nothing cut, nothing overlapping.

    python Testing/panel/save_screenshots.py FOLDER [more arguments for pytest, such as -k compare]

It runs the tests of this folder that take pictures (those with the fixture `screenshots`) through the facade and keeps
what they draw as FOLDER/STATE-light.png and FOLDER/STATE-dark.png, with all of them in FOLDER/index.html.
"""

from __future__ import annotations

import os
import sys
from html import escape
from pathlib import Path

import pytest


class OnlyTestsWithPictures:
    """A pytest plugin that leaves out all other tests."""

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep what asks for the folder of the pictures."""
        others = [item for item in items if "screenshots" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


def write_index(folder: Path) -> Path:
    """A page with every state, light beside dark; returns its path."""
    states = sorted({path.stem.rsplit("-", 1)[0] for path in folder.glob("*-light.png")})
    rows = "".join(
        f"<h2>{escape(state)}</h2>"
        + "".join(f'<img src="{escape(state)}-{theme}.png" alt="{theme}"> ' for theme in ("light", "dark"))
        for state in states
    )
    path = folder / "index.html"
    path.write_text(f"<!doctype html><title>States of the panel</title>{rows}\n", encoding="utf-8")
    return path


def main(arguments: list[str]) -> int:
    """Exit status of pytest; 2 without a folder."""
    if not arguments or arguments[0].startswith("-"):
        print(__doc__)
        return 2
    folder = Path(arguments[0]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["MEDLORD_SCREENSHOTS"] = str(folder)
    here = str(Path(__file__).resolve().parent)
    status = pytest.main(
        [here, "-q", "-p", "no:cacheprovider", *arguments[1:]], plugins=[OnlyTestsWithPictures()]
    )
    print(f"The pictures are in {write_index(folder)}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
