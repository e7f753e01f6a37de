"""Latents of the training cases, computed once, and the scale factor that makes their standard deviation one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..errors import InputError
from ..networks.autoencoder import VectorQuantizedAutoencoder
from ..progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from ..volume_files import write_atomically
from .cases import list_cases, load_case, to_network


@torch.no_grad()
def encode_cases(
    autoencoder: VectorQuantizedAutoencoder,
    cases: Path,
    folder: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> None:
    """Write the quantised latent of every case of `cases` to `folder` (one safetensors file each); existing ones stay.

    Quantised latents are what the decoder sees at synthesis, and what MedLoRD trains on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    autoencoder = autoencoder.to(device).eval()
    paths = list_cases(cases)
    clock = PhaseClock("encode", len(paths), progress)
    for number, path in enumerate(paths, start=1):
        raise_if_cancelled(cancel, f"encoding of case {number} of {len(paths)}")
        target = folder / (path.stem + ".safetensors")
        if not target.exists():
            image = torch.from_numpy(to_network(load_case(path).image_hu))[None, None].to(device)
            latent = autoencoder.encode_to_latent(image, quantized=True)[0].cpu().contiguous()
            write_atomically(
                target, lambda temporary, latent=latent: save_file({"latent": latent}, temporary)
            )
        clock.report(number)


def load_latents(folder: Path) -> tuple[list[str], torch.Tensor]:
    """All latents of `folder`: (case names in order, tensor (cases, channel, i, j, k) float32)."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise InputError(f"There is no latent (*.safetensors) in {folder}; encode the cases first.")
    return [path.stem for path in paths], torch.stack([load_file(path)["latent"] for path in paths])


def measure_scale_factor(folder: Path) -> float:
    """1 / standard deviation over all latents of `folder`; also written to its `scale_factor.json`."""
    _, latents = load_latents(folder)
    factor = 1.0 / float(latents.double().std())
    (folder / "scale_factor.json").write_text(json.dumps({"scale_factor": factor, "cases": len(latents)}))
    return factor
