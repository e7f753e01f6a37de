"""The sample: a phantom made on the spot by another process, and its place in Slicer's Sample Data module."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import slicer
from scene_building import folder_content

from medlord.bundles.bundle import find_model
from medlord.bundles.description import read_description
from MedLoRDSlicerLib import sample_data
from MedLoRDSlicerLib.arrays import volume_from_node
from MedLoRDSlicerLib.segments import conditions_from_segmentation


@pytest.fixture
def sample(scene):
    return sample_data.start_sample(scene).wait()


def test_the_sample_is_a_ct_with_its_segmentation(scene, sample):
    model = read_description(find_model("thorax-phantom"))
    volume = volume_from_node(sample.volume)
    assert volume.array.dtype == np.int16 and volume.grid.matches(model.grid_at((0, 0, 0)))
    given = conditions_from_segmentation(sample.segmentation, model.conditions)
    assert given.conditions.grid.matches(volume.grid)
    assert not given.unmatched and {"body", "lung", "bone", "aorta"} <= set(given.conditions.names)
    lung, bone = (volume.array[given.conditions[name]].mean() for name in ("lung", "bone"))
    assert lung < -600 and bone > 100
    # Arterial: the left side of the heart is bright.
    assert volume.array[given.conditions["heart_ventricle_left"]].mean() > 200
    assert sample.volume.GetAttribute("synthetic") == "1"
    assert sample.volume.GetAttribute("DICOM.SeriesDescription").startswith("SYNTHETIC phantom")
    assert set(folder_content(scene, sample.folder_item)) == {
        sample.volume.GetName(),
        sample.segmentation.GetName(),
    }
    role = sample.segmentation.GetReferenceImageGeometryReferenceRole()
    assert sample.segmentation.GetNodeReference(role) is sample.volume


def test_the_process_that_paints_loads_neither_torch_nor_mrml():
    code = (
        "import sys; import MedLoRDSlicerLib.phantom_process; "
        "print([name for name in ('torch', 'monai', 'slicer', 'vtk') if name in sys.modules])"
    )
    package = Path(sample_data.__file__).resolve().parents[1]
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=package, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


class SampleDataLogic:
    """What Slicer's SampleData module offers for registration; checked below against Slicer's own file."""

    registered: list[dict] = []

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileType=None,
        loadFiles=None,
        loadFileProperties={},  # noqa: B006  as in Slicer
        checksums=None,
    ):
        SampleDataLogic.registered.append(
            {
                "category": category,
                "sampleName": sampleName,
                "uris": uris,
                "fileNames": fileNames,
                "nodeNames": nodeNames,
                "customDownloader": customDownloader,
                "thumbnailFileName": thumbnailFileName,
            }
        )


def test_the_sample_is_offered_in_sample_data(scene, monkeypatch):
    module = ModuleType("SampleData")
    module.SampleDataLogic = SampleDataLogic
    monkeypatch.setitem(sys.modules, "SampleData", module)
    monkeypatch.setattr(SampleDataLogic, "registered", [])
    module_file = Path(sample_data.__file__).resolve().parents[1] / "MedLoRDSlicer.py"
    sample_data.register_sample_data(str(module_file))
    (entry,) = SampleDataLogic.registered
    # Slicer compares the lengths of these, and calls the downloader with the source when it has one.
    assert all(isinstance(entry[name], str) for name in ("uris", "fileNames", "nodeNames"))
    assert Path(entry["thumbnailFileName"]).is_file()
    assert list(inspect.signature(entry["customDownloader"]).parameters) == ["source"]

    composite = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    monkeypatch.setattr(slicer, "mrmlScene", scene)
    volume, segmentation = entry["customDownloader"](object())
    assert composite.GetBackgroundVolumeID() == volume.GetID()
    assert segmentation.IsA("vtkMRMLSegmentationNode")
