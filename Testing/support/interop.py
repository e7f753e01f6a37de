"""The interoperability folder: checkpoints of published code with inputs and the outputs that it computed.

It lies at the environment variable MEDLORD_INTEROP (default ../shared/interop) and is read through its manifest.json
alone, so that any folder of the same form can be run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("MEDLORD_SHARED", ROOT.parent / "shared"))
FOLDER = Path(os.environ.get("MEDLORD_INTEROP", SHARED / "interop")).resolve()


def interop_cases(kinds: Sequence[str] | None = None) -> list:
    """The manifest's cases as pytest parameters, those of MedLoRD's `kinds` only when given; one skip without folder.

    A folder that was asked for by name and is none is an error: nothing would be tested, and it would look well.
    Projects with a layout of their own keep a case.json in a folder of the project's name, outside the manifest.
    """
    manifest = FOLDER / "manifest.json"
    if not manifest.is_file():
        if "MEDLORD_INTEROP" in os.environ:
            raise FileNotFoundError(f"MEDLORD_INTEROP names {FOLDER}, which holds no manifest.json")
        reason = f"no interoperability folder at {FOLDER}; set MEDLORD_INTEROP"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="absent")]
    cases = json.loads(manifest.read_text(encoding="utf-8"))["cases"]
    names = [path.parent.name for path in sorted(FOLDER.glob("*/case.json"))]
    cases += [{"id": name, "kind": name, "family": name} for name in names]
    if kinds is not None:
        cases = [case for case in cases if case["kind"] in kinds and family_of(case) == "medlord"]
    return [pytest.param(case, id=case["id"]) for case in cases]


def family_of(case: dict) -> str:
    """Whose checkpoint a case is about."""
    return case.get("family", "medlord")
