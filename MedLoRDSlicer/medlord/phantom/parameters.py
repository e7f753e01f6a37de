"""What distinguishes one phantom from another: all drawn from a seed, all in physical units.

Body sizes follow adult European means and spreads (height 176 +- 7 cm in men, 163 +- 6.5 cm in women). Every group
of parameters has its own random stream, so overriding one field leaves the others as they were.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace

import numpy as np

from ..errors import InputError
from . import tissues


@dataclass(frozen=True)
class Nodule:
    """A solid lung nodule: centre in RAS mm, diameter in mm, density in HU, `lobulation` 0 (sphere) to 0.25."""

    center_ras_mm: tuple[float, float, float]
    diameter_mm: float
    hu: float
    lobulation: float


@dataclass(frozen=True)
class GroundGlass:
    """A ground-glass patch: centre in RAS mm, three radii in mm, HU added to the lung that stays visible through it."""

    center_ras_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    added_hu: float


@dataclass(frozen=True)
class PleuralEffusion:
    """Free fluid in the dependent (posterior) pleural space of one `side` ("left" or "right"), in ml."""

    side: str
    volume_ml: float


@dataclass(frozen=True)
class PhantomParameters:
    """One phantom. Lengths in mm, angles in degrees, CT numbers in HU unless a field says otherwise.

    Factors without a unit multiply the anatomy of a man of 176 cm (1.0 = that man). Positive x is the patient's
    right-to-left axis of RAS: +x right, +y anterior, +z superior.
    """

    seed: int  # integer >= 0 that everything was drawn from
    sex: str  # "female" or "male"
    height_cm: float  # body height, cm
    chest_width: float  # factor on left-right size
    chest_depth: float  # factor on antero-posterior size
    chest_length: float  # factor on cranio-caudal size
    fat_mm: float  # mean thickness of subcutaneous fat, mm
    muscle: float  # factor on the thickness of the chest wall muscles
    breast_mm: float  # projection of the breasts, mm (0 in men)
    breast_gland_fraction: float  # glandular part of the breast radius, 0 to 1
    breathing: float  # 0 (end of a quiet expiration) to 1 (full inspiration)
    dome_raise_right_mm: float  # right hemidiaphragm above its usual place, mm
    dome_raise_left_mm: float  # the same on the left
    narrow_right: float  # factor on the width of the right half of the chest
    narrow_left: float  # factor on the width of the left half
    heart_scale: float  # factor on the lengths of the heart
    heart_rotation_deg: tuple[float, float, float]  # about the x, y and z axis through its centre
    heart_shift_mm: tuple[float, float, float]  # of the heart in the chest
    wall_thickness: float  # factor on the left-ventricular wall
    chamber_scale: tuple[float, float, float, float]  # factors on LA, RA, LV, RV
    aorta_diameter_mm: float  # ascending aorta, inner diameter
    pulmonary_trunk_diameter_mm: float  # inner diameter
    kyphosis: float  # factor on the thoracic curve of the spine
    scoliosis_mm: float  # lateral amplitude of an S-curve of the spine (0: straight)
    scoliosis_phase_deg: float  # where along the spine that curve begins
    position_mm: tuple[float, float, float]  # of the origin of the anatomy (T7, midline) in RAS
    rotation_deg: tuple[float, float, float]  # of the patient about the x, y and z axis
    warp_waves: tuple[
        tuple[float, ...], ...
    ]  # per wave: wave vector (3, rad/mm), amplitudes (3, mm), phases (3, rad)
    contrast_phase: str  # "native", "arterial" or "venous"
    blood_left_hu: float  # left heart and aorta
    blood_right_hu: float  # right heart and pulmonary arteries
    blood_caval_hu: float  # superior vena cava and the veins that form it
    blood_lower_caval_hu: float  # inferior vena cava and hepatic veins
    myocardium_hu: float
    liver_hu: float
    spleen_hu: float
    muscle_hu: float
    fat_hu: float
    marrow_hu: float  # spongiosa of vertebrae; ribs and sternum 40 HU less
    lung_hu: float  # lung parenchyma at mid chest, without visible vessels
    lung_gradient_hu: float  # parenchyma, posterior minus anterior, over 200 mm
    stomach_gas: float  # part of the stomach's height filled with gas, 0 to 0.8
    kernel: str  # "soft" or "lung"
    dose: float  # tube output relative to a standard chest CT (noise goes with its inverse root)
    table: bool  # whether the patient table is in the picture
    nodules: tuple[Nodule, ...]
    ground_glass: GroundGlass | None
    pleural_effusion: PleuralEffusion | None
    pericardial_effusion_mm: float  # thickness of fluid around the heart, 0 when there is none

    def to_dict(self) -> dict:
        """A dictionary of plain Python values that json can write."""
        return asdict(self)

    def validate(self) -> None:
        """Raise `InputError` naming the first field that is not of its kind or outside its range."""
        for field in fields(self):
            _check_field(field.name, getattr(self, field.name))
        for nodule in self.nodules:
            _check_range("nodule diameter_mm", nodule.diameter_mm, 2.0, 80.0)
        if self.pleural_effusion is not None:
            if self.pleural_effusion.side not in ("left", "right"):
                raise InputError(
                    f"The side of the pleural effusion is {self.pleural_effusion.side!r}; choose left or "
                    "right."
                )
            _check_range("pleural effusion volume_ml", self.pleural_effusion.volume_ml, 1.0, 1500.0)


_CHOICES = {"sex": ("female", "male"), "contrast_phase": tissues.PHASES, "kernel": ("soft", "lung")}
_RANGES = {
    "height_cm": (130.0, 215.0),
    "chest_width": (0.6, 1.4),
    "chest_depth": (0.6, 1.4),
    "chest_length": (0.6, 1.4),
    "fat_mm": (2.0, 60.0),
    "muscle": (0.5, 1.6),
    "breast_mm": (0.0, 70.0),
    "breathing": (0.0, 1.0),
    "dome_raise_right_mm": (-20.0, 60.0),
    "dome_raise_left_mm": (-20.0, 60.0),
    "narrow_right": (0.7, 1.1),
    "narrow_left": (0.7, 1.1),
    "heart_scale": (0.7, 1.4),
    "aorta_diameter_mm": (18.0, 60.0),
    "pulmonary_trunk_diameter_mm": (15.0, 50.0),
    "scoliosis_mm": (0.0, 40.0),
    "lung_hu": (-970.0, -400.0),
    "dose": (0.05, 20.0),
    "pericardial_effusion_mm": (0.0, 30.0),
    "stomach_gas": (0.0, 0.8),
}


_TRIPLES = ("position_mm", "rotation_deg", "heart_rotation_deg", "heart_shift_mm")


def _check_field(name: str, value) -> None:
    """Raise `InputError` unless the value of one field is of its kind and in its range."""
    if name in _CHOICES and value not in _CHOICES[name]:
        raise InputError(f"Phantom parameter {name} is {value!r}; choose one of {', '.join(_CHOICES[name])}.")
    if name in _RANGES or PhantomParameters.__annotations__[name] == "float":
        _check_range(name, value, *_RANGES.get(name, (-3100.0, 3100.0)))
    if name == "table" and not isinstance(value, bool):
        raise InputError(f"Phantom parameter table is {value!r}; it must be true or false.")
    if name in _TRIPLES and (
        np.shape(value) != (3,) or not np.isfinite(np.asarray(value, dtype=float)).all()
    ):
        raise InputError(f"Phantom parameter {name} is {value!r}; give 3 finite numbers.")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not low <= value <= high:
        raise InputError(
            f"Phantom parameter {name} is {value!r}; it must be a number from {low:g} to {high:g}."
        )


def _stream(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, 7001, number])


def _clipped(rng, mean, deviation, low, high) -> float:
    return float(np.clip(rng.normal(mean, deviation), low, high))


def sample_parameters(seed: int, **overrides) -> PhantomParameters:
    """Draw one phantom.

    seed: integer from 0 to 2**63 - 1. overrides: fields of `PhantomParameters`; `nodules` also takes a number of
    nodules to draw, `ground_glass` and `pleural_effusion` also take True to draw one or False for none. Values that
    depend on an overridden field (sizes on sex, CT numbers on contrast_phase) follow it.
    Raises `InputError` for a bad seed, an unknown field or a value out of range.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
        raise InputError(f"The phantom seed is {seed!r}; it must be an integer from 0 to 2**63 - 1.")
    seed = int(seed)
    known = {field.name for field in fields(PhantomParameters)} - {"seed"}
    for name in overrides:
        if name not in known:
            raise InputError(
                f"Phantom parameter {name!r} is unknown; the parameters are {', '.join(sorted(known))}."
            )
    values: dict = {"seed": seed}
    for group in (
        _sample_identity,
        _sample_body,
        _sample_lungs,
        _sample_heart,
        _sample_pose,
        _sample_hu,
        _sample_scan,
    ):
        for name, value in group(seed, values).items():
            values[name] = overrides.get(name, value)
            # At once, because what is drawn next depends on it.
            _check_field(name, values[name])
    plain = PhantomParameters(
        **values, nodules=(), ground_glass=None, pleural_effusion=None, pericardial_effusion_mm=0.0
    )
    plain.validate()
    from .findings import sample_findings

    complete = replace(plain, **sample_findings(plain, _stream(seed, 9), overrides))
    complete.validate()
    return complete


def _sample_identity(seed, values) -> dict:
    rng = _stream(seed, 1)
    sex = "female" if rng.random() < 0.48 else "male"
    return {"sex": sex, "contrast_phase": str(rng.choice(tissues.PHASES, p=[0.35, 0.4, 0.25]))}


def _sample_body(seed, values) -> dict:
    rng = _stream(seed, 2)
    female = values["sex"] == "female"
    height = _clipped(rng, 163.0 if female else 176.0, 6.5, 148.0, 195.0)
    size = height / 176.0
    fat = float(np.exp(rng.normal(math.log(10.0 if female else 8.0), 0.45)))
    return {
        "height_cm": height,
        "chest_width": size * _clipped(rng, 0.99 if female else 1.0, 0.045, 0.89, 1.1),
        "chest_depth": size * _clipped(rng, 0.97 if female else 1.0, 0.06, 0.86, 1.15),
        "chest_length": size * _clipped(rng, 1.0, 0.04, 0.9, 1.1),
        "fat_mm": float(np.clip(fat, 3.5, 24.0)),
        "muscle": _clipped(rng, 0.88 if female else 1.0, 0.12, 0.65, 1.3),
        "breast_mm": _clipped(rng, 24.0, 9.0, 8.0, 45.0) if female else 0.0,
        "breast_gland_fraction": float(rng.uniform(0.35, 0.8)),
    }


def _sample_lungs(seed, values) -> dict:
    rng = _stream(seed, 3)
    breathing = float(np.clip(rng.beta(4.2, 1.35), 0.05, 1.0))
    raise_right, raise_left = rng.normal(0.0, 5.0, 2)
    narrow = [1.0, 1.0]
    if rng.random() < 0.18:
        side = int(rng.integers(2))
        narrow[side] = float(rng.uniform(0.84, 0.95))
        raised = float(rng.uniform(8.0, 32.0))
        raise_right, raise_left = (
            (raise_right + raised, raise_left) if side == 0 else (raise_right, raise_left + raised)
        )
    return {
        "breathing": breathing,
        "dome_raise_right_mm": float(np.clip(raise_right, -12, 45)),
        "dome_raise_left_mm": float(np.clip(raise_left, -12, 45)),
        "narrow_right": narrow[0] * _clipped(rng, 1.0, 0.015, 0.96, 1.04),
        "narrow_left": narrow[1] * _clipped(rng, 1.0, 0.015, 0.96, 1.04),
        "lung_hu": -868.0 + 75.0 * (1 - breathing) + _clipped(rng, 0.0, 14.0, -30, 35),
        "lung_gradient_hu": float(rng.uniform(25.0, 70.0)) * (1.6 - 0.6 * breathing),
    }


def _sample_heart(seed, values) -> dict:
    rng = _stream(seed, 4)
    return {
        "heart_scale": _clipped(rng, 1.04 if values["sex"] == "female" else 1.01, 0.055, 0.88, 1.2),
        "heart_rotation_deg": tuple(float(v) for v in np.clip(rng.normal(0, (5, 7, 7)), -14, 14)),
        "heart_shift_mm": tuple(float(v) for v in np.clip(rng.normal(0, (4, 2, 2)), -8, 8)),
        "wall_thickness": _clipped(rng, 1.0, 0.12, 0.75, 1.35),
        "chamber_scale": tuple(float(v) for v in np.clip(rng.normal(1.0, 0.05, 4), 0.88, 1.14)),
        "aorta_diameter_mm": _clipped(rng, 29.5 if values["sex"] == "female" else 32.0, 2.8, 24.0, 41.0),
        "pulmonary_trunk_diameter_mm": _clipped(rng, 25.5, 2.3, 20.0, 32.0),
    }


def _sample_pose(seed, values) -> dict:
    rng = _stream(seed, 5)
    waves = []
    for _ in range(3):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        wave_vector = direction * 2 * math.pi / rng.uniform(170.0, 400.0)
        waves.append((*wave_vector, *rng.uniform(-2.6, 2.6, 3), *rng.uniform(0, 2 * math.pi, 3)))
    scoliosis = float(rng.gamma(2.0, 4.0)) if rng.random() < 0.25 else float(rng.uniform(0.0, 3.0))
    return {
        "kyphosis": _clipped(rng, 1.0, 0.2, 0.5, 1.6),
        "scoliosis_mm": min(scoliosis, 18.0),
        "scoliosis_phase_deg": float(rng.uniform(0.0, 360.0)),
        "position_mm": tuple(float(v) for v in rng.uniform(-1, 1, 3) * (12.0, 10.0, 15.0)),
        "rotation_deg": tuple(float(v) for v in np.clip(rng.normal(0, (2.0, 1.5, 3.0)), -7, 7)),
        "warp_waves": tuple(tuple(float(v) for v in wave) for wave in waves),
    }


def _sample_hu(seed, values) -> dict:
    rng = _stream(seed, 6)
    phase = values["contrast_phase"]
    z = np.clip(rng.normal(size=8), -2.2, 2.2)
    pick = lambda table, n: float(table[phase][0] + table[phase][1] * z[n])  # noqa: E731
    blood = pick(tissues.BLOOD_LEFT, 0)
    native = phase == "native"
    return {
        "blood_left_hu": blood,
        "blood_right_hu": blood if native else pick(tissues.BLOOD_RIGHT, 1),
        "blood_caval_hu": blood if native else pick(tissues.BLOOD_CAVAL, 2),
        "blood_lower_caval_hu": blood if native else tissues.BLOOD_LOWER_CAVAL[phase],
        "myocardium_hu": pick(tissues.MYOCARDIUM, 3),
        "liver_hu": pick(tissues.LIVER, 4),
        "spleen_hu": pick(tissues.SPLEEN, 5),
        "muscle_hu": tissues.MUSCLE + 4.0 * float(z[6]) + (0.0 if native else 8.0),
        "fat_hu": tissues.FAT + 4.0 * float(z[7]),
        "marrow_hu": float(np.clip(rng.normal(215.0, 35.0), 140.0, 300.0)),
        "stomach_gas": float(rng.uniform(0.1, 0.6)),
    }


def _sample_scan(seed, values) -> dict:
    rng = _stream(seed, 8)
    return {
        "kernel": "lung" if rng.random() < 0.35 else "soft",
        "dose": float(np.exp(np.clip(rng.normal(0.0, 0.35), -0.8, 0.8))),
        "table": bool(rng.random() < 0.85),
    }
