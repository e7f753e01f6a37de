"""Prints the Debian packages whose shared libraries are missing, one per line; nothing when all are there.

Qt (PySide6, offscreen) links against most of these. VTK (slicer-core) opens EGL, and Mesa behind it, at run
time to render slice views without a display. Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import ctypes

# Shared library -> Debian and Ubuntu package. Where a newer release renamed one (libglib2.0-0t64), apt takes
# the old name for the new one. libegl1 and libgl1 depend on Mesa's software renderer.
PACKAGES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libX11.so.6": "libx11-6",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libfontconfig.so.1": "libfontconfig1",
    "libfreetype.so.6": "libfreetype6",
    "libdbus-1.so.3": "libdbus-1-3",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libstdc++.so.6": "libstdc++6",
    "libzstd.so.1": "libzstd1",
}


def missing_packages() -> list[str]:
    """Packages of the libraries that the dynamic loader cannot open, each once, in order."""
    missing = []
    for library, package in PACKAGES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            if package not in missing:
                missing.append(package)
    return missing


if __name__ == "__main__":
    for name in missing_packages():
        print(name)
