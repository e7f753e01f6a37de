"""The tutorial: its pictures exist and weigh little, its Python lines run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from MedLoRDSlicerLib import logic as logic_module
from MedLoRDSlicerLib.arrays import volume_from_node

REPOSITORY = Path(__file__).resolve().parents[2]
TUTORIAL = REPOSITORY / "docs" / "tutorial.md"
MOST_BYTES = 3_000_000


def test_every_picture_exists_and_all_together_weigh_little():
    text = TUTORIAL.read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(pictures) >= 4
    for picture in pictures:
        assert (TUTORIAL.parent / picture).resolve().is_file(), picture
    folder = REPOSITORY / "Resources" / "Screenshots"
    assert sum(path.stat().st_size for path in folder.iterdir()) <= MOST_BYTES


def test_the_python_lines_of_the_tutorial_run(scene, logic, monkeypatch):
    monkeypatch.setattr(logic_module, "shared_engine", lambda: logic.engine)
    (code,) = re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)
    names = {"scene": scene}
    exec(compile(code, "tutorial", "exec"), names)
    first, second = (volume_from_node(node).array for node in names["cts"])
    assert names["cts"][0].GetAttribute("MedLoRD.seed") == "7" and (first != second).any()
    np.testing.assert_array_equal(volume_from_node(names["again"]).array, first)
    np.testing.assert_allclose(
        volume_from_node(names["spread"]).array,
        np.abs(first.astype(float) - second) / np.sqrt(2),
        atol=0.01,
    )
