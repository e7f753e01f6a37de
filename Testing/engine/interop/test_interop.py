"""Every case of an interoperability folder: checkpoints of the published code, inputs, and the outputs it computed.

The folder (environment variable MEDLORD_INTEROP, default ../shared/interop) is read through its manifest.json alone: a
folder of the same form with other cases, shapes and seeds runs as it is. Kinds that the engine cannot run yet are
skipped by name.
"""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from support.interop import FOLDER, family_of, interop_cases


@pytest.mark.parametrize("case", interop_cases())
def test_case(case, record_property):
    """The engine's outputs are those of the published code, within the tolerance that the manifest gives."""
    if case["kind"] not in RUNNERS or family_of(case) != "medlord":
        pytest.skip(f"not yet supported: kind {case['kind']}, family {family_of(case)}")
    data = dict(np.load(FOLDER / case["io"]))
    got, expected, tolerances = RUNNERS[case["kind"]](case, data)
    assert tolerances, "the case expects nothing"
    failures = []
    for name, tolerance in tolerances.items():
        deviation, fits = _compare(_array(got[name]), expected[name], tolerance)
        record_property(name, deviation)
        if not fits:
            failures.append(f"{name}: largest deviation {deviation:.3g}, allowed {tolerance}")
    assert not failures, "\n".join(failures)


def _compare(got: np.ndarray, expected: np.ndarray, tolerance: str | dict) -> tuple[float, bool]:
    assert got.shape == expected.shape, f"shape {got.shape}, expected {expected.shape}"
    difference = np.abs(got.astype(np.float64) - expected.astype(np.float64))
    largest = float(difference.max(initial=0.0))
    if tolerance == "exact":
        return largest, bool(np.array_equal(got, expected))
    allowed = tolerance["atol"] + tolerance["rtol"] * np.abs(expected.astype(np.float64))
    return largest, bool(np.all(difference <= allowed))


def _array(values) -> np.ndarray:
    return values.detach().numpy() if hasattr(values, "detach") else np.asarray(values)


def _tensor(values: np.ndarray):
    import torch

    return torch.from_numpy(values.astype(np.float32) if values.dtype == np.float16 else values)


def _network(importer, entry: dict, *arguments, **options):
    return importer(FOLDER / entry["checkpoint"], FOLDER / entry["config"], *arguments, **options)


def run_vqvae(case: dict, data: dict) -> tuple:
    """Encoding, quantisation, decoding and discriminator of an autoencoder."""
    import torch

    from medlord.bundles import medlord_networks
    from medlord.bundles.medlord_preprocessing import to_hounsfield

    autoencoder = _network(medlord_networks.import_autoencoder, case).network
    image, probe = _tensor(data["image"]), _tensor(data["probe"])
    with torch.no_grad():
        latent = autoencoder.encode(image)
        quantized, loss, indices = autoencoder.quantize(latent)
        decoded = autoencoder.decode_latent(probe)
        got = {
            "z": latent,
            "indices": indices,
            "quantized": quantized,
            "commitment_loss": loss,
            "reconstruction": autoencoder(image)[0],
            "stage2_quantized": autoencoder.encode_to_latent(image, quantized=True),
            "stage2_unquantized": autoencoder.encode_to_latent(image),
            "probe_indices": autoencoder.codebook.indices(probe),
            "probe_decoded": decoded,
            "probe_hu": to_hounsfield(decoded.numpy())[0, 0],
        }
        if "discriminator_logits" in case["outputs"]:
            got["discriminator_logits"] = _network(medlord_networks.import_discriminator, case).network(image)
    return got, data, case["outputs"]


def run_unet(case: dict, data: dict) -> tuple:
    """Single passes with either kind of weights, and noising, target and loss of a training step."""
    import torch

    from medlord.bundles import medlord_networks
    from medlord.bundles.medlord_settings import diffusion_settings
    from medlord.sampling import NoiseSchedule
    from medlord.training.losses import smooth_l1_loss

    options = {"scale_factor": case["scale_factor"]}
    diffusion = diffusion_settings(FOLDER / case["config"], options)
    schedule = NoiseSchedule.from_dict(diffusion["schedule"])
    x, t = _tensor(data["x"]), _tensor(data["timesteps"])
    clean, noise = _tensor(data["train_latents"]) * diffusion["scale_factor"], _tensor(data["train_noise"])
    got = {
        "train_noisy": schedule.add_noise(clean, noise, t),
        "train_target": schedule.velocity(clean, noise, t),
    }
    for name, output in case["outputs"].items():
        if name in got:
            continue
        imported = _network(medlord_networks.import_denoiser, case, output["weights"])
        if "output_activation" in case:
            assert imported.description["config"]["output_activation"] == case["output_activation"]
        with torch.no_grad():
            trains = name == "train_loss"
            prediction = imported.network(got["train_noisy"] if trains else x, t)
        got[name] = smooth_l1_loss(prediction, got["train_target"]) if trains else prediction
    return got, data, case["outputs"]


def run_controlnet(case: dict, data: dict) -> tuple:
    """Condition embedding, residuals, and the U-Net with them."""
    import torch

    denoiser, control = _denoiser_and_control(case["unet"], case)
    x, t = _tensor(data["x"]), _tensor(data["timesteps"])
    with torch.no_grad():
        embedded = control.embed_condition(_tensor(data["cond"]))
        residuals, middle = control(x, t, embedded, case["conditioning_scale"])
        steered = denoiser(x, t, residuals, middle)
    got = {"cond_embedding": embedded, "mid_residual": middle, "unet_with_control": steered}
    got.update({f"down_residual_{i}": residual for i, residual in enumerate(residuals)})
    return got, data, case["outputs"]


def _denoiser_and_control(unet: dict, control: dict):
    from medlord.bundles import medlord_networks

    denoiser = _network(medlord_networks.import_denoiser, unet, unet["weights"])
    adapter = _network(
        medlord_networks.import_control, control, denoiser.description["config"], weights=control["weights"]
    )
    return denoiser.network, adapter.network


def run_conditional_sampling(case: dict, data: dict) -> tuple:
    """DDPM and DDIM chains steered by masks from a table."""
    import torch

    from medlord.bundles.medlord_preprocessing import read_condition_table

    denoiser, control = _denoiser_and_control(case["unet"], case["controlnet"])
    masks = read_condition_table(FOLDER / case["csv"], case["condition_keys"], case["roi_size"])
    condition = np.stack(masks)
    with torch.no_grad():
        embedded = control.embed_condition(_tensor(condition))

    def steered(x, t):
        return denoiser(x, t, *control(x, t, embedded, case["conditioning_scale"]))

    got = {"cond": condition}
    for name in _chains(data):
        steps = case.get(f"{name}_steps", case.get("ddim_steps"))
        got.update(_chain(case, data, name, steered, case["num_train_timesteps"], steps))
    return got, data, case["outputs"]


def run_unconditional_sampling(case: dict, data: dict) -> tuple:
    """Full DDPM and DDIM chains without condition."""
    from medlord.bundles import medlord_networks

    denoiser = _network(medlord_networks.import_denoiser, case["unet"], case["unet"]["weights"]).network
    got = {}
    for name in _chains(data):
        chain = case.get(name, case.get("ddim"))
        got.update(_chain(case, data, name, denoiser, chain["num_train_timesteps"], chain["steps"]))
    return got, data, case["outputs"]


def _chains(data: dict) -> list[str]:
    """The chains of a case: those that it gives a start for ("ddim_eta" is the one with noise in its steps)."""
    return [name.removesuffix("_x_init") for name in data if name.endswith("_x_init")]


def _chain(case: dict, data: dict, name: str, denoiser, training_steps: int, steps: int) -> dict:
    import torch

    from medlord.bundles import medlord_networks
    from medlord.bundles.medlord_preprocessing import to_hounsfield
    from medlord.bundles.medlord_settings import diffusion_settings
    from medlord.sampling import NoiseSchedule, denoise, make_sampler

    options = {"num_train_timesteps": training_steps, "scale_factor": case["scale_factor"]}
    diffusion = diffusion_settings(FOLDER / case["unet"]["config"], options)
    upstream = {
        "ddpm": {"upstream_short_chain": True},
        "ddim": {"spacing": "leading"},
        "ddim_eta": {"spacing": "leading", "eta": case.get("eta")},
    }
    schedule = NoiseSchedule.from_dict(diffusion["schedule"])
    sampler_name = name.removesuffix("_eta")
    sampler = make_sampler(sampler_name, schedule, steps, diffusion["prediction_type"], **upstream[name])
    states, predictions = [], []

    def recorded(x, t):
        states.append(x)
        predictions.append(denoiser(x, t))
        return predictions[-1]

    start, noises = data[f"{name}_x_init"], data.get(f"{name}_noise")
    final = denoise(recorded, sampler, start.shape, seed=0, initial=start, noises=noises)
    after = torch.stack([*states[1:], final])[:, 0]
    latent = final / diffusion["scale_factor"]
    autoencoder = _network(medlord_networks.import_autoencoder, case["vqvae"]).network
    with torch.no_grad():
        hu = to_hounsfield(autoencoder.decode_latent(latent).numpy())[0, 0]
    return {
        f"{name}_timesteps": sampler.timesteps,
        f"{name}_v_first": predictions[0],
        f"{name}_x_after_kept_steps": after[_tensor(data[f"{name}_kept_steps"])],
        f"{name}_latent": latent,
        f"{name}_indices": autoencoder.codebook.indices(latent),
        f"{name}_hu": hu,
    }


def run_schedules(case: dict, data: dict) -> tuple:
    """Noise tables, time steps, noising, target, and single steps of both samplers."""
    from medlord.bundles.medlord_settings import medlord_schedule
    from medlord.sampling import make_sampler

    upstream = {"ddpm": {"upstream_short_chain": True}, "ddim": {"spacing": "leading"}}
    got, tolerances, table_steps = {}, {}, []
    for name in data:
        if table := re.fullmatch(r"(.+)_T(\d+)_(betas|alphas_cumprod)", name):
            table_steps.append(int(table[2]))
            got[name] = getattr(medlord_schedule(table[1], int(table[2])), table[3])
            tolerances[name] = case["tolerance"]["tables"]
        elif chain := re.fullmatch(r"timesteps_T(\d+)_N(\d+)_(\w+)", name):
            schedule = medlord_schedule("cosine", int(chain[1]))
            got[name] = make_sampler(chain[3], schedule, int(chain[2]), **upstream[chain[3]]).timesteps
            tolerances[name] = "exact"
        else:
            known = re.fullmatch(
                r"sample|model_output|noise|q_timesteps|add_noise|velocity|step\d+_(prev|x0)", name
            )
            assert known, f"{name} would not be compared"
    sample, output, noise = (_tensor(data[key]) for key in ("sample", "model_output", "noise"))
    noising, q = medlord_schedule("cosine", table_steps[0]), _tensor(data["q_timesteps"])
    got["add_noise"], got["velocity"] = (
        noising.add_noise(sample, noise, q),
        noising.velocity(sample, noise, q),
    )
    for row in json.loads((FOLDER / case["steps"]).read_text()):
        settings = dict(upstream[row["sampler"]])
        if row["eta"] is not None:
            settings["eta"] = row["eta"]
        schedule = medlord_schedule(row.get("schedule", "cosine"), row["T"])
        sampler = make_sampler(row["sampler"], schedule, row["N"], row["prediction_type"], **settings)
        index = sampler.timesteps.tolist().index(row["t"])
        stem = f"step{row['index']}"
        got[f"{stem}_prev"], got[f"{stem}_x0"] = sampler.step(output, index, sample, noise)
    for name in got:
        tolerances.setdefault(name, case["tolerance"]["steps"])
    return got, data, tolerances


def run_preprocessing(case: dict, data: dict) -> tuple:
    """Intensity map, resampling, cropping and padding of volumes and masks, and the way back to HU."""
    from medlord.bundles import medlord_preprocessing as prepare

    stored = prepare.read_file_order(FOLDER / case["files"]["image"])
    mask = prepare.read_file_order(FOLDER / case["files"]["mask"])
    assert np.array_equal(stored, data["raw"])
    scaled = prepare.scale_by_own_range(stored)[None]
    got = {
        "scaled": scaled,
        "resized": prepare.resize_trilinear(scaled, case["resize"]),
        "crop_pad_zero": prepare.crop_or_pad(scaled, case["roi_size"], 0.0),
        "crop_pad_minus1": prepare.crop_or_pad(scaled, case["roi_size"], -1.0),
        "mask_crop_pad": prepare.crop_or_pad(mask[None], case["roi_size"], 0),
        "decoded_example_hu": prepare.to_hounsfield(data["decoded_example"])[0, 0],
    }
    return got, data, case["outputs"]


def run_training_terms(case: dict, data: dict) -> tuple:
    """Losses of the adversarial autoencoder training and one update of the codebook."""
    import torch

    from medlord.bundles import medlord_networks
    from medlord.training import losses

    autoencoder = _network(medlord_networks.import_autoencoder, case["vqvae"]).network
    discriminator = _network(medlord_networks.import_discriminator, case["vqvae"]).network
    image, reconstruction = _tensor(data["image"]), _tensor(data["reconstruction"])
    with torch.no_grad():
        fake = discriminator(reconstruction)
        got = {
            "l1": losses.l1_loss(reconstruction, image),
            "quantization": autoencoder.quantize(autoencoder.encode(image))[1],
            "generator_adversarial": losses.generator_adversarial_loss(fake),
            "jukebox": losses.spectral_loss(reconstruction, image),
            "discriminator": losses.discriminator_loss(fake, discriminator(image)),
        }
        got["generator_total"] = (
            got["l1"]
            + got["quantization"]
            + case["adv_weight"] * got["generator_adversarial"]
            + case["jukebox_weight"] * got["jukebox"]
        )
        assert case["perceptual_weight"] == 0, "the perceptual network's weights cannot be shipped"
        codebook = autoencoder.codebook.train()
        _, got["ema_commitment"], got["ema_indices"] = codebook(_tensor(data["ema_input"]))
    got["ema_w_after"], got["ema_cluster_size_after"] = codebook.ema_w, codebook.ema_cluster_size
    got["codebook_after"] = codebook.embedding.weight
    return got, data, case["outputs"]


RUNNERS = {
    "vqvae": run_vqvae,
    "unet": run_unet,
    "controlnet": run_controlnet,
    "conditional_sampling": run_conditional_sampling,
    "unconditional_sampling": run_unconditional_sampling,
    "schedules": run_schedules,
    "preprocessing": run_preprocessing,
    "vqgan_training_terms": run_training_terms,
}
