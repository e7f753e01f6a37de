"""How much memory a run may take: what is free on a device, less where the user set a limit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Other programs take and give memory back while a run goes on.
_USABLE_SHARE = 0.9
_CONTROL_GROUP = Path("/sys/fs/cgroup")


def budget_bytes(device: torch.device, limit: int | None = None, returnable: int = 0) -> int:
    """Bytes that a run may take in addition to what this process holds on the device; never below 0.

    `limit` bounds what the process holds in all: on the CPU its resident memory, on CUDA its tensors. `returnable` of
    what it holds now would be given back for the run.
    """
    allowed = int((free_bytes(device) + returnable) * _USABLE_SHARE)
    if limit is not None:
        allowed = min(allowed, limit - held_bytes(device) + returnable)
    return max(allowed, 0)


def free_bytes(device: torch.device) -> int:
    """Bytes that the device has free for this process; on the CPU also within the limit of its container."""
    if device.type == "cuda":
        import torch

        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    import psutil

    available = psutil.virtual_memory().available
    contained = _free_in_container()
    return available if contained is None else min(available, contained)


def held_bytes(device: torch.device) -> int:
    """Bytes that this process holds on the device now."""
    if device.type == "cuda":
        import torch

        return torch.cuda.memory_allocated(device)
    import psutil

    return psutil.Process().memory_info().rss


@contextlib.contextmanager
def limited(device: torch.device, limit: int | None) -> Iterator[None]:
    """Within it CUDA refuses allocations beyond `limit` bytes; nothing on a CPU, whose tiles keep to the plan."""
    if device.type != "cuda" or limit is None:
        yield
        return
    import torch

    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def _free_in_container() -> int | None:
    """Bytes left within this process's control group (Linux, version 2), None where there is no limit."""
    try:
        limit = (_CONTROL_GROUP / "memory.max").read_text(encoding="ascii").strip()
        if limit == "max":
            return None
        used = int((_CONTROL_GROUP / "memory.current").read_text(encoding="ascii"))
        statistics = (_CONTROL_GROUP / "memory.stat").read_text(encoding="ascii").split()
    except OSError:
        return None
    cache = int(statistics[statistics.index("inactive_file") + 1])
    return int(limit) - used + cache
