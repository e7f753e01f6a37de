"""How times are measured: variants in turns, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..progress import Cancel, raise_if_cancelled
from .baseline import wait_for

if TYPE_CHECKING:
    import torch

BASELINE = "baseline float32"
"""Name of the variant that every other one is compared with."""

DOES_NOT_FIT = "does not fit into the memory"

_MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}


def in_turns(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    cancel: Cancel | None = None,
) -> dict[str, list[float]]:
    """Seconds of every call: all variants once per round, after one round that is not counted (caches, compilers).

    A variant that does not fit into the memory has no seconds.
    """
    from ..devices import is_memory_error

    seconds: dict[str, list[float]] = {name: [] for name in variants}
    fitting = dict(variants)
    for number in range(rounds + 1):
        for name, call in list(fitting.items()):
            raise_if_cancelled(cancel, f"measuring {name}")
            wait_for(device)
            started = time.perf_counter()
            try:
                call()
                wait_for(device)
            except (MemoryError, RuntimeError, OSError) as error:
                if not is_memory_error(error):
                    raise
                seconds[name] = []
                del fitting[name]
                continue
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def summary(seconds: Mapping[str, list[float]], reference: str) -> dict[str, dict]:
    """Per variant: the median "seconds", and "ratio", the median over rounds of its time to the reference's.

    "ratio_range" are the lowest and highest of these pairs: how far the machine was disturbed. What did not fit has
    "failed" instead, and nothing has a ratio to a reference that did not fit.
    """
    result = {}
    for name, values in seconds.items():
        if not values:
            result[name] = {"failed": DOES_NOT_FIT}
            continue
        result[name] = {"seconds": statistics.median(values), "rounds": len(values)}
        pairs = [value / other for value, other in zip(values, seconds[reference], strict=False)]
        if pairs:
            result[name]["ratio"] = statistics.median(pairs)
            result[name]["ratio_range"] = [min(pairs), max(pairs)]
    return result


def matrix_rate(device: torch.device, precision: str, size: int | None = None) -> float:
    """Floating-point operations per second of a large square matrix product, the best of five: a practical bound."""
    import torch

    size = size or _MATRIX_SIZE.get(device.type, 2048)
    dtype = getattr(torch, precision)
    left, right = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    seconds = in_turns({"product": lambda: left @ right}, 5, device)
    return 2 * size**3 / min(seconds["product"])


def machine(device: torch.device) -> dict:
    """What the numbers depend on: device, processor, threads, memory, versions."""
    import psutil
    import torch

    from ..recipe import library_versions

    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else "CPU",
        "device_memory_bytes": torch.cuda.get_device_properties(device).total_memory if cuda else None,
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "load": list(psutil.getloadavg()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "versions": library_versions(),
    }


def _processor() -> str:
    """The processor's name; on Linux from the kernel, since Python knows only its architecture there."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8", errors="replace").splitlines() if known.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
