"""Reading the checkpoint files of MedLoRD's trainers: their dictionary layouts, prefixes and moving averages.

Files are opened with `weights_only=True` (no code in them can run) and memory-mapped: of a 2.7 GB file with
optimizer state only the tensors that are copied out are read.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError, WeightsError

Tensors = dict[str, torch.Tensor]

_WRAPPER = "module."
WHICH_WEIGHTS = (
    "the original scripts sample without masks with 'ema' of the U-Net, with masks with 'model' of the U-Net and 'ema' "
    "of the ControlNet"
)
"""Which kind was meant stands in no file; this is what the published scripts take where a file has both."""
_MODEL_ENTRIES = {"model": "trainer", "state_dict": "legacy", "diffusion": "legacy"}


@dataclass(frozen=True)
class Checkpoint:
    """The weights in one file, names without wrapper prefix; tensors are views of the mapped file.

    `layout` is "trainer" (entry `model`), "legacy" (`state_dict` or `diffusion`, before 2026-03), "bare" (the file
    is the state dict) or "ema" (only a moving average). `ema` holds trained parameters only, no buffers.
    """

    path: Path
    layout: str
    model: Tensors | None
    ema: Tensors | None
    discriminator: Tensors | None


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Open a trainer's file; raises WeightsError when it is missing, unreadable or in no known layout."""
    path = Path(path)
    content = _load(path)
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path.name} holds a {type(content).__name__}, not a dictionary of weights; give a trainer's checkpoint."
        )
    discriminator = _tensors(path, "discriminator", content.get("discriminator"))
    average = content.get("ema", content if "shadow" in content else None)
    if average is not None and not (isinstance(average, dict) and "shadow" in average):
        raise WeightsError(
            f"{path.name} holds a moving average (ema) in an unknown form, without shadow; give a checkpoint of "
            "MedLoRD's trainers."
        )
    ema = _tensors(path, "ema", average["shadow"]) if average else None
    for entry, layout in _MODEL_ENTRIES.items():
        if isinstance(content.get(entry), dict):
            model = _tensors(path, entry, content[entry])
            if model is None and ema is None:
                raise WeightsError(
                    f"{path.name} holds no weights: its {entry} is empty; give another checkpoint."
                )
            return Checkpoint(path, layout, model, ema, discriminator)
    if ema:
        return Checkpoint(path, "ema", None, ema, discriminator)
    if content and all(isinstance(value, torch.Tensor) for value in content.values()):
        return Checkpoint(path, "bare", _tensors(path, "the file", content), None, None)
    raise WeightsError(
        f"{path.name} has the entries {', '.join(map(str, list(content)[:8])) or 'nothing'}; expected one of model, "
        "state_dict, diffusion, ema or a bare state dict: give a checkpoint of MedLoRD's trainers."
    )


def chosen_weights(
    checkpoint: Checkpoint, weights: str | None, option: str = "weights"
) -> tuple[str, Tensors]:
    """("model" or "ema", its tensors). None takes the only kind there is and refuses to choose between two.

    `option` is what the user has to choose with.
    """
    kinds = {"model": checkpoint.model, "ema": checkpoint.ema}
    present = [kind for kind, tensors in kinds.items() if tensors]
    if weights is None:
        if len(present) > 1:
            raise InputError(
                f"{checkpoint.path} holds raw weights and their moving average and does not say which to use; "
                f"choose {option} model or ema: {WHICH_WEIGHTS}."
            )
        return present[0], kinds[present[0]]
    if weights not in kinds:
        raise InputError(
            f'Weights {weights!r} were asked for; choose "model" (raw) or "ema" (moving average).'
        )
    if weights not in present:
        raise WeightsError(
            f"{checkpoint.path.name} has no {weights!r} weights, only {present[0]!r}; choose those or another file."
        )
    return weights, kinds[weights]


def load_strictly(network: nn.Module, tensors: Tensors, path: Path, what: str) -> None:
    """Copy `tensors` as float32 into `network`, which may be on the meta device.

    Raises WeightsError naming the first tensor that is missing, unexpected, of another shape or not finite.
    """
    expected = network.state_dict()
    _refuse_first(sorted(set(expected) - set(tensors)), path, "lacks", f"which the {what} needs")
    _refuse_first(sorted(set(tensors) - set(expected)), path, "has", f"which the {what} does not know")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise WeightsError(
                f"{path.name} has {name} of shape {tuple(tensor.shape)}, the {what} needs "
                f"{tuple(expected[name].shape)}; check that file and configuration belong together."
            )
        if not torch.isfinite(tensor).all():
            raise WeightsError(
                f"{path.name} has values in {name} that are not finite; its training diverged: give another checkpoint."
            )
    network.to_empty(device="cpu")
    network.load_state_dict(tensors, strict=True)


def _load(path: Path) -> Any:
    if not path.is_file():
        raise WeightsError(f"There is no weight file {path.name} in {path.parent}; check the path.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{path.name} cannot be read as a weight file: {reason[:200]}; give an undamaged file saved by torch.save."
        ) from error


def _tensors(path: Path, entry: str, values: Any) -> Tensors | None:
    """State dict without wrapper prefix; None for an absent or empty entry."""
    if values is None:
        return None
    if not isinstance(values, dict):
        raise WeightsError(
            f"{path.name} holds a {type(values).__name__} as {entry}, not a dictionary of weights; give a trainer's "
            "checkpoint."
        )
    if not values:
        return None
    odd = [
        name
        for name, value in values.items()
        if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    ]
    if odd:
        raise WeightsError(
            f"{path.name} has no tensor at {odd[0]!r} of {entry}; give a trainer's checkpoint."
        )
    wrapped = [name for name in values if name.startswith(_WRAPPER)]
    if len(wrapped) < len(values):
        return dict(values)
    return {name[len(_WRAPPER) :]: value for name, value in values.items()}


def _refuse_first(names: list[str], path: Path, verb: str, reason: str) -> None:
    if names:
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise WeightsError(
            f"{path.name} {verb} {names[0]}{others}, {reason}; check that file and configuration belong together."
        )
