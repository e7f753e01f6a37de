"""What runs in the process of TotalSegmentator: read `request.json` in a private folder, write `answer.json`.

Only this module imports the package `totalsegmentator`. It runs in any Python that has it, also one without torch of
ours. Answers are {"result": ...} or {"error": {"code", "message"}} with the codes of `medlord.errors`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...devices import is_memory_error
from ...errors import EngineError, InputError, InsufficientMemoryError, MedlordError, WeightsError

REQUEST, ANSWER, VOLUME, SEGMENTATION = "request.json", "answer.json", "ct.nii.gz", "segmentation.nii.gz"
TASKS = {
    "total": {"task": "total"},
    "fast": {"task": "total", "fast": True},
    "lung_vessels": {"task": "lung_vessels"},
    "body": {"task": "body"},
    "heartchambers_highres": {"task": "heartchambers_highres"},
}
LICENSED_TASKS = ("heartchambers_highres",)
LICENCE_HELP = (
    "it needs a licence key from TotalSegmentator, free of charge for non-commercial use "
    "(https://backend.totalsegmentator.com/license-academic/). Give it with --license-key or the variable "
    "MEDLORD_TOTALSEGMENTATOR_LICENSE; it is passed to TotalSegmentator only"
)


def describe() -> dict[str, Any]:
    """Version of the package and the structures of each task, in the order of their label values."""
    from importlib.metadata import version

    from totalsegmentator.map_to_binary import class_map

    classes = {
        name: [class_map[task["task"]][value] for value in sorted(class_map[task["task"]])]
        for name, task in TASKS.items()
        if task["task"] in class_map
    }
    return {"version": version("TotalSegmentator"), "classes": classes}


def segment(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Segment the CT in `folder`; writes a labelmap and returns {"labels": {name: value}}.

    TotalSegmentator gets a home of its own within `folder` with usage statistics switched off: nothing is sent, and the
    user's settings stay as they are. Weights that are not there are only downloaded with the user's consent.
    """
    users_home = Path(os.environ.get("TOTALSEG_HOME_DIR") or Path.home() / ".totalsegmentator")
    weights = Path(
        request["weights"] or os.environ.get("TOTALSEG_WEIGHTS_PATH") or users_home / "nnunet" / "results"
    )
    _prepare_home(folder / "home", users_home, weights, request)
    import nibabel
    import numpy as np
    from totalsegmentator import python_api
    from totalsegmentator.map_to_binary import class_map

    python_api.download_pretrained_weights = _guarded_download(
        python_api.download_pretrained_weights, weights, request["download"], request["task"]
    )
    options = TASKS[request["task"]]
    image = python_api.totalsegmentator(
        str(folder / VOLUME), None, ml=True, nr_thr_saving=1, roi_subset=request["subset"], quiet=False,
        device=request["device"], license_number=request["license_key"], **options,
    )  # fmt: skip
    labels = np.asanyarray(image.dataobj).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), folder / SEGMENTATION)
    return {"labels": {name: value for value, name in class_map[options["task"]].items()}}


def _prepare_home(home: Path, users_home: Path, weights: Path, request: dict[str, Any]) -> None:
    """Settings for this run alone; raises `WeightsError` for a task that needs a licence when there is no key."""
    config = _read_config(users_home / "config.json")
    key = request["license_key"] or config.get("license_number")
    if request["task"] in LICENSED_TASKS and not key:
        raise WeightsError(f"The task {request['task']} cannot run: {LICENCE_HELP}.")
    home.mkdir()
    settings = {
        "totalseg_id": "medlord",
        "send_usage_stats": False,
        "prediction_counter": 0,
        "statistics_disclaimer_shown": True,
    }
    if config.get("license_number"):
        settings["license_number"] = config["license_number"]
    (home / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    os.environ["TOTALSEG_HOME_DIR"] = str(home)
    os.environ["TOTALSEG_WEIGHTS_PATH"] = str(weights)


def _read_config(path: Path) -> dict[str, Any]:
    """The user's own settings of TotalSegmentator; none where there is no readable file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _guarded_download(
    download: Callable[[int], None], weights: Path, consent: bool, task: str
) -> Callable[[int], None]:
    """TotalSegmentator's download, which also removes old weights, only for what is missing and may be fetched."""

    def checked(dataset: int) -> None:
        if any(weights.glob(f"Dataset{dataset:03d}_*")):
            return
        if not consent:
            raise WeightsError(
                f"TotalSegmentator's weights for the task {task} (Dataset{dataset:03d}) are not in {weights}. Name a "
                "folder that has them (--weights or the variable TOTALSEG_WEIGHTS_PATH), or agree to their download by "
                "it from github.com/wasserth/TotalSegmentator with --download-weights: some 100 to 250 MB per model, "
                "five models for the task total, another one with --subset, Apache-2.0 but for tasks that need a "
                "licence key."
            )
        try:
            weights.mkdir(parents=True, exist_ok=True)
            download(dataset)
        except (OSError, ValueError) as error:
            raise WeightsError(
                f"TotalSegmentator's weights (Dataset{dataset:03d}) could not be downloaded to {weights}: "
                f"{_last_line(error)}. Check the network, or name a folder that has them with --weights."
            ) from error

    return checked


def _error(error: BaseException, task: str) -> MedlordError:
    """What went wrong as one of the family."""
    if isinstance(error, MedlordError):
        return error
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == "totalsegmentator":
        return InputError(
            f"The package TotalSegmentator is not installed in {sys.executable}; install it there (pip install "
            "TotalSegmentator), or name a Python that has it with --segmenter-python or the variable "
            "MEDLORD_TOTALSEGMENTATOR_PYTHON."
        )
    if isinstance(error, ImportError):
        return EngineError(
            f"TotalSegmentator cannot start in {sys.executable}: {_last_line(error)}. Install it again there (pip "
            "install --force-reinstall TotalSegmentator), or name another Python with --segmenter-python."
        )
    if is_memory_error(error):
        return InsufficientMemoryError(
            f"TotalSegmentator ran out of memory ({_last_line(error)}); choose totalsegmentator:fast, fewer structures "
            "with --subset, or --device cpu."
        )
    if isinstance(error, SystemExit) and task in LICENSED_TASKS:
        return WeightsError(
            f"TotalSegmentator refused the licence key for the task {task}, or its server that checks keys could not "
            f"be reached: {LICENCE_HELP}."
        )
    return EngineError(f"TotalSegmentator failed: {type(error).__name__}: {_last_line(error)}.")


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")[:300]


def _end_with_parent(folder: Path) -> None:
    """Wait until the program that asked closes its end of stdin, then stop with everything that was started here."""
    while os.read(0, 1024):
        pass
    if (folder / ANSWER).exists():
        return
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def main(folder: Path) -> None:
    """Answer the request in `folder`."""
    # One stream for all that is printed, so that its order stays.
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    try:
        answer = {"result": describe() if request["action"] == "describe" else segment(folder, request)}
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        failure = _error(error, request.get("task", ""))
        answer = {"error": {"code": failure.code, "message": str(failure)}}
    unfinished = folder / f"{ANSWER}.part"
    unfinished.write_text(json.dumps(answer), encoding="utf-8")
    unfinished.replace(folder / ANSWER)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
