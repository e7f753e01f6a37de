"""Published CT numbers of tissues in HU, at about 120 kV, by contrast phase.

A range says where the median of a structure lies in nearly all adults, so it is wide: fatty liver, anaemia, little or
much contrast medium, expiration and osteoporosis are in it. Narrower expectations come from a reference distribution.

The publications are in `SOURCES`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class TissueRange:
    """The median of a `tissue` lies between `low_hu` and `high_hu`; `spread_hu` is the most that it spreads.

    The spread (interquartile range / 1.349) holds true variation and noise; None where it says nothing, as in bone.
    `source` names the publications, as in `SOURCES`.
    """

    tissue: str
    low_hu: float
    high_hu: float
    spread_hu: float | None
    source: str


SOURCES = {
    "ICRU": "ICRU Reports 44 (1989) and 46 (1992), composition of tissues",
    "Schneider": "Schneider, Pedroni and Lomax, Phys Med Biol 41 (1996) 111-124; Schneider, Bortfeld and Schlegel, "
    "Phys Med Biol 45 (2000) 459-478, CT numbers of these tissues",
    "Kauczor": "Kauczor et al., AJR 171 (1998) 1091-1095, lung in inspiration and expiration",
    "Pickhardt": "Pickhardt et al., Ann Intern Med 158 (2013) 588-595, vertebral spongiosa",
    "Abbara": "Abbara et al., J Cardiovasc Comput Tomogr 10 (2016) 435-449, coronary CT angiography",
    "Bae": "Bae, Radiology 256 (2010) 32-61, enhancement of blood, liver, spleen, kidney and myocardium",
    "Prokop": "Prokop and Galanski, Spiral and Multislice Computed Tomography of the Body, Thieme (2003), organs",
}
"""Short name -> publication."""

_HOMOGENEOUS_SPREAD_HU = 70.0
_ANY = None

# tissue -> phase (None: unknown or without influence) -> (low, high); then the largest spread and the source.
_TISSUES = {
    "lung": ({_ANY: (-930.0, -600.0)}, 250.0, "Kauczor, Schneider"),
    "airway": ({_ANY: (-1024.0, -850.0)}, 150.0, "Schneider"),
    "bone": ({_ANY: (80.0, 800.0)}, None, "Schneider, Pickhardt"),
    "arterial blood": (
        {_ANY: (20.0, 650.0), "native": (20.0, 75.0), "arterial": (180.0, 650.0), "venous": (90.0, 250.0)},
        _HOMOGENEOUS_SPREAD_HU,
        "ICRU, Abbara, Bae",
    ),
    "right heart blood": (
        {_ANY: (20.0, 650.0), "native": (20.0, 75.0), "arterial": (60.0, 650.0), "venous": (90.0, 250.0)},
        100.0,
        "ICRU, Abbara, Bae",
    ),
    "superior caval blood": (
        {_ANY: (20.0, 1200.0), "native": (20.0, 75.0), "arterial": (60.0, 1200.0), "venous": (90.0, 300.0)},
        250.0,
        "ICRU, Abbara, Bae",
    ),
    "venous blood": (
        {_ANY: (15.0, 400.0), "native": (15.0, 75.0), "arterial": (15.0, 350.0), "venous": (80.0, 250.0)},
        100.0,
        "ICRU, Bae",
    ),
    "myocardium": (
        {_ANY: (20.0, 200.0), "native": (20.0, 75.0), "arterial": (50.0, 200.0), "venous": (50.0, 160.0)},
        _HOMOGENEOUS_SPREAD_HU,
        "ICRU, Abbara, Bae",
    ),
    "liver": (
        {_ANY: (0.0, 170.0), "native": (0.0, 80.0), "arterial": (20.0, 120.0), "venous": (40.0, 170.0)},
        _HOMOGENEOUS_SPREAD_HU,
        "ICRU, Bae, Prokop",
    ),
    "spleen": (
        {_ANY: (25.0, 220.0), "native": (25.0, 75.0), "arterial": (50.0, 220.0), "venous": (80.0, 180.0)},
        _HOMOGENEOUS_SPREAD_HU,
        "ICRU, Bae, Prokop",
    ),
    "kidney": (
        {_ANY: (10.0, 300.0), "native": (10.0, 60.0), "arterial": (60.0, 300.0), "venous": (100.0, 300.0)},
        100.0,
        "Bae, Prokop",
    ),
    "pancreas": (
        {_ANY: (-20.0, 180.0), "native": (-20.0, 70.0), "arterial": (30.0, 180.0), "venous": (30.0, 160.0)},
        _HOMOGENEOUS_SPREAD_HU,
        "Bae, Prokop",
    ),
    "muscle": ({_ANY: (-10.0, 110.0)}, _HOMOGENEOUS_SPREAD_HU, "ICRU, Schneider"),
    "fat": ({_ANY: (-140.0, -60.0)}, 60.0, "ICRU, Schneider"),
    "nodule": ({_ANY: (-750.0, 300.0)}, None, "Prokop"),
    "fluid": ({_ANY: (-20.0, 60.0)}, _HOMOGENEOUS_SPREAD_HU, "Prokop"),
}

# Names of TotalSegmentator and of the vocabulary; the first pattern that matches the whole name counts.
_STRUCTURES = (
    (r"lung(_(left|right|(upper|middle|lower)_lobe_(left|right)))?", "lung"),
    (r"airways|trachea|lung_trachea_bronchia", "airway"),
    (r"bone|(rib|vertebrae|scapula|clavicula|humerus|femur|hip)_.*|sacrum|sternum|skull", "bone"),
    (r"heart_(atrium|ventricle)_left|aorta|pulmonary_vein|brachiocephalic_trunk", "arterial blood"),
    (r"(common_carotid|subclavian)_artery_(left|right)|iliac_artery_(left|right)", "arterial blood"),
    (r"heart_(atrium|ventricle)_right|pulmonary_artery|blood_pool", "right heart blood"),
    (r"superior_vena_cava|brachiocephalic_vein_(left|right)", "superior caval blood"),
    (r"inferior_vena_cava|portal_vein_and_splenic_vein|iliac_vena_(left|right)", "venous blood"),
    (r"heart_myocardium", "myocardium"),
    (r"liver", "liver"),
    (r"spleen", "spleen"),
    (r"kidney_(left|right)", "kidney"),
    (r"pancreas", "pancreas"),
    (r"autochthon_.*|iliopsoas_.*|gluteus_.*|skeletal_muscle", "muscle"),
    (r"subcutaneous_fat|torso_fat", "fat"),
    (r"lung_nodules", "nodule"),
    (r"pleural_effusion|pericardial_effusion", "fluid"),
)


def tissue_range(structure: str, contrast_phase: str | None = None) -> TissueRange | None:
    """The published range for a structure in a phase ("native", "arterial", "venous", None: unknown).

    None for structures without one, such as the whole body.
    """
    for pattern, tissue in _STRUCTURES:
        if re.fullmatch(pattern, structure):
            ranges, spread, source = _TISSUES[tissue]
            low, high = ranges.get(contrast_phase, ranges[_ANY])
            # "superior caval blood" is blood to the reader; only its range is its own.
            return TissueRange(tissue.split()[-1], low, high, spread, source)
    return None
