"""Centroid and spread of soft maps."""

from __future__ import annotations

import torch
from torch import Tensor

MASS, VARIANCE = 1e-6, 1e-8
"""Added to the mass of a class, in voxels, and below the root of a variance, whose slope is infinite at 0."""


def moments(p: Tensor) -> tuple[Tensor, Tensor]:
    """Centroid and spread of maps (B, K, *S) along each axis, (B, K, axes), as shares of its extent from its center."""
    mass = p.flatten(2).sum(2) + MASS
    found: list[tuple[Tensor, Tensor]] = []
    for axis, n in enumerate(p.shape[2:], start=2):
        others = [other for other in range(2, p.ndim) if other != axis]
        profile = p.sum(others) if others else p
        x = (torch.arange(n, device=p.device, dtype=p.dtype) + (1 - n) / 2) / n
        mean = (profile * x).sum(2) / mass
        variance = (profile * (x - mean[..., None]) ** 2).sum(2) / mass
        found.append((mean, (variance + VARIANCE).sqrt()))
    means, spreads = zip(*found, strict=True)
    return torch.stack(means, 2), torch.stack(spreads, 2)
