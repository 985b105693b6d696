"""Shares of the classes in a window around each voxel, of which only the voxels that count are there."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.reduce import quotient
from monai_segloss.kernels.filters import gaussian, smooth
from monai_segloss.losses.boundary.neighborhood import require_spatial

SMOOTHING = gaussian(3, 1.0)
"""The window of spatially varying label smoothing."""
NOBODY = 1e-4
"""Neighbors of less weight in it are none: what rounding left of the center."""


def class_shares(batch: SegBatch, kernel: tuple[float, ...], zero_padding: bool = False) -> Tensor:
    """Share of each class in the window, (B, C, *S).

    Args:
        batch: as read.
        kernel: weights of the window along each axis, which sum to 1.
        zero_padding: what is not there has no class, and the shares next to it sum to less than 1.
    """
    total, weight = _window(batch, kernel, center=True)
    return total if zero_padding else quotient(total, weight)


def spatially_smoothed(batch: SegBatch, label_smoothing: float) -> Tensor:
    """(1 - e) g + e times the mean of g over the neighbors in a Gaussian window, (B, C, *S); g where there are none."""
    total, weight = _window(batch, SMOOTHING, center=False)
    g, there = _target(batch), weight > NOBODY
    return torch.lerp(g, torch.where(there, total / weight.masked_fill(~there, 1), g), label_smoothing)


def _target(batch: SegBatch) -> Tensor:
    """The target in the precision of the sums, 0 where ignored."""
    return batch.one_hot.to(batch.voxels.dtype)


def _window(batch: SegBatch, kernel: tuple[float, ...], center: bool) -> tuple[Tensor, Tensor]:
    """Sum of the target (B, C, *S), and weight (B, 1, *S), of the voxels in the window that count."""
    require_spatial(batch)
    g = _target(batch)
    counted = torch.ones_like(g[:, :1]) if batch.mask is None else batch.mask[:, None].to(g.dtype)
    total, weight = (smooth(x, kernel, repeat=False) for x in (g, counted))
    if center:
        return total, weight
    own = kernel[len(kernel) // 2] ** (batch.ndim - 2)
    return total - own * g, weight - own * counted
