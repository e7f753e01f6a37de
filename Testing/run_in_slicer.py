r"""Runs the tests of Testing/slicer and Testing/panel inside the Slicer application and ends it with pytest's status.

CTest starts it (Testing/CMakeLists.txt); by hand:

    Slicer --testing --no-main-window --additional-module-paths MedLoRDSlicer \
        --python-script Testing/run_in_slicer.py

Install pytest once, in Slicer's Python console: slicer.util.pip_install("pytest pytest-timeout hypothesis")
"""

from pathlib import Path

import slicer

SKIPPED = 77  # SKIP_RETURN_CODE of the test in CMakeLists.txt


def main() -> int:
    """Exit status: pytest's own, or SKIPPED with the reason on the console."""
    try:
        import pytest
    except ImportError:
        print('skipped: no pytest; run slicer.util.pip_install("pytest pytest-timeout hypothesis") in Slicer')
        return SKIPPED
    folder = Path(__file__).resolve().parent
    folders = [str(folder / name) for name in ("slicer", "panel")]
    return int(pytest.main([*folders, "--rootdir", str(folder.parent), "-p", "no:cacheprovider"]))


if __name__ == "__main__":
    slicer.util.exit(main())
