"""`medlord models import`, and synthesis with what was imported: command line and worker, with masks and without."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from support.engine_clients import one_thread_environment
from support.medlord_files import OPTIONS, SHAPE, write_medlord_files

from medlord.bundles.bundle import list_models, user_model_folder
from medlord.bundles.medlord_networks import import_autoencoder, import_control, import_denoiser
from medlord.cli import main
from medlord.client import EngineClient
from medlord.conditions import Conditions
from medlord.errors import InputError
from medlord.recipe import load_recipe
from medlord.sampling import NoiseSchedule, denoise, make_sampler
from medlord.volume_files import load_volume, save_volume
from medlord.volumes import Grid, Volume

GRID = Grid.centered(SHAPE, OPTIONS.spacing_mm, (10.0, 20.0, 30.0), "LPS")
STEPS = 5
# In float32: below it, rounding moves latents across the borders of codes.
CHAIN = f"--sampler ddim --steps {STEPS} --precision float32 --device cpu".split()
GIVEN = {
    "--window": "-1000 1000", "--shape": "16 16 8", "--spacing": "20 20 30", "--orientation": "LPS",
    "--diffusion-weights": "model",
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints and configurations as MedLoRD's trainers write them."""
    return write_medlord_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def models(tmp_path_factory, files):
    """Folders of two imported bundles, with control and without."""
    folder = tmp_path_factory.mktemp("models")
    bare = dataclasses.replace(files, controlnet=None, controlnet_config=None)
    for name, given in (("steered", files), ("free", bare)):
        words = import_words(given, "--id", name, "--out", folder / name, "--licence", "CC0-1.0", "-q")
        assert main(words) == 0
    return folder


def import_words(files, *more, without: str = "", family: str = "MedLoRD") -> list[str]:
    """The command for these files; the option `without` is left away."""
    words = ["models", "import", "--family", family]
    for name, path in vars(files).items():
        words += [f"--{name.replace('_', '-')}", str(path)] if path else []
    for option, values in GIVEN.items():
        words += [option, *values.split()] if option != without else []
    return words + [str(word) for word in more]


def masks() -> dict[str, np.ndarray]:
    """Boxes on the model's own grid, so that nothing is resampled."""
    found = {name: np.zeros(SHAPE, bool) for name in ("lung", "heart")}
    found["lung"][2:14, 3:9, 1:7] = True
    found["heart"][6:11, 9:13, 2:6] = True
    return found


def expected_hu(files, seed: int, steered: bool) -> np.ndarray:
    """The same chain from the networks themselves, without bundle, recipe and grid."""
    autoencoder = import_autoencoder(files.stage1, files.stage1_config).network
    unet = import_denoiser(files.diffusion, files.diffusion_config, "model")
    control = import_control(files.controlnet, files.controlnet_config, unet.description["config"]).network
    sampler = make_sampler("ddim", NoiseSchedule(30), STEPS, "v_prediction")
    channels = torch.from_numpy(np.stack(list(masks().values())).astype(np.float32))[None]
    with torch.no_grad():
        embedded = control.embed_condition(channels)

        def predict(x, t):
            return unet.network(x, t, *control(x, t, embedded, 1.0)) if steered else unet.network(x, t)

        latent = denoise(predict, sampler, (1, 3, 4, 4, 2), seed)
        image = autoencoder.decode_latent(latent / 1.5)[0, 0].clamp(-1, 1).numpy()
    return np.rint(image * 1000)


def test_import_says_what_it_made(capsys, files, tmp_path):
    licence = tmp_path / "licence.txt"
    licence.write_text("Do as you like.\n")
    out = tmp_path / "bundle"
    code = main(
        import_words(files, "--id", "mine", "--out", out, "--licence", "WTFPL", "--licence-file", licence)
    )
    said = capsys.readouterr()
    assert code == 0 and said.out == f"{out}\n" and "HU of this model are relative" in said.err
    assert (out / "LICENSE").read_text() == "Do as you like.\n"
    assert main(["models", "verify", str(out)]) == 0 and "3 files are whole" in capsys.readouterr().out
    assert main(["models", "info", str(out)]) == 0
    told = capsys.readouterr().out
    for words in ("WTFPL", "lung, heart", "16 x 16 x 8 voxels of 20 x 20 x 30 mm, LPS", "relative"):
        assert words in told
    assert "diffusion scale_factor             1.5 (configuration)" in told


def test_import_into_the_users_models_and_deletion(capsys, files, tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path / "user"))
    assert main(import_words(files, "--id", "mine", "-q", "--store", "float16")) == 0
    assert capsys.readouterr().out == f"{user_model_folder() / 'mine'}\n"
    assert main(import_words(files, "--id", "mine")) == 2
    assert "There is a model 'mine' already" in capsys.readouterr().err
    assert main(["models", "delete", "mine"]) == 0 and "mine" not in list_models()
    assert main(["models", "delete", "mine"]) == 2


FAULTS = {
    "later family": (lambda f: import_words(f, "--id", "x", family="voldit"), 2, "not yet supported"),
    "unknown family": (lambda f: import_words(f, "--id", "x", family="other"), 2, "Unknown family 'other'"),
    "files": (lambda f: ["models", "import", "--family", "medlord", "--id", "x"], 2, "--diffusion-config FILE"),
    "window": (lambda f: import_words(f, "--id", "x", without="--window"), 2, "--window LOW HIGH"),
    "weights": (
        lambda f: import_words(f, "--id", "x", without="--diffusion-weights"), 2, "--diffusion-weights model or ema"
    ),
    "a word for a number": (
        lambda f: import_words(f, "--id", "x", "--scale-factor", "one"), 2,
        "medlord: models import: argument --scale-factor",
    ),
    "id": (lambda f: import_words(f, "--id", "../x"), 2, "no id for a model"),
    "other file": (
        lambda f: import_words(dataclasses.replace(f, stage1=f.diffusion), "--id", "x"), 4, "no vector-quantised"
    ),
    "no checkpoint": (
        lambda f: import_words(dataclasses.replace(f, controlnet=f.controlnet_config), "--id", "x"), 4, "cannot be read"
    ),
    "no volume": (
        lambda f: import_words(f, "--id", "x", "--check-scale-factor", f.stage1_config), 2, "cannot be read as NIfTI"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line_and_leave_nothing(capsys, files, tmp_path, fault):
    words, expected, sentence = FAULTS[fault]
    code = main([*words(files), "--out", str(tmp_path / "deep" / "bundle")])
    lines = capsys.readouterr().err.splitlines()
    assert code == expected and lines[-1].startswith("medlord: ") and sentence in lines[-1], lines
    assert not [line for line in lines[:-1] if line.startswith("medlord: ")]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["steered", "free"])
def test_synthesis_is_the_chain_of_the_checkpoints(capsys, files, models, tmp_path, name):
    given = []
    for mask, voxels in masks().items() if name == "steered" else ():
        save_volume(Volume(voxels, GRID), tmp_path / f"{mask}.nii.gz")
        given += ["--condition", f"{mask}={tmp_path / mask}.nii.gz"]
    out = tmp_path / "ct.nii.gz"
    words = [*CHAIN, "--model", models / name, "--seed", 3, "--center", 10, 20, 30, "--out", out]
    assert main(["synthesize", *(str(word) for word in [*words, *given])]) == 0
    assert "HU are relative" in capsys.readouterr().err
    volume = load_volume(out)
    assert volume.grid.matches(GRID)
    assert np.abs(volume.array - expected_hu(files, 3, name == "steered")).max() <= 1
    assert sorted(load_recipe(out).conditions) == (["heart", "lung"] if name == "steered" else [])
    again = tmp_path / "again.nii.gz"
    words = ["--recipe", out, "--model", models / name, "--device", "cpu", "--out", again, "-q"]
    assert main(["synthesize", *(str(word) for word in words)]) == 0
    assert np.array_equal(load_volume(again).array, volume.array)


def test_a_model_with_control_without_masks_only_when_asked(capsys, files, models, tmp_path):
    out = tmp_path / "ct.nrrd"
    words = ["synthesize", *CHAIN, "--model", str(models / "steered"), "--seed", "4", "--out", str(out)]
    assert main(words) == 2
    assert "--unconditional" in capsys.readouterr().err and not out.exists()
    assert main([*words, "--unconditional"]) == 0
    assert "around the origin of world space" in capsys.readouterr().err
    assert np.abs(load_volume(out).array - expected_hu(files, 4, False)).max() <= 1
    recipe = load_recipe(out)
    assert (recipe.conditions, recipe.control_scale) == ({}, 0.0)
    save_volume(Volume(masks()["lung"], GRID), tmp_path / "lung.nii.gz")
    mask = ["--condition", f"lung={tmp_path / 'lung.nii.gz'}"]
    for model, more, sentence in (
        ("steered", [*mask, "--unconditional"], "leave one away"),
        ("steered", ["--unconditional", "--control-scale", "1"], "no effect"),
        ("free", mask, "takes no masks"),
        ("free", ["--attribute", "contrast_phase=native"], "no effect"),
    ):
        words = ["synthesize", "--model", str(models / model), "--out", str(tmp_path / "no.nii.gz")]
        assert main([*words, *more]) == 2
        assert sentence in capsys.readouterr().err and not (tmp_path / "no.nii.gz").exists()


def test_in_the_worker(files, models, tmp_path):
    options = {"sampler": "ddim", "steps": STEPS, "precision": "float32", "device": "cpu"}
    options["center_ras_mm"] = (10.0, 20.0, 30.0)
    environment = one_thread_environment()
    with EngineClient(environment=environment, temporary_folder=tmp_path, start_timeout_s=900.0) as client:
        steered = client.synthesize(Conditions(GRID, masks()), model=models / "steered", seed=3, **options)
        assert np.abs(steered.volume.array - expected_hu(files, 3, True)).max() <= 1
        with pytest.raises(InputError, match="ask for an unconditional volume"):
            client.synthesize(None, model=models / "steered", seed=3, **options)
        asked = client.synthesize(None, model=models / "steered", seed=3, unconditional=True, **options)
        free = client.synthesize(None, model=models / "free", seed=3, **options)
        assert asked.reused_model and np.array_equal(asked.volume.array, free.volume.array)
        assert np.abs(free.volume.array - expected_hu(files, 3, False)).max() <= 1
        assert free.conditions.names == [] and any("HU are relative" in text for text in free.warnings)
        again = client.repeat_recipe(free.recipe, model=models / "free", device="cpu")
        assert np.array_equal(again.volume.array, free.volume.array)


def test_metadata_is_a_monai_bundles(models):
    content = json.loads((models / "free" / "configs" / "metadata.json").read_text())
    assert content["network_data_format"]["inputs"] == {}
    assert content["network_data_format"]["outputs"]["image"]["spatial_shape"] == list(SHAPE)
