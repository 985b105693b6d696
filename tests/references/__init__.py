"""One independent NumPy float64 formula per loss, by registry key; a family is a module.

A reference is called as `REFERENCES[key](input, target, activation, mask, labels=..., ignore_index=..., spacing=...,
at=..., **arguments)` with float64 logits (B, C, *S), a target of labels or channels, and constructor arguments of the loss.
It returns the value as the library reduces it.  `at` are the logits of all that carries no gradient.
"""

from __future__ import annotations

import importlib
import pkgutil

from .entry import PUBLISHED, REFERENCES, UNIFORM, reference
from .reading import Array

__all__ = ["PUBLISHED", "REFERENCES", "UNIFORM", "Array", "reference"]

for family in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{family.name}")
