"""The one exception family of the engine.

A message is one line and says what was wrong, the value, the limit and what to do next. The command line
prints that line and exits with `exit_code`; the worker sends `code` and the line to its client.
"""

from __future__ import annotations


class MedlordError(Exception):
    """Base of every error that the engine raises on purpose.

    An error that crossed from the engine process also carries a `hint` (what to do next) and `details` (the end of
    the log), both text and often empty.
    """

    exit_code = 1
    code = "engine"
    hint = ""
    details = ""


class EngineError(MedlordError):
    """The engine could not do its work for a reason that is not the user's input (a died worker, a full disk)."""


class InputError(MedlordError):
    """The input cannot be used: wrong geometry, names, value ranges, unknown model or sampler."""

    exit_code = 2
    code = "bad-input"


class InsufficientMemoryError(MedlordError):
    """The run needs more memory than the device has free."""

    exit_code = 3
    code = "not-enough-memory"


class WeightsError(MedlordError):
    """Weights are missing, damaged (hash) or their licence was not accepted."""

    exit_code = 4
    code = "weights"


class CancelledError(MedlordError):
    """The user cancelled; nothing was written."""

    exit_code = 130
    code = "cancelled"


_FAMILY = {
    kind.code: kind
    for kind in (EngineError, InputError, InsufficientMemoryError, WeightsError, CancelledError)
}


def error_from_code(code: str, message: str) -> MedlordError:
    """Rebuild an error that crossed a process boundary as (code, message); unknown codes become `EngineError`."""
    return _FAMILY.get(code, EngineError)(message)
