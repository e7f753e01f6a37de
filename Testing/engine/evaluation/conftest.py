"""Phantoms with exact masks, made once for all tests of this folder."""

from __future__ import annotations

import pytest

from medlord.phantom import make_phantom


@pytest.fixture(scope="session")
def arterial():
    """A held-out phantom with contrast in the left and right heart, 128 x 128 x 64 at 2.8 x 2.8 x 5 mm."""
    return make_phantom(900_000, contrast_phase="arterial")


@pytest.fixture(scope="session")
def native():
    """Another held-out phantom, without contrast."""
    return make_phantom(900_003, contrast_phase="native", table=True)
