"""A check by the engine process, for any client: `client.wait(submit_check(client, volume))`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import exchange

if TYPE_CHECKING:
    from .client import EngineClient
    from .conditions import Conditions
    from .volumes import Volume


def submit_check(
    client: EngineClient,
    volume: Volume,
    conditions: Conditions | None = None,
    *,
    found: Conditions | None = None,
    real: Volume | None = None,
    **options: Any,
) -> str:
    """Send a CT in HU to be checked and return the id of its job; the result message has a `CheckResult` as `value`.

    conditions  masks that it was made from; default: those of the recipe in `volume`, else none
    found       a segmentation of the CT that exists already, instead of a segmenter
    real        a CT to which the masks belong: the segmenter's own ceiling
    options     segmenter, reference (name, absolute path of a file, or "none"), contrast_phase, and what only some
                segmenters take: weights (absolute path), download, license_key; see `worker_check`
    """
    files = {"volume.npz": lambda path: exchange.write_volume(path, volume)}
    if real is not None:
        files["real.npz"] = lambda path: exchange.write_volume(path, real)
    for name, masks in (("conditions", conditions), ("found", found)):
        if masks is not None:
            files[f"{name}.npz"] = lambda path, masks=masks: exchange.write_conditions(path, masks)
    return client.submit_files("check", options, files)
