"""Files as MedLoRD's trainers write them, made from tiny random networks of this engine.

That the names are MedLoRD's is what the interoperability folder shows; these files serve where layouts and refusals
are tested, and where that folder is absent.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
import yaml

from medlord.bundles.medlord_options import MedlordFiles, MedlordOptions
from medlord.networks.build import build_autoencoder, build_control, build_denoiser

DENOISER = {
    "in_channels": 3,
    "out_channels": 3,
    "channels": [4, 8],
    "num_res_blocks": [1, 1],
    "attention_levels": [False, True],
    "resblock_updown": False,
    "include_fc": False,
    "output_activation": "none",
    "norm_num_groups": 4,
    "num_head_channels": [0, 4],
    "norm_eps": 1e-6,
}
DENOISER_YAML = {
    "model": {
        "params": {
            "spatial_dims": 3,
            "norm_num_groups": 4,
            "num_head_channels": [0, 4],
            "num_channels": [4, 8],
        }
    },
    "scheduler": {"schedule": "cosine", "num_train_timesteps": 30, "prediction_type": "v_prediction"},
    "training": {"scale_factor": 1.5},
}
CONTROL = {
    "condition_channels": 2,
    "embedding_channels": [2, 4],
    "embedding_strides": [2, 2],
    "norm_num_groups": 2,
    "num_head_channels": [0, 2],
    "with_transformers": True,
}
CONTROL_YAML = {
    "controlnet": {
        "condition_keys": ["lung", "heart"],
        "params": {"r": 0.5, "norm_num_groups": 2, "num_head_channels": [0, 2], "initial_stride": 2},
    }
}
AUTOENCODER = {"channels": [4, 6], "num_res_layers": 1, "strides": 2, "num_embeddings": 8, "embedding_dim": 3}
AUTOENCODER_YAML = {
    "model": {"params": {"downsample_parameters": [[2, 4, 1, 1]] * 2, "upsample_parameters": [2, 4, 1, 1, 0]}}
}


def randomised(network, seed: int = 0):
    """Every weight random, also those that start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.state_dict().values():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return network.eval()


def under_their_names(network, activation: str = "silu") -> dict[str, torch.Tensor]:
    """State dict as MedLoRD stores it, with the projections that it never applies."""
    stored = {}
    for name, weight in network.state_dict().items():
        name = re.sub(r"(attentions\.\d+|attention)\.attn\.", r"\1.", name)
        name = name.replace(".out_proj.", ".to_out.0.").replace(".postconv.", ".conv.")
        if activation == "none":
            name = name.replace("out.2.conv.", "out.1.conv.")
        stored[name] = weight.clone()
        if re.search(r"(attentions\.\d+|attention)\.to_q\.weight$", name):
            stored[name.replace("to_q", "proj_attn")] = torch.full_like(weight, 9.0)
    return stored


def saved(path, content):
    """The content as a checkpoint file."""
    torch.save(content, path)
    return path


def wrapped(tensors: dict) -> dict:
    """Names as data-parallel training stores them."""
    return {f"module.{name}": weight for name, weight in tensors.items()}


SHAPE = (16, 16, 8)
OPTIONS = MedlordOptions(
    window_hu=(-1000.0, 1000.0),
    shape=SHAPE,
    spacing_mm=(20.0, 20.0, 30.0),
    orientation="LPS",
    diffusion_weights="model",
)
"""What the files of `write_medlord_files` do not say."""


def write_medlord_files(folder: Path, *, with_control: bool = True) -> MedlordFiles:
    """Checkpoints and configurations of a whole tiny model; the U-Net's file holds raw weights and their average."""
    networks = {
        "stage1": randomised(build_autoencoder(AUTOENCODER), 1),
        "diffusion": randomised(build_denoiser(DENOISER), 2),
        "controlnet": randomised(build_control(CONTROL, DENOISER), 3),
    }
    stored = {name: under_their_names(network, "none") for name, network in networks.items()}
    average = {name: weight + 0.01 for name, weight in stored["diffusion"].items()}
    contents = {
        "stage1": {"epoch": 3, "model": stored["stage1"], "optimizer_g": {"state": {}}},
        "diffusion": {"model": stored["diffusion"], "ema": {"decay": 0.99, "shadow": average}},
        "controlnet": {"model": stored["controlnet"], "ema": None},
    }
    configs = {"stage1": AUTOENCODER_YAML, "diffusion": DENOISER_YAML, "controlnet": CONTROL_YAML}
    paths = {}
    for name in configs if with_control else ("stage1", "diffusion"):
        paths[name] = saved(folder / f"{name}.pth", contents[name])
        paths[f"{name}_config"] = folder / f"{name}.yaml"
        paths[f"{name}_config"].write_text(yaml.safe_dump(configs[name]), encoding="utf-8")
    return MedlordFiles(**paths)
