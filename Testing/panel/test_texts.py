"""Every text that a user reads can be translated: marked with `_`, whole, and never put together before."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2] / "MedLoRDSlicer"
FILES = [MODULE / "MedLoRDSlicer.py", *sorted((MODULE / "MedLoRDSlicerLib").rglob("*.py"))]
# What a user reads of a widget; symbols and texts that come from elsewhere are put in as variables.
SHOWN = {"text", "toolTip", "placeholderText", "title"}


def calls_of_the_translation(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
            yield node


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_marked_texts_are_whole(path):
    wrong = [
        f"line {call.lineno}"
        for call in calls_of_the_translation(ast.parse(path.read_text(encoding="utf-8")))
        if len(call.args) != 1
        or not (isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str))
        and not (path.name == "translation.py")
    ]
    assert wrong == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_texts_of_widgets_are_marked(path):
    wrong = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant | ast.JoinedStr):
            names = {target.attr for target in node.targets if isinstance(target, ast.Attribute)}
            value = getattr(node.value, "value", "f-string")
            if names & SHOWN and value and isinstance(value, str):
                wrong.append(f"line {node.lineno}: {value}")
    assert wrong == []


def test_there_are_texts():
    """The two tests above would pass without any."""
    count = sum(
        len(list(calls_of_the_translation(ast.parse(path.read_text(encoding="utf-8"))))) for path in FILES
    )
    assert count > 100
