"""The checkpoints of an interoperability folder as bundles: imported, loaded, and sampled to the published volumes.

Driven by the folder's manifest as `test_interop` is; this goes through the bundle on disk instead of the networks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.interop import FOLDER, interop_cases

KINDS = ("conditional_sampling", "unconditional_sampling")


def _imported(case: dict, folder: Path, training_steps: int):
    from medlord.bundles.import_medlord import import_medlord
    from medlord.bundles.medlord_options import MedlordFiles, MedlordOptions

    control, unet, vqvae = case.get("controlnet"), case["unet"], case["vqvae"]
    files = MedlordFiles(
        *(FOLDER / entry[key] for entry in (vqvae, unet) for key in ("checkpoint", "config")),
        *(FOLDER / control[key] if control else None for key in ("checkpoint", "config")),
    )
    options = MedlordOptions(
        window_hu=(-1000.0, 1000.0),
        shape=_shape(case, vqvae),
        spacing_mm=(1.0, 1.0, 1.0),
        orientation="LPS",
        scale_factor=case["scale_factor"],
        num_train_timesteps=training_steps,
        diffusion_weights=unet["weights"],
        controlnet_weights=control["weights"] if control else None,
        condition_keys=tuple(case["condition_keys"]) if control else None,
    )
    return import_medlord(files, "imported", options, out=folder)


def _shape(case: dict, vqvae: dict) -> tuple[int, ...]:
    """Voxels of the case's volumes: the latent's times the autoencoder's factor."""
    from medlord.bundles.medlord_networks import import_autoencoder

    network = import_autoencoder(FOLDER / vqvae["checkpoint"], FOLDER / vqvae["config"]).network
    pairs = zip(case["latent_shape"], network.downsampling_factors, strict=True)
    return tuple(size * factor for size, factor in pairs)


@pytest.mark.parametrize("case", interop_cases(KINDS))
def test_a_bundle_samples_what_the_published_code_does(case, tmp_path):
    """Latents and HU of the DDIM chain, with masks where the case has them, from the bundle's own description."""
    import torch

    from medlord.bundles.bundle import load_bundle
    from medlord.bundles.medlord_preprocessing import read_condition_table, to_hounsfield
    from medlord.sampling import NoiseSchedule, denoise, make_sampler

    training_steps = case["ddim"]["num_train_timesteps"] if "ddim" in case else case["num_train_timesteps"]
    steps = case["ddim"]["steps"] if "ddim" in case else case["ddim_steps"]
    bundle = load_bundle(_imported(case, tmp_path / "bundle", training_steps).folder)
    description, data = bundle.description, np.load(FOLDER / case["io"])
    embedded = None
    if bundle.control is not None:
        assert description.conditions == list(case["condition_keys"])
        masks = read_condition_table(FOLDER / case["csv"], description.conditions, description.grid_shape)
        embedded = bundle.control.embed_condition(torch.from_numpy(np.stack(masks).astype(np.float32)))

    def predict(x, t):
        if embedded is None:
            return bundle.denoiser(x, t)
        return bundle.denoiser(x, t, *bundle.control(x, t, embedded, case["conditioning_scale"]))

    schedule = NoiseSchedule.from_dict(description.schedule)
    sampler = make_sampler("ddim", schedule, steps, description.prediction_type, spacing="leading")
    start = data["ddim_x_init"]
    with torch.no_grad():
        latent = denoise(predict, sampler, start.shape, seed=0, initial=start) / description.scale_factor
        hu = to_hounsfield(bundle.autoencoder.decode_latent(latent).numpy())[0, 0]
    for name, got in {"ddim_latent": latent.numpy(), "ddim_hu": hu}.items():
        allowed = case["outputs"][name]
        np.testing.assert_allclose(
            got.astype(float), data[name].astype(float), atol=allowed["atol"], rtol=allowed["rtol"]
        )
