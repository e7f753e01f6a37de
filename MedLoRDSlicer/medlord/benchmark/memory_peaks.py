"""Peak memory of decoding and of one step, each in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InsufficientMemoryError
from ..progress import Cancel, raise_if_cancelled
from .child import measure_in_child
from .planning import decode_way

if TYPE_CHECKING:
    import torch

    from .full_size import Configuration
    from .speed import SpeedSettings

TILED_SHARE = 0.25
"""The cut decoding is given so much of what the uncut one took, unless a memory limit was asked for."""


def measure_peaks(
    chosen: Configuration, settings: SpeedSettings, device: torch.device, cancel: Cancel | None = None
) -> dict[str, dict]:
    """Peaks by name; "took_bytes" is what the work added to the memory of its process, "ratio" that to its reference.

    Decoding is of a volume of `decode_shape`. What does not fit has "failed" with the reason instead of numbers.
    """
    from ..memory.free import free_bytes, held_bytes

    common = {"size": chosen.size, "factor": chosen.factor, "device": str(device)}
    free = free_bytes(device)
    peaks = {"decode untiled": _peak({**common, "work": "decode"}, cancel)}
    if settings.memory_limit is None and "took_bytes" in peaks["decode untiled"]:
        limit = held_bytes(device) + int(TILED_SHARE * peaks["decode untiled"]["took_bytes"])
    else:
        limit = settings.memory_limit
    way = decode_way(chosen, chosen.decode_shape, device, limit)
    peaks["decode tiled"] = {**_peak({**common, "work": "decode", **way}, cancel), "tiles": way}
    peaks["baseline decode"] = _peak({**common, "work": "baseline decode", "free_bytes": free}, cancel)
    peaks["baseline step"] = _peak({**common, "work": "baseline step"}, cancel)
    for precision in ("float32", "bfloat16"):
        peaks[f"step {precision}"] = _peak({**common, "work": "step", "precision": precision}, cancel)
    for name, peak in peaks.items():
        reference = peaks["decode untiled" if "decode" in name else "baseline step"]
        if "took_bytes" in peak and "took_bytes" in reference:
            peak["ratio"] = peak["took_bytes"] / max(reference["took_bytes"], 1)
    return peaks


def _peak(work: dict, cancel: Cancel | None) -> dict:
    raise_if_cancelled(cancel, f"measuring the memory of '{work['work']}'")
    try:
        measured = measure_in_child(work)
    except InsufficientMemoryError as error:
        return {"failed": str(error)}
    return {**measured, "took_bytes": measured["peak_bytes"] - measured["before_bytes"]}
