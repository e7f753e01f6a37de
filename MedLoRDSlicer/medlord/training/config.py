"""Training configurations: YAML files, checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from ..errors import InputError


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


def section(config: dict, name: str, required: Iterable[str], optional: dict | None = None) -> dict:
    """The section `name` with defaults filled in; unknown and missing keys raise `InputError` naming them."""
    content = config.get(name)
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
