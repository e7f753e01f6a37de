"""The demo: a segmentation that the model never saw becomes a CT, with a report of how well it was followed.

The way from the segmentation file to the CT file is a `Journey`. `through_worker` goes straight to the engine
process; `scripts/demo.py` goes through a MRML scene, as 3D Slicer does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .output_folders import appearing_together
from .progress import Cancel, PhaseClock, Progress, raise_if_cancelled
from .resources import BUNDLED_MODEL
from .volume_files import write_atomically

if TYPE_CHECKING:
    from .bundles.description import ModelDescription
    from .client_messages import EngineResult
    from .phantom import PhantomCase

FIRST_HELD_OUT_SEED = 900_000
"""Phantoms from this seed on are never trained on."""

DEMO_SEED = FIRST_HELD_OUT_SEED + 4
FILE_NAMES = ("input.seg.nrrd", "ct.nrrd", "recipe.json", "report.html")


@dataclass(frozen=True)
class DemoFiles:
    """What the demo wrote: the segmentation, the synthetic CT, its recipe and the report."""

    segmentation: Path
    ct: Path
    recipe: Path
    report: Path

    @classmethod
    def within(cls, folder: Path) -> DemoFiles:
        """The files under their usual names in `folder`."""
        return cls(*(folder / name for name in FILE_NAMES))

    def how_to_open(self) -> list[str]:
        """The last lines that the demo prints: where the files are and how to look at them."""
        folder = self.ct.parent.resolve()
        return [
            f"Report      {self.report.resolve()}   (open it in a web browser)",
            f"Files       {folder}: {', '.join(path.name for path in (self.segmentation, self.ct, self.recipe))}",
            f"In Slicer   drag {self.ct.name} and {self.segmentation.name} from that folder into the window, or",
            f"            Slicer --python-code \"slicer.util.loadVolume(r'{self.ct.resolve()}'); "
            f"slicer.util.loadSegmentation(r'{self.segmentation.resolve()}')\"",
        ]


@dataclass(frozen=True)
class JourneyOptions:
    """How a journey runs the model: its id or folder, the seed of the noise, attributes, device, callbacks."""

    model: str
    seed: int
    attributes: Mapping[str, str]
    device: str = "auto"
    progress: Progress | None = None
    cancel: Cancel | None = None

    def for_engine(self) -> dict[str, Any]:
        """The options that the engine's `synthesize` takes."""
        return {
            "model": self.model,
            "seed": self.seed,
            "attributes": dict(self.attributes),
            "device": self.device,
        }


Journey = Callable[[DemoFiles, JourneyOptions], "EngineResult"]
"""Reads `files.segmentation`, writes `files.ct` with its recipe inside, returns the engine's result."""


def run_demo(
    out_dir: str | Path,
    progress: Progress | None = None,
    *,
    cancel: Cancel | None = None,
    journey: Journey | None = None,
    model: str | Path = BUNDLED_MODEL,
    phantom_seed: int = DEMO_SEED,
    seed: int = 1,
    device: str = "auto",
) -> DemoFiles:
    """Write the demo's four files to `out_dir` (created) and return where they are.

    Files of an older demo are replaced when all new ones are ready; whatever fails leaves the folder as it was.

    `phantom_seed` draws the anatomy, `seed` the noise of the synthesis, `journey` is the way from the segmentation
    to the CT (default: `through_worker`). Raises `InputError` for an unknown model or device, a bad or training
    seed or a folder that cannot be written, `WeightsError` for damaged weights, and what synthesis raises.
    """
    from .bundles.bundle import find_model, verify_bundle
    from .devices import choose_device
    from .sampling.noise import check_seed

    if phantom_seed < FIRST_HELD_OUT_SEED:
        raise InputError(
            f"Phantom seed {phantom_seed} may be one that the model was trained on; use {FIRST_HELD_OUT_SEED} or more."
        )
    check_seed(seed)
    choose_device(device)
    model_folder = find_model(model)
    description = verify_bundle(model_folder)
    with appearing_together(Path(out_dir), FILE_NAMES) as staging:
        case, attributes = _phantom(phantom_seed, description, progress, cancel)
        options = JourneyOptions(str(model_folder), seed, attributes, device, progress, cancel)
        _write_all(DemoFiles.within(staging), case, journey or through_worker, options)
    return DemoFiles.within(Path(out_dir))


def _write_all(files: DemoFiles, case: PhantomCase, journey: Journey, options: JourneyOptions) -> None:
    from .segmentation_files import write_segmentation

    masks = {name: mask for name, mask in case.conditions.masks.items() if mask.any()}
    write_segmentation(files.segmentation, case.volume.grid, masks)
    result = journey(files, options)
    recipe = json.dumps(result.recipe.to_dict(), indent=1)
    write_atomically(files.recipe, lambda temporary: temporary.write_text(recipe + "\n", encoding="utf-8"))
    _write_report(files.report, result, case, options.progress, options.cancel)


def through_worker(files: DemoFiles, options: JourneyOptions) -> EngineResult:
    """Read the segmentation, let the engine process synthesize, write the CT; no scene in between."""
    from .bundles.bundle import find_model
    from .bundles.description import read_description
    from .client import EngineClient
    from .segmentation_files import read_segmentation
    from .volume_files import save_volume

    wanted = read_description(find_model(options.model)).conditions
    conditions = read_segmentation(files.segmentation).conditions(wanted).conditions
    with EngineClient() as client:
        callbacks = {"progress": options.progress, "cancel": options.cancel}
        result = client.synthesize(conditions, **options.for_engine(), **callbacks)
    save_volume(result.volume, files.ct, synthetic=True)
    return result


def _phantom(
    seed: int, description: ModelDescription, progress: Progress | None, cancel: Cancel | None
) -> tuple[PhantomCase, dict[str, str]]:
    """A phantom with arterial contrast, so that chambers and vessels can be told from muscle, and its attributes."""
    from .phantom import make_phantom

    case = make_phantom(seed, progress=progress, cancel=cancel, contrast_phase="arterial")
    known = "arterial" in description.attributes.get("contrast_phase", ())
    return case, {"contrast_phase": "arterial"} if known else {}


def _write_report(
    path: Path, result: EngineResult, case: PhantomCase, progress: Progress | None, cancel: Cancel | None
) -> None:
    """Segment the result, measure it against the masks and, for the ceiling, the phantom's own CT.

    That CT is drawn anew on the result's grid: brought there by interpolation it would be blurred.
    """
    from .evaluation.adherence import adherence
    from .evaluation.report import ReportContent, write_report
    from .evaluation.segmenters import find_segmenter
    from .phantom.case import render

    segmenter = find_segmenter("hu-rules")
    found = segmenter.segment(result.volume, segmenter.structures, progress, cancel)
    own = render(case.parameters, result.volume.grid, cancel=cancel).volume
    measured = adherence(result.volume, result.conditions, segmenter, own, found=found, cancel=cancel)
    raise_if_cancelled(cancel, "the report")
    clock = PhaseClock("report", 1, progress)
    write_report(
        path,
        ReportContent(
            volume=result.volume,
            conditions=result.conditions,
            adherence=measured,
            recipe=result.recipe.to_dict(),
            timings_s=result.timings_s,
            peak_memory_bytes=result.peak_memory_bytes,
            energy_kwh=result.energy_kwh,
            warnings=result.warnings,
            found=found,
            title="Demo: synthetic CT of a held-out phantom",
        ),
    )
    clock.report(1)
