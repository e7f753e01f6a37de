"""The one function that is called, with TotalSegmentator's arguments, output and ways to fail."""

import json
import os
import sys
import time
from pathlib import Path

import nibabel
import numpy as np

from .map_to_binary import class_map


def download_pretrained_weights(dataset: int) -> None:
    """Makes the folder that a download would."""
    if os.environ.get("STAND_IN") == "offline":
        raise ConnectionError("Max retries exceeded")
    (Path(os.environ["TOTALSEG_WEIGHTS_PATH"]) / f"Dataset{dataset:03d}_downloaded").mkdir()


def totalsegmentator(
    input, output, *, task, ml, device, quiet, license_number, roi_subset, nr_thr_saving, fast=False
):
    """Air is spleen, lung-like HU the left upper lobe, brighter ones the heart; or STAND_IN says what goes wrong."""
    home = Path(os.environ["TOTALSEG_HOME_DIR"])
    settings = json.loads((home / "config.json").read_text())
    seen = {
        "task": task, "fast": fast, "device": device, "subset": roi_subset, "license": license_number, "ml": ml,
        "settings": settings, "home": str(home), "tmp": os.environ["TMPDIR"],
    }  # fmt: skip
    if os.environ.get("STAND_IN_SEEN"):
        Path(os.environ["STAND_IN_SEEN"]).write_text(json.dumps(seen))
    download_pretrained_weights(297 if fast else 301 if task == "heartchambers_highres" else 291)
    print("\nIf you use this tool please cite: https://pubs.rsna.org/doi/10.1148/ryai.230024\n")
    what = os.environ.get("STAND_IN", "")
    if what == "crash":
        print("about to fail", flush=True)
        os._exit(3)
    if what == "killed":
        os.kill(os.getpid(), 9)
    if what == "memory":
        raise RuntimeError("CUDA out of memory. Tried to allocate 9 GiB")
    if what == "error":
        raise ValueError("a strange value")
    if what == "licence":
        print(f"ERROR: Invalid license number ({license_number}).")
        sys.exit(1)
    print("Predicting part 1 of 2 ...", flush=True)
    for step in range(4):
        sys.stderr.write(f"\r {step * 25}%|##        | {step}/4 [00:00<00:01,  2.00it/s]")
        sys.stderr.flush()
        time.sleep(3600 if what == "slow" and step == 1 else 0)
    sys.stderr.write("\n")
    image = nibabel.load(input)
    hu = np.asanyarray(image.dataobj)
    if what == "empty":
        return nibabel.Nifti1Image(np.zeros(hu.shape, np.uint8), image.affine)
    values = {name: value for value, name in class_map[task].items()}
    labels = np.zeros(hu.shape, np.uint8)
    if task == "total":
        labels[hu < -950] = values["spleen"]
        labels[(hu > -950) & (hu < -400)] = values["lung_upper_lobe_left"]
        labels[hu > 0] = values["heart"]
    else:
        labels[hu > 0] = 1
    return nibabel.Nifti1Image(labels, image.affine)
