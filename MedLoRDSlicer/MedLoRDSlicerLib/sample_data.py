"""Sample data without a download: a phantom CT with its segmentation, painted on this computer when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import slicer

from medlord.bundles.bundle import find_model
from medlord.bundles.description import read_description
from medlord.conditions import Conditions
from medlord.demo import FIRST_HELD_OUT_SEED
from medlord.resources import BUNDLED_MODEL
from medlord.volumes import Volume

from .arrays import set_volume
from .dicom_markers import mark_item, mark_node
from .headless import in_slicer_application, rendering_paused
from .phantom_job import PhantomJob
from .presets import apply_window
from .results import SYNTHETIC_ATTRIBUTES, add_folder, put_into_folder, show_in_slices
from .segments import add_segmentation
from .translation import _

CATEGORY = "MedLoRD"
SAMPLE_NAME = "MedLoRDPhantom"
SAMPLE_SEED = FIRST_HELD_OUT_SEED + 11
# What Slicer's Sample Data module asks for; nothing is ever fetched from it, `customDownloader` makes the data.
_SOURCE = f"medlord:phantom/{SAMPLE_SEED}"


@dataclass(frozen=True)
class SampleNodes:
    """The phantom's CT, the segmentation of the bundled model's conditions, and their subject-hierarchy folder item."""

    volume: object
    segmentation: object
    folder_item: int


def start_sample(scene, *, phantom_seed: int = SAMPLE_SEED, python: str | None = None) -> PhantomJob:
    """Begin a sample and return its job; `nodes` are `SampleNodes`.

    An arterial phase, so that the chambers of the heart stand out. The bundled model was not trained on it.
    """
    description = read_description(find_model(BUNDLED_MODEL))

    def deliver(volume: Volume, conditions: Conditions) -> SampleNodes:
        with rendering_paused():
            return _add_sample(scene, volume, conditions, phantom_seed)

    return PhantomJob(
        scene,
        phantom_seed,
        description.grid_at((0.0, 0.0, 0.0)),
        description.conditions,
        deliver,
        python=python,
        contrast_phase="arterial",
    )


def register_sample_data(module_file: str) -> None:
    """Offer the sample in Slicer's Sample Data module; `module_file` is the path of MedLoRDSlicer.py.

    Call it when Slicer has started up (`startupCompleted()`): the Sample Data module must be loaded.
    """
    import SampleData

    logic = SampleData.SampleDataLogic
    if hasattr(logic, "registerCustomSampleDataCategory"):  # Slicer 5.12
        logic.registerCustomSampleDataCategory(CATEGORY, title=_("MedLoRD: synthetic CT"))
    icon = Path(module_file).resolve().parent / "Resources" / "Icons" / "MedLoRDSlicer.png"
    logic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=SAMPLE_NAME,
        uris=_SOURCE,
        fileNames=f"{SAMPLE_NAME}.nrrd",
        nodeNames=SAMPLE_NAME,
        thumbnailFileName=str(icon),
        customDownloader=load_sample,
    )


def load_sample(source=None) -> list:
    """Make the sample, wait for it while Slicer stays alive, show it; returns [volume node, segmentation node]."""
    scene = slicer.mrmlScene
    nodes = start_sample(scene).wait(slicer.app.processEvents if in_slicer_application() else None)
    show_in_slices(scene, nodes.volume)
    return [nodes.volume, nodes.segmentation]


def _add_sample(scene, volume: Volume, conditions: Conditions, seed: int) -> SampleNodes:
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(_("Phantom CT")))
    set_volume(node, volume.array, volume.grid.affine)
    for key, value in {**SYNTHETIC_ATTRIBUTES, "MedLoRD.phantom_seed": str(seed)}.items():
        node.SetAttribute(key, value)
    tags = {
        "SeriesDescription": f"SYNTHETIC phantom (MedLoRD, seed {seed})",
        "Modality": "CT",
        "Manufacturer": "MedLoRDSlicer (synthetic)",
        "SyntheticData": "YES",
    }
    mark_node(node, tags)
    apply_window(node, "mediastinum")
    name = scene.GenerateUniqueName(f"{node.GetName()} segmentation")
    segmentation = add_segmentation(scene, conditions, name)
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(node)
    folder = add_folder(scene, node.GetName())
    for part in (node, segmentation):
        put_into_folder(scene, part, folder)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    mark_item(hierarchy, hierarchy.GetItemByDataNode(node), tags)
    return SampleNodes(node, segmentation, folder)
