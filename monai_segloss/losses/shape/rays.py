"""Rays from each voxel towards the centroid of a class."""

from __future__ import annotations

import itertools
import math
from functools import reduce

import torch
from torch import Tensor

from monai_segloss.kernels.recomputed import class_parts
from monai_segloss.losses.boundary.neighborhood import Spacing

SLACK = 1e-3
"""Voxels by which rounding may move a center."""
PARTS = 4
"""So many parts of the rows, one after the other."""


@torch.no_grad()
def strides(mask: Tensor, spacing: Spacing, most: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The rays of the voxels of masks (B, K, *S), by whole steps towards the centroid of a class, found class by class.

    A step goes to one of the neighbors in the box around a voxel, the one nearest to the direction of the centroid.  A ray
    ends at the centroid and at the border of the image.

    Returns:
        How far apart the voxels of a ray are in a flattened map, and how many it has, at most ``most``; none where the
        centroid is outside of the class.
    """
    stride, number = torch.zeros_like(mask, dtype=torch.int32), torch.zeros_like(mask, dtype=torch.int16)
    for _, where, _ in class_parts(mask, None):
        stride[where], number[where] = _rays(mask[where], spacing, most, dtype)
    return stride, number


def _rays(mask: Tensor, spacing: Spacing, most: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Of masks (b, k, *S); what depends on one coordinate alone stays a map with that axis alone."""
    shape = tuple(mask.shape[2:])
    places = [
        _along(torch.arange(n, dtype=torch.int32, device=mask.device), axis, len(shape)) for axis, n in enumerate(shape)
    ]
    ways = [h * place.to(dtype) for h, place in zip(spacing, places, strict=True)]
    away = [_centroid(mask, x) - x for x in ways]
    near = [(x.abs() <= (0.5 + SLACK) * h) for x, h in zip(away, spacing, strict=True)]
    inside = (reduce(torch.logical_and, near) & mask).flatten(2).any(2)
    reach = sum((x.square() for x in away), torch.zeros_like(mask, dtype=dtype)).sqrt_().add_(SLACK * min(spacing))
    best, steps_left = torch.full_like(reach, -torch.inf), torch.zeros_like(mask, dtype=torch.int16)
    length, stride = torch.ones_like(reach), torch.zeros_like(mask, dtype=torch.int32)
    flat = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    for step in itertools.product(*([-1, 0, 1] if n > 1 else [0] for n in shape)):
        moving = [axis for axis, s in enumerate(step) if s]
        if not moving:
            continue
        long = math.hypot(*(h for s, h in zip(step, spacing, strict=True) if s))
        along = sum((away[axis] * (step[axis] * spacing[axis]) for axis in moving), torch.zeros_like(reach)).div_(long)
        better = along > best
        best = torch.where(better, along, best)
        border = [shape[axis] - 1 - places[axis] if step[axis] > 0 else places[axis] for axis in moving]
        free = reduce(torch.minimum, border).clamp_max(most).to(steps_left.dtype)
        steps_left, length = torch.where(better, free, steps_left), length.masked_fill(better, long)
        stride = stride.masked_fill(better, sum(s * n for s, n in zip(step, flat, strict=True)))
    found = torch.zeros_like(steps_left)
    for k in range(1, most + 1):
        found += k * length <= reach
    return stride, torch.minimum(found, steps_left) * inside.reshape(*inside.shape, *[1] * len(shape))


def _along(x: Tensor, axis: int, axes: int) -> Tensor:
    """(..., n) as a map with one axis of so many."""
    return x.reshape(*x.shape[:-1], *(x.shape[-1] if i == axis else 1 for i in range(axes)))


def _centroid(mask: Tensor, way: Tensor) -> Tensor:
    """The mean of a coordinate over each mask, (b, k, 1, ...); 0 of an empty one."""
    total = (mask * way).flatten(2).sum(2) / mask.flatten(2).sum(2).clamp_min(1)
    return total.reshape(*total.shape, *[1] * (mask.ndim - 2))


def row_slices(x: Tensor) -> list[slice]:
    """The rows of (B, K, *S) in a few parts, so that a step keeps the maps of one."""
    rows = max(1, -(-x.shape[2] // PARTS))
    return [slice(start, min(start + rows, x.shape[2])) for start in range(0, x.shape[2], rows)]


def after(k: int, stride: Tensor, there: Tensor, rows: slice) -> Tensor:
    """Index of the voxel k steps after each voxel of these rows, (B, K, N); of the voxel itself where its ray has none."""
    first = rows.start * stride.shape[3:].numel()
    own = torch.arange(first, first + stride[0, 0].numel(), device=stride.device)
    return own + (k * stride * there).flatten(2)


def follow(x: Tensor, index: Tensor) -> Tensor:
    """The values of maps (B, K, *S) at other voxels, (B, K, N)."""
    return x.flatten(2).gather(2, index.expand(*x.shape[:2], -1))
