"""The two files of a measurement: every number as JSON, and the table of it in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..volume_files import write_atomically


def write_report(folder: Path, names: tuple[str, str], report: Mapping[str, Any], table: str) -> None:
    """Write `report` and `table` under `names` (.json, .md) into `folder`; each file appears whole or not at all."""
    for name, text in zip(names, (json.dumps(report, indent=1), table), strict=True):
        write_atomically(folder / name, partial(Path.write_text, data=text + "\n", encoding="utf-8"))
