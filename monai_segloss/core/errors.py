"""Errors in one sentence that names the argument, what came and what was expected."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable


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


def renamed(old: str, new: str) -> None:
    """Say to the caller of the caller that a name is another one."""
    warnings.warn(
        f"{old} is now called {new}; the old name goes with the next version.", DeprecationWarning, stacklevel=3
    )
