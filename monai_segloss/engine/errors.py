"""Errors whose sentence says all: MONAI's command ends with it instead of a traceback."""

from __future__ import annotations


class DataError(ValueError):
    """A file, or what a network makes of it, cannot be used."""


class NotFiniteError(ArithmeticError):
    """A training whose loss or weights are no longer finite."""
