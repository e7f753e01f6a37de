"""Keeps the file lists of MedLoRDSlicer/CMakeLists.txt equal to the files on disk.

Slicer packages only what MODULE_PYTHON_SCRIPTS and MODULE_PYTHON_RESOURCES name; a forgotten file is missing
from the installed extension without a word. `--write` rewrites the lists; `--check` (a test runs it) exits 1
and prints the difference.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from pathlib import Path

MODULE_FOLDER = Path(__file__).resolve().parent.parent / "MedLoRDSlicer"


def is_generated(name: str) -> bool:
    """Whether a file or folder of this name comes from a tool and not from us."""
    return name == "__pycache__" or name.startswith(".") or name.endswith(".egg-info")


def files_on_disk(module_folder: Path) -> dict[str, list[str]]:
    """Sorted relative paths per CMake variable: a .py is a script, any other file below a folder a resource.

    Not packaged: files directly in the module folder that are not .py (CMakeLists.txt), and a folder Testing.
    """
    lists: dict[str, list[str]] = {"MODULE_PYTHON_SCRIPTS": [], "MODULE_PYTHON_RESOURCES": []}
    for file in module_folder.rglob("*"):
        relative = file.relative_to(module_folder)
        if not file.is_file() or relative.parts[0] == "Testing" or any(map(is_generated, relative.parts)):
            continue
        if file.suffix == ".py":
            lists["MODULE_PYTHON_SCRIPTS"].append(relative.as_posix())
        elif len(relative.parts) > 1:
            lists["MODULE_PYTHON_RESOURCES"].append(relative.as_posix())
    return {variable: sorted(files) for variable, files in lists.items()}


def with_lists(text: str, lists: dict[str, list[str]]) -> str:
    """The CMake text with the lines of each `set(VARIABLE ... )` block replaced.

    Raises ValueError when the text has not exactly one such block per variable.
    """
    for variable, files in lists.items():
        block = "".join([f"set({variable}\n", *(f"  {file}\n" for file in files), "  )\n"])
        text, found = re.subn(
            rf"set\({variable}\n(?:  [^\s()]+\n)*  \)\n", lambda _, block=block: block, text
        )
        if found != 1:
            raise ValueError(
                f"CMakeLists.txt: expected one block 'set({variable}', one file per line, found {found}"
            )
    return text


def main(arguments: list[str] | None = None) -> int:
    """Writes or checks; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="rewrite the lists")
    mode.add_argument(
        "--check", action="store_true", help="exit 1 and print the difference if they are not right"
    )
    write = parser.parse_args(arguments).write

    cmake_file = MODULE_FOLDER / "CMakeLists.txt"
    present = cmake_file.read_text(encoding="utf-8")
    wanted = with_lists(present, files_on_disk(MODULE_FOLDER))
    if present == wanted:
        return 0
    if write:
        cmake_file.write_text(wanted, encoding="utf-8", newline="\n")
        return 0
    changes = difflib.unified_diff(
        present.splitlines(keepends=True),
        wanted.splitlines(keepends=True),
        "CMakeLists.txt",
        "files on disk",
        n=1,
    )
    sys.stdout.writelines(changes)
    print("run: scripts/cmake_lists.py --write")
    return 1


if __name__ == "__main__":
    sys.exit(main())
