"""One independent NumPy float64 formula per loss, by registry key; a family is a module.

A reference is called as `reference(input, target, activation, mask, labels=..., ignore_index=..., **arguments)` with
float64 logits (B, C, *S), a target of labels or channels and the constructor arguments of the loss, and returns the
value as the library reduces it. Benchmarks may import these too.
"""

from __future__ import annotations

from . import (
    boundary,
    boundary_active,
    boundary_energies,
    boundary_local,
    boundary_surfaces,
    boundary_weights,
    compound,
    compound_boundary,
    instance,
    learned_priors,
    partial,
    region,
    region_generalized,
    region_sorted,
    region_tables,
    region_threshold,
    structural,
    voxel,
    voxel_imbalance,
)
from .reading import Array

FAMILIES = (
    region,
    region_tables,
    region_generalized,
    region_sorted,
    region_threshold,
    voxel,
    voxel_imbalance,
    compound,
    compound_boundary,
    instance,
    partial,
    structural,
    boundary,
    boundary_local,
    boundary_surfaces,
    boundary_energies,
    boundary_active,
    boundary_weights,
    learned_priors,
)
REFERENCES = {key: formula for family in FAMILIES for key, formula in family.REFERENCES.items()}
UNIFORM = {key: formula for family in FAMILIES for key, formula in family.UNIFORM.items()}

__all__ = ["REFERENCES", "UNIFORM", "Array"]
