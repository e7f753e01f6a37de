"""Training checkpoints: safetensors for every tensor, JSON for the rest, replaced as one.

A checkpoint is a folder `NAME` with `networks.safetensors`, `optimizer.safetensors` and `state.json`. It is
written beside its place as `NAME.part`, flushed to the disk and renamed; the one before is `NAME.previous` for
that moment. A run that is killed at any point leaves a whole one, which all readers here find.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..errors import WeightsError


def save_checkpoint(
    folder: Path,
    networks: Mapping[str, Mapping[str, torch.Tensor]],
    optimizers: Mapping[str, torch.optim.Optimizer],
    state: dict,
) -> None:
    """Write the state dicts of `networks`, the moments of `optimizers` and the JSON-able `state`."""
    temporary, previous = folder.with_name(folder.name + ".part"), _previous(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(_flatten(networks), temporary / "networks.safetensors")
    moments = {}
    for name, optimizer in optimizers.items():
        for index, entries in optimizer.state_dict()["state"].items():
            for key, value in entries.items():
                moments[f"{name}.{index}.{key}"] = torch.as_tensor(value).contiguous()
    save_file(moments, temporary / "optimizer.safetensors")
    (temporary / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    # A power cut after the renames must not leave the new names on files whose bytes never reached the disk.
    for path in temporary.iterdir():
        with path.open("r+b") as stream:
            os.fsync(stream.fileno())
    if folder.exists():
        # Only now: after a kill between the renames `previous` is the one checkpoint that there is.
        shutil.rmtree(previous, ignore_errors=True)
        folder.rename(previous)
    temporary.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def read_state(folder: Path) -> dict | None:
    """The `state` of `save_checkpoint`; None when there is no checkpoint."""
    path = _surviving(folder) / "state.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def load_networks(folder: Path, networks: Mapping[str, torch.nn.Module]) -> None:
    """Fill `networks` from the checkpoint; raises `WeightsError` when it was written for other networks."""
    tensors = load_file(_surviving(folder) / "networks.safetensors")
    for name, network in networks.items():
        part = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(name + ".")}
        wanted = network.state_dict()
        wrong = [key for key in wanted if key not in part or part[key].shape != wanted[key].shape]
        wrong += [key for key in part if key not in wanted]
        if wrong:
            raise WeightsError(
                f"The checkpoint {folder.name} does not fit the network '{name}' (first weight that is missing, "
                f"unexpected or of another shape: {wrong[0]}); train in another folder or restore the "
                "configuration it was written with."
            )
        network.load_state_dict(part)


def load_checkpoint(
    folder: Path, networks: Mapping[str, torch.nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> None:
    """Fill `networks` and `optimizers` from `save_checkpoint`'s folder.

    Raises `WeightsError` when the checkpoint was written for other networks.
    """
    load_networks(folder, networks)
    moments = load_file(_surviving(folder) / "optimizer.safetensors")
    for name, optimizer in optimizers.items():
        content = optimizer.state_dict()
        content["state"] = {}
        for key, value in moments.items():
            owner, index, entry = key.split(".", 2)
            if owner == name:
                content["state"].setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict(content)


def weights_sha256(network: torch.nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of all weights and buffers of `network`."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _previous(folder: Path) -> Path:
    return folder.with_name(folder.name + ".previous")


def _surviving(folder: Path) -> Path:
    """The checkpoint itself or, when the run was killed between the two renames, the one before."""
    return folder if (folder / "state.json").is_file() else _previous(folder)


def _flatten(networks: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.detach().cpu().contiguous().clone()
        for name, content in networks.items()
        for key, value in content.items()
    }
