"""Between the client's values and the messages: arguments out; results, progress events and errors in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import exchange
from .conditions import Conditions
from .errors import EngineError, MedlordError, error_from_code
from .progress import ProgressEvent
from .protocol import Message
from .recipe import Recipe
from .volumes import Volume


@dataclass
class EngineResult:
    """What `medlord.synthesis.Result` holds, rebuilt in this process; `reused_model`: it was in memory."""

    volume: Volume
    recipe: Recipe
    conditions: Conditions
    timings_s: dict[str, float]
    peak_memory_bytes: int
    energy_kwh: float | None
    warnings: list[str]
    reused_model: bool = False


@dataclass
class CheckResult:
    """What a check found.

    report            the scorecard, as `evaluation.scorecard.Scorecard.to_dict` gives it
    found             the masks that the segmenter found, on the grid of the volume
    positions_ras_mm  structure -> where to look: the slice that differs most from the drawn mask, else its middle
    measure           "rvr", or "ml" where the field of view is not that of the reference: what `distributions` holds
    distributions     structure -> (value of this volume, its percentile, all values of the reference)
    """

    report: dict[str, Any]
    found: Conditions
    positions_ras_mm: dict[str, tuple[float, float, float]]
    measure: str
    distributions: dict[str, tuple[float, float, list[float]]]


@dataclass
class Job:
    """One request that was sent: its verb, the folder of its files, and what came for a caller that waits for it.

    `cancel_stage`: 1 asked, 2 told to end, 3 killed; `cancel_deadline` (monotonic s) is when the next one is due.
    """

    id: str
    verb: str = ""
    folder: Path | None = None
    waited_for: bool = False
    messages: list[Message] = field(default_factory=list)
    cancel_stage: int = 0
    cancel_deadline: float | None = None


def with_value(message: Message, job: Job) -> Message:
    """The message with its `value`; a result whose files are no valid result becomes an error message."""
    if message.type == "progress":
        message.value = progress_of(message.body)
    elif message.type == "error":
        message.value = error_of(message)
    else:
        try:
            read = _READERS.get(job.verb, dict)
            message.value = read(message.body["value"])
        except (MedlordError, KeyError, TypeError, ValueError) as error:
            reason = f"The engine reported success but its result cannot be used: {error}"
            return error_message(job.id, EngineError(reason))
    return message


def error_message(job: str, error: MedlordError) -> Message:
    body = {"code": error.code, "message": str(error), "hint": "", "log": []}
    return Message("error", job, body, error)


def error_of(message: Message) -> MedlordError:
    """The exception of an error message; `.details` is the worker's log, `.hint` what to do."""
    error = error_from_code(message.body["code"], message.body["message"])
    error.details = "\n".join(message.body.get("log", ()))
    error.hint = message.body.get("hint", "")
    return error


def progress_of(body: dict[str, Any]) -> ProgressEvent:
    preview = exchange.take_preview(Path(body["preview"])) if body.get("preview") else None
    return ProgressEvent(
        body["phase"], body["step"], body["total"], body["elapsed_s"], body["eta_s"], preview, body["message"]
    )


def result_of(value: dict[str, Any]) -> EngineResult:
    """Read the files of a result; they count as valid only when all can be read and agree."""
    volume = exchange.read_volume(Path(value["volume"]))
    conditions = exchange.read_conditions(Path(value["conditions"]))
    recipe = Recipe.from_dict(volume.recipe)
    volume.grid.validate("The result")
    if volume.array.dtype != np.int16 or not conditions.grid.matches(volume.grid):
        raise EngineError(
            f"the volume is {volume.array.dtype} of shape {volume.grid.shape}, int16 of the shape of the "
            f"conditions {conditions.grid.shape} was expected. Run again."
        )
    return EngineResult(
        volume, recipe, conditions, value["timings_s"], value["peak_memory_bytes"], value["energy_kwh"],
        value["warnings"], value["reused_model"],
    )  # fmt: skip


def check_result_of(value: dict[str, Any]) -> CheckResult:
    """Read the files of a check."""
    data = exchange.read_json(Path(value["scorecard"]))
    positions = {name: tuple(map(float, point)) for name, point in data["positions_ras_mm"].items()}
    distributions = {
        name: (float(entry["value"]), float(entry["percentile"]), [float(v) for v in entry["reference"]])
        for name, entry in data["distributions"].items()
    }
    found = exchange.read_conditions(Path(value["found"]))
    return CheckResult(dict(data["report"]), found, positions, str(data["measure"]), distributions)


_READERS = {"synthesize": result_of, "repeat_recipe": result_of, "check": check_result_of}
"""How the answer of a verb whose arrays travel as files is read."""


def plain_argument(name: str, value: Any) -> Any:
    """An argument as JSON knows it; the folder of a model becomes absolute, since the worker runs elsewhere."""
    if name == "model" and isinstance(value, (str, Path)):
        return (
            str(Path(value).absolute())
            if (Path(value) / "configs" / "metadata.json").is_file()
            else str(value)
        )
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, tuple):
        return [plain_argument("", entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
