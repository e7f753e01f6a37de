"""What the engine process does for each verb, and which trained models it keeps between runs.

Answers (the `value` of a result message):
    ping           {"pid", "running": id of the request that runs, or null}
    cancel         {"job", "found": false when that request ended already or never was}
    shutdown       {"stopped": true}
    describe       {"pid", "python", "versions", "device": what "auto" means, "loaded": [{"model", "device"}],
                    "devices": [{"name", "kind", "free_bytes", "total_bytes"}]}
    models         {"models": [{"id", "folder"}]}: those that are installed
    estimate       {"device", "needed_bytes", "free_bytes", "loaded": the model is in memory, "message": one line, ""
                    when the run fits}: memory of a run with these settings, beyond what the process holds already;
                    other models in memory would make room for it, so theirs counts as free
    synthesize,    {"volume", "conditions": absolute paths of files below `folder` (see `exchange`; the recipe is
    repeat_recipe   in the volume), "timings_s", "peak_memory_bytes", "energy_kwh", "warnings",
                    "reused_model": true when it was loaded already}
    check          {"scorecard", "found": absolute paths of files below `folder`, see `worker_check`}
    unload         {"unloaded": how many models were freed}
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import exchange, worker_check
from .bundles.loaded_models import LoadedModels
from .devices import choose_device, choose_precision, is_memory_error
from .errors import EngineError, InsufficientMemoryError, MedlordError
from .progress import Cancel, Progress
from .protocol import one_line
from .recipe import Recipe, library_versions
from .resources import BUNDLED_MODEL

if TYPE_CHECKING:
    from .synthesis import Result


class Engine:
    """Runs verbs one at a time and keeps the models they loaded."""

    def __init__(self):
        self._models = LoadedModels()

    @property
    def holds_models(self) -> bool:
        """True while a trained model is in memory."""
        return len(self._models) > 0

    def run(self, verb: str, arguments: dict[str, Any], progress: Progress, cancel: Cancel) -> dict[str, Any]:
        """Do `verb` with checked arguments and return its answer. Raises what the verb raises."""
        methods = {
            "describe": self.describe,
            "models": self.models,
            "estimate": self.estimate,
            "unload": lambda: {"unloaded": self.unload()},
            "synthesize": lambda **given: self.synthesize(progress=progress, cancel=cancel, **given),
            "repeat_recipe": lambda **given: self.repeat_recipe(progress=progress, cancel=cancel, **given),
            "check": lambda **given: worker_check.check(progress=progress, cancel=cancel, **given),
        }
        return methods[verb](**{name: value for name, value in arguments.items() if value is not None})

    def describe(self) -> dict[str, Any]:
        """Versions, devices with their free memory (bytes), and the models that are loaded."""
        return {
            "pid": os.getpid(),
            "python": sys.executable,
            "versions": library_versions(),
            "device": str(choose_device("auto")),
            "devices": devices(),
            "loaded": [{"model": folder.name, "device": device} for folder, device in self._models.places],
        }

    def models(self) -> dict[str, Any]:
        """The models that are installed."""
        from .bundles.bundle import list_models

        return {"models": [{"id": name, "folder": str(folder)} for name, folder in list_models().items()]}

    def estimate(
        self,
        *,
        model: str = BUNDLED_MODEL,
        device: str = "auto",
        precision: str = "auto",
        control_scale: float = 1.0,
        memory_limit: int | None = None,
    ) -> dict[str, Any]:
        """What a run would take, without loading anything; see `memory.planner`."""
        from .bundles.bundle import find_model
        from .bundles.description import read_description
        from .memory.planner import plan_run

        folder, target = find_model(model), choose_device(device)
        description = read_description(folder)
        recipe = Recipe(
            model=description.id,
            model_version=description.version,
            weights_sha256={},
            conditions={},
            attributes={},
            seed=0,
            sampler="",
            steps=1,
            control_scale=control_scale,
            guidance=1.0,
            grid={},
            precision=choose_precision(precision, target),
        )
        loaded = self._models.get(folder, target) is not None
        plan = plan_run(
            description, recipe, target, loaded=loaded, limit=memory_limit,
            returnable=self._models.bytes_beside(folder, target),
        )  # fmt: skip
        try:
            plan.require_enough()
            message = ""
        except InsufficientMemoryError as error:
            message = one_line(error)
        return {
            "device": str(target),
            "needed_bytes": int(plan.needed),
            "free_bytes": int(plan.free),
            "loaded": loaded,
            "message": message,
        }

    def synthesize(
        self,
        *,
        folder: str,
        progress: Progress,
        cancel: Cancel,
        conditions: str | None = None,
        model: str = BUNDLED_MODEL,
        device: str = "auto",
        reference: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Synthesize from the masks in the file `conditions`, or without; the files of the result go to `folder`."""
        from . import synthesis

        given = exchange.read_conditions(Path(conditions)) if conditions is not None else None
        if given is not None and given.masks:
            given.require_content()
        if reference is not None:
            options["reference"] = exchange.read_volume(Path(reference))
        loads = self._models.loads
        result = synthesis.synthesize(
            given, model, device=device, models=self._models, progress=progress, cancel=cancel, **options
        )
        return _answer(result, Path(folder), self._models.loads == loads)

    def repeat_recipe(
        self,
        *,
        recipe: str,
        folder: str,
        progress: Progress,
        cancel: Cancel,
        model: str | None = None,
        device: str = "auto",
        **options: Any,
    ) -> dict[str, Any]:
        """Run the recipe in the file `recipe` again; the files of the result go to `folder`."""
        from . import synthesis

        given = Recipe.from_dict(exchange.read_json(Path(recipe)))
        given.require_valid()
        loads = self._models.loads
        result = synthesis.repeat_recipe(
            given,
            model=model,
            device=device,
            models=self._models,
            progress=progress,
            cancel=cancel,
            **options,
        )
        return _answer(result, Path(folder), self._models.loads == loads)

    def unload(self) -> int:
        """Free all models; returns how many there were."""
        return self._models.clear()


def _answer(result: Result, folder: Path, reused_model: bool) -> dict[str, Any]:
    """Write the files of a result and return what the message says about it."""
    volume, conditions = folder / "result-volume.npz", folder / "result-conditions.npz"
    exchange.write_volume(volume, result.volume)
    exchange.write_conditions(conditions, result.conditions)
    return {
        "volume": str(volume),
        "conditions": str(conditions),
        "timings_s": {name: float(value) for name, value in result.timings_s.items()},
        "peak_memory_bytes": int(result.peak_memory_bytes),
        "energy_kwh": None if result.energy_kwh is None else float(result.energy_kwh),
        "warnings": list(result.warnings),
        "reused_model": reused_model,
    }


def devices() -> list[dict[str, Any]]:
    """The processor and every CUDA device, with free and total memory in bytes."""
    import psutil
    import torch

    memory = psutil.virtual_memory()
    found = [
        {"name": "cpu", "kind": "processor", "free_bytes": memory.available, "total_bytes": memory.total}
    ]
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        kind = torch.cuda.get_device_name(number)
        found.append({"name": f"cuda:{number}", "kind": kind, "free_bytes": free, "total_bytes": total})
    return found


def describe_error(error: BaseException) -> tuple[str, str, str]:
    """(code, one line, hint) of anything that a verb raised."""
    if isinstance(error, MedlordError):
        return error.code, one_line(error), getattr(error, "hint", "")
    if is_memory_error(error):
        reason = one_line(error)[:200] or "an allocation failed"
        message = f"There is not enough memory for this run ({reason}; {_free_memory_words()})"
        hint = "Close other programs, choose a smaller model or lower precision, or run on another device."
        return InsufficientMemoryError.code, f"{message}. {hint}", hint
    text = one_line(error) or "no further text"
    hint = "Run again; if it stays, report it with the log."
    return "engine", f"The engine failed with {type(error).__name__}: {text[:400]}. {hint}", hint


def _free_memory_words() -> str:
    try:
        return ", ".join(
            f"{d['name']}: {d['free_bytes'] / 2**30:.1f} of {d['total_bytes'] / 2**30:.1f} GiB free"
            for d in devices()
        )
    except (MemoryError, RuntimeError, ImportError):
        return "free memory unknown"


def require_torch() -> None:
    """Import torch once. Raises `EngineError` that names the Python and the way out when that fails."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        raise EngineError(
            f"The engine's Python {sys.executable} cannot load torch ({one_line(error)[:200]}). "
            "Install the engine there, or choose another Python in the settings."
        ) from error
