"""Whether a latent of the paper's size decodes within a memory limit: one decoding, measured in a process of its own.

    python -m medlord.benchmark.decoding --factor 4 --memory-limit 12GB --out decoding-4.json
    python -m medlord.benchmark.decoding --factor 8 --shape 128 128 64 --memory-limit 1500MB --compare

The autoencoder is the published one with random weights; the planner chooses the tiles for the limit as it does in a
run. The peak is that of this whole process on a CPU, what torch holds on CUDA, so the process must be a fresh one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from ..memory.sizes import in_words, parse_memory
from ..progress import Progress
from .full_size import FACTORS, PAPER_SHAPE, SIZES, configuration, random_network


@dataclass(frozen=True)
class DecodingSettings:
    """What is measured.

    size          "paper" for the published autoencoder, "reduced" for a narrower one
    shape         voxels (i, j, k) of the decoded volume, multiples of the factor
    memory_limit  bytes that this process may hold in all; None takes what is free
    compare       decode in one piece as well and report the largest difference (needs the untiled memory)
    """

    factor: int = 4
    size: str = SIZES[-1]
    shape: tuple[int, int, int] = PAPER_SHAPE
    device: str = "cpu"
    memory_limit: int | None = None
    compare: bool = False

    def validate(self) -> None:
        """Raise `InputError` for an unknown factor and a shape that does not fit it."""
        configuration(self.size, self.factor)
        if any(n <= 0 or n % self.factor for n in self.shape):
            raise InputError(f"The shape {self.shape} is no multiple of the factor {self.factor}; change it.")


def measure_decoding(settings: DecodingSettings, progress: Progress | None = None) -> dict:
    """Decode one random latent in the planner's tiles; returns tile, seconds, peak and the plan's prediction in bytes.

    Raises `InsufficientMemoryError` when not even the smallest tile fits into the limit.
    """
    import torch

    from ..devices import choose_device, exact_kernels, peak_memory_bytes, reset_peak_memory
    from ..memory.free import held_bytes, limited
    from .parts import decode
    from .planning import decoding_plan, tiles_and_share

    settings.validate()
    device, chosen = choose_device(settings.device), configuration(settings.size, settings.factor)
    autoencoder = random_network(chosen, "autoencoder", device)
    latent = torch.randn(chosen.latent_shape(settings.shape), generator=torch.Generator().manual_seed(0))
    latent = latent.to(device)
    plan = decoding_plan(chosen, settings.shape, device, settings.memory_limit)
    # The whole plan would ask for the chain's memory too, which this measurement does not need.
    replace(plan, denoising=0).require_enough()
    with torch.inference_mode(), exact_kernels(), limited(device, settings.memory_limit):
        before = held_bytes(device)
        reset_peak_memory(device)
        started = time.perf_counter()
        image = decode(autoencoder, latent, plan.decode_tile, plan.in_slabs, progress)
        seconds, peak = time.perf_counter() - started, peak_memory_bytes(device)
    tiles, share = tiles_and_share(autoencoder, tuple(latent.shape[2:]), plan.decode_tile, plan.in_slabs)
    result = {
        "factor": settings.factor,
        "size": settings.size,
        "shape": list(settings.shape),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "memory_limit": settings.memory_limit,
        "tile": list(plan.decode_tile),
        "in_slabs": plan.in_slabs,
        "tiles": tiles,
        "computed_share": share,
        "seconds": seconds,
        "held_before_bytes": before,
        "peak_bytes": peak,
        "predicted_bytes": before + plan.decoding,
    }
    if settings.compare:
        with torch.inference_mode(), exact_kernels():
            result["largest_difference"] = float(
                (image - autoencoder.decode_latent(latent).cpu()).abs().max()
            )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """The command of the module's text."""
    from ..cli import OneLineParser, guarded
    from ..commands.console import Console
    from ..volume_files import write_atomically

    parser = OneLineParser(prog="python -m medlord.benchmark.decoding", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--factor", type=int, choices=FACTORS, default=4, help="image voxels per latent voxel (4)"
    )
    parser.add_argument(
        "--shape", type=int, nargs=3, default=PAPER_SHAPE, metavar="N", help="voxels (512 512 256)"
    )
    parser.add_argument("--size", choices=SIZES, default=SIZES[-1], help="width of the autoencoder (paper)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (cpu)")
    parser.add_argument(
        "--memory-limit", type=parse_memory, metavar="SIZE", help="for example 12GB (what is free)"
    )
    parser.add_argument("--compare", action="store_true", help="compare with the decoding in one piece")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON file to write as well")
    console = Console()

    def run() -> None:
        given: argparse.Namespace = parser.parse_args(arguments)
        settings = DecodingSettings(
            given.factor, given.size, tuple(given.shape), given.device, given.memory_limit, given.compare
        )
        result = measure_decoding(settings, console.progress)
        text = json.dumps(result)
        if given.out:
            write_atomically(given.out, lambda path: path.write_text(text + "\n", encoding="utf-8"))
        console.note(
            f"Peak {in_words(result['peak_bytes'])}, predicted {in_words(result['predicted_bytes'])}, "
            f"{result['tiles']} {'slabs' if result['in_slabs'] else 'tiles'}, {result['seconds']:.0f} s."
        )
        console.result(text)

    return guarded(run, console)


if __name__ == "__main__":
    sys.exit(main())
