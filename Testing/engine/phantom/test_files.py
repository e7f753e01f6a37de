"""What `write_phantom` leaves on disk, and that it leaves nothing when it fails."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from medlord.errors import CancelledError, InputError
from medlord.phantom import make_phantom, write_phantom
from medlord.segmentation_files import read_segmentation
from medlord.volume_files import load_volume
from medlord.volumes import Grid

TINY = Grid.centered((40, 40, 24), (9.0, 9.0, 14.0), orientation="LPS")


def test_files_hold_the_phantom(tmp_path):
    events = []
    paths = write_phantom(
        70, tmp_path / "case", TINY, progress=events.append, nodules=1, pleural_effusion=True
    )
    case = make_phantom(70, TINY, nodules=1, pleural_effusion=True)
    by_name = {path.name: path for path in paths}
    assert sorted(p.name for p in (tmp_path / "case").iterdir()) == sorted(by_name)
    ct = load_volume(by_name["ct.nii.gz"])
    assert ct.grid.matches(TINY) and ct.array.dtype == np.int16
    assert np.array_equal(ct.array, case.volume.array)
    header = gzip.decompress(by_name["ct.nii.gz"].read_bytes())[:2000]
    assert b"synthetic" in header.lower()
    segmentation = read_segmentation(by_name["segmentation.seg.nrrd"])
    drawn = {segment.name: segmentation.mask(segment) for segment in segmentation.segments}
    assert segmentation.grid.matches(TINY)
    assert set(drawn) == {name for name in case.labels if case.labels[name].any()}
    assert {"body", "pleural_effusion", "lung_vessels", "aorta"} <= set(drawn)
    assert all(np.array_equal(mask, case.labels[name]) for name, mask in drawn.items())
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


@pytest.mark.parametrize("phase", ["paint", "write"])
def test_cancelling_leaves_the_folder_as_it_was(tmp_path, phase):
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "ct.nii.gz").write_bytes(b"of another run")
    phases = []
    with pytest.raises(CancelledError):
        write_phantom(
            71, folder, TINY, lambda event: phases.append(event.phase), cancel=lambda: phase in phases
        )
    assert phases[-1] == phase
    assert [path.name for path in folder.iterdir()] == ["ct.nii.gz"]
    assert (folder / "ct.nii.gz").read_bytes() == b"of another run"


def test_files_that_cannot_be_moved_leave_the_older_ones(tmp_path, monkeypatch):
    """The last file of three does not move, as when a disk goes away; the two before it go back."""
    folder = tmp_path / "case"
    before = {path.name: path.read_bytes() for path in write_phantom(71, folder, TINY)}
    move = Path.replace

    def fails_for_new_parameters(path, target):
        if path.name == "parameters.json" and Path(target).parent == folder and not moved:
            moved.append(path)
            raise OSError("the disk went away")
        return move(path, target)

    moved = []
    monkeypatch.setattr(Path, "replace", fails_for_new_parameters)
    with pytest.raises(OSError, match="went away"):
        write_phantom(72, folder, TINY)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "case").write_text("a file")
    with pytest.raises(InputError, match="is a file"):
        write_phantom(1, tmp_path / "case", TINY)
    with pytest.raises(InputError, match="does not exist"):
        write_phantom(1, tmp_path / "missing" / "case", TINY)
