"""The wire protocol between a client and the resident engine process (`python -m medlord.worker`).

Framing
    One JSON object per line, UTF-8 (written as pure ASCII), ended by a newline, at most 1 MiB. The client
    writes to the worker's stdin, the worker to its stdout; stdout carries nothing else. stderr is the log, free
    text. Arrays never travel in messages: they are files (see `exchange`) in a private folder (0700) that the
    client makes, with fixed ASCII names, and messages carry their absolute paths.

Requests (client to worker)
    {"id": "7", "verb": "synthesize", "arguments": {...}}
    id: text or whole number, echoed in every answer. `VERBS` lists the verbs and their arguments. Requests run
    one at a time, in their order; `ping`, `cancel` and `shutdown` are answered at once, even while another
    request runs. Every request gets exactly one `result` or one `error`. A cancelled request ends with an
    `error` of the code "cancelled", within one denoising step.

Messages (worker to client), by their "type"
    ready     {"id": null, "protocol": 1, "pid", "python", "versions": {name: text}, "device": "cpu" | "cuda:0"}
              once, when torch is loaded; requests may be sent before it.
    progress  {"id", "phase", "step", "total", "elapsed_s", "eta_s": number | null, "message", "preview":
              absolute path of a .npy picture (rows, columns) of uint8 | null}; who reads it deletes it.
    result    {"id", "value": {...}}; what each verb answers is said in `worker_verbs`.
    error     {"id": id | null, "code", "message": one line, "hint": one line, "log": [last 50 lines]}
              Codes are those of `errors` ("bad-input", "not-enough-memory", "weights", "cancelled", "engine")
              and "protocol" for a line that is no request; the worker lives on.
              With id null and "fatal": true it could not start.
    log       {"id": id | null, "level", "text"}

End
    The worker leaves when its stdin closes (at once, also in the middle of a run; it then removes the private
    folder), on `shutdown`, or when the process that started it is gone.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .errors import InputError, MedlordError

PROTOCOL_VERSION = 1
MAX_LINE_BYTES = 2**20
LOG_TAIL_LINES = 50
# Every private folder is named so; a worker removes no other.
FOLDER_PREFIX = "medlord-worker-"
# The types of messages and the fields that each must have besides "type" and "id".
MESSAGE_TYPES = {
    "ready": ("protocol",),
    "progress": ("phase", "step", "total", "elapsed_s", "eta_s", "message"),
    "result": ("value",),
    "error": ("code", "message"),
    "log": ("text",),
}


class ProtocolError(MedlordError):
    """A line on the pipe is no valid request or message."""

    code = "protocol"

    def __init__(self, message: str, request_id: str | int | None = None):
        super().__init__(message)
        self.request_id = request_id


@dataclass(frozen=True)
class Argument:
    """What a verb takes under one name: a `kind` of `_KINDS`, or None unless it is required."""

    kind: str
    required: bool = False


_RUN = {
    "folder": Argument("path", required=True),
    "model": Argument("text"),
    "device": Argument("text"),
    "memory_limit": Argument("whole number"),
    "preview_every": Argument("whole number"),
}
VERBS: dict[str, dict[str, Argument]] = {
    "ping": {},
    "describe": {},
    "models": {},
    "estimate": {
        "model": Argument("text"),
        "device": Argument("text"),
        "precision": Argument("text"),
        "control_scale": Argument("number"),
        "memory_limit": Argument("whole number"),
    },
    "synthesize": {
        "conditions": Argument("path"),
        "unconditional": Argument("truth"),
        "reference": Argument("path"),
        "seed": Argument("whole number"),
        "sampler": Argument("text"),
        "steps": Argument("whole number"),
        "precision": Argument("text"),
        "control_scale": Argument("number"),
        "attributes": Argument("table"),
        "center_ras_mm": Argument("point"),
        **_RUN,
    },
    "repeat_recipe": {"recipe": Argument("path", required=True), **_RUN},
    "check": {
        "folder": Argument("path", required=True),
        "volume": Argument("path", required=True),
        "conditions": Argument("path"),
        "found": Argument("path"),
        "real": Argument("path"),
        "segmenter": Argument("text"),
        "reference": Argument("text"),
        "contrast_phase": Argument("text"),
        "weights": Argument("path"),
        "download": Argument("truth"),
        "license_key": Argument("text"),
    },
    "unload": {},
    "cancel": {"job": Argument("id", required=True)},
    "shutdown": {},
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= 200
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


_KINDS = {
    "text": (lambda v: isinstance(v, str), "text"),
    "path": (lambda v: isinstance(v, str) and "\0" not in v and os.path.isabs(v), "an absolute path"),
    "whole number": (lambda v: isinstance(v, int) and not isinstance(v, bool), "a whole number"),
    "truth": (lambda v: isinstance(v, bool), "true or false"),
    "number": (_is_number, "a finite number"),
    "table": (lambda v: isinstance(v, dict), "a table of names and values"),
    "point": (
        lambda v: isinstance(v, list) and len(v) == 3 and all(map(_is_number, v)),
        "three finite numbers (mm)",
    ),
    "id": (_is_id, "the id of a request"),
}


@dataclass(frozen=True)
class Request:
    """One request, checked: the verb is known and its arguments have the right types."""

    id: str | int
    verb: str
    arguments: dict[str, Any]


@dataclass
class Message:
    """One message of the worker: `type`, the `id` of the request it answers (or None), the other fields as `body`.

    `value` is what the client makes of it: a `ProgressEvent`; an `EngineResult` or dict; a `MedlordError`.
    """

    type: str
    id: str | int | None
    body: dict[str, Any]
    value: Any = None


def check_arguments(verb: str, arguments: dict[str, Any]) -> None:
    """Raise `InputError` unless `verb` is known and every argument has a known name and the right type."""
    if verb not in VERBS:
        raise InputError(f"The engine knows no verb {shorten(verb)}; use one of {', '.join(VERBS)}.")
    known = VERBS[verb]
    for name, value in arguments.items():
        if name not in known:
            raise InputError(
                f"'{verb}' takes no argument {shorten(name)}; it takes {', '.join(known) or 'none'}."
            )
        if value is None and not known[name].required:
            continue
        fits, words = _KINDS[known[name].kind]
        if not fits(value):
            raise InputError(f"The argument '{name}' of '{verb}' is {shorten(value)}; it must be {words}.")
    missing = [name for name, argument in known.items() if argument.required and name not in arguments]
    if missing:
        raise InputError(f"'{verb}' lacks the argument '{missing[0]}'; add it.")


def encode(fields: dict[str, Any]) -> bytes:
    """One line of the protocol. Raises `ProtocolError` for what JSON cannot carry and for a line too long."""
    try:
        line = json.dumps(fields, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(
            f"A message cannot be written as JSON: {error}; send plain numbers, text and lists."
        ) from error
    if len(line) > MAX_LINE_BYTES:
        raise ProtocolError(
            f"A message is {len(line)} bytes long, the limit is {MAX_LINE_BYTES}; put data into files."
        )
    return line


def decode_request(line: bytes) -> Request:
    """Read a request. Raises `ProtocolError` for what is none, `InputError` for a wrong verb or argument.

    Both errors carry the `request_id` when it could be read.
    """
    fields = _decode_object(line, "request")
    request_id = fields.get("id")
    if not _is_id(request_id):
        raise ProtocolError(f"The request has the id {shorten(request_id)}; give text or a whole number.")
    verb, arguments = fields.get("verb"), fields.get("arguments", {})
    if not isinstance(verb, str) or not isinstance(arguments, dict):
        wrong = "verb" if not isinstance(verb, str) else "arguments"
        raise ProtocolError(
            f"The request's {wrong} is {shorten(fields.get(wrong))}; 'verb' is text and 'arguments' a table.",
            request_id,
        )
    try:
        check_arguments(verb, arguments)
    except InputError as error:
        error.request_id = request_id
        raise
    return Request(request_id, verb, arguments)


def decode_message(line: bytes) -> Message:
    """Read a message of the worker. Raises `ProtocolError` for what is none (something else was printed)."""
    fields = _decode_object(line, "message")
    kind, message_id = fields.pop("type", None), fields.pop("id", None)
    known = isinstance(kind, str) and kind in MESSAGE_TYPES and fields.keys() >= set(MESSAGE_TYPES[kind])
    if not known or not (message_id is None or _is_id(message_id)):
        raise ProtocolError(
            f"The message has type {shorten(kind)} and id {shorten(message_id)}; that is no message."
        )
    return Message(kind, message_id, fields)


def one_line(text: str) -> str:
    """`text` with every run of white space, line breaks included, as one blank."""
    return " ".join(str(text).split())


def shorten(value: Any, limit: int = 60) -> str:
    """`value` as it would be typed, at most `limit` characters and always one line, for an error message."""
    try:
        text = one_line(ascii(value)[: 4 * limit])
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _decode_object(line: bytes, what: str) -> dict[str, Any]:
    try:
        fields = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ProtocolError(
            f"A line is no UTF-8 (byte {error.start}: {shorten(line[:20])}); send UTF-8 JSON."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ProtocolError(
            f"A line is no JSON ({one_line(error)}): {shorten(line[:50])}; send one object a line."
        ) from error
    if not isinstance(fields, dict):
        raise ProtocolError(f"A line holds {shorten(fields)}; a {what} is a JSON object.")
    return fields


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


class LineSplitter:
    """Cuts a stream of bytes into lines; keeps a partial line, drops what exceeds `limit` unstored."""

    def __init__(self, limit: int = MAX_LINE_BYTES):
        self._limit = limit
        self._partial = bytearray()
        self._too_long = False

    def feed(self, data: bytes) -> Iterator[bytes | None]:
        """Yield every line that `data` completes, without its end; None stands for a line that was too long.

        Lines of white space only are left out. The end of a line may be \\n or \\r\\n.
        """
        pieces = data.split(b"\n")
        for number, piece in enumerate(pieces):
            if not self._too_long and len(self._partial) + len(piece) <= self._limit:
                self._partial += piece
            else:
                self._too_long = True
                self._partial.clear()
            if number == len(pieces) - 1:
                return
            line, too_long = bytes(self._partial), self._too_long
            self._partial.clear()
            self._too_long = False
            if too_long:
                yield None
            elif line.strip():
                yield line.rstrip(b"\r")

    def rest(self) -> bytes:
        """What came after the last complete line."""
        return bytes(self._partial)
