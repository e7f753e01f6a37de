"""Masks and CT show the same patient, and the patient is built like one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from medlord.phantom import labels
from medlord.phantom.rasterise import Block
from medlord.phantom.scene import Scene


def _core(mask, by=1):
    return binary_erosion(mask, np.ones((3, 3, 3), bool), iterations=by)


def _world_center(case, mask):
    ijk = np.argwhere(mask).mean(axis=0)
    return case.volume.grid.affine[:3, :3] @ ijk + case.volume.grid.affine[:3, 3]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("heart_ventricle_left", "blood_left_hu"),
        ("heart_atrium_left", "blood_left_hu"),
        ("heart_ventricle_right", "blood_right_hu"),
        ("heart_atrium_right", "blood_right_hu"),
        ("liver", "liver_hu"),
        ("spleen", "spleen_hu"),
    ],
)
def test_mean_hu_inside_a_mask_is_that_of_its_tissue(case, name, field):
    core = _core(case.labels[name])
    assert core.sum() > 15
    assert np.median(case.volume.array[core]) == pytest.approx(getattr(case.parameters, field), abs=9)


def test_aorta_is_filled_with_left_heart_blood(case):
    core = _core(case.labels["aorta"])
    assert np.median(case.volume.array[core]) == pytest.approx(case.parameters.blood_left_hu, abs=12)


def test_lung_is_air_and_bone_is_dense(case):
    p, array = case.parameters, case.volume.array
    lung = _core(case.mask("lung"), 2) & ~case.labels["ground_glass"] & ~case.labels["lung_nodules"]
    assert np.median(array[lung]) == pytest.approx(p.lung_hu, abs=60)
    assert np.median(array[case.mask("bone")]) > 200
    spine = _core(case.labels["vertebrae_T8"] | case.labels["vertebrae_T9"])
    assert np.median(array[spine]) == pytest.approx(p.marrow_hu, abs=120)
    assert np.median(array[~case.labels["body"]]) < -900


def test_posterior_lung_is_denser_than_anterior(venous_case):
    lung = _core(venous_case.mask("lung"), 2) & ~venous_case.labels["lung_vessels"]
    index = np.argwhere(lung)
    values = venous_case.volume.array[lung]
    half = np.median(index[:, 1])
    assert np.median(values[index[:, 1] < half]) > np.median(values[index[:, 1] >= half]) + 3


def test_overlapping_masks_lie_where_they_belong(case):
    lung, body = case.mask("lung"), case.labels["body"]
    for name in ("lung_vessels", "lung_bronchi", "lung_nodules", "ground_glass"):
        mask = case.labels[name]
        # Pulmonary arteries and veins of the hilum are painted over the lung and over what lies in it.
        assert (mask & lung).sum() >= 0.9 * mask.sum(), name
    for name in ("pleural_effusion", "pericardial_effusion"):
        assert not (case.labels[name] & (case.labelmap > 0)).any(), name
    assert body[case.labelmap > 0].all()


def test_every_structure_is_there(case):
    at_the_rim = {
        "vertebrae_C7",
        "vertebrae_L1",
        "vertebrae_T12",
        "rib_left_12",
        "rib_right_12",
        "rib_left_11",
        "rib_right_11",
        "clavicula_left",
        "clavicula_right",
        "subclavian_artery_left",
        "common_carotid_artery_left",
        "brachiocephalic_vein_left",
        "brachiocephalic_vein_right",
    }
    missing = {name for name in labels.NAMES if not case.labels[name].any()} - at_the_rim
    assert not missing


def test_organs_lie_where_a_radiologist_looks_for_them(case):
    at = {
        name: _world_center(case, case.labels[name])
        for name in (
            "heart_ventricle_left",
            "heart_atrium_right",
            "heart_atrium_left",
            "heart_ventricle_right",
            "liver",
            "spleen",
            "aorta",
            "trachea",
            "sternum",
            "vertebrae_T7",
            "stomach",
            "pulmonary_artery",
        )
    }
    lung = {side: _world_center(case, case.labels[f"lung_upper_lobe_{side}"]) for side in ("left", "right")}
    lower = {side: _world_center(case, case.labels[f"lung_lower_lobe_{side}"]) for side in ("left", "right")}
    assert lung["left"][0] < at["heart_ventricle_left"][0] < at["heart_atrium_right"][0] < lung["right"][0]
    assert at["heart_ventricle_right"][1] > at["heart_atrium_left"][1]
    assert at["vertebrae_T7"][1] < at["heart_atrium_left"][1] < at["sternum"][1]
    assert at["liver"][0] > at["stomach"][0] > at["spleen"][0]
    assert at["liver"][2] < lower["right"][2] < lung["right"][2]
    assert lower["left"][1] < lung["left"][1]
    assert at["trachea"][2] > at["pulmonary_artery"][2] > at["heart_ventricle_left"][2]


def test_table_lies_under_the_back(arterial_case):
    array, body = arterial_case.volume.array, arterial_case.labels["body"]
    lowest = np.argwhere(body.any(axis=(0, 2)))[0, 0]
    table = (array > -700) & ~body
    table[:, lowest - 1 :, :] = False
    assert table.any(axis=(0, 1)).mean() > 0.95
    bare = array[:, : max(lowest - 1, 1), :]
    assert bare.max() < 0


@pytest.mark.parametrize("name", ["arterial_case", "native_case", "venous_case"])
def test_nothing_cuts_into_the_lung(name, request):
    """Bones and abdominal organs stay out of the lung; tips of transverse processes may touch the gutters."""
    case = request.getfixturevalue(name)
    scene, grid = Scene(case.parameters, grow_trees=False), case.volume.grid
    lung = scene._geometry(Block(grid, scene.frame, 0, grid.shape[2]))["lung"][1:-1].transpose(2, 1, 0) < 0
    solid = case.mask("bone") | case.labels["liver"] | case.labels["spleen"] | case.labels["stomach"]
    assert (solid & lung).sum() <= 5e-3 * solid.sum()


def test_conditions_come_in_the_order_of_the_model(arterial_case):
    conditions = arterial_case.conditions
    assert conditions.names == [
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
    ]
    assert all(mask.dtype == bool and mask.any() for mask in conditions.masks.values())
    ribs = arterial_case.labels["rib_left_5"]
    assert conditions["bone"][ribs].all()
    assert not (conditions["bone"] & conditions["lung"]).any()
