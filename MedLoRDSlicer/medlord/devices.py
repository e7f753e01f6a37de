"""Devices: choosing one, the precision that suits it, and what a run costs on it."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("float32", "bfloat16", "float16")


def choose_device(name: str) -> torch.device:
    """A device from "auto", "cpu", "cuda" or "cuda:N"; raises `InputError` naming what there is."""
    import torch

    known = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    if name == "auto":
        return torch.device("cuda:0" if len(known) > 1 else "cpu")
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in known:
        raise InputError(
            f"There is no device '{name}' on this machine; available are auto, {', '.join(known)}."
        )
    return torch.device(wanted)


def choose_precision(name: str, device: torch.device) -> str:
    """The precision of the networks: as asked, or for "auto" the fastest that the device computes natively."""
    import torch

    if name != "auto":
        if name not in PRECISIONS:
            raise InputError(f"The precision '{name}' is unknown; use auto, {', '.join(PRECISIONS)}.")
        if name == "float16" and device.type == "cpu":
            raise InputError("float16 is no precision for the CPU; use bfloat16 or float32.")
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return (
        "bfloat16"
        if torch.backends.cpu.get_cpu_capability() == "AVX512" and _has_native_bfloat16()
        else "float32"
    )


def _has_native_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; emulated it is slower than float32."""
    import torch

    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())


def autocast(device: torch.device, precision: str):
    """Autocast to `precision` on `device`; nothing for float32."""
    import torch

    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory so far in bytes: of the device since `reset_peak_memory` (CUDA), of this process (CPU)."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of the device's peak memory, where that can be done."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def energy_counter_mj(device: torch.device) -> int | None:
    """Total energy that the device has used since its driver started, in mJ; None where it cannot be read."""
    if device.type != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return int(
            pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(device.index or 0))
        )
    except pynvml.NVMLError:
        return None
