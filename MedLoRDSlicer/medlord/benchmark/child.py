"""One piece of work in a process of its own, for its peak memory.

    python -m medlord.benchmark.child '{"work": "decode", ...}'

A process keeps what its libraries and earlier work have taken, so peaks are only comparable between fresh processes.
The keys are those of `measure_here`; the answer is its result as one line of JSON.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import EngineError, InsufficientMemoryError

if TYPE_CHECKING:
    import torch

    from .full_size import Configuration

WORK = ("decode", "step", "baseline decode", "baseline step")


def measure_in_child(work: dict) -> dict:
    """The result of `measure_here(**work)` in a fresh process.

    Raises `InsufficientMemoryError` when the work does not fit, `EngineError` when the process fails otherwise.
    """
    from ..processes import worker_environment

    command = [sys.executable, "-m", "medlord.benchmark.child", json.dumps(work)]
    environment = worker_environment(os.environ, sys.executable)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    said = next(iter(done.stderr.strip().splitlines()[-1:]), "nothing")
    # the system ends a process that takes more than there is with SIGKILL
    if done.returncode in (InsufficientMemoryError.exit_code, -9):
        raise InsufficientMemoryError(
            f"'{work['work']}' of the benchmark needs more memory than is free; take --size reduced."
        )
    raise EngineError(
        f"The process that measures '{work['work']}' failed with code {done.returncode} ({said}); see its message."
    )


def measure_here(
    work: str,
    size: str,
    factor: int,
    device: str,
    precision: str = "float32",
    tile: list[int] | None = None,
    in_slabs: bool = False,
    free_bytes: int = 0,
) -> dict:
    """Do one piece of `WORK` with random weights; returns "seconds", "before_bytes" and "peak_bytes".

    Before and peak are the memory of this process (CPU: all of it; CUDA: what torch holds on the device), the
    difference is what the work itself took. `tile` and `in_slabs` say how to decode, without a tile it is in one
    piece; `free_bytes` decides whether the baseline's distance matrix is built at once.
    """
    import torch

    from ..devices import choose_device, peak_memory_bytes, reset_peak_memory
    from .baseline import wait_for
    from .full_size import configuration

    target = choose_device(device)
    with torch.inference_mode():
        call = _prepared(work, configuration(size, factor), target, precision, (tile, in_slabs), free_bytes)
        gc.collect()
        wait_for(target)
        reset_peak_memory(target)
        before, started = _memory_now(target), time.perf_counter()
        call()
        wait_for(target)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "before_bytes": before, "peak_bytes": peak_memory_bytes(target)}


def _prepared(
    work: str,
    configuration: Configuration,
    device: torch.device,
    precision: str,
    way: tuple[list[int] | None, bool],
    free_bytes: int,
) -> Callable[[], object]:
    """What is to be measured, with its networks and inputs made."""
    import torch

    from .baseline import baseline_decode, baseline_step
    from .full_size import random_network
    from .parts import decode, engine_step, random_masks

    if work.endswith("decode"):
        autoencoder = random_network(configuration, "autoencoder", device)
        latent = torch.randn(configuration.latent_shape(configuration.decode_shape), device=device)
        if work == "decode":
            return lambda: decode(autoencoder, latent, *way)
        return lambda: baseline_decode(autoencoder, latent, free_bytes)
    networks = [random_network(configuration, name, device) for name in ("denoiser", "control")]
    latent = torch.randn(configuration.latent_shape(), device=device)
    steps = torch.full((1,), 100, dtype=torch.int64, device=device)
    if work == "baseline step":
        masks = random_masks(configuration, device)
        return lambda: baseline_step(*networks, latent, steps, masks)
    embedded = networks[1].embed_condition(random_masks(configuration, device))
    return engine_step(*networks, latent, steps, embedded, precision)


def _memory_now(device: torch.device) -> int:
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def main(arguments: list[str]) -> int:
    """The process: one JSON object in, one out; exit code 3 when the memory does not suffice."""
    from ..devices import is_memory_error

    try:
        print(json.dumps(measure_here(**json.loads(arguments[0]))))
    except Exception as error:
        if not is_memory_error(error):
            raise
        print(error, file=sys.stderr)
        return InsufficientMemoryError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
