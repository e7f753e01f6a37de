"""Volumes on disk: geometry against nibabel and SimpleITK, recipes inside, faults that leave nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

import medlord
from medlord.errors import EngineError, InputError
from medlord.volume_files import load_volume, save_volume, write_atomically
from medlord.volumes import Grid, Volume

ENDINGS = [".nii", ".nii.gz", ".nrrd"]
RECIPE = {"seed": 7, "text": "ä~^|:=\n\"quoted\" 'x'", "long": "0" * 70_000, "nested": {"a": [1, 2.5, None]}}


def some_grids() -> dict[str, Grid]:
    """One grid per difficulty: plain, LPS, anisotropic, oblique, mirrored."""
    oblique = np.eye(4)
    oblique[:3, :3] = nibabel.eulerangles.euler2mat(0.4, -0.3, 1.1) * [0.7, 1.3, 4.0]
    oblique[:3, 3] = (-101.25, 33.5, 1200.0)
    mirrored = oblique.copy()
    mirrored[:3, 0] *= -1
    return {
        "ras": Grid.centered((5, 6, 7), (1, 1, 1)),
        "lps": Grid.centered((5, 6, 7), (0.7, 0.7, 5.0), (12.0, -7.0, 900.0), "LPS"),
        "sagittal": Grid.centered((5, 6, 7), (2.0, 0.5, 0.5), orientation="PSR"),
        "oblique": Grid((5, 6, 7), oblique),
        "mirrored": Grid((5, 6, 7), mirrored),
    }


def some_volume(grid: Grid) -> Volume:
    """Every voxel another value."""
    return Volume(np.arange(np.prod(grid.shape), dtype=np.int16).reshape(grid.shape) - 100, grid)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", list(some_grids()))
def test_voxels_and_world_positions_survive(tmp_path, name, ending):
    volume = some_volume(some_grids()[name])
    path = save_volume(volume, tmp_path / f"ct{ending}")
    loaded = load_volume(path)
    assert loaded.grid.matches(volume.grid) and np.array_equal(loaded.array, volume.array)
    assert loaded.array.dtype == np.int16 and loaded.recipe is None


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", list(some_grids()))
def test_other_programs_see_the_same_positions(tmp_path, name, ending):
    volume = some_volume(some_grids()[name])
    path = save_volume(volume, tmp_path / f"ct{ending}")
    image = sitk.ReadImage(str(path))
    for index in [(0, 0, 0), (4, 0, 0), (1, 5, 3), (4, 5, 6)]:
        ras = volume.grid.affine @ [*index, 1]
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        assert np.allclose(lps * [-1, -1, 1], ras[:3], atol=1e-3)
        assert image[index] == volume.array[index]
    if ending != ".nrrd":
        theirs = nibabel.load(path)
        assert np.allclose(theirs.affine, volume.grid.affine, atol=1e-4)
        assert np.allclose(theirs.get_qform(), volume.grid.affine, atol=1e-3)
        assert np.array_equal(np.asarray(theirs.dataobj), volume.array)
        assert theirs.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("name", list(some_grids()))
def test_files_of_other_programs_are_read(tmp_path, name):
    volume = some_volume(some_grids()[name])
    nibabel.save(nibabel.Nifti1Image(volume.array, volume.grid.affine), tmp_path / "theirs.nii.gz")
    assert load_volume(tmp_path / "theirs.nii.gz").grid.matches(volume.grid)
    image = sitk.ReadImage(str(tmp_path / "theirs.nii.gz"))
    sitk.WriteImage(image, str(tmp_path / "theirs.nrrd"))
    loaded = load_volume(tmp_path / "theirs.nrrd")
    assert loaded.grid.matches(volume.grid, 1e-2) and np.array_equal(loaded.array, volume.array)


def test_real_files_agree_between_the_formats(shared, tmp_path):
    volume = load_volume(shared / "data" / "ct" / "ts_dicom_seg117.nii.gz")
    assert "".join(nibabel.aff2axcodes(volume.grid.affine)) == "LAS"
    loaded = load_volume(save_volume(volume, tmp_path / "seg.nrrd"))
    assert loaded.grid.matches(volume.grid) and np.array_equal(loaded.array, volume.array)
    assert load_volume(shared / "data" / "ct" / "ts_abdomen_3mm.nii.gz").array.min() == -1207


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_recipe_travels_in_the_file(tmp_path, ending):
    volume = some_volume(some_grids()["oblique"])
    own, given = tmp_path / f"own{ending}", tmp_path / f"given{ending}"
    volume.recipe = {"seed": 1}
    save_volume(volume, own)
    save_volume(volume, given, recipe=RECIPE, synthetic=True)
    assert load_volume(own).recipe == {"seed": 1} and load_volume(given).recipe == RECIPE
    # It survives a second round through this program.
    assert load_volume(save_volume(load_volume(given), tmp_path / f"again{ending}")).recipe == RECIPE


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_a_recipe_that_is_no_table_is_refused(tmp_path, ending):
    """Whoever changes it: no part of the program has to expect it."""
    volume = Volume(np.zeros((2, 3, 4), np.int16), Grid((2, 3, 4), np.eye(4)))
    path = save_volume(volume, tmp_path / f"changed{ending}", recipe=["seed", 7])
    with pytest.raises(
        InputError, match="recipe in the header of changed.* is no table of settings"
    ) as caught:
        load_volume(path)
    assert "\n" not in str(caught.value)


def test_synthetic_volumes_say_so(tmp_path):
    volume = some_volume(some_grids()["ras"])
    for synthetic in (True, False):
        nifti = nibabel.load(save_volume(volume, tmp_path / f"{synthetic}.nii", synthetic=synthetic))
        nrrd = sitk.ReadImage(str(save_volume(volume, tmp_path / f"{synthetic}.nrrd", synthetic=synthetic)))
        assert (b"SYNTHETIC" in nifti.header["descrip"].tobytes()) == synthetic
        assert nrrd.HasMetaDataKey("medlord_synthetic") == synthetic


def test_other_extensions_of_nifti_headers_do_not_disturb(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    for code, content in ((6, b"a comment"), (0, b"<xml/>"), (6, b'medlord_recipe={"seed": 3}')):
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, content))
    nibabel.save(image, tmp_path / "x.nii")
    assert load_volume(tmp_path / "x.nii").recipe == {"seed": 3}


@pytest.mark.parametrize("ending", ENDINGS)
def test_hu_are_rounded_and_kept_within_16_bits(tmp_path, ending):
    values = np.array([-1000.5, -999.51, -0.49, 0.51, 1.5, 2.5, 40000, -40000], np.float32).reshape(2, 2, 2)
    volume = Volume(values, Grid.centered((2, 2, 2), (1, 1, 1)))
    loaded = load_volume(save_volume(volume, tmp_path / f"x{ending}"))
    assert loaded.array.dtype == np.int16
    assert loaded.array.ravel().tolist() == [-1000, -1000, 0, 1, 2, 2, 32767, -32768]
    mask = load_volume(save_volume(Volume(values > 0, volume.grid), tmp_path / f"m{ending}"))
    assert mask.array.dtype == np.uint8 and np.array_equal(mask.array, values > 0)


def test_a_fourth_axis_of_one_is_dropped_and_scaled_values_are_read(tmp_path):
    values = np.linspace(-1000.0, 1000.0, 8).reshape(2, 2, 2, 1)
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "x.nii")
    assert nibabel.load(tmp_path / "x.nii").dataobj.slope != 1
    loaded = load_volume(tmp_path / "x.nii")
    assert loaded.array.shape == (2, 2, 2) and np.allclose(loaded.array, values[..., 0], atol=0.1)


def write_nifti(
    path: Path, affine: np.ndarray, array: np.ndarray | None = None, codes: tuple = (1, 0)
) -> None:
    """A NIfTI file with any affine in its sform, valid or not."""
    image = nibabel.Nifti1Image(np.zeros((3, 3, 3), np.int16) if array is None else array, np.eye(4))
    image.header["sform_code"], image.header["qform_code"] = codes
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        image.header[name] = affine[row]
    content = image.header.binaryblock + b"\0\0\0\0" + np.asarray(image.dataobj).tobytes(order="F")
    header = nibabel.Nifti1Header(image.header.binaryblock)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path.write_bytes(header.binaryblock + content[348:])


def change(row: int, column: int, value: float) -> np.ndarray:
    """The identity with one entry replaced."""
    affine = np.eye(4)
    affine[row, column] = value
    return affine


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that are no volume, each with what the error must say."""
    bad = {}

    def add(name: str, reason: str, content: bytes | None = None) -> Path:
        bad[name] = (folder / name, reason)
        if content is not None:
            (folder / name).write_bytes(content)
        return folder / name

    write_nifti(add("nan.nii", "not finite"), change(0, 0, np.nan))
    write_nifti(add("singular.nii", "singular"), change(1, 1, 0.0))
    write_nifti(add("sheared.nii", "sheared"), change(0, 1, 0.2))
    write_nifti(add("placeless.nii", "no geometry"), np.eye(4), codes=(0, 0))
    write_nifti(add("complex.nii", "plain number"), np.eye(4), np.zeros((3, 3, 3), np.complex64))
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((3, 3, 3, 4), np.int16), np.eye(4)), add("series.nii", "4 axes")
    )
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3), np.int16), np.eye(4)), add("flat.nii", "2 axes"))
    add("missing.nii.gz", "There is no file")
    add("text.nii.gz", "cannot be read as NIFTI", b"hello")
    add("empty.nrrd", "cannot be read as NRRD", b"")
    add("ct.dcm", "unknown ending", b"DICM")
    nibabel.save(nibabel.Nifti1Image(np.ones((9, 9, 9), np.int16), np.eye(4)), folder / "whole.nii")
    add("cut.nii", "cannot be read as NIFTI", (folder / "whole.nii").read_bytes()[:900])
    header = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nendian: little\n"
    add("placeless.nrrd", "no geometry", header + b"\n" + bytes(16))
    space = b"space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,nan)\nspace origin: (0,0,0)\n"
    add("nan.nrrd", "cannot be read as NRRD", header + space + b"\n" + bytes(16))
    vectors = sitk.GetImageFromArray(np.zeros((3, 3, 3, 2), np.uint8), isVector=True)
    sitk.WriteImage(vectors, str(add("layers.nrrd", "2 values per voxel")))
    return bad


def test_bad_files_say_why_in_one_line(tmp_path):
    for name, (path, reason) in bad_files(tmp_path).items():
        with pytest.raises(InputError, match=reason) as error:
            load_volume(path)
        text = str(error.value)
        assert "\n" not in text and name in text and len(text) < 300, text


def test_bad_targets_leave_nothing(tmp_path):
    volume = some_volume(some_grids()["ras"])
    (tmp_path / "file").write_text("")
    for path, reason in {
        tmp_path / "ct.mha": "unknown ending",
        tmp_path / "ct": "unknown ending",
        tmp_path / "ct.nhdr": "second file",
        tmp_path / "nowhere" / "ct.nii": "does not exist",
        tmp_path / "file" / "ct.nii": "does not exist",
    }.items():
        with pytest.raises(InputError, match=reason):
            save_volume(volume, path)
    with pytest.raises(EngineError, match="not finite"):
        save_volume(
            Volume(np.full((2, 2, 2), np.nan), Grid.centered((2, 2, 2), (1, 1, 1))), tmp_path / "ct.nii"
        )
    with pytest.raises(InputError, match="sheared"):
        save_volume(Volume(np.zeros((2, 2, 2)), Grid((2, 2, 2), change(0, 1, 0.2))), tmp_path / "ct.nii")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "ct.nii"
    save_volume(some_volume(some_grids()["ras"]), path)
    before = path.read_bytes()

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    save_volume(some_volume(some_grids()["lps"]), path)
    assert load_volume(path).grid.matches(some_grids()["lps"])


@pytest.mark.skipif(os.name == "nt", reason="file modes of POSIX")
def test_others_may_read_what_the_umask_allows(tmp_path):
    path = save_volume(some_volume(some_grids()["ras"]), tmp_path / "ct.nii")
    (tmp_path / "plain").write_text("")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


# A volume of 430 kB is saved over an older file where only 64 kB fit; says what happened as JSON.
SAVING = """
    import json, sys
    from pathlib import Path
    import nibabel, numpy as np, SimpleITK
    from medlord.errors import MedlordError
    from medlord.volume_files import save_volume
    from medlord.volumes import Grid, Volume
    folder, limit = Path(sys.argv[1]), int(sys.argv[2])
    grid = Grid.centered((60, 60, 60), (1, 1, 1))
    noise = np.random.default_rng(0).integers(-1000, 1000, grid.shape).astype(np.int16)
    if limit:
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    said = {}
    for ending in (".nii", ".nii.gz", ".nrrd"):
        (folder / f"ct{ending}").write_text("old")
        try:
            save_volume(Volume(noise, grid), folder / f"ct{ending}")
        except MedlordError as error:
            said[ending] = [error.code, str(error)]
    print(json.dumps([said, {path.name: path.read_text() for path in folder.iterdir()}]))
"""


def run_saving(command: list[str], folder: Path, limit: int) -> subprocess.CompletedProcess:
    """The script above in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(medlord.__file__).parents[1])}
    code = textwrap.dedent(SAVING)
    words = [*command, sys.executable, "-c", code, str(folder), str(limit)]
    return subprocess.run(words, capture_output=True, text=True, env=environment)


def check_saving(done: subprocess.CompletedProcess, reason: str) -> None:
    """Every format failed with one line, and the folder holds the older files alone."""
    assert done.returncode == 0, done.stderr
    said, files = json.loads(done.stdout)
    assert files == {f"ct{ending}": "old" for ending in ENDINGS}
    assert set(said) == set(ENDINGS)
    for code, text in said.values():
        assert code == "engine" and reason in text and "\n" not in text and len(text) < 300, text


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file sizes are of POSIX")
def test_a_disk_that_takes_no_more_leaves_the_old_file(tmp_path):
    check_saving(run_saving([], tmp_path, 65_536), "could not be written")


@pytest.mark.skipif(
    shutil.which("unshare") is None, reason="needs unshare to make a small disk without being root"
)
def test_a_full_disk_is_called_so(tmp_path):
    small_disk = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
                  'mount -t tmpfs -o size=64k small "$0" && exec "$@"', str(tmp_path)]  # fmt: skip
    if subprocess.run([*small_disk, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a test make a small disk (user namespaces)")
    check_saving(run_saving(small_disk, tmp_path, 0), "The disk is full")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to make a read-only disk")
def test_a_read_only_folder_is_bad_input(tmp_path):
    read_only = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
                 'mount -t tmpfs -o size=64k,ro small "$0" && exec "$@"', str(tmp_path)]  # fmt: skip
    if subprocess.run([*read_only, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let a test mount a read-only disk (user namespaces)")
    code = (
        "import sys; from pathlib import Path; from medlord.volume_files import check_writable_folder\n"
        "check_writable_folder(Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(medlord.__file__).parents[1])}
    done = subprocess.run(
        [*read_only, sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert "InputError" in done.stderr and "cannot be written (Read-only file system)" in done.stderr
