"""Volumes for studies: phantoms as the real ones, and the same anatomy by the bundled model in three qualities."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medlord.cli import main
from medlord.resources import BUNDLED_MODEL
from medlord.volume_files import save_volume
from medlord.volumes import Grid, Volume

REAL, BEST, FAIR, POOR = "real", "model-best", "model-fair", "model-poor"
SYNTHETIC = (BEST, FAIR, POOR)
# Each is another patient, and none the model was trained on or chosen by.
FIRST_SEED = 960_001
PHASES = ("native", "arterial", "venous")
# Denoising steps of a synthesis.
STEPS = {BEST: 20, FAIR: 5, POOR: 2}
# Share of the autoencoder's image in a small volume, the rest is the phantom's: made in seconds, not minutes.
SHARE = {BEST: 0.3, FAIR: 0.6, POOR: 1.0}
SMALL_GRID = Grid.centered((40, 40, 24), (8.5, 8.5, 12.0))


def patterns_of(folder: Path) -> dict[str, str]:
    """The pattern of the files of each source in a folder of `synthesize_volumes` or `encode_volumes`."""
    return {REAL: str(folder / REAL / "*" / "ct.nii.gz")} | {
        name: str(folder / name / "*.nii.gz") for name in SYNTHETIC
    }


def synthesize_volumes(folder: Path, count: int) -> Path:
    """`count` phantoms and what the model synthesizes from their segmentations, as a user makes them: by commands.

    Minutes of work; what `folder` has already is not made again. Returns the folder.
    """
    for number in range(count):
        seed, phase = FIRST_SEED + number, PHASES[number % len(PHASES)]
        phantom = folder / REAL / f"patient_{seed}"
        phantom.parent.mkdir(parents=True, exist_ok=True)
        if not (phantom / "ct.nii.gz").exists():
            _run("phantom", "--seed", seed, "--phase", phase, "--out", phantom)
        for name, steps in STEPS.items():
            out = folder / name / f"patient_{seed}.nii.gz"
            out.parent.mkdir(exist_ok=True)
            if not out.exists():
                masks = [
                    "--labelmap",
                    phantom / "segmentation.seg.nrrd",
                    "--attribute",
                    f"contrast_phase={phase}",
                ]
                _run(
                    "synthesize",
                    *masks,
                    "--seed",
                    number,
                    "--sampler",
                    "unipc",
                    "--steps",
                    steps,
                    "--device",
                    "cpu",
                    "--out",
                    out,
                )
    return folder


def encode_volumes(folder: Path, count: int) -> Path:
    """`count` small phantoms, and the same ones through the autoencoder of the model; returns the folder."""
    from medlord.bundles.bundle import load_bundle
    from medlord.phantom import make_phantom

    bundle = load_bundle(BUNDLED_MODEL)
    for number in range(count):
        patient = f"patient_{FIRST_SEED + number}"
        phantom = make_phantom(FIRST_SEED + number, SMALL_GRID).volume.array
        (folder / REAL / patient).mkdir(parents=True)
        save_volume(Volume(phantom, SMALL_GRID), folder / REAL / patient / "ct.nii.gz")
        encoded = _encoded(phantom, bundle.autoencoder, bundle.description.window_hu)
        for name, share in SHARE.items():
            (folder / name).mkdir(exist_ok=True)
            hu = np.rint(share * encoded + (1 - share) * phantom).astype(np.int16)
            save_volume(Volume(hu, SMALL_GRID), folder / name / f"{patient}.nii.gz", synthetic=True)
    return folder


def _encoded(hu: np.ndarray, network, window: tuple[float, float]) -> np.ndarray:
    """A volume as the network gives it back, in HU."""
    import torch

    from medlord.generation import to_hu
    from medlord.training.cases import to_network

    with torch.inference_mode():
        latents = network.encode_to_latent(torch.from_numpy(to_network(hu, window))[None, None])
        return to_hu(network.decode_latent(latents)[0, 0].numpy(), window)


def _run(*words: object) -> None:
    """One command in this process, which must succeed."""
    said = [str(word) for word in (*words, "--quiet")]
    status = main(said)
    assert status == 0, f"medlord {' '.join(said)} exited with {status}"
