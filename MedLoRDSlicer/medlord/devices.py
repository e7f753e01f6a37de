"""Devices: choosing one, the precision that suits it, and what a run costs on it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("float32", "bfloat16", "float16")

# How torch, its CPU kernels and the system word a failed allocation that is no MemoryError.
_MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "alloc_failed",
    "bad_alloc",
    "cannot allocate memory",
    "array is too big",
)


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


@contextlib.contextmanager
def exact_kernels() -> Iterator[None]:
    """Within it float32 means float32 (no TF32) and CUDA kernels are deterministic; the settings before come back.

    Otherwise torch rounds convolutions to 10 bits on newer GPUs, and codes near a border flip.
    """
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32
    cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32 = False, True, False, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32 = before


def peak_memory_bytes(device: torch.device) -> int:
    """Largest memory in bytes since `reset_peak_memory`: of the device (CUDA) or of this process (Linux).

    On Windows and macOS the system keeps only the peak since the process began.
    """
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform.startswith("linux"):
        # Not getrusage: its peak is inherited from the program that started this one.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of the device's peak memory, where that can be done."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):  # kernels without this file keep the peak since the process began
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


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


def is_memory_error(error: BaseException) -> bool:
    """True for Python's and numpy's MemoryError and for what torch raises on CPU, CUDA and Apple devices."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(
        word in str(error).lower() for word in _MEMORY_WORDS
    )
