"""The recipe of a synthetic volume: everything that is needed to make it again, as JSON inside every output.

The masks themselves are part of it, packed as the network saw them (on the model's grid), so a recipe runs again
without any other file. It holds no paths and no names of files or persons.
"""

from __future__ import annotations

import base64
import json
import math
import platform
import zlib
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np

from .conditions import Conditions
from .errors import InputError
from .volumes import Grid

SCHEMA = 1
_LIBRARIES = ("torch", "monai", "numpy", "scipy", "safetensors")


@dataclass(frozen=True)
class Recipe:
    """How one volume was made; see the module's text for `conditions`.

    conditions      name -> {"sha256", "packed"}: mask bits [i, j, k], zlib, base64
    attributes      image-level choices, e.g. {"contrast_phase": "arterial"}
    seed            0 .. 2**63 - 1; sampler and steps of the chain
    control_scale   factor on the control residuals, 0 (unconditional) .. 2; guidance is 1 (none)
    grid            shape and affine (ijk -> RAS mm) of the volume
    precision       of the networks: "float32", "bfloat16" or "float16"; latents are always float32
    settings_sha256 of the model's settings (`ModelDescription.settings_sha256`), empty in recipes that lack it
    """

    model: str
    model_version: str
    weights_sha256: dict[str, str]
    conditions: dict[str, dict[str, str]]
    attributes: dict[str, str]
    seed: int
    sampler: str
    steps: int
    control_scale: float
    guidance: float
    grid: dict
    precision: str
    tiling: dict | None = None
    device: str = "cpu"
    versions: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA
    settings_sha256: str = ""

    def validate(self) -> list[str]:
        """Reasons, in words, why this recipe cannot run; empty when it can (the model is checked when it is loaded)."""
        from .sampling.noise import SEED_LIMIT
        from .sampling.registry import SAMPLERS

        if reasons := self._wrong_types():
            return reasons
        if self.schema != SCHEMA:
            reasons.append(f"The recipe has schema {self.schema}; this program reads {SCHEMA}.")
        if not 0 <= self.seed < SEED_LIMIT:
            reasons.append(f"The seed {self.seed} is no whole number from 0 to 2**63 - 1.")
        if self.sampler not in SAMPLERS:
            reasons.append(f"Unknown sampler '{self.sampler}'; known are {', '.join(SAMPLERS)}.")
        if self.steps < 1:
            reasons.append(f"The number of steps is {self.steps}; at least 1 is needed.")
        if not (math.isfinite(self.control_scale) and 0 <= self.control_scale <= 2):
            reasons.append(f"The control scale is {self.control_scale}; it must lie between 0 and 2.")
        if self.guidance != 1:
            reasons.append(f"The guidance is {self.guidance}; this version runs only 1 (none).")
        if self.precision not in ("float32", "bfloat16", "float16"):
            reasons.append(f"The precision '{self.precision}' is unknown; use float32, bfloat16 or float16.")
        try:
            Grid.from_dict(self.grid).validate("The recipe's grid")
        except InputError as error:
            reasons.append(str(error))
        except (KeyError, TypeError, ValueError) as error:
            reasons.append(
                f"The recipe's grid has no shape and affine that can be read ({type(error).__name__})."
            )
        return reasons

    def _wrong_types(self) -> list[str]:
        """Entries that are not of their JSON type, as a recipe edited by hand may have."""
        kinds: dict[type | tuple[type, ...], tuple[str, ...]] = {
            str: ("model", "model_version", "sampler", "precision", "device", "settings_sha256"),
            int: ("seed", "steps", "schema"),
            (int, float): ("control_scale", "guidance"),
            dict: ("weights_sha256", "conditions", "attributes", "grid", "versions"),
        }
        reasons = []
        for kind, names in kinds.items():
            for name in names:
                value = getattr(self, name)
                if not isinstance(value, kind) or isinstance(value, bool):
                    reasons.append(f"The recipe's {name} is {value!r:.60}, which has the wrong type.")
        if not reasons:
            for name, entry in self.conditions.items():
                if not isinstance(entry, dict) or {type(entry.get(k)) for k in ("sha256", "packed")} != {str}:
                    reasons.append(f"The recipe's mask '{name}' lacks its sha256 or its packed voxels.")
        return reasons

    def require_valid(self) -> None:
        """Raise `InputError` with the first reason of `validate`."""
        reasons = self.validate()
        if reasons:
            raise InputError(reasons[0])

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    def to_dict(self) -> dict:
        """The JSON object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> Recipe:
        """Read what `to_dict` made; raises `InputError` naming missing or unknown entries."""
        if not isinstance(data, dict):
            raise InputError(
                f"A recipe is a JSON object, not a {type(data).__name__}; give the file of a synthetic volume."
            )
        known = set(cls.__dataclass_fields__)
        required = known - {"tiling", "device", "versions", "schema", "settings_sha256"}
        missing, unknown = sorted(required - set(data)), sorted(set(data) - known)
        if missing or unknown:
            raise InputError(
                f"The recipe lacks {missing or 'nothing'} and has unknown entries {unknown or 'none'}."
            )
        return cls(**data)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read one recipe from JSON text."""
        try:
            return cls.from_dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise InputError(f"The recipe is no valid JSON ({error}).") from error

    def unpack_conditions(self) -> Conditions:
        """The masks as the network saw them; raises `InputError` when they do not have the recorded hash."""
        grid = Grid.from_dict(self.grid)
        masks = {}
        for name, entry in self.conditions.items():
            masks[name] = _unpack(entry["packed"], grid.shape, name)
        conditions = Conditions(grid, masks)
        for name, found in conditions.hashes().items():
            if found != self.conditions[name]["sha256"]:
                raise InputError(
                    f"The mask '{name}' in the recipe does not have its recorded SHA-256; it was changed."
                )
        return conditions


def pack_conditions(conditions: Conditions) -> dict[str, dict[str, str]]:
    """Masks and their hashes in the form that a recipe holds; empty masks are left out."""
    hashes = conditions.hashes()
    return {
        name: {"sha256": hashes[name], "packed": _pack(mask)}
        for name, mask in conditions.masks.items()
        if mask.any()
    }


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that the numbers depend on."""
    from . import __version__

    found = {"medlord": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def load_recipe(path: str | Path) -> Recipe:
    """The recipe of a JSON file or inside a synthetic volume (NIfTI, NRRD); raises `InputError` when there is none."""
    from .volume_files import load_volume

    path = Path(path)
    if path.suffix.lower() == ".json":
        if not path.is_file():
            raise InputError(f"There is no recipe {path.name} in {path.parent}; check the path.")
        try:
            return Recipe.from_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"The recipe {path.name} cannot be read ({error}); give the .json file of a recipe."
            ) from error
    recipe = load_volume(path).recipe
    if recipe is None:
        raise InputError(
            f"{path.name} carries no recipe: it is no synthetic volume of this program, or another program wrote it "
            "anew; give a synthetic volume or the recipe's .json file."
        )
    return Recipe.from_dict(recipe)


def _pack(mask: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.packbits(mask).tobytes(), 9)).decode("ascii")


def _unpack(text: str, shape: tuple[int, int, int], name: str) -> np.ndarray:
    count = math.prod(shape)
    try:
        # A limit on the inflated size: a recipe from outside must not fill the memory.
        bits = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), count // 8 + 2)
        if len(bits) != (count + 7) // 8:
            raise ValueError(f"{len(bits)} bytes for {count} voxels")
        return np.unpackbits(np.frombuffer(bits, np.uint8), count=count).reshape(shape).astype(bool)
    except (ValueError, zlib.error) as error:
        raise InputError(f"The mask '{name}' in the recipe is damaged ({error}).") from error
