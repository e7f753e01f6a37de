"""Lets the wheel carry the shipped data of Resources/ as share/medlord; all else is in pyproject.toml.

`medlord.resources` finds them there in an installed package, and in Resources/ itself in a source tree.
"""

from pathlib import Path

from setuptools import setup

NOT_SHIPPED = {"Screenshots"}  # pictures for the README and the extensions' catalogue


def shipped_data() -> list[tuple[str, list[str]]]:
    """(folder below the installation prefix, files) for every folder of Resources/ that holds files."""
    root = Path("Resources")
    folders: dict[str, list[str]] = {}
    for file in sorted(root.rglob("*")):
        relative = file.relative_to(root)
        if file.is_file() and relative.parts[0] not in NOT_SHIPPED and not file.name.startswith("."):
            folders.setdefault((Path("share/medlord") / relative.parent).as_posix(), []).append(
                file.as_posix()
            )
    return sorted(folders.items())


setup(data_files=shipped_data())
