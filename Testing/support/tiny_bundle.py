"""A whole model bundle with tiny random networks: real files and real code paths, no image quality."""

from __future__ import annotations

from pathlib import Path

CONDITIONS = ["body", "lung", "bone", "aorta"]
ATTRIBUTES = {"contrast_phase": ["native", "arterial", "venous"]}
GRID_SHAPE, SPACING_MM = (16, 16, 8), (20.0, 20.0, 30.0)

AUTOENCODER = {
    "channels": [8, 8],
    "num_res_layers": 1,
    "strides": [2, [2, 2, 1]],
    "num_embeddings": 64,
    "embedding_dim": 4,
}
DENOISER = {
    "in_channels": 4,
    "out_channels": 4,
    "channels": [8, 16],
    "num_res_blocks": [1, 1],
    "attention_levels": [False, True],
    "num_head_channels": 8,
    "norm_num_groups": 4,
}
CONTROL = {
    "condition_channels": len(CONDITIONS) + 3,
    "embedding_channels": [4, 8],
    "embedding_strides": [2, [2, 2, 1]],
}


def write_tiny_bundle(
    folder: Path,
    *,
    model_id: str = "tiny",
    grid_shape: tuple[int, int, int] = GRID_SHAPE,
    conditions: list[str] | None = None,
) -> Path:
    """Write the bundle to `folder`/`model_id` and return that path; 320 x 320 x 240 mm field of view, runs in < 1 s.

    `conditions` takes the place of `CONDITIONS`: as many names.
    """
    import torch

    from medlord.bundles.bundle import write_bundle
    from medlord.networks.build import build_autoencoder, build_control, build_denoiser

    torch.manual_seed(7)
    networks = {
        "autoencoder": build_autoencoder(AUTOENCODER),
        "denoiser": build_denoiser(DENOISER),
        "control": build_control(CONTROL, DENOISER),
    }
    with torch.no_grad():  # zero-initialised layers would hide the conditions from the output
        for network in networks.values():
            for parameter in network.parameters():
                if not parameter.any():
                    parameter.normal_(0, 0.1)
    settings = {
        "id": model_id,
        "version": "1.0",
        "networks": {"autoencoder": AUTOENCODER, "denoiser": DENOISER, "control": CONTROL},
        "schedule": {"kind": "cosine", "training_steps": 300},
        "prediction_type": "v_prediction",
        "scale_factor": 1.0,
        "grid_shape": grid_shape,
        "spacing_mm": SPACING_MM,
        "orientation": "RAS",
        "conditions": conditions or CONDITIONS,
        "attributes": ATTRIBUTES,
        "window_hu": (-1000.0, 1000.0),
        "licence": "Apache-2.0",
        "title": "Tiny test model",
    }
    path = Path(folder) / model_id
    write_bundle(
        path,
        networks,
        settings,
        {"version": "1.0"},
        card="Tiny random test model.\n",
        licence_text="Apache-2.0\n",
    )
    return path
