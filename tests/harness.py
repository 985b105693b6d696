"""Losses by key on a case, for the tests of identities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import monai_segloss
from monai_segloss.testing.cases import Case
from monai_segloss.testing.harness import gradient, value


def of(key: str, case: Case, **arguments: Any) -> Tensor:
    """Value of a loss."""
    return value(monai_segloss.create(key, **{**case.reading, **arguments}), case)


def both(key: str, case: Case, **arguments: Any) -> tuple[Tensor, Tensor]:
    """Value and gradient of a loss."""
    return gradient(monai_segloss.create(key, **{**case.reading, **arguments}), case)


def same(found: Tensor | tuple[Tensor, ...], expected: Tensor | tuple[Tensor, ...], rtol: float = 1e-9) -> None:
    """Tensors, or several of them, are equal but for rounding."""
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-12)
