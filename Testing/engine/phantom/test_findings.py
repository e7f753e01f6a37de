"""Findings appear where they are asked for, as large as asked for; bad wishes are refused in one line."""

from __future__ import annotations

import numpy as np
import pytest

from medlord.errors import InputError
from medlord.phantom import (
    GroundGlass,
    Nodule,
    PleuralEffusion,
    make_phantom,
    measure_phantom,
    sample_parameters,
)

NOTHING = {"nodules": 0, "pleural_effusion": False, "ground_glass": False, "pericardial_effusion_mm": 0.0}


def test_a_nodule_lies_where_it_was_put_and_has_its_size():
    nodule = Nodule((78.0, 0.0, 20.0), 28.0, 40.0, 0.0)
    case = make_phantom(40, **{**NOTHING, "nodules": (nodule,), "position_mm": (0.0, 0.0, 0.0)})
    mask, grid = case.labels["lung_nodules"], case.volume.grid
    center = grid.affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + grid.affine[:3, 3]
    assert center == pytest.approx(nodule.center_ras_mm, abs=2.0)
    assert mask.sum() * grid.voxel_volume_ml == pytest.approx(np.pi / 6 * 2.8**3, rel=0.08)
    assert case.volume.array[mask].mean() > -150 > case.volume.array[case.mask("lung") & ~mask].mean()
    assert case.mask("lung")[mask].all()


def test_drawn_nodules_are_in_the_lung(small_grid):
    case = make_phantom(41, small_grid, **{**NOTHING, "nodules": 4})
    assert len(case.parameters.nodules) == 4
    mask = case.labels["lung_nodules"]
    assert mask.any() and (mask & case.mask("lung")).sum() >= 0.9 * mask.sum()


@pytest.mark.parametrize("side", ["left", "right"])
def test_pleural_effusion_has_its_volume_on_its_side_behind_the_lung(small_grid, side):
    wanted = PleuralEffusion(side, 400.0)
    parameters = sample_parameters(43, **{**NOTHING, "pleural_effusion": wanted})
    assert measure_phantom(parameters).pleural_effusion_ml == pytest.approx(400.0, rel=0.15)
    case = make_phantom(43, small_grid, **{**NOTHING, "pleural_effusion": wanted})
    fluid, lung = (np.argwhere(m) for m in (case.labels["pleural_effusion"], case.mask("lung")))
    middle = lung[:, 0].mean()
    assert (fluid[:, 0].mean() > middle) == (side == "right")
    assert fluid[:, 1].mean() < lung[:, 1].mean() - 5


def test_pericardial_effusion_surrounds_the_heart(small_grid):
    case = make_phantom(44, small_grid, **{**NOTHING, "pericardial_effusion_mm": 12.0})
    fluid = case.labels["pericardial_effusion"]
    assert fluid.sum() * small_grid.voxel_volume_ml > 80
    dry = make_phantom(44, small_grid, **NOTHING)
    assert not dry.labels["pericardial_effusion"].any()
    # The fluid is put between the heart and the lung: the heart stays, the lung gives way.
    assert (case.labelmap == dry.labelmap).mean() > 0.98
    assert case.mask("lung").sum() < dry.mask("lung").sum()


def test_ground_glass_is_denser_lung(small_grid):
    glass = GroundGlass((80.0, -10.0, 15.0), (25.0, 25.0, 25.0), 250.0)
    with_glass, without = (
        make_phantom(45, small_grid, **{**NOTHING, "ground_glass": g}) for g in (glass, False)
    )
    inside = with_glass.labels["ground_glass"]
    assert inside.any() and not without.labels["ground_glass"].any()
    added = with_glass.volume.array[inside].astype(float) - without.volume.array[inside]
    assert 120 < np.median(added) < 260
    assert np.array_equal(with_glass.labelmap, without.labelmap)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 1, "sex": "horse"}, "female, male"),
        ({"seed": 1, "contrast_phase": "late"}, "native, arterial, venous"),
        ({"seed": 1, "kernel": "bone"}, "soft, lung"),
        ({"seed": 1, "height_cm": 20}, "130 to 215"),
        ({"seed": 1, "breathing": float("nan")}, "0 to 1"),
        ({"seed": 1, "dose": 0}, "dose"),
        ({"seed": 1, "position_mm": (0.0, float("inf"), 0.0)}, "finite"),
        ({"seed": 1, "nodules": 900}, "0 and 50"),
        ({"seed": 1, "nodules": (Nodule((0, 0, 0), 500.0, 40, 0),)}, "2 to 80"),
        ({"seed": 1, "pleural_effusion": PleuralEffusion("middle", 100.0)}, "left or right"),
        ({"seed": 1, "pleural_effusion": PleuralEffusion("left", 9e9)}, "1 to 1500"),
        ({"seed": 1, "colour": "green"}, "unknown"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(arguments, words):
    with pytest.raises(InputError, match=words) as caught:
        make_phantom(**arguments)
    assert "\n" not in str(caught.value)
