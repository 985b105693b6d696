"""Perimeter of soft maps: the area of the surface of a class in 3-D, the length of its contour in 2-D."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.kernels.recomputed import by_class, totals
from monai_segloss.losses.boundary.neighborhood import Spacing, by_spacing, valid


def perimeters(batch: SegBatch, p: Tensor, eps: float, isotropic: bool) -> tuple[Tensor, Tensor]:
    """Perimeter and volume of maps (B, K, *S) that are 0 where ignored, each (B, K), in units of the spacing.

    The border of the image, and that of ignored voxels, adds nothing to a perimeter.
    """

    def both(spacing: Spacing, p: Tensor, counted: Tensor | None) -> Tensor:
        return by_class(partial(perimeter_and_volume, spacing, eps, isotropic), 1, p, counted)

    perimeter, volume = by_spacing(both, batch, p, valid(batch)).unbind(2)
    return perimeter, volume


def perimeter_and_volume(
    spacing: Spacing, eps: float, isotropic: bool, rows: slice, u: Tensor, counted: Tensor | None
) -> Tensor:
    """Sum over voxels of the length of the gradient, and of u, times the volume of a voxel, (B, K, 2).

    The gradient has forward differences per unit of the spacing; the last one along each axis is 0, and so is one with an
    ignored voxel.
    """
    total, volume = torch.zeros_like(u), 1.0
    for axis, step in enumerate(spacing, start=2):
        n = u.shape[axis]
        if n == 1:
            continue
        volume *= step
        difference = (u.narrow(axis, 1, n - 1) - u.narrow(axis, 0, n - 1)) / step
        if counted is not None:
            difference = difference * (counted.narrow(axis, 1, n - 1) & counted.narrow(axis, 0, n - 1))
        term = difference**2 if isotropic else difference.abs()
        total = total + torch.nn.functional.pad(term, (*(0, 0) * (u.ndim - 1 - axis), 0, 1))
    if isotropic:  # sqrt(x + eps) - sqrt(eps), 0 where x is
        total = total / ((total + eps).sqrt() + math.sqrt(eps))
    return volume * totals(rows, None, total, u)


def unit_ball(axes: int) -> float:
    """Volume of the ball of radius 1: 2, pi, 4 pi / 3."""
    return math.pi ** (axes / 2) / math.gamma(axes / 2 + 1)
