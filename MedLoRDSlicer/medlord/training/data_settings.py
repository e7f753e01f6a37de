"""What a training configuration says of its data: names of conditions and attributes, grid, phantoms or files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..condition_channels import check_attributes
from ..errors import InputError
from .config import section
from .settings import is_count, is_number, is_share


def check_names(conditions: Any, attributes: Any) -> None:
    """Raise `InputError` unless conditions are a list of names and attributes {name: list of values}."""
    if not _are_names(conditions):
        raise InputError(f"conditions is {conditions!r}; it takes a list of names, each once: [body, lung].")
    if not isinstance(attributes, Mapping) or not all(
        isinstance(name, str) and _are_names(values) for name, values in attributes.items()
    ):
        raise InputError(
            f"attributes is {attributes!r}; it takes {{name: list of values}}, such as "
            "{contrast_phase: [native, venous]}, or {} for none."
        )


def check_grid(grid: Mapping[str, Any]) -> None:
    """Raise `InputError` unless the section `grid` has three sides in voxels and three spacings in mm."""
    for name, is_right, form in (
        ("shape", lambda value: is_count(value) and value > 0, "three whole numbers of voxels"),
        ("spacing_mm", lambda value: is_number(value) and value > 0, "three lengths in mm"),
    ):
        value = grid[name]
        if not (isinstance(value, list) and len(value) == 3 and all(map(is_right, value))):
            raise InputError(f"grid.{name} is {value!r}; it takes {form}, each above 0.")


def check_data(config: Mapping[str, Any]) -> None:
    """Raise `InputError` unless the section `data` names phantoms or cases that the configuration's names fit.

    Whether the files exist is asked when cases are made from them: later stages do without them.
    """
    data = config.get("data")
    if not isinstance(data, Mapping) or "files" not in data:
        phantoms = section(dict(config), "data", ("first_seed", "cases"), {"truncated_share": 0.0})
        counts = all(is_count(phantoms[name]) for name in ("first_seed", "cases"))
        if not (counts and phantoms["cases"] and is_share(phantoms["truncated_share"])):
            raise InputError(
                f"data is {data}; it takes first_seed and cases, whole numbers, and truncated_share, from 0 to 1, or "
                "files."
            )
        return
    files = section(dict(config), "data", ("files",))["files"]
    if not isinstance(files, list) or not files:
        raise InputError(
            f"data.files is {files!r}; it takes a list of cases, {{ct: FILE, conditions: {{name: FILE}}, "
            "attributes: {name: value}}, one at least."
        )
    for number, entry in enumerate(files, start=1):
        _check_entry(number, entry, config)


def files_of(entry: Mapping[str, Any]) -> list[Path]:
    """All files that an entry of `data.files` names."""
    return [Path(entry["ct"]), *(Path(path) for path in (entry.get("conditions") or {}).values())]


def without_file_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """A section `data` as it may leave the hospital in a model: how many cases, but none of their files or attributes.

    Paths of an archive can hold names and numbers of patients.
    """
    return {"own_cases": len(data["files"])} if "files" in data else dict(data)


def _check_entry(number: int, entry: Any, config: Mapping[str, Any]) -> None:
    where = f"Case {number} of data.files"
    if not isinstance(entry, Mapping) or not isinstance(entry.get("ct"), str):
        raise InputError(f"{where} is {entry!r}; it takes {{ct: FILE, conditions: {{name: FILE}}}}.")
    unknown = sorted(map(str, set(entry) - {"ct", "conditions", "attributes"}))
    if unknown:
        raise InputError(f"{where} has {', '.join(unknown)}; it takes ct, conditions and attributes.")
    for name in ("conditions", "attributes"):
        named = entry.get(name) or {}
        if not isinstance(named, Mapping) or not all(
            isinstance(word, str) for pair in named.items() for word in pair
        ):
            raise InputError(f"{where} has {name} {named!r}; it takes a mapping of text to text.")
    wrong = [name for name in entry.get("conditions") or {} if name not in config["conditions"]]
    if wrong:
        raise InputError(f"{where} has the unknown conditions {wrong}; known are {config['conditions']}.")
    try:
        check_attributes(entry.get("attributes") or {}, config["attributes"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _are_names(values: Any) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and all(isinstance(value, str) and value for value in values)
        and len(set(values)) == len(values)
    )
