"""Window and level as radiologists set them, by name."""

from __future__ import annotations

from dataclasses import dataclass

from medlord.errors import InputError
from medlord.review.study import WINDOWS

from .translation import _


@dataclass(frozen=True)
class WindowPreset:
    """A display window: what it is called, its width and its centre in HU."""

    title: str
    window_hu: float
    level_hu: float


WINDOW_PRESETS = {
    "lung": WindowPreset(_("Lung"), *WINDOWS["lung"]),
    "mediastinum": WindowPreset(_("Mediastinum"), *WINDOWS["mediastinum"]),
    "bone": WindowPreset(_("Bone"), *WINDOWS["bone"]),
    "ccta": WindowPreset(_("Coronary CTA"), *WINDOWS["ccta"]),
}


def apply_window(volume_node, preset: str) -> None:
    """Show a volume in the window of that name; raises `InputError` for an unknown one."""
    if preset not in WINDOW_PRESETS:
        raise InputError(f"There is no window '{preset}'; choose one of {', '.join(WINDOW_PRESETS)}.")
    if volume_node.GetDisplayNode() is None:
        volume_node.CreateDefaultDisplayNodes()
    display = volume_node.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(WINDOW_PRESETS[preset].window_hu, WINDOW_PRESETS[preset].level_hu)
