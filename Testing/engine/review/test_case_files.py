"""Cases read back: the voxels and the place that were written, and only of the file that was hashed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk
from support.simulated_review import write_study

from medlord.errors import InputError
from medlord.review.case_files import read_case, read_case_mask
from medlord.review.cases import survey, write_case
from medlord.review.study import load_study
from medlord.volume_files import load_volume
from medlord.volumes import Grid

GRID = Grid.centered((6, 5, 4), (1.5, 1.25, 3.0), (3.0, -7.0, 20.0), "LPS")


@pytest.fixture
def study(tmp_path):
    """A study whose case_0001 is raw, case_0002 compressed, and whose case_0001 has a mask."""
    made, _ = write_study(tmp_path, per_source=1)
    hu = np.arange(120, dtype=np.int16).reshape(GRID.shape) - 60
    labels = (hu > 0).astype(np.uint8)
    content = json.loads((made.folder / "study.json").read_text())
    for entry, encoding in zip(content["cases"], ("raw", "gzip", "raw"), strict=True):
        made.file(entry["case"]).unlink(missing_ok=True)
        entry["sha256"] = write_case(made.file(entry["case"]), hu, GRID, encoding)
    content["cases"][0]["mask_sha256"] = write_case(made.mask_file("case_0001"), labels, GRID)
    (made.folder / "study.json").write_text(json.dumps(content))
    return load_study(made.folder)


@pytest.mark.parametrize("case", ["case_0001", "case_0002"])
def test_a_case_is_read_as_others_read_it(study, case):
    voxels, expected = read_case(study, case), load_volume(study.file(case))
    assert voxels.array.dtype == np.int16
    np.testing.assert_array_equal(voxels.array, expected.array)
    np.testing.assert_allclose(voxels.grid.affine, GRID.affine)
    np.testing.assert_allclose(expected.grid.affine, GRID.affine, atol=1e-6)


def test_a_mask_is_read(study):
    labels = read_case_mask(study, "case_0001")
    assert labels.array.dtype == np.uint8 and labels.array.sum() == 59
    with pytest.raises(InputError, match="no mask for case_0002"):
        read_case_mask(study, "case_0002")


def test_another_file_is_refused(study):
    path = study.file("case_0001")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="case_0001.nrrd was changed after the study was made"):
        read_case(study, "case_0001")
    path.unlink()
    with pytest.raises(InputError, match="case_0001.nrrd is missing"):
        read_case(study, "case_0001")
    with pytest.raises(InputError, match="no case case_0099"):
        read_case(study, "case_0099")


@pytest.mark.parametrize("key", ["", "medlord_synthetic", "MedLoRD.synthetic", "MedLoRD.recipe", "synthetic"])
def test_a_volume_that_says_it_is_synthetic_is_noticed(key, tmp_path):
    """Our own mark, and what Slicer writes into an NRRD of a synthetic volume's node."""
    image = sitk.GetImageFromArray(np.arange(8**3, dtype=np.int16).reshape(8, 8, 8) * 4 - 1024)
    if key:
        image.SetMetaData(key, "{}")
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    assert survey(tmp_path / "ct.nrrd").marked_synthetic == bool(key)
