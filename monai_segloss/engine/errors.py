"""What is not finite, and errors whose sentence says all: MONAI's command ends with it instead of a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from monai_segloss.core.errors import NotFiniteError

__all__ = ["DataError", "NotFiniteError", "not_finite", "not_finite_entry"]


class DataError(ValueError):
    """A file, or what a network makes of it, cannot be used."""


def not_finite(x: Tensor) -> int:
    """How many values are NaN or infinite."""
    return 0 if bool(torch.isfinite(x).all()) else int((~torch.isfinite(x)).sum())


def not_finite_entry(state: Mapping[str, Any]) -> str | None:
    """Name of the first tensor of a state that holds NaN or infinite values."""
    return next((name for name, x in state.items() if isinstance(x, Tensor) and not_finite(x)), None)
