"""Training configurations: YAML files, checked before anything runs, and notes of what files were made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

import yaml

from ..errors import InputError
from ..volume_files import write_atomically

ORIGIN = "made_from.json"


def load_config(path: str | Path) -> dict:
    """Read a YAML configuration; raises `InputError` when it is missing or no mapping."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no configuration {path.name} in {path.parent}; check the path.")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path.name} is no valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(config, dict):
        raise InputError(f"{path.name} holds a {type(config).__name__}; a mapping of sections is needed.")
    return config


def section(
    config: dict, name: str, required: Iterable[str], optional: dict | None = None, *, within: str = ""
) -> dict:
    """The section `name` with defaults filled in; unknown and missing keys raise `InputError` naming them.

    `within` is the section that `config` itself is, for the messages.
    """
    content = config.get(name)
    name = f"{within}.{name}" if within else name
    if not isinstance(content, dict):
        raise InputError(f"The configuration has no section '{name}'; add it.")
    optional = optional or {}
    missing = [key for key in required if key not in content]
    unknown = [key for key in content if key not in set(required) | set(optional)]
    if missing or unknown:
        raise InputError(
            f"Section '{name}' of the configuration lacks {missing or 'nothing'} and has unknown keys "
            f"{unknown or 'none'}; known are {sorted(set(required) | set(optional))}."
        )
    return {**optional, **content}


def check_keys(config: Mapping[str, object], required: Iterable[str], optional: Iterable[str] = ()) -> None:
    """Raise `InputError` that names missing and unknown keys of a whole configuration, with what may be meant."""
    required, known = tuple(required), {*required, *optional}
    told = []
    for key in config:
        if key not in known:
            meant = get_close_matches(str(key), known, 1)
            told.append(f"does not know '{key}'" + (f" (meant is {meant[0]}?)" if meant else ""))
    told += [f"lacks '{key}'" for key in required if key not in config]
    if told:
        raise InputError(f"The configuration {', '.join(told)}; it takes {', '.join(sorted(known))}.")


def first_difference(before: object, now: object, ignored: Iterable[str] = (), where: str = "") -> str | None:
    """Where two JSON-able contents differ first, in words as "training.seed: 1 before, 2 now"; None if nowhere.

    Keys in `ignored` are passed over at every level; tuples equal lists, as in JSON.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in [*before, *(key for key in now if key not in before)]:
            if key not in ignored and (
                found := first_difference(before.get(key), now.get(key), ignored, f"{where}.{key}".strip("."))
            ):
                return found
        return None
    if json.dumps(before, sort_keys=True) == json.dumps(now, sort_keys=True):
        return None
    return f"{where}: {_brief(before)} before, {_brief(now)} now"


def read_origin(folder: Path) -> dict | None:
    """What the files of `folder` were made from, as `write_origin` noted it; None where nothing is noted."""
    path = folder / ORIGIN
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_origin(folder: Path, origin: dict) -> None:
    """Note beside the files of `folder` what they are made from: settings, and SHA-256 of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(origin, indent=1)
    write_atomically(folder / ORIGIN, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _brief(value: object) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
