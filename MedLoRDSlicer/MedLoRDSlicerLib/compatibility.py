"""What differs between Slicer 5.8 and 5.12, and between Qt 5 and Qt 6; nothing else depends on a version.

The oldest Python that loads this package is 3.9, Slicer 5.8's; the engine needs `installation.OLDEST_PYTHON`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import slicer

from .translation import _


def pip_ensure(missing: Sequence[str], constraints: Path, requester: str) -> None:
    """Ask the user and install packages with what this Slicer has.

    Raises RuntimeError when the user declined, `subprocess.CalledProcessError` when pip failed. In Slicer 5.12's
    testing mode nothing is installed and nothing raised.
    """
    try:
        from slicer.packaging import pip_ensure as ensure
    except ModuleNotFoundError:
        question = _("MedLoRDSlicer needs these Python packages: {names}. Install them now?").format(
            names=", ".join(missing)
        )
        if not slicer.util.confirmOkCancelDisplay(question):
            raise RuntimeError(_("declined")) from None
        slicer.util.pip_install(["--constraint", str(constraints), *missing])
    else:
        ensure(list(missing), constraints=str(constraints), requester=requester)


def requirement_class() -> type:
    """`packaging.requirements.Requirement`; where Slicer's Python has no `packaging`, the one inside pip."""
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:
        from pip._vendor.packaging.requirements import Requirement
    return Requirement


def stretch_columns(header, stretched: Sequence[int], fitted: Sequence[int]) -> None:
    """Let columns of a table's header share the width, others fit their content.

    The enum's members are reached through the class in every Qt and binding.
    """
    import qt

    for column in stretched:
        header.setSectionResizeMode(column, qt.QHeaderView.Stretch)
    for column in fitted:
        header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
