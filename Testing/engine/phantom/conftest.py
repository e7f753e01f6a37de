"""Phantoms that several tests look at; each is made once."""

from __future__ import annotations

import pytest

from medlord.phantom import PhantomCase, make_phantom
from medlord.volumes import Grid


@pytest.fixture(scope="session")
def small_grid() -> Grid:
    """The native field of view with a quarter of its voxels."""
    return Grid.centered((80, 80, 48), (4.6, 4.6, 7.0))


@pytest.fixture(scope="session")
def arterial_case() -> PhantomCase:
    """A woman with two nodules, in the arterial phase, on the native grid of the bundled model."""
    return make_phantom(
        3,
        contrast_phase="arterial",
        sex="female",
        nodules=2,
        pleural_effusion=False,
        ground_glass=False,
        pericardial_effusion_mm=0.0,
        kernel="soft",
        table=True,
    )


@pytest.fixture(scope="session")
def native_case() -> PhantomCase:
    """A man with pleural and pericardial effusion, without contrast."""
    return make_phantom(
        21,
        contrast_phase="native",
        sex="male",
        nodules=0,
        pleural_effusion=True,
        ground_glass=True,
        pericardial_effusion_mm=9.0,
        kernel="lung",
    )


@pytest.fixture(scope="session")
def venous_case() -> PhantomCase:
    """A case in the venous phase with nothing found."""
    return make_phantom(
        34,
        contrast_phase="venous",
        nodules=0,
        pleural_effusion=False,
        ground_glass=False,
        pericardial_effusion_mm=0.0,
    )


@pytest.fixture(params=["arterial_case", "native_case", "venous_case"])
def case(request) -> PhantomCase:
    """Each of the three in turn."""
    return request.getfixturevalue(request.param)
