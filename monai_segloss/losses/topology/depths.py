"""Depth and thinness of tubes, of which skeletons are weighed."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.core.reduce import quotient
from monai_segloss.kernels.distance import distance_to


def depth_and_thinness(
    mask: Tensor, line: Tensor, spacing: Tensor | None, counted: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The depth D of each voxel and the thinness I of each on the skeleton, both of 0 to 1, (B, K, *S).

    D is the distance to the background over the largest radius R of the skeleton, at most 1, and 0 outside of the mask.
    I is ((R - r + r_min) / R) ** (n - 1), of n axes, for the radius r, and 0 off the skeleton.

    Args:
        mask: (B, K, *S) of 0 and 1.
        line: its skeleton, also of 0 and 1.
        spacing: (ndim,) or (B, ndim) in mm; None: in voxels.
        counted: (B, 1, *S) bool; other voxels are no background.
    """
    outside = mask == 0
    distance = distance_to(outside if counted is None else outside & counted, spacing).to(line.dtype)
    space, on_line = tuple(range(2, mask.ndim)), line > 0
    radius = torch.where(on_line, distance, 0)
    widest = radius.amax(space, keepdim=True)
    thinnest = torch.where(on_line, distance, torch.inf).amin(space, keepdim=True)
    depth = mask * quotient(torch.minimum(distance, widest), widest)
    power = max(1, sum(n > 1 for n in mask.shape[2:]) - 1)
    return depth, line * quotient(widest - radius + torch.where(on_line, thinnest, 0), widest) ** power
