"""Constructor arguments: plain numbers, of the type that their annotation says, and of a size that float32 counts with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

KINDS = {
    "bool": "True or False", "int": "a number", "float": "a number",
    "str": "a word", "Mode": "a word", "Fill": "a word", "Side": "a word",
}  # fmt: skip
"""What a value of an annotation is called."""
LARGEST = 1e9
"""No setting is larger: squares of it times millions of voxels are numbers of float32."""
EXPONENT = 8.0
"""Largest exponent of a distance in mm or of a logarithm: 1e4 mm to the power of 8 is a number of float32."""


def checked(name: str, value: object, annotation: str, bounds: Mapping[str, float] | None = None) -> object:
    """The value of a constructor argument, a scalar of NumPy as a number of Python; others than its annotation says are
    refused.

    Args:
        bounds: largest values of some arguments, where that is not `LARGEST`.

    Raises:
        TypeError: another type than bool, int or float, or None where these are all that the annotation names.
        ValueError: no word where one is wanted; a number that is not finite or too large.
    """
    value = _plain(value, annotation)
    wanted, *others = annotation.split(" | ")
    if wanted not in KINDS or others not in ([], ["None"]) or (value is None and others):
        return value
    number = isinstance(value, Real) and not isinstance(value, bool)
    if wanted == "bool":
        fits = isinstance(value, bool) or (isinstance(value, int) and value in (0, 1))
    else:
        fits = number if KINDS[wanted] == "a number" else isinstance(getattr(value, "value", value), str)
    if not fits:
        error = ValueError if KINDS[wanted] == "a word" else TypeError  # a choice among words, as MONAI has it
        raise error(f"{name} must be {KINDS[wanted]}, got {shown(value)}.")
    if number and wanted != "bool":
        in_range(name, value, (bounds or {}).get(name, LARGEST))
    return value


def exponents(*names: str) -> Mapping[str, float]:
    """The `bounds` of a loss with arguments that are exponents."""
    return dict.fromkeys(names, EXPONENT)


def in_range(name: str, value: Any, largest: float = LARGEST) -> None:
    """Refuse a number that is not finite, or of which float32 makes infinity."""
    if not -largest <= value <= largest:
        raise ValueError(f"{name} must be a number, at most {largest:g}, got {shown(value)}.")


def numbers(name: str, value: object, wanted: str, axes: int = 1, largest: float = LARGEST) -> Tensor:
    """Numbers of at least 0, in a tensor, array or (nested) sequence, as float64 on the CPU.

    Args:
        wanted: what was expected, after "must be".
        axes: most axes.

    Raises:
        TypeError: these are no numbers.
        ValueError: more axes; numbers that are negative, not finite or too large.
    """
    try:
        real = not (isinstance(value, Tensor) and (value.is_meta or value.is_complex() or value.is_quantized))
        x = constant(value)
    except (TypeError, ValueError, OverflowError, RuntimeError, NotImplementedError):
        real = False
    if not real or isinstance(value, (bool, set, Mapping)):
        raise TypeError(f"{name} must be {wanted}, got {shown(value)}.")
    if x.ndim > axes or not bool(((x >= 0) & (x <= largest)).all()):
        raise ValueError(
            f"{name} must be {wanted}: the value/values of the `{name}` should be no less than 0 and at most {largest:g}, "
            f"got {shown(value)}."
        )
    return x


def constant(value: Any) -> Tensor:
    """Numbers as a float64 tensor of its own on the CPU, without a gradient, also in inference mode."""
    with torch.inference_mode(False):
        x = value.detach().cpu() if isinstance(value, Tensor) else value
        return torch.as_tensor(x, dtype=torch.float64, device="cpu").clone()


def shown(value: object) -> str:
    """What came, in one short line."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _plain(value: Any, annotation: str) -> Any:
    """A scalar of NumPy as a number, an array as a list, and so a tensor where a sequence is wanted."""
    sequence = annotation.startswith(("Clip", "Sequence")) and isinstance(value, Tensor) and not value.is_meta
    return value.tolist() if sequence or (type(value).__module__ == "numpy" and hasattr(value, "tolist")) else value


SCIENTIFIC = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+")
"""A number that YAML 1.1 takes for a word: 1e-2, where it knows 1.0e-2."""


def plain(value: Any) -> Any:
    """What a configuration gives as plain data: its own lists and mappings as list and dict, 1e-2 of YAML as a number.

    Example:
        >>> plain({"clip": range(2), "weight": "1e-2", "mode": "surface"})
        {'clip': [0, 1], 'weight': 0.01, 'mode': 'surface'}
    """
    if isinstance(value, str):
        return float(value) if SCIENTIFIC.fullmatch(value) else value
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if type(value) is tuple:
        return tuple(map(plain, value))
    if isinstance(value, Sequence) and not isinstance(value, (bytes, tuple)):
        return [plain(each) for each in value]
    return value
