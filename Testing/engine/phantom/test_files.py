"""What `write_phantom` leaves on disk, and that it leaves nothing when it fails."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medlord.errors import CancelledError, InputError
from medlord.phantom import make_phantom, write_phantom
from medlord.volume_files import load_volume
from medlord.volumes import Grid

TINY = Grid.centered((40, 40, 24), (9.0, 9.0, 14.0), orientation="LPS")


def test_files_hold_the_phantom(tmp_path):
    events = []
    paths = write_phantom(70, tmp_path / "case", TINY, progress=events.append, nodules=1, pleural_effusion=True)
    case = make_phantom(70, TINY, nodules=1, pleural_effusion=True)
    by_name = {path.name: path for path in paths}
    assert sorted(p.name for p in (tmp_path / "case").iterdir()) == sorted(by_name)
    ct = load_volume(by_name["ct.nii.gz"])
    assert ct.grid.matches(TINY) and ct.array.dtype == np.int16
    assert np.array_equal(ct.array, case.volume.array)
    labelmap = load_volume(by_name["labelmap.nii.gz"]).array
    names = {int(value): name for value, name in json.loads(by_name["labels.json"].read_text()).items()}
    assert set(np.unique(labelmap)) - {0} <= set(names)
    for value in np.unique(labelmap)[1:]:
        assert np.array_equal(labelmap == value, case.labels[names[int(value)]])
    assert np.array_equal(load_volume(by_name["body.nii.gz"]).array > 0, case.labels["body"])
    assert np.array_equal(load_volume(by_name["pleural_effusion.nii.gz"]).array > 0, case.labels["pleural_effusion"])
    parameters = json.loads(by_name["parameters.json"].read_text())
    assert parameters["seed"] == 70 and parameters["pleural_effusion"]["volume_ml"] > 0
    assert {event.phase for event in events} == {"paint", "write"}
    assert all(0 < event.step <= event.total for event in events)


def test_a_bad_parameter_leaves_no_folder(tmp_path):
    with pytest.raises(InputError, match="contrast_phase"):
        write_phantom(1, tmp_path / "case", TINY, contrast_phase="late")
    assert not any(tmp_path.iterdir())


def test_a_bad_grid_leaves_no_folder(tmp_path):
    affine = np.diag([2.0, 2.0, 0.0, 1.0])
    with pytest.raises(InputError, match="singular"):
        write_phantom(1, tmp_path / "case", Grid((8, 8, 8), affine))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("answers_before", [0, 2, 4])
def test_cancelling_leaves_the_folder_as_it_was(tmp_path, answers_before):
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "ct.nii.gz").write_bytes(b"of another run")
    asked = []

    def cancel():
        asked.append(1)
        return len(asked) > answers_before

    with pytest.raises(CancelledError):
        write_phantom(71, folder, TINY, cancel=cancel)
    assert [path.name for path in folder.iterdir()] == ["ct.nii.gz"]
    assert (folder / "ct.nii.gz").read_bytes() == b"of another run"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "case").write_text("a file")
    with pytest.raises(InputError, match="is a file"):
        write_phantom(1, tmp_path / "case", TINY)
    with pytest.raises(InputError, match="does not exist"):
        write_phantom(1, tmp_path / "missing" / "case", TINY)
