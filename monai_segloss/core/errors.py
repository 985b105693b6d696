"""Errors in one sentence that names the argument, what came and what was expected."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable
from typing import Any


class LossShapeError(ValueError, AssertionError):
    """Shapes of ``input``, ``target`` or a map do not fit together (MONAI raises either of the two bases)."""


class NotFiniteError(ArithmeticError):
    """A training whose loss or weights are no longer finite, or a network that is not."""


class UnknownLoss(KeyError):
    """No loss has that key or alias."""

    def __str__(self) -> str:
        return str(self.args[0])


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """``"; did you mean 'dice'?"`` for the nearest of ``known``, an empty string where none is near."""
    pool = {k.lower(): k for k in known}
    hits = difflib.get_close_matches(name.lower(), pool, n=count, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(pool[h]) for h in hits)}?" if hits else ""


def renamed(old: str, new: str, stacklevel: int = 3) -> None:
    """Say to the caller of the caller that a name is another one."""
    warnings.warn(
        f"{old} is now called {new}; the old name goes with the next version.",
        DeprecationWarning,
        stacklevel=stacklevel,
    )


class Renamed:
    """Attribute of a class under its former name."""

    def __init__(self, new: str) -> None:
        self.new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self.old = f"{owner.__name__}.{name}"

    def __get__(self, instance: object, owner: type) -> Any:
        renamed(self.old, self.new)
        return getattr(owner if instance is None else instance, self.new)


def adopt_renamed(cls: type, base: type) -> None:
    """Give a subclass what its body sets under former names of ``base``."""
    for old, former in vars(base).items():
        if isinstance(former, Renamed) and old in vars(cls):
            renamed(f"{cls.__name__}.{old}", former.new, stacklevel=5)
            setattr(cls, former.new, vars(cls)[old])
            delattr(cls, old)


def renamed_in(module: str, **names: Any) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module for former names of its classes."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        renamed(f"{module}.{name}", names[name].__name__)
        return names[name]

    return find
