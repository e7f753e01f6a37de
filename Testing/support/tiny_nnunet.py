"""A tiny nnU-Net in TotalSegmentator's folder layout, trained for seconds: `python tiny_nnunet.py CASE.npz WEIGHTS`.

Runs in a Python that has TotalSegmentator (and with it torch and nnU-Net). CASE.npz holds `hu` and `labels` [k, j, i]
at 3 mm; labels are TotalSegmentator's values of the task total, up to the largest that occurs. The dataset is number
297, that of the 3 mm model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

DATASET = "Dataset297_TotalSegmentator_total_3mm_1559subj"
FOLDER = "nnUNetTrainer_4000epochs_NoMirroring__nnUNetPlans__3d_fullres"
# TotalSegmentator's own trainer is found by importing all others, whose dependencies the tests would need as well.
# Prediction only asks it for the network, and there this one, its base class, does the same.
TRAINER = "nnUNetTrainer"
PATCH = (24, 24, 24)
STEPS = 120
# Of the range that tells air, lung and soft tissue apart.
INTENSITIES = {
    "max": 3000.0, "mean": -600.0, "median": -600.0, "min": -1024.0,
    "percentile_00_5": -1004.0, "percentile_99_5": 400.0, "std": 300.0,
}  # fmt: skip
NETWORK = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
ARGUMENTS = {
    "n_stages": 2,
    "features_per_stage": [8, 16],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [2, 2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "conv_bias": True,
    # No normalisation: in patches this small it would take away what tells a patch of lung from one of air.
    "norm_op": None,
    "norm_op_kwargs": None,
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
IMPORTED = ("conv_op", "norm_op", "dropout_op", "nonlin")


def plans(shape: tuple[int, ...]) -> dict:
    """plans.json of nnU-Net v2."""
    resampling = "resample_data_or_seg_to_shape"
    images = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(PATCH),
        "median_image_size_in_voxels": list(shape),
        "spacing": [3.0, 3.0, 3.0],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": resampling,
        "resampling_fn_data_kwargs": images,
        "resampling_fn_seg": resampling,
        "resampling_fn_seg_kwargs": {**images, "is_seg": True},
        "resampling_fn_probabilities": resampling,
        "resampling_fn_probabilities_kwargs": images,
        "architecture": {
            "network_class_name": NETWORK,
            "arch_kwargs": ARGUMENTS,
            "_kw_requires_import": list(IMPORTED),
        },
        "batch_dice": True,
    }
    return {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [3.0, 3.0, 3.0],
        "original_median_shape_after_transp": list(shape),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": INTENSITIES},
    }


def train(network: torch.nn.Module, hu: np.ndarray, labels: np.ndarray) -> None:
    """A few steps of Adam on random patches."""
    low, high = INTENSITIES["percentile_00_5"], INTENSITIES["percentile_99_5"]
    image = torch.from_numpy((np.clip(hu, low, high) - INTENSITIES["mean"]) / INTENSITIES["std"]).float()
    target = torch.from_numpy(labels.astype(np.int64))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, STEPS)
    draws = np.random.default_rng(0)
    for _ in range(STEPS):
        corner = [draws.integers(n - size + 1) for n, size in zip(hu.shape, PATCH, strict=True)]
        part = tuple(slice(start, start + size) for start, size in zip(corner, PATCH, strict=True))
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(image[part][None, None]), target[part][None])
        loss.backward()
        optimizer.step()
        schedule.step()
    print(f"loss {loss.item():.3f} after {STEPS} steps")


def main(case: Path, weights: Path) -> None:
    """Train and write the model folder."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from totalsegmentator.map_to_binary import class_map

    torch.manual_seed(0)
    with np.load(case) as data:
        hu, labels = data["hu"].astype(np.float32), data["labels"]
    # The first classes of the task alone: the cost of all 118 channels would be the cost of the test.
    classes = int(labels.max()) + 1
    names = {"background": 0, **{class_map["total"][value]: value for value in range(1, classes)}}
    network = get_network_from_plans(NETWORK, ARGUMENTS, IMPORTED, 1, classes, deep_supervision=False)
    train(network, hu, labels)
    folder = weights / DATASET / FOLDER
    (folder / "fold_0").mkdir(parents=True)
    dataset = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "plans.json").write_text(json.dumps(plans(hu.shape)))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": TRAINER,
        "init_args": {"configuration": "3d_fullres", "fold": 0},
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
