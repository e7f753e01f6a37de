"""Procedural thorax phantoms with exact masks: `make_phantom(seed)` gives a CT, its labels and its parameters."""

from .case import PhantomCase, default_grid, make_phantom, render
from .files import write_phantom
from .measures import PhantomMeasures, measure_phantom
from .parameters import (
    GroundGlass,
    Nodule,
    PhantomParameters,
    PleuralEffusion,
    sample_parameters,
)

__all__ = [
    "GroundGlass",
    "Nodule",
    "PhantomCase",
    "PhantomMeasures",
    "PhantomParameters",
    "PleuralEffusion",
    "default_grid",
    "make_phantom",
    "measure_phantom",
    "render",
    "sample_parameters",
    "write_phantom",
]
