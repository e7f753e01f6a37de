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
from .config import read_origin, write_origin

SCALE_FACTOR = "scale_factor.json"


def discard_stale_latents(folder: Path, origin: dict) -> None:
    """Empty `folder` unless its latents were made from `origin`, and note `origin` there.

    Latents of an autoencoder that has been trained on would teach the denoiser codes that the decoder no longer
    knows; they are computed again in minutes, so nobody is asked.
    """
    if folder.is_dir() and read_origin(folder) != origin:
        for path in (*folder.glob("*.safetensors"), folder / SCALE_FACTOR):
            path.unlink(missing_ok=True)
    write_origin(folder, origin)


@torch.no_grad()
def encode_cases(
    autoencoder: VectorQuantizedAutoencoder,
    cases: Path,
    folder: Path,
    window_hu: tuple[float, float],
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> None:
    """Write the quantised latent of every case of `cases` to `folder` (one safetensors file each); existing ones stay.

    `window_hu` is what the autoencoder was trained with. Quantised latents are what the decoder sees at synthesis,
    and what MedLoRD trains on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    autoencoder = autoencoder.to(device).eval()
    paths = list_cases(cases)
    clock = PhaseClock("encode", len(paths), progress)
    for number, path in enumerate(paths, start=1):
        raise_if_cancelled(cancel, f"encoding of case {number} of {len(paths)}")
        target = folder / (path.stem + ".safetensors")
        if not target.exists():
            image = torch.from_numpy(to_network(load_case(path).image_hu, window_hu))[None, None]
            latent = autoencoder.encode_to_latent(image.to(device), quantized=True)[0].cpu().contiguous()
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
    text = json.dumps({"scale_factor": factor, "cases": len(latents)})
    write_atomically(folder / SCALE_FACTOR, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return factor
