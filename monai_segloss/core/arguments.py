"""Constructor arguments: plain data, of the type that their annotation says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

KINDS = {"bool": "True or False", "int": "a number", "float": "a number"}


def of_kind(name: str, value: object, annotation: str) -> None:
    """A constructor argument that is annotated as bool, int or float, or one of them and None, is such a value."""
    wanted, *others = annotation.split(" | ")
    if wanted not in KINDS or others not in ([], ["None"]) or (value is None and others):
        return
    if wanted == "bool":
        fits = type(value).__name__ in ("bool", "bool_") or (isinstance(value, int) and value in (0, 1))
    else:
        fits = isinstance(value, Real) and not isinstance(value, bool)
    if not fits:
        raise TypeError(f"{name} must be {KINDS[wanted]}, got {value!r}.")


EXPONENT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")
"""A number that YAML 1.1 takes for a word: 1e-2, where it knows 1.0e-2."""


def plain(value: Any) -> Any:
    """What a configuration gives as plain data: its own lists and mappings as list and dict, 1e-2 of YAML as a number.

    Example:
        >>> plain({"clip": range(2), "weight": "1e-2", "mode": "surface"})
        {'clip': [0, 1], 'weight': 0.01, 'mode': 'surface'}
    """
    if isinstance(value, str):
        return float(value) if EXPONENT.fullmatch(value) else value
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if type(value) is tuple:
        return tuple(map(plain, value))
    if isinstance(value, Sequence) and not isinstance(value, bytes | tuple):
        return [plain(each) for each in value]
    return value
