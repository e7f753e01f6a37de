"""The folders are the architecture: what lies where, what imports what, what is packaged, what is pinned."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parent.parent
MODULE = REPOSITORY / "MedLoRDSlicer"
SLICER_NAMES = {"slicer", "vtk", "vtkmodules", "qt", "ctk"}
ENGINE_LIBRARIES = {"torch", "monai"}
# Come with Slicer or with its PyTorch extension, and must not be installed over.
PART_OF_SLICER = {"torch", "numpy", "scipy", "simpleitk"}


@cache
def repository_files() -> tuple[Path, ...]:
    """Every file that belongs to the repository: tracked, or new and not ignored."""
    files = []
    if (REPOSITORY / ".git").exists() and shutil.which("git"):
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        names = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
        files = [REPOSITORY / name for name in names.split("\0") if name]
    else:  # an archive, or a machine without git
        skipped = {".git", ".venv", "out", "build", "dist"}
        skipped |= {"__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis", "medlord_slicer.egg-info"}
        for path in REPOSITORY.rglob("*"):
            if not skipped.intersection(path.relative_to(REPOSITORY).parts):
                files.append(path)
    return tuple(sorted(path for path in files if path.is_file()))


def python_files(*folders: Path) -> list[Path]:
    """The repository's Python files, all or those below the given folders."""
    files = [path for path in repository_files() if path.suffix == ".py"]
    return [path for path in files if not folders or any(folder in path.parents for folder in folders)]


def name_of(path: Path) -> str:
    """Path relative to the repository, as it is typed."""
    return path.relative_to(REPOSITORY).as_posix()


def imported_packages(path: Path) -> set[str]:
    """Top-level packages that a file imports absolutely, at its top or inside functions."""
    packages = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            packages.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            packages.add(node.module.split(".")[0])
    return packages


def modules_after(code: str, folder: Path) -> set[str]:
    """Top-level modules loaded by `code` in a fresh interpreter that sees only what is installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code += "\nimport sys; print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("LOADED ")[-1].split())


def test_importing_the_engine_is_cheap(tmp_path):
    loaded = modules_after("import medlord", tmp_path)
    assert "medlord" in loaded
    assert not loaded & (SLICER_NAMES | ENGINE_LIBRARIES)


@pytest.mark.timeout(600)  # torch and MONAI from a cold disk
def test_every_engine_module_imports_without_slicer(tmp_path):
    code = (
        "import importlib, pkgutil, medlord\n"
        "names = [module.name for module in pkgutil.walk_packages(medlord.__path__, 'medlord.')]\n"
        "for name in names:\n"
        "    if not name.endswith('.__main__'): importlib.import_module(name)"
    )
    assert not modules_after(code, tmp_path) & SLICER_NAMES


def test_arrows_go_one_way():
    wrong = {}
    for folder, forbidden in {
        MODULE / "medlord": SLICER_NAMES | {"MedLoRDSlicer", "MedLoRDSlicerLib"},
        MODULE / "MedLoRDSlicerLib": ENGINE_LIBRARIES,
    }.items():
        for path in python_files(folder):
            if found := imported_packages(path) & forbidden:
                wrong[name_of(path)] = found
    assert not wrong


def test_files_and_functions_stay_small():
    limits = {MODULE / "MedLoRDSlicer.py": 150}
    too_long = {}
    for path in python_files():
        text = path.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        if lines > limits.get(path, 400):
            too_long[name_of(path)] = lines
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines >= 60:
                    too_long[f"{name_of(path)}: {node.name}"] = lines
    assert not too_long


def test_no_absolute_paths_of_one_machine():
    # Folders that exist on somebody's machine only. Tests may speak of an invented user's home.
    anywhere = re.compile(r"(?<![\w.~/-])/(?:work|root|opt|tmp|mnt)/\w|[A-Z]:\\\\?Users")
    outside_tests = re.compile(r"(?<![\w.~/-])/(?:home|Users)/\w")
    found = {}
    for path in repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # pictures, weights
        matches = anywhere.findall(text)
        if REPOSITORY / "Testing" not in path.parents:
            matches += outside_tests.findall(text)
        if matches:
            found[name_of(path)] = matches
    assert not found


def load_cmake_lists():
    """scripts/cmake_lists.py as a module."""
    spec = importlib.util.spec_from_file_location("cmake_lists", REPOSITORY / "scripts" / "cmake_lists.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cmake_lists_name_every_file(capsys):
    status = load_cmake_lists().main(["--check"])
    assert status == 0, capsys.readouterr().out


def test_a_file_missing_from_the_cmake_lists_is_noticed(tmp_path, monkeypatch, capsys):
    cmake_lists = load_cmake_lists()
    monkeypatch.setattr(cmake_lists, "MODULE_FOLDER", tmp_path)
    (tmp_path / "CMakeLists.txt").write_text(
        "set(MODULE_PYTHON_SCRIPTS\n  Gone.py\n  )\nset(MODULE_PYTHON_RESOURCES\n  )\n"
    )
    for name in (
        "Module.py",
        "Lib/a.py",
        "Lib/__pycache__/a.pyc",
        "Resources/UI/panel.ui",
        "Testing/test.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert cmake_lists.main(["--check"]) == 1
    assert "+  Lib/a.py" in capsys.readouterr().out
    assert cmake_lists.main(["--write"]) == 0
    assert (tmp_path / "CMakeLists.txt").read_text() == (
        "set(MODULE_PYTHON_SCRIPTS\n  Lib/a.py\n  Module.py\n  )\n"
        "set(MODULE_PYTHON_RESOURCES\n  Resources/UI/panel.ui\n  )\n"
    )
    assert cmake_lists.main(["--check"]) == 0
    with pytest.raises(ValueError, match="MODULE_PYTHON_SCRIPTS"):
        cmake_lists.with_lists("", {"MODULE_PYTHON_SCRIPTS": []})


def project() -> dict:
    """The [project] table of pyproject.toml."""
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(lines: list[str]) -> dict[str, Requirement]:
    """Requirements by normalised name, without comments and empty lines."""
    parsed = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def test_all_that_the_tests_install_is_pinned():
    pins = requirements((REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines())
    versions = {}
    for name, requirement in pins.items():
        (pin,) = requirement.specifier
        assert pin.operator == "==" and "*" not in pin.version and "+" not in pin.version, (
            f"not a plain pin: {requirement}"
        )
        versions[name] = pin.version

    extras = project()["optional-dependencies"]
    needed = requirements([*project()["dependencies"], *extras["mrml"], *extras["test"]])
    del needed[canonicalize_name(project()["name"])]  # the extra test names its own package's extra mrml
    outside = {
        name: str(needed[name])
        for name in needed
        if not needed[name].specifier.contains(versions.get(name, "0"))
    }
    assert not outside
    assert versions["torch"] == "2.13.0"
    assert not {"torchvision", "triton"} & set(versions) and not any(
        name.startswith("nvidia-") for name in versions
    )


def test_requirements_inside_slicer_are_those_of_the_package():
    inside = requirements(
        (MODULE / "Resources" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    )
    package = requirements(project()["dependencies"])
    expected = {name: str(package[name]) for name in package if name not in PART_OF_SLICER}
    assert {name: str(inside[name]) for name in inside} == expected


def test_the_wheel_carries_the_engine_and_the_shipped_data(tmp_path):
    source = tmp_path / "source"
    for path in repository_files():
        if path.parent == REPOSITORY or {MODULE, REPOSITORY / "Resources"} & set(path.parents):
            copy = source / path.relative_to(REPOSITORY)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        "wheels",
        ".",
    ]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (source / "wheels").glob("*.whl")
    inside = zipfile.ZipFile(wheel).namelist()

    data = {name.split("/share/medlord/")[1] for name in inside if "/share/medlord/" in name}
    shipped = [
        path.relative_to(REPOSITORY / "Resources")
        for path in repository_files()
        if REPOSITORY / "Resources" in path.parents
    ]
    assert data == {path.as_posix() for path in shipped if path.parts[0] != "Screenshots"}
    engine = {
        path.relative_to(MODULE).as_posix()
        for path in repository_files()
        if MODULE / "medlord" in path.parents
    }
    assert engine <= set(inside)
    assert not any(name.startswith(("MedLoRDSlicer", "Resources")) for name in inside)


def test_the_extension_can_be_indexed():
    text = (REPOSITORY / "CMakeLists.txt").read_text(encoding="utf-8")
    name = re.search(r"^project\((\w+)\)$", text, re.MULTILINE).group(1)
    assert not name.startswith("Slicer")  # a rule of the extensions' index
    assert (MODULE / f"{name}.py").is_file() and f"add_subdirectory({MODULE.name})" in text
    for entry in ("HOMEPAGE", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        assert re.search(rf'^set\(EXTENSION_{entry} "[^"]+"\)', text, re.MULTILINE), entry
    assert "Version 2.0, January 2004" in (REPOSITORY / "LICENSE.txt").read_text(encoding="utf-8")
    assert project()["license"] == "Apache-2.0"
    for icon in (REPOSITORY / f"{name}.png", MODULE / "Resources" / "Icons" / f"{name}.png"):
        header = icon.read_bytes()[:24]
        assert header.startswith(b"\x89PNG") and header[16:24] == bytes([0, 0, 0, 128] * 2), (
            icon
        )  # 128 x 128 pixels


def test_the_readme_names_only_targets_that_exist():
    makefile, readme = ((REPOSITORY / name).read_text(encoding="utf-8") for name in ("Makefile", "README.md"))
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:^\s+|`)make ([a-z-]+)", readme, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_scripts_can_be_started():
    for name in (".ci/run", "scripts/setup.sh"):
        assert os.access(REPOSITORY / name, os.X_OK), name
