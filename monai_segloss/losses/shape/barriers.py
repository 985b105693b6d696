"""Log-barrier extensions of bounds."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def barriers(x: Tensor, limits: Tensor, t: Tensor) -> Tensor:
    """Sum of the barriers of the bounds (..., 2) that there are, of x (...)."""
    lower, upper = limits.unbind(-1)
    scale = torch.where((upper > 0) & (upper < math.inf), upper, 1)
    above = barrier(torch.where(upper < math.inf, x - upper, -1) / scale, t)
    below = barrier(torch.where(lower > 0, lower - x, -1) / scale, t)
    return torch.where(upper < math.inf, above, 0 * x) + torch.where(lower > 0, below, 0 * x)


def barrier(z: Tensor, t: Tensor) -> Tensor:
    """psi_t(z); the branch that is not taken gets an argument that its derivative can bear."""
    inside = z <= -1 / t**2
    log = -torch.log(-torch.where(inside, z, -1)) / t
    return torch.where(inside, log, t * z + (2 * t.log() + 1) / t)
