"""What the engine's memory planner says of a configuration: tiles within a limit, and predictions for other devices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..memory.planner import plan_run
from .full_size import FACTORS, configuration, describe

if TYPE_CHECKING:
    import torch

    from ..memory.planner import MemoryPlan
    from ..networks.autoencoder import VectorQuantizedAutoencoder
    from ..recipe import Recipe
    from .full_size import Configuration

_GPU_BYTES = (8 * 10**9, 12 * 10**9, 24 * 10**9)
"""Consumer GPUs that the published sizes are predicted for."""


def decode_way(
    chosen: Configuration, shape: tuple[int, int, int], device: torch.device, limit: int | None
) -> dict:
    """How the engine decodes a volume of `shape`: "tile" (latent voxels) and "in_slabs"; the smallest where none fits.

    `limit` (bytes) is what this process may hold in all, None for what is free.
    """
    plan = decoding_plan(chosen, shape, device, limit)
    return {"tile": list(plan.decode_tile), "in_slabs": plan.in_slabs}


def tiles_and_share(
    autoencoder: VectorQuantizedAutoencoder, size: tuple[int, int, int], tile: Sequence[int], in_slabs: bool
) -> tuple[int, float]:
    """Number of tiles or slabs for latents of `size`, and what they compute with halos, to the work in one piece.

    Slabs have none; that upsamplings compute a border plane again is not counted (some percent).
    """
    from ..networks.slab_decoding import slab_axis
    from ..networks.tiling import decoding_layout

    if in_slabs:
        axis = slab_axis(size)
        return -(-size[axis] // tile[axis]), 1.0
    layout = decoding_layout(autoencoder, size, tuple(tile))
    return layout.count, layout.computed / math.prod(size)


def decoding_plan(
    chosen: Configuration, shape: tuple[int, int, int], device: torch.device, limit: int | None
) -> MemoryPlan:
    """The plan of a run without control whose volume has `shape`, its networks being loaded; `limit` as above."""
    description = describe(replace(chosen, image_shape=tuple(shape)))
    recipe = plain_recipe(description, "unipc", 25, "float32", control_scale=0.0)
    return plan_run(description, recipe, device, loaded=True, limit=limit)


def plain_recipe(description, sampler: str, steps: int, precision: str, control_scale: float = 1.0) -> Recipe:
    """The recipe of a whole run of a benchmark's model on its own grid, with the seed 0."""
    from ..recipe import Recipe, library_versions

    return Recipe(
        model=description.id,
        model_version=description.version,
        weights_sha256={},
        conditions={},
        attributes={},
        seed=0,
        sampler=sampler,
        steps=steps,
        control_scale=control_scale,
        guidance=1.0,
        grid=description.grid_at((0.0, 0.0, 0.0)).to_dict(),
        precision=precision,
        versions=library_versions(),
    )


def predictions() -> list[dict]:
    """The planner's peaks for the published sizes on GPUs of some sizes, in float16: predictions, nothing is run."""
    import torch

    rows = []
    for factor in FACTORS:
        chosen = configuration("paper", factor)
        description = describe(chosen)
        recipe = plain_recipe(description, "unipc", 25, "float16")
        for free in _GPU_BYTES:
            plan = plan_run(description, recipe, torch.device("cuda:0"), loaded=False, free=free)
            rows.append({"configuration": chosen.name, "free_bytes": free, **_numbers(plan)})
    return rows


def _numbers(plan: MemoryPlan) -> dict:
    names = ("needed", "weights", "loading", "embedding", "denoising", "decoding")
    tiles = {name: getattr(plan, name) for name in ("condition_tile", "decode_tile", "in_slabs")}
    return {**{name: getattr(plan, name) for name in names}, **tiles, "fits": plan.needed <= plan.free}
