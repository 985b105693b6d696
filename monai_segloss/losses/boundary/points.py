"""Points of a target, and how near a prediction comes to them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from monai_segloss.kernels.components import Segments, connected_components

EPS = 1e-6
"""Keeps ratios and powers finite; of distances in units of the largest one."""
CHUNK = 2**24
"""Most elements of a table of distances, voxels times points."""


def centers(mask: Tensor) -> Tensor:
    """The voxel at the center of mass of each connected component of masks (B, C, *S), bool; halves round up."""
    segments = Segments.of(connected_components(mask))
    shape, out = mask.shape[2:], torch.zeros(mask.shape, dtype=torch.bool, device=mask.device)
    grids = [torch.arange(n, device=mask.device).view(-1, *(1,) * (len(shape) - 1 - a)) for a, n in enumerate(shape)]
    count, *sums = segments.sums(torch.ones((), device=mask.device), *grids)
    place = segments.owner
    for total, n in zip(sums, shape, strict=True):
        place = place * n + (total / count + 0.5).floor().long()
    out.view(-1)[place] = True
    return out


def soft_reach(p: Tensor, points: Tensor, steps: Tensor, counted: Tensor, exponent: float, most: int) -> Tensor:
    """`soft_nearest` of the points of one map, (K,), in chunks whose tables are not kept.

    Args:
        p, points, counted: probabilities, where points are, which voxels count, (*S).
        steps: spacing, (ndim,).
        exponent: of the mean.
        most: points; of more, every n-th one is taken.
    """
    index = points.nonzero()
    if not len(index):
        return p.new_zeros(0)
    if len(index) > most:
        index = index[torch.arange(most, device=p.device) * len(index) // most]
    axes = tuple(torch.arange(n, device=p.device) * step for n, step in zip(p.shape, steps, strict=True))
    parts = torch.split(index * steps, max(1, CHUNK // p.numel()))
    if len(parts) == 1:
        return soft_nearest(p, parts[0], axes, counted, exponent)
    kept = [checkpoint(soft_nearest, p, part, axes, counted, exponent, use_reentrant=False) for part in parts]
    return torch.cat(kept)


def soft_nearest(p: Tensor, points: Tensor, axes: tuple[Tensor, ...], counted: Tensor, exponent: float) -> Tensor:
    """For each point (K, ndim) the generalized mean over voxels of p d + (1 - p) d_max, (K,).

    By logarithms, since numbers near 0 to the power of -9 are out of range.

    Args:
        p, counted: probabilities, and which voxels count, (*S).
        points, axes: places of the points and, by axis, of the voxels, in mm.
        exponent: of the mean.
    """
    square = torch.zeros((), dtype=p.dtype, device=p.device)
    for axis, place in enumerate(axes):
        gap = (place - points[:, axis, None]) ** 2
        square = square + gap.reshape(len(points), *(-1 if a == axis else 1 for a in range(len(axes))))
    longest = torch.stack([(place[-1] - place[0]) ** 2 for place in axes]).sum().sqrt().clamp_min(EPS)
    share = p * (square.sqrt() / longest) + (1 - p)
    powers = (exponent * (share + EPS).log()).masked_fill(~counted, -torch.inf).flatten(1)
    return longest * ((powers.logsumexp(1) - counted.sum().clamp_min(1).to(p.dtype).log()) / exponent).exp()
