"""The wire protocol, the files that go with it, and the environment of a worker; no process is started here."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medlord import exchange, protocol
from medlord.client_messages import Job, with_value
from medlord.client_process import _make_private_folder
from medlord.conditions import Conditions
from medlord.errors import EngineError, InputError, WeightsError
from medlord.processes import describe_exit, find_python, process_exists, worker_environment
from medlord.protocol import LineSplitter, Message, ProtocolError, decode_message, decode_request, encode
from medlord.volumes import Grid, Volume
from medlord.worker_verbs import describe_error

OBLIQUE = Grid((5, 7, 3), [[0, -2.8, 0.0, 1 / 3], [2.8, 0, 0, -7.1], [0, 0, 5, 1e-9], [0, 0, 0, 1]])


def lines_of(data: bytes, sizes: list[int], limit: int = 50) -> list[bytes | None]:
    """Feed `data` in pieces of the given sizes (repeated) and collect the lines."""
    splitter, lines, position, turn = LineSplitter(limit), [], 0, 0
    while position < len(data):
        size = sizes[turn % len(sizes)]
        lines += splitter.feed(data[position : position + size])
        position, turn = position + size, turn + 1
    return lines


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_lines_do_not_depend_on_how_the_stream_was_cut(data, sizes):
    expected = []
    for line in data.split(b"\n")[:-1]:
        if len(line) > 50:
            expected.append(None)
        elif line.strip():
            expected.append(line.rstrip(b"\r"))
    assert lines_of(data, sizes) == expected


def test_a_line_without_end_is_not_stored():
    splitter = LineSplitter(limit=1000)
    for _ in range(100):
        assert list(splitter.feed(b"x" * 1000)) == []
        assert len(splitter.rest()) <= 1000
    assert list(splitter.feed(b"\n{}\n")) == [None, b"{}"]


NUMBERS = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.text(min_size=1, max_size=20) | st.integers(-(2**60), 2**60))
def test_messages_survive_the_wire(value, message_id):
    line = encode({"type": "result", "id": message_id, "value": value})
    assert line.isascii() and line.count(b"\n") == 1 and line.endswith(b"\n")
    message = decode_message(line)
    assert (message.type, message.id, message.body) == ("result", message_id, {"value": value})


@given(st.binary(max_size=200))
def test_garbage_is_refused_with_one_line(data):
    for decode in (decode_request, decode_message):
        with pytest.raises(ProtocolError) as caught:
            decode(data)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"id": 1, "verb": "ping", "arguments": NaN}',
        b'{"id": ' + b"9" * 5000 + b', "verb": "ping"}',
        b'{"id": true, "verb": "ping"}',
        b'{"id": null, "verb": "ping"}',
        b'{"id": "", "verb": "ping"}',
        b'{"id": 1, "verb": 7}',
        b'{"id": 1, "verb": "ping", "arguments": []}',
        b'{"id": 1.5, "verb": "ping"}',
        b'"ping"',
        b"\xff\xfe{",
    ],
)
def test_what_is_no_request_is_a_protocol_error(line):
    with pytest.raises(ProtocolError):
        decode_request(line)


FOLDER = str(Path(sys.executable).parent)
GOOD = {"conditions": FOLDER, "folder": FOLDER}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({**GOOD, "seed": 1.5}, "must be a whole number"),
        ({**GOOD, "seed": True}, "must be a whole number"),
        ({**GOOD, "control_scale": "1"}, "must be a finite number"),
        ({**GOOD, "center_ras_mm": [1, 2]}, "must be three finite numbers"),
        ({**GOOD, "center_ras_mm": [1, 2, None]}, "must be three finite numbers"),
        ({**GOOD, "attributes": []}, "must be a table"),
        ({**GOOD, "steps": "20"}, "must be a whole number"),
        ({**GOOD, "folder": "relative/folder"}, "must be an absolute path"),
        ({**GOOD, "folder": "/a\0b"}, "must be an absolute path"),
        ({**GOOD, "sed": 1}, "takes no argument 'sed'"),
        ({"conditions": FOLDER}, "lacks the argument 'folder'"),
        ({**GOOD, "folder": None}, "must be an absolute path"),
    ],
)
def test_wrong_arguments_are_bad_input_and_keep_the_id(arguments, words):
    line = json.dumps({"id": "a", "verb": "synthesize", "arguments": arguments}).encode()
    with pytest.raises(InputError, match=words) as caught:
        decode_request(line)
    assert caught.value.request_id == "a"
    assert "\n" not in str(caught.value)


def test_unknown_verb_is_bad_input_and_names_the_known_ones():
    with pytest.raises(InputError, match=r"'fly'.*synthesize"):
        decode_request(b'{"id": 1, "verb": "fly"}')


def test_none_means_not_given():
    line = json.dumps({"id": 3, "verb": "synthesize", "arguments": {**GOOD, "steps": None}}).encode()
    assert decode_request(line).arguments["steps"] is None


@pytest.mark.parametrize("depth", [10, 500, 900, 940, 960, 970, 980, 990, 1000, 3000])
def test_deep_nesting_ends_in_an_error_and_in_no_other_way(depth):
    nested = b"[" * depth + b"]" * depth
    for line in (b'{"id": 1, "verb": ' + nested + b"}", b'{"id": ' + nested + b"}", nested):
        with pytest.raises(ProtocolError):
            decode_request(line)


def test_messages_lacking_a_field_are_no_messages():
    for kind in protocol.MESSAGE_TYPES:
        with pytest.raises(ProtocolError):
            decode_message(json.dumps({"type": kind, "id": None}).encode())


def test_what_json_cannot_carry_is_not_written():
    for value in (float("nan"), object(), "x" * protocol.MAX_LINE_BYTES):
        with pytest.raises(ProtocolError):
            encode({"type": "result", "id": 1, "value": value})


def test_conditions_file_keeps_masks_order_names_and_geometry(tmp_path):
    random = np.random.default_rng(1)
    masks = {name: random.random(OBLIQUE.shape) < 0.4 for name in ("aorta", "Lunge ü 顎", "body")}
    masks["empty"] = np.zeros(OBLIQUE.shape, bool)
    masks["not contiguous"] = (random.random(OBLIQUE.shape[::-1]) < 0.5).T
    written = Conditions(OBLIQUE, masks)
    exchange.write_conditions(tmp_path / "conditions.npz", written)
    read = exchange.read_conditions(tmp_path / "conditions.npz")
    assert read.names == written.names and read.grid == written.grid
    assert read.hashes() == written.hashes()
    assert all(mask.dtype == bool for mask in read.masks.values())


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_volume_file_keeps_every_bit(tmp_path, kind):
    voxels = np.random.default_rng(2).normal(0, 500, OBLIQUE.shape).astype(kind)
    recipe = {"seed": 2**62, "attributes": {"contrast_phase": "arterial"}}
    exchange.write_volume(tmp_path / "volume.npz", Volume(voxels, OBLIQUE, recipe, {"a": "ü"}))
    read = exchange.read_volume(tmp_path / "volume.npz")
    assert read.array.dtype == kind and np.array_equal(read.array, voxels)
    assert read.grid == OBLIQUE and read.recipe == recipe and read.metadata == {"a": "ü"}
    assert [path.name for path in tmp_path.iterdir()] == ["volume.npz"]


def damaged(data: bytes) -> list[bytes]:
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0x10
    return [b"", data[:-30], data[: len(data) // 2], bytes(flipped), b"no archive"]


def test_damaged_files_are_found(tmp_path):
    path = tmp_path / "volume.npz"
    exchange.write_volume(path, Volume(np.arange(105, dtype=np.int16).reshape(OBLIQUE.shape), OBLIQUE))
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(EngineError, match=r"volume\.npz cannot be read"):
            exchange.read_volume(path)
    with pytest.raises(EngineError, match="cannot be read"):
        exchange.read_volume(tmp_path / "missing.npz")


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "evil.npz", header=np.array([{"kind": "volume"}], dtype=object))
    with pytest.raises(EngineError, match="cannot be read"):
        exchange.read_volume(tmp_path / "evil.npz")


def test_a_result_message_without_valid_files_is_an_error(tmp_path):
    value = {
        "volume": str(tmp_path / "result-volume.npz"),
        "conditions": str(tmp_path / "result-conditions.npz"),
    }
    job = Job("4", "synthesize", folder=tmp_path)
    for files in (0, 1):
        if files:
            grid = Grid.centered((2, 2, 2), (1, 1, 1))
            exchange.write_volume(
                tmp_path / "result-volume.npz", Volume(np.zeros((2, 2, 2), np.float32), grid)
            )
        message = with_value(Message("result", "4", {"value": value}), job)
        assert message.type == "error" and isinstance(message.value, EngineError)
        assert "reported success but its result cannot be used" in str(message.value)


def test_previews_are_read_once(tmp_path):
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4)
    exchange.write_preview(tmp_path / "p.npy", picture)
    assert np.array_equal(exchange.take_preview(tmp_path / "p.npy"), picture)
    assert not list(tmp_path.iterdir())
    assert exchange.take_preview(tmp_path / "p.npy") is None
    with pytest.raises(InputError, match="uint8"):
        exchange.write_preview(tmp_path / "p.npy", picture.astype(float))


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource", reason="limits of file size are of POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(EngineError, match="is full") as caught:
            exchange.write_volume(
                tmp_path / "v.npz", Volume(np.zeros((50, 50, 50), np.int16), Grid((50,) * 3, np.eye(4)))
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.__cause__.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


def test_private_folder_is_closed_to_others_and_old_ones_of_dead_processes_go(tmp_path):
    dead, young, alive = (tmp_path / f"medlord-worker-{n}-x" for n in (2**22 + 1, 2**22 + 2, os.getpid()))
    for folder in (dead, young, alive):
        folder.mkdir()
        (folder / "conditions.npz").write_bytes(b"x")
    long_ago = time.time() - 3 * 24 * 3600
    for folder in (dead, alive):
        os.utime(folder, (long_ago, long_ago))
    made = _make_private_folder(tmp_path)
    assert made.parent == tmp_path and made.name.isascii()
    assert made.stat().st_mode & 0o777 == 0o700
    assert not dead.exists() and young.exists() and alive.exists()


def test_unusable_temporary_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="TMPDIR"):
        _make_private_folder(tmp_path / "file")


def test_environment_of_the_running_python_keeps_its_variables():
    base = {"PYTHONPATH": "/a", "PYTHONHOME": "/h", "PATH": "/bin", "LANG": "C"}
    made = worker_environment(base, sys.executable)
    assert made["PYTHONHOME"] == "/h" and made["PATH"] == "/bin"
    folders = made["PYTHONPATH"].split(os.pathsep)
    assert (Path(folders[0]) / "medlord" / "worker.py").is_file() and folders[1:] == ["/a"]
    assert made["PYTHONUTF8"] == made["PYTHONUNBUFFERED"] == "1" and made["PYTHONIOENCODING"] == "utf-8"
    assert base["PYTHONPATH"] == "/a"


def test_environment_of_another_python_holds_nothing_of_slicer():
    slicer = os.path.join(os.sep, "opt", "Slicer")
    base = {
        "PYTHONHOME": slicer + "/lib/Python",
        "PYTHONPATH": slicer + "/bin/Python",
        "PYTHONNOUSERSITE": "1",
        "SLICER_HOME": slicer + os.sep,
        "LD_LIBRARY_PATH": os.pathsep.join([slicer + "/lib", "/usr/local/cuda/lib64", slicer + "2/lib"]),
        "QT_PLUGIN_PATH": slicer,
        "CUDA_VISIBLE_DEVICES": "1",
    }
    made = worker_environment(base, "/somewhere/else/python")
    assert not {"PYTHONHOME", "PYTHONNOUSERSITE", "QT_PLUGIN_PATH"} & set(made)
    assert made["LD_LIBRARY_PATH"] == os.pathsep.join(["/usr/local/cuda/lib64", slicer + "2/lib"])
    assert slicer not in made["PYTHONPATH"] and made["CUDA_VISIBLE_DEVICES"] == "1"


def test_a_python_that_is_none_is_said(tmp_path):
    assert find_python(None) == os.path.abspath(sys.executable)
    (tmp_path / "python").write_text("not executable")
    for path in ("no-such-python", str(tmp_path / "python"), str(tmp_path)):
        with pytest.raises(EngineError, match="does not exist or cannot be executed"):
            find_python(path)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
def test_how_a_process_ended_is_said_in_words():
    assert "SIGKILL" in describe_exit(-9) and "out-of-memory" in describe_exit(-9)
    assert "SIGSEGV" in describe_exit(139)
    assert "exit code 3" in describe_exit(3)
    assert "access violation" in describe_exit(-1073741819 & 0xFFFFFFFF)
    assert "still running" in describe_exit(None)


def test_processes_that_exist():
    assert process_exists(os.getpid()) and process_exists(1)
    assert not process_exists(2**22 + 1)


def test_errors_become_one_line_with_their_code():
    torch_cpu = RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"
    )
    for error in (MemoryError(), torch_cpu, OSError(errno.ENOMEM, "Cannot allocate memory")):
        code, message, hint = describe_error(error)
        assert code == "not-enough-memory" and hint and "free" in message and "\n" not in message
    code, message, _ = describe_error(ValueError("first\nsecond\tline"))
    assert code == "engine" and "ValueError: first second line" in message
    assert describe_error(WeightsError("gone"))[:2] == ("weights", "gone")
    assert describe_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))[0] == "engine"


def test_the_client_needs_numpy_only():
    """It runs in Slicer's own Python, where torch may be missing or another one."""
    code = (
        "import sys, medlord.client\n"
        "print(*sorted({'torch', 'monai', 'scipy', 'SimpleITK', 'nibabel', 'psutil', 'yaml'} & set(sys.modules)))"
    )
    environment = worker_environment(os.environ, sys.executable)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
