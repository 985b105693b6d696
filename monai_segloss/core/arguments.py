"""Constructor arguments: the type that their annotation says."""

from __future__ import annotations

from numbers import Real

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
