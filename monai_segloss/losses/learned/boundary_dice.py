"""Dice whose voxels weigh the more the nearer they are to the contour of their class, of the bottleneck supervised U-Net."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.maps import scored_map
from monai_segloss.core.reduce import Unreduced
from monai_segloss.losses.boundary.distances import signed_distance
from monai_segloss.losses.region.dice_form import dice

CONTOUR = signed_distance(mode="maurer")
"""Its absolute value is the distance to the contour, whose voxels are those of the class with a neighbor outside."""


def boundary_dice(batch: SegBatch, factor: float, sigma: float) -> Unreduced:
    """1 - (2 sum A p g) / (sum A (p + g)) per sample and class, without the background where voxels have one class."""
    view = batch.class_view(include_background=batch.multilabel)
    p, g = view.prob, batch.one_hot[:, view.first :]
    a = boundary_weights(scored_map(CONTOUR, view), g > 0.5, factor, sigma)
    g = g.to(p.dtype)
    tp, error = (batch.total(a * x) for x in (p * g, p * (1 - g) + (1 - p) * g))
    return Unreduced.table(dice(tp, error), batch.voxels)


def boundary_weights(distance: Tensor, inside: Tensor, factor: float, sigma: float) -> Tensor:
    """A = (factor F + 1) exp(-D^2 / 2 sigma^2), scaled to [0, 1] in each sample and class; 1 where that is constant.

    Args:
        distance: D, (B, K, *S), of either sign; 0 where a voxel is ignored, whose A of 1 is then neither end of the scale.
        inside: F, (B, K, *S) bool.
        factor, sigma: of the formula, sigma in the unit of the distance.
    """
    a = (factor * inside + 1) * torch.exp(-(distance**2) / (2 * sigma**2))
    low, high = (x.view(*a.shape[:2], *[1] * (a.ndim - 2)) for x in torch.aminmax(a.flatten(2), dim=2))
    several = high > low
    return torch.where(several, (a - low) / torch.where(several, high - low, 1), 1.0)
