"""What all trainings share: devices, precision, learning rate, and the step loop with progress and checkpoints."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from tqdm import tqdm

from ..errors import EngineError, InputError
from ..progress import Cancel, Progress, ProgressEvent, raise_if_cancelled
from .averaging import WeightAverage
from .checkpoint import load_checkpoint, read_state, save_checkpoint
from .config import first_difference
from .narrow_maps import refuse_narrow_maps
from .planned import planned_before

CHECKPOINT = "checkpoint"
FINAL_SHARE = 0.02
"""Share of the peak learning rate that is left at the end."""

COMPARED_BY_RATES = ("steps", "earlier_ends")
"""What the weights depend on through the learning rates alone."""


def generator_for(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on nothing but seed, step and purpose: a resumed run draws what it would have."""
    digest = hashlib.sha256(f"{purpose}:{seed}:{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def learning_rate(step: int, settings: dict) -> float:
    """The rate of `step`: linear warm-up over `warmup` steps to `learning_rate`, and a descent to 2 % of that.

    The descent is a cosine from the warm-up to the last of `steps`, or, where `cooldown` is given, a straight line
    over that many last steps after a constant rate (Hägele et al., arXiv 2405.18392): then `steps` can still be
    changed while the rate is constant, and nothing of what was done would have been done otherwise. `earlier_ends`
    are steps at which a descent had already ended before the training was prolonged.
    """
    peak, warmup = settings["learning_rate"], settings["warmup"]
    total = next((end for end in settings.get("earlier_ends", ()) if step < end), settings["steps"])
    if step < warmup:
        return peak * (step + 1) / warmup
    cooldown = settings.get("cooldown")
    if cooldown is None:
        position = min(1.0, (step - warmup) / max(1, total - warmup))
        remaining = 0.5 * (1 + math.cos(math.pi * position))
    else:
        remaining = min(1.0, max(0, total - step) / cooldown)
    return peak * (FINAL_SHARE + (1 - FINAL_SHARE) * remaining)


class Descent:
    """One network under training: an optimiser with the planned learning rate, gradient clipping, a weight average.

    `settings` are those of a training section: steps, learning_rate, warmup, weight_decay, gradient_clip and, where
    given, cooldown, average_decay and optimizer. The optimiser is "adamw", or "muon": Muon for the weights of
    convolutions and linear layers (see `optimizers_of`), AdamW for the rest, both with the same rate.
    """

    def __init__(self, network: torch.nn.Module, settings: dict):
        self.network, self._settings = network, settings
        if settings.get("precision") == "bfloat16":
            refuse_narrow_maps(network)
        self.optimizers, self._matrices = optimizers_of(network, settings)
        decay = settings.get("average_decay")
        self.average = WeightAverage(network, decay) if decay else None

    def descend(self, loss: torch.Tensor, step: int) -> None:
        """One optimiser step (number `step`, from 0) along the gradient of `loss`; weights without one stay."""
        settings = self._settings
        rate = learning_rate(step, settings)
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings["gradient_clip"])
        for weight, matrix in self._matrices:
            matrix.grad = None if weight.grad is None else weight.grad.view(matrix.shape)
        for optimizer in self.optimizers.values():
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
        if self.average:
            self.average.update(self.network, step + 1)


MUON_SMALLEST_SIDE = 16


def optimizers_of(
    network: torch.nn.Module, settings: dict
) -> tuple[dict[str, torch.optim.Optimizer], list[tuple[torch.Tensor, torch.nn.Parameter]]]:
    """The optimisers of `network`'s weights by name, and (weight, matrix) pairs whose gradients have to be passed on.

    "muon" (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; rates matched to AdamW's
    as in Liu et al., arXiv 2502.16982, eq. 4) takes matrices only: a convolution's weight (out, in, i, j, k) is given
    to it as (out, in * i * j * k), a second parameter on the same memory. Weights with a side under
    `MUON_SMALLEST_SIDE`, biases and norms stay with AdamW.
    """
    kind = settings.get("optimizer", "adamw")
    if kind not in ("adamw", "muon"):
        raise InputError(f"The optimizer is '{kind}'; it can be adamw or muon.")
    decay, rate = settings["weight_decay"], settings["learning_rate"]
    weights = list(network.parameters())
    hidden = [weight for weight in weights if kind == "muon" and _is_hidden_matrix(weight)]
    taken = {id(weight) for weight in hidden}
    matrices = [(weight, torch.nn.Parameter(weight.data.view(len(weight), -1))) for weight in hidden]
    rest = [weight for weight in weights if id(weight) not in taken]
    optimizers: dict[str, torch.optim.Optimizer] = {
        "adamw": torch.optim.AdamW(rest, lr=rate, weight_decay=decay)
    }
    if matrices:
        optimizers["muon"] = torch.optim.Muon(
            [matrix for _, matrix in matrices], lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
        )
    return optimizers, matrices


def _is_hidden_matrix(weight: torch.Tensor) -> bool:
    return weight.ndim > 1 and min(len(weight), weight[0].numel()) >= MUON_SMALLEST_SIDE


def run_steps(
    folder: Path,
    total: int,
    one_step: Callable[[int], dict[str, float]],
    *,
    networks: Mapping[str, torch.nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    config: dict,
    defaults: Mapping[str, object],
    checkpoint_every: int,
    phase: str,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> None:
    """Run `one_step(step) -> losses` for steps up to `total`, resuming from `folder` when it holds a checkpoint.

    Losses go to `log.jsonl` every 20 steps, the progress bar shows their running mean. A cancelled run keeps its
    checkpoint. Raises `EngineError` when a loss is not finite and `InputError` when the checkpoint was trained with
    another `config` (JSON-able; see `require_same_config`). `defaults` are those of the stage's section `training`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place, start = folder / CHECKPOINT, 0
    if state := read_state(place):
        require_same_config(phase, state["config"], config, int(state["step"]), defaults)
        load_checkpoint(place, networks, optimizers)
        start = int(state["step"])

    def save(step: int) -> None:
        content = {name: network.state_dict() for name, network in networks.items()}
        save_checkpoint(place, content, optimizers, {"step": step, "total": total, "config": config})

    started, mean = time.perf_counter(), {}
    with tqdm(total=total, initial=start, desc=phase, mininterval=2.0) as bar:
        for step in range(start, total):
            if cancel is not None and cancel():
                save(step)
                raise_if_cancelled(cancel, f"{phase} step {step} of {total} (its checkpoint is kept)")
            losses = one_step(step)
            if not all(math.isfinite(value) for value in losses.values()):
                raise EngineError(
                    f"A loss of {phase} is not finite at step {step}: {losses}; lower the learning rate."
                )
            for name, value in losses.items():
                mean[name] = value if name not in mean else 0.98 * mean[name] + 0.02 * value
            bar.update(1)
            if (step + 1) % 20 == 0 or step + 1 == total:
                bar.set_postfix({name: f"{value:.4f}" for name, value in mean.items()}, refresh=False)
                elapsed = time.perf_counter() - started
                with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
                    log.write(json.dumps({"step": step + 1, "seconds": elapsed, **mean}) + "\n")
                if progress is not None:
                    eta = elapsed / (step + 1 - start) * (total - step - 1)
                    progress(ProgressEvent(phase, step + 1, total, elapsed, eta))
            if (step + 1) % checkpoint_every == 0 or step + 1 == total:
                save(step + 1)


def require_same_config(
    stage: str, before: dict, now: dict, done: int, defaults: Mapping[str, object]
) -> None:
    """Raise `InputError` naming the first difference, unless the `done` steps of a checkpoint are those of `now`.

    `before` is the configuration in the checkpoint, `defaults` fill what its section `training` and that of `now` leave
    out. What is planned for steps to come may differ; so may `steps` and `earlier_ends` as long as the steps that are
    done had the same learning rates, and how often is saved.
    """
    trained, asked = ({**defaults, **config["training"]} for config in (before, now))
    first = {**before, "training": planned_before(trained, done)}
    second = {**now, "training": planned_before(asked, done)}
    difference = first_difference(first, second, (*COMPARED_BY_RATES, "checkpoint_every"))
    difference = difference or _other_order(before, now)
    remedy = f"delete the stage's folder '{stage}' to train it again, or choose a new working folder"
    if difference and "_sha256: " in difference:
        raise InputError(
            f"The checkpoint of the stage '{stage}' belongs to other results of the stages before it ({difference}); "
            f"{remedy}."
        )
    if difference:
        raise InputError(
            f"The checkpoint of the stage '{stage}' was trained with another configuration in its {done} steps "
            f"({difference}); restore that setting for them, {remedy}."
        )
    told = ", ".join(f"{name} {trained[name]} before, {asked[name]} now" for name in COMPARED_BY_RATES)
    if done > asked["steps"]:
        raise InputError(
            f"The checkpoint of the stage '{stage}' has done {done} steps, more than the configuration asks for "
            f"({told}); restore both settings, {remedy}."
        )
    if _rates(trained, done) != _rates(asked, done):
        raise InputError(
            f"The checkpoint of the stage '{stage}' has done {done} steps with other learning rates than the "
            f"configuration gives them ({told}). To prolong a training that has reached its end, write that end into "
            f"earlier_ends of '{stage}.training'; otherwise restore both settings, {remedy}."
        )


def _other_order(before: dict, now: dict) -> str | None:
    """The channels of a control network follow the order of the attributes, of which a mapping's equality is silent."""
    orders = [list(config.get("attributes", ())) for config in (before, now)]
    return None if orders[0] == orders[1] else f"attributes: in the order {orders[0]} before, {orders[1]} now"


def _rates(training: dict, done: int) -> list[float]:
    return [learning_rate(step, training) for step in range(done)]
