"""The tiny bundle with a decoder whose output spans air to bone: its volumes pass for a CT in HU, not for a chest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from support.tiny_bundle import write_tiny_bundle


def write_wide_range_bundle(folder: Path) -> Path:
    """Write the bundle to `folder`/wide and return that path."""
    from medlord.bundles.bundle import load_bundle, write_bundle

    bundle = load_bundle(write_tiny_bundle(folder))
    last = bundle.autoencoder.decoder.blocks[-1].conv
    last.weight.mul_(40.0)
    settings = {f.name: getattr(bundle.description, f.name) for f in dataclasses.fields(bundle.description)}
    settings = {**settings, "id": "wide"}
    del settings["weights_sha256"]
    networks = {"autoencoder": bundle.autoencoder, "denoiser": bundle.denoiser, "control": bundle.control}
    path = Path(folder) / "wide"
    write_bundle(
        path, networks, settings, {"version": "1.0"}, card="Test model.\n", licence_text="Apache-2.0\n"
    )
    return path
