"""`_`, which marks and translates the text of the panel; plain Python has no translations."""

from __future__ import annotations

try:
    from slicer.i18n import tr as _
except ModuleNotFoundError:

    def _(text: str) -> str:
        """The text itself."""
        return text


__all__ = ["_"]
