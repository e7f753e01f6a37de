"""What the engine's memory planner says of a configuration: tiles within a limit, and predictions for other devices."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..memory.planner import plan_run
from .full_size import FACTORS, configuration, describe

if TYPE_CHECKING:
    import torch

    from ..memory.planner import MemoryPlan
    from ..recipe import Recipe
    from .full_size import Configuration

_GPU_BYTES = (8 * 10**9, 12 * 10**9, 24 * 10**9)
"""Consumer GPUs that the published sizes are predicted for."""


def decode_tile(
    chosen: Configuration, shape: tuple[int, int, int], device: torch.device, limit: int | None
) -> tuple[int, int, int]:
    """The tile (latent voxels) in which the engine decodes a volume of `shape`; the smallest where nothing fits.

    `limit` (bytes) is what this process may hold in all, None for what is free.
    """
    return decoding_plan(chosen, shape, device, limit).decode_tile


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
    tiles = {"condition_tile": plan.condition_tile, "decode_tile": plan.decode_tile}
    return {**{name: getattr(plan, name) for name in names}, **tiles, "fits": plan.needed <= plan.free}
