"""Reading and writing volumes: NIfTI and NRRD, with the recipe inside the file.

NIfTI carries the recipe as a header extension (code 6, comment), NRRD as the key `medlord_recipe`, or `MedLoRD.recipe`
where Slicer saved it. Files are written beside their target and renamed, so a crash or a full disk leaves the old file
or none.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .errors import EngineError, InputError
from .volumes import Grid, Volume

NRRD_RECIPE_KEY = "medlord_recipe"
# The second is what Slicer writes: the name of the attribute that a volume's node has.
SLICER_RECIPE_KEY = "MedLoRD.recipe"
NRRD_RECIPE_KEYS = (NRRD_RECIPE_KEY, SLICER_RECIPE_KEY)
SYNTHETIC_KEY = "medlord_synthetic"
NRRD_SYNTHETIC_KEYS = frozenset({SYNTHETIC_KEY, "MedLoRD.synthetic", "synthetic", *NRRD_RECIPE_KEYS})
"""Any of them says that a volume is synthetic; some are what Slicer writes of a node's attributes."""
_NIFTI_COMMENT = 6
# Read once: asking sets it for a moment, which other threads would notice.
_UMASK = os.umask(0o077)
os.umask(_UMASK)
NIFTI_MARK = b"medlord_recipe="
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def load_volume(path: str | Path) -> Volume:
    """Read a 3D NIfTI (.nii, .nii.gz) or NRRD (.nrrd, .nhdr) file as [i, j, k] voxels with an affine to RAS mm.

    Raises `InputError` when the file is missing, unreadable, not three-dimensional or without a valid geometry, and for
    a recipe in its header that is no JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path.name} in {path.parent}; check the path.")
    kind = file_kind(path)
    with read_failure(path):
        volume = _read_nifti(path) if kind == "nifti" else _read_nrrd(path)
    if volume.array.dtype.kind not in "iufb":
        raise InputError(
            f"{path.name} holds colours or complex numbers; one plain number per voxel is needed."
        )
    if volume.recipe is not None and not isinstance(volume.recipe, dict):
        raise InputError(
            f"The recipe in the header of {path.name} is no table of settings ({str(volume.recipe)!r:.40}); it was "
            "changed. Save the volume again without it."
        )
    volume.grid.validate(path.name)
    return volume


@contextlib.contextmanager
def read_failure(path: Path) -> Iterator[None]:
    """Turn whatever a reading library raises into an `InputError` of one line that names the file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path.name} cannot be read as {file_kind(path).upper()}: {_reason(error)}. Save it again."
        ) from error


def _reason(error: Exception) -> str:
    """What an error of the system or of a library says, in one line without paths."""
    lines = (getattr(error, "strerror", None) or str(error)).strip(" .\n").splitlines()
    return lines[-1].strip(" .") if lines else type(error).__name__


def save_volume(
    volume: Volume, path: str | Path, *, recipe: dict | None = None, synthetic: bool = False
) -> Path:
    """Write `volume` (HU rounded to int16, bool and uint8 masks as uint8) to NIfTI or NRRD, by the file's ending.

    `recipe` (default: the volume's own) goes into the file; `synthetic=True` marks it as such in the header.
    Raises `InputError` for an unknown ending or a folder that cannot be written, `EngineError` when the disk is full.
    """
    path = Path(path)
    kind = file_kind(path)
    if path.name.lower().endswith(".nhdr"):
        raise InputError(f"{path.name} would need a second file for its voxels; use .nrrd.")
    volume.grid.validate("The volume to save")
    array = _storable(volume.array)
    recipe = volume.recipe if recipe is None else recipe
    writer = _write_nifti if kind == "nifti" else _write_nrrd
    write_atomically(path, lambda temporary: writer(temporary, array, volume.grid, recipe, synthetic))
    return path


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it; failures leave no trace and say why."""
    suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".nii.gz") else path.suffix
    check_writable_folder(path.parent)
    handle, name = tempfile.mkstemp(prefix=".medlord-", suffix=suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # Writable, or Windows refuses to flush it.
        with temporary.open("r+b") as stream:
            os.fsync(stream.fileno())
        _permissions_of_a_new_file(temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        if getattr(error, "errno", None) == errno.ENOSPC or free_bytes(path.parent) < 2**20:
            raise EngineError(
                f"The disk is full: {path.name} could not be written ({free_bytes(path.parent) / 2**20:.0f} MB free "
                f"in {path.parent}). Free some room or choose another folder."
            ) from error
        raise EngineError(
            f"{path.name} could not be written to {path.parent}: {_reason(error)}. Choose another folder."
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _permissions_of_a_new_file(path: Path) -> None:
    """What a plainly created file has: temporary files are made readable for their owner alone."""
    path.chmod(0o666 & ~_UMASK)


def check_writable_folder(folder: Path) -> None:
    """Raise `InputError` unless files can be created in `folder` (tried, since permissions alone do not tell)."""
    if not folder.is_dir():
        raise InputError(f"The output folder {folder} does not exist; create it or choose another.")
    try:
        handle, name = tempfile.mkstemp(prefix=".medlord-", dir=folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise EngineError(
                f"The disk is full: nothing can be written to {folder}. Free some room."
            ) from error
        raise InputError(
            f"The output folder {folder} cannot be written ({error.strerror}); "
            "choose another or change its permissions."
        ) from error
    os.close(handle)
    os.unlink(name)


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk that holds `folder`."""
    import shutil

    return shutil.disk_usage(folder).free


def file_kind(path: Path) -> str:
    """Return "nifti" or "nrrd", by the ending of the name; raises `InputError` for any other."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return "nifti"
    if name.endswith((".nrrd", ".nhdr")):
        return "nrrd"
    raise InputError(f"{path.name} has an unknown ending; use .nii, .nii.gz or .nrrd.")


def _storable(array: np.ndarray) -> np.ndarray:
    if array.dtype == bool or array.dtype == np.uint8:
        return array.astype(np.uint8)
    if array.dtype == np.int16:
        return array
    if not np.isfinite(array).all():
        raise EngineError("The volume holds values that are not finite; it was not written.")
    return np.clip(np.rint(array), -32768, 32767).astype(np.int16)


def _as_3d(array: np.ndarray, name: str) -> np.ndarray:
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise InputError(
            f"{name} has {array.ndim} axes of shape {array.shape}; a single 3D volume is needed."
        )
    return array


def require_nifti_geometry(header: Any, name: str) -> None:
    """Raise `InputError` when a NIfTI header does not say where the voxels lie (readers would then invent it)."""
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise InputError(
            f"{name} has no geometry (sform and qform are unset), so its place and orientation are unknown; "
            "save it again with a valid geometry."
        )


def require_nrrd_geometry(image: Any, name: str) -> None:
    """Raise `InputError` when an NRRD header does not say in which space its axes lie."""
    if not image.HasMetaDataKey("NRRD_space"):
        raise InputError(
            f"{name} has no geometry (no 'space' in its header), so its place and orientation are unknown; "
            "save it again with a valid geometry."
        )


def _read_nifti(path: Path) -> Volume:
    import nibabel

    image = nibabel.load(path)
    require_nifti_geometry(image.header, path.name)
    array = _as_3d(np.asanyarray(image.dataobj), path.name)
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    recipe = None
    for extension in image.header.extensions:
        content = extension.get_content()
        content = content if isinstance(content, bytes) else str(content).encode()
        if content.startswith(NIFTI_MARK):
            recipe = json.loads(content[len(NIFTI_MARK) :].rstrip(b"\0").decode("utf-8"))
    return Volume(array, Grid(array.shape, image.affine), recipe)


def _write_nifti(path: Path, array: np.ndarray, grid: Grid, recipe: dict | None, synthetic: bool) -> None:
    import nibabel

    image = nibabel.Nifti1Image(array, grid.affine)
    image.set_sform(grid.affine, code=1)
    image.set_qform(grid.affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"SYNTHETIC CT (MedLoRD)" if synthetic else b"MedLoRD"
    if recipe is not None:
        content = NIFTI_MARK + json.dumps(recipe, sort_keys=True).encode("utf-8")
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(_NIFTI_COMMENT, content))
    nibabel.save(image, path)


def _read_nrrd(path: Path) -> Volume:
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path))
    require_nrrd_geometry(image, path.name)
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError(
            f"{path.name} has {image.GetNumberOfComponentsPerPixel()} values per voxel; one is needed."
        )
    array = _as_3d(sitk.GetArrayFromImage(image).T, path.name)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    key = next((key for key in NRRD_RECIPE_KEYS if image.HasMetaDataKey(key)), None)
    recipe = json.loads(image.GetMetaData(key)) if key else None
    return Volume(np.ascontiguousarray(array), Grid(array.shape, _LPS_TO_RAS @ affine), recipe)


def _write_nrrd(path: Path, array: np.ndarray, grid: Grid, recipe: dict | None, synthetic: bool) -> None:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    affine = _LPS_TO_RAS @ grid.affine
    image.SetSpacing(grid.spacing_mm.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / grid.spacing_mm).ravel().tolist())
    if synthetic:
        image.SetMetaData(SYNTHETIC_KEY, "1")
    if recipe is not None:
        image.SetMetaData(NRRD_RECIPE_KEY, json.dumps(recipe, sort_keys=True))
    sitk.WriteImage(image, str(path), useCompression=True)
