"""Depth and thinness of tubes, of which skeletons are weighed."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.core.reduce import quotient
from monai_segloss.kernels.distance import distance_to
from monai_segloss.kernels.recomputed import class_parts


@torch.no_grad()
def depths(mask: Tensor, line: Tensor, spacing: Tensor | None, counted: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The depth D of each voxel, where the skeletons are, and the least depth on each skeleton, found class by class.

    D is the distance to the background over the largest radius R of the skeleton, at most 1, and 0 outside of the mask.

    Args:
        mask: (B, K, *S) bool.
        line: its skeleton, (B, K, *S) of 0 and 1.
        spacing: (ndim,) or (B, ndim) in mm; None: in voxels.
        counted: (B, 1, *S) bool; other voxels are no background.

    Returns:
        (B, K, *S), (B, K, *S) bool and (B, K, 1, ...), 1 without a skeleton.
    """
    depth, on_line, thinnest = torch.zeros_like(line), line > 0, line.new_ones(*line.shape[:2], *(1,) * (line.ndim - 2))
    space = tuple(range(2, mask.ndim))
    for _, where, _ in class_parts(mask, None):
        outside = ~mask[where]
        h = spacing if spacing is None or spacing.ndim == 1 else spacing[where[0]]
        distance = distance_to(outside if counted is None else outside & counted[where[0]], h).to(line.dtype)
        widest = torch.where(on_line[where], distance, 0).amax(space, keepdim=True)
        depth[where] = quotient(torch.minimum(distance, widest), widest).masked_fill_(outside, 0)
        thinnest[where[:2]] = torch.where(on_line[where], depth[where], 1).amin(space, keepdim=True)
    return depth, on_line, thinnest


def thinness(depth: Tensor, on_line: Tensor, thinnest: Tensor, axes: int) -> Tensor:
    """The thinness I = ((R - r + r_min) / R) ** (n - 1) of n axes on the skeleton, for the radius r, and 0 off it."""
    return on_line * (1 - depth + thinnest) ** max(1, axes - 1)
