"""The structures of the phantom: label values, names of TotalSegmentator, and which masks overlap.

Structures in `NAMES` share one labelmap and are disjoint: where shapes meet, the one painted later wins, in the order
abdominal organs, lung lobes, ribs, sternum, shoulder girdle, spine, heart, oesophagus, veins and arteries, airways.
Masks in `FLAGS` lie on top of others: `body` is everything inside the skin, lungs and airways included; `lung_vessels`,
`lung_bronchi`, `lung_nodules` and `ground_glass` are parts of the lung lobes; effusions are not.
"""

from __future__ import annotations

LOBES = (
    "lung_upper_lobe_left",
    "lung_lower_lobe_left",
    "lung_upper_lobe_right",
    "lung_middle_lobe_right",
    "lung_lower_lobe_right",
)
VERTEBRAE = ("vertebrae_C7", *(f"vertebrae_T{n}" for n in range(1, 13)), "vertebrae_L1")
RIBS = tuple(f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13))
OTHER_BONES = ("sternum", "scapula_left", "scapula_right", "clavicula_left", "clavicula_right")
BONES = (*VERTEBRAE, *RIBS, *OTHER_BONES)
CHAMBERS = (
    "heart_atrium_left",
    "heart_atrium_right",
    "heart_ventricle_left",
    "heart_ventricle_right",
    "heart_myocardium",
)
VESSELS = (
    "aorta",
    "pulmonary_artery",
    "superior_vena_cava",
    "inferior_vena_cava",
    "pulmonary_vein",
    "brachiocephalic_trunk",
    "common_carotid_artery_left",
    "subclavian_artery_left",
    "brachiocephalic_vein_left",
    "brachiocephalic_vein_right",
)
ORGANS = ("liver", "spleen", "stomach", "esophagus", "trachea", "spinal_cord", "costal_cartilages")
NAMES = (*LOBES, *BONES, *CHAMBERS, *VESSELS, *ORGANS)
VALUES = {name: value for value, name in enumerate(NAMES, start=1)}

FLAGS = {
    "body": 1,
    "lung_vessels": 2,
    "lung_nodules": 4,
    "ground_glass": 8,
    "pleural_effusion": 16,
    "pericardial_effusion": 32,
    "lung_bronchi": 64,
}

# The conditions of the bundled model, in its channel order; what is not a structure of its own is a union.
AGGREGATES = {"lung": LOBES, "bone": BONES}
CONDITIONS = (
    "body",
    "lung",
    "bone",
    "heart_atrium_left",
    "heart_atrium_right",
    "heart_ventricle_left",
    "heart_ventricle_right",
    "heart_myocardium",
    "aorta",
    "pulmonary_artery",
    "superior_vena_cava",
    "lung_nodules",
)
