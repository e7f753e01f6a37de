"""What a running Slicer's classes really have: properties, signals, methods (read from its meta-objects)."""

from __future__ import annotations

import json
from pathlib import Path


class Contract:
    """The classes of `classes.json`."""

    def __init__(self, path: Path):
        self._classes = json.loads(path.read_text(encoding="utf-8"))["classes"]

    def __contains__(self, name: str) -> bool:
        return name in self._classes

    def _all(self, name: str, kind: str) -> set[str]:
        """Own entries and, for widgets, those of QWidget."""
        entry = self._classes[name]
        found = set(entry[kind])
        return found | set(self._classes["QWidget"][kind]) if entry["is_widget"] else found

    def has(self, name: str, kind: str, member: str) -> bool:
        """Whether the class has this "property", "signal" (full signature) or "method" (name)."""
        if kind == "property":
            return member in self._all(name, "properties")
        if kind == "signal":
            return member in self._all(name, "signals")
        return member in {signature.split("(")[0] for signature in self._all(name, "slots_and_invokables")}
