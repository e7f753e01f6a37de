"""What Slicer's process loads runs in Python 3.9, the one of Slicer 5.8; the engine itself needs 3.11."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2] / "MedLoRDSlicer"
FLOOR = (3, 9)
ENGINE_LIBRARIES = {"torch", "monai"}
# Imported in functions that only the engine calls: the process of a segmenter, the plan of a run on the device.
ENGINE_ONLY = {
    MODULE / "medlord" / "evaluation" / "total_segmentator",
    MODULE / "medlord" / "memory" / "planner.py",
    MODULE / "medlord" / "memory" / "slabs.py",
}

YOUNG_MODULES = {"tomllib", "annotationlib"}
YOUNG_NAMES = {
    "asyncio": {"TaskGroup", "Runner", "timeout"},
    "contextlib": {"aclosing", "chdir"},
    "dataclasses": {"KW_ONLY"},
    "datetime": {"UTC"},
    "enum": {"StrEnum", "ReprEnum", "EnumType", "verify", "member", "nonmember"},
    "hashlib": {"file_digest"},
    "inspect": {"get_annotations"},
    "itertools": {"pairwise", "batched"},
    "math": {"cbrt", "exp2", "sumprod"},
    "os": {"process_cpu_count"},
    "statistics": {"correlation", "covariance", "linear_regression"},
    "sys": {"orig_argv", "stdlib_module_names", "exception"},
    "types": {"NoneType", "UnionType", "EllipsisType", "get_original_bases"},
    "typing": {
        *("Concatenate", "LiteralString", "Never", "NotRequired", "ParamSpec", "Required", "Self"),
        *("TypeAlias", "TypeAliasType", "TypeGuard", "TypeVarTuple", "Unpack"),
        *("assert_never", "assert_type", "override"),
    },
}
"""Module -> what came to it after Python 3.9."""

YOUNG_BUILTINS = {"aiter", "anext", "ExceptionGroup", "BaseExceptionGroup", "EncodingWarning"}
# Of int, exceptions and Path; os.walk and ast.walk are older.
YOUNG_METHODS = {"bit_count", "add_note", "walk"}
YOUNG_ARGUMENTS = {
    "zip": {"strict"},
    "dataclass": {"slots", "kw_only", "weakref_slot"},
    "field": {"kw_only"},
    "bisect": {"key"},
    "bisect_left": {"key"},
    "bisect_right": {"key"},
    "insort": {"key"},
    "write_text": {"newline"},
    "rmtree": {"onexc"},
    "TemporaryDirectory": {"ignore_cleanup_errors", "delete"},
    "NamedTemporaryFile": {"delete_on_close"},
    "Popen": {"process_group"},
    "run": {"process_group"},
    "stat": {"follow_symlinks"},
    "exists": {"follow_symlinks"},
}


@cache
def tree_of(path: Path) -> ast.Module:
    """The file as Python 3.11 and newer read it."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_files(path: Path) -> Iterator[Path]:
    """Files of the module's folder that `path` imports, at its top or in a function, with their packages."""
    package = path.relative_to(MODULE).parent.parts
    for node in ast.walk(tree_of(path)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = [*above, *(node.module.split(".") if node.module else [])]
            names = [base, *([*base, alias.name] for alias in node.names)]
        for name in names:
            for length in range(1, len(name) + 1):
                place = MODULE.joinpath(*name[:length])
                files = (place.with_suffix(".py"), place / "__init__.py")
                yield from (file for file in files if file.is_file())


def needs_the_engine(path: Path) -> bool:
    """True for a file that only the engine's process can load or does load."""
    if ENGINE_ONLY.intersection((path, *path.parents)):
        return True
    for node in tree_of(path).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        if ENGINE_LIBRARIES.intersection(name.split(".")[0] for name in names):
            return True
    return False


@cache
def files_in_slicer() -> tuple[Path, ...]:
    """The module, its library, and all of the engine that they import in turn, as far as torch is not needed."""
    open_files = [MODULE / "MedLoRDSlicer.py", *(MODULE / "MedLoRDSlicerLib").rglob("*.py")]
    found = set()
    while open_files:
        path = open_files.pop()
        if path not in found and not needs_the_engine(path):
            found.add(path)
            open_files += imported_files(path)
    return tuple(sorted(found))


def too_young(source: str) -> list[str]:
    """What in the source Python 3.9 does not know, "LINE: WHAT" each."""
    try:
        ast.parse(source, feature_version=FLOOR)
    except SyntaxError as error:
        return [f"{error.lineno}: {error.msg}"]
    tree = ast.parse(source)
    annotations = {id(part) for note in _annotations(tree) for part in ast.walk(note)}
    postponed = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    found = []
    for node in ast.walk(tree):
        is_annotation = id(node) in annotations
        if not (is_annotation and postponed):
            found += [f"{node.lineno}: {what}" for what in _young_parts(node, is_annotation)]
    return found


def _annotations(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        for note in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if note is not None:
                yield note


def _young_parts(node: ast.AST, is_annotation: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from YOUNG_MODULES.intersection(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
        young = YOUNG_NAMES.get(node.module, set())
        yield from (alias.name for alias in node.names if alias.name in young or node.module in YOUNG_MODULES)
    elif isinstance(node, ast.Attribute):
        owner = getattr(node.value, "id", "")
        young = YOUNG_METHODS if owner not in ("os", "ast") else set()
        if node.attr in YOUNG_NAMES.get(owner, set()) | young:
            yield node.attr
    elif isinstance(node, ast.Name) and node.id in YOUNG_BUILTINS:
        yield node.id
    elif isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        young = YOUNG_ARGUMENTS.get(name, set())
        yield from (f"{name}({argument.arg}=)" for argument in node.keywords if argument.arg in young)
        if name in ("isinstance", "issubclass") and isinstance(node.args[1], ast.BinOp):
            yield f"{name} of A | B"
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and _is_union(node, is_annotation):
        yield "A | B at run time"


def _is_union(node: ast.BinOp, is_annotation: bool) -> bool:
    """A union of types rather than of sets or masks: in an annotation, or with None or a type in it."""
    types = {"str", "int", "float", "bool", "bytes", "dict", "list", "tuple", "set", "Path"}
    for side in (node.left, node.right):
        name = side.value if isinstance(side, ast.Subscript) else side
        if (isinstance(side, ast.Constant) and side.value is None) or getattr(name, "id", "") in types:
            return True
    return is_annotation


def test_what_slicer_loads_runs_in_the_python_of_slicer_5_8():
    found = {}
    for path in files_in_slicer():
        if young := too_young(path.read_text(encoding="utf-8")):
            found[path.relative_to(MODULE).as_posix()] = young
    assert not found


def test_the_files_that_slicer_loads_are_found():
    names = {path.relative_to(MODULE).as_posix() for path in files_in_slicer()}
    # Reached through several files, through a package, and in a function.
    assert {"medlord/volumes.py", "medlord/phantom/__init__.py", "medlord/client_check.py"} <= names
    assert not names & {"medlord/networks/build.py", "medlord/worker.py", "medlord/training/pipeline.py"}


@pytest.mark.parametrize(
    "source",
    [
        "match x:\n    case 1: pass",
        "try: pass\nexcept* OSError: pass",
        "zip(a, b, strict=True)",
        "isinstance(x, int | float)",
        "Size = tuple[int, int] | None",
        "def f(x: int | None): pass",
        "from datetime import UTC",
        "import hashlib\nhashlib.file_digest(f, 'sha256')",
        "import tomllib",
        "@dataclass(frozen=True, slots=True)\nclass A: pass",
        "n.bit_count()",
    ],
)
def test_what_is_too_young_is_seen(source):
    assert too_young(source)


def test_what_python_3_9_knows_passes():
    source = "from __future__ import annotations\ndef f(x: int | None, a: dict[str, int]) -> str | None:\n"
    source += "    return (mask | other) if {**a} | {'b': 1} else 'ab'.removeprefix('a')"
    assert too_young(source) == []
