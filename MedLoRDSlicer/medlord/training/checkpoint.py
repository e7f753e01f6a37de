"""Training checkpoints: safetensors for every tensor, JSON for the rest, replaced as one.

A checkpoint is a folder `NAME` with `networks.safetensors`, `optimizer.safetensors` and `state.json`. It is
written beside its place and renamed, so a killed run leaves the last whole one.
"""

from __future__ import annotations

import json
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
    temporary = folder.with_name(folder.name + ".part")
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
    previous = folder.with_name(folder.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)
    if folder.exists():
        folder.rename(previous)
    temporary.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def load_checkpoint(
    folder: Path, networks: Mapping[str, torch.nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict:
    """Fill `networks` and `optimizers` from `save_checkpoint`'s folder and return its state.

    Raises `WeightsError` when the checkpoint was written for other networks.
    """
    folder = _surviving(folder)
    tensors = load_file(folder / "networks.safetensors")
    for name, network in networks.items():
        part = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(name + ".")}
        missing, unexpected = network.load_state_dict(part, strict=False)
        if missing or unexpected:
            raise WeightsError(
                f"The checkpoint {folder.name} does not fit the network '{name}' (first missing key: "
                f"{next(iter(missing), 'none')}, first unexpected: {next(iter(unexpected), 'none')}); "
                "train in another folder or restore the configuration it was written with."
            )
    moments = load_file(folder / "optimizer.safetensors")
    for name, optimizer in optimizers.items():
        content = optimizer.state_dict()
        content["state"] = {}
        for key, value in moments.items():
            owner, index, entry = key.split(".", 2)
            if owner == name:
                content["state"].setdefault(int(index), {})[entry] = value
        optimizer.load_state_dict(content)
    return json.loads((folder / "state.json").read_text(encoding="utf-8"))


def has_checkpoint(folder: Path) -> bool:
    """True when a run can be resumed from `folder`."""
    return any(
        (place / "state.json").is_file() for place in (folder, folder.with_name(folder.name + ".previous"))
    )


def _surviving(folder: Path) -> Path:
    """The checkpoint itself or, when the run was killed between the two renames, the one before."""
    return folder if (folder / "state.json").is_file() else folder.with_name(folder.name + ".previous")


def _flatten(networks: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.detach().cpu().contiguous().clone()
        for name, content in networks.items()
        for key, value in content.items()
    }
