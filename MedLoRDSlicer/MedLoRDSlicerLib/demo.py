"""The demo's way through a MRML scene: load the segmentation, run the module's logic, save the CT node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medlord.errors import EngineError

from .engine import Engine
from .headless import HeadlessSlicer
from .logic import SynthesisLogic
from .results import save_ct

if TYPE_CHECKING:
    from medlord.client_messages import EngineResult
    from medlord.demo import DemoFiles, JourneyOptions


def through_scene(files: DemoFiles, options: JourneyOptions) -> EngineResult:
    """`medlord.demo.Journey` as a user of 3D Slicer takes it, on a scene without windows.

    The segmentation file is read into a segmentation node, the logic matches its segments and sends them to the
    engine process, and the CT node that comes back is saved with its provenance.
    """
    engine = Engine()
    with HeadlessSlicer() as headless:
        try:
            node = load_segmentation(headless.scene, files)
            run = SynthesisLogic(engine).start(node, name="Demo synthetic CT", **options.for_engine())
            save_ct(run.wait(options.progress, options.cancel), files.ct)
        finally:
            engine.close()
        return run.result


def load_segmentation(scene, files: DemoFiles):
    """A segmentation node of `scene` with what `files.segmentation` holds, read by MRML's own storage."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Demo segmentation")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(files.segmentation.resolve()))
    if not storage.ReadData(node):
        raise EngineError(
            f"{files.segmentation.name} was written but MRML cannot read it again; report this."
        )
    node.SetAndObserveStorageNodeID(storage.GetID())
    return node
