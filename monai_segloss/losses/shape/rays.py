"""Rays from each voxel towards the centroid of a class."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from monai_segloss.kernels.recomputed import class_parts
from monai_segloss.losses.boundary.neighborhood import Spacing

SLACK = 1e-3
"""Voxels by which rounding may move a center."""


class Rays:
    """The voxels that are reached from each voxel by whole steps towards the centroid of its class.

    A step goes to one of the neighbors in the box around a voxel, the one nearest to the direction of the centroid.  A ray
    ends at the centroid and at the border of the image.

    Args:
        mask: (B, K, *S) bool, of the classes.
        spacing: of a voxel.
    """

    def __init__(self, mask: Tensor, spacing: Spacing, dtype: torch.dtype) -> None:
        self.shape = tuple(mask.shape[2:])
        grid = torch.meshgrid(*(torch.arange(n, device=mask.device) for n in self.shape), indexing="ij")
        self.grid = torch.stack(grid)
        mass, h = mask.flatten(2).sum(2).clamp_min(1).to(dtype), torch.tensor(spacing, device=mask.device, dtype=dtype)
        ways = h.reshape(-1, *[1] * len(self.shape)) * self.grid.to(dtype)
        center = torch.stack([(mask * x).flatten(2).sum(2) / mass for x in ways], 2)
        away = center.reshape(*center.shape, *[1] * len(self.shape)) - ways
        self.distance = away.square().sum(2).sqrt()
        near = (away.abs() <= (0.5 + SLACK) * h.reshape(-1, *[1] * len(self.shape))).all(2)
        self.inside = (near & mask).flatten(2).any(2)
        """Whether a class is where its centroid is, (B, K)."""
        steps = [o for o in itertools.product(*([-1, 0, 1] if n > 1 else [0] for n in self.shape)) if any(o)]
        self.steps = torch.tensor(steps or [(0,) * len(self.shape)], device=mask.device)
        lengths = (self.steps.to(dtype) * h).square().sum(1).sqrt().clamp_min(1e-30)
        best = torch.full_like(self.distance, -torch.inf)
        self.chosen = torch.zeros_like(best, dtype=torch.long)
        for i, (step, length) in enumerate(zip(self.steps.to(dtype) * h, lengths, strict=True)):
            along = sum((away[:, :, a] * step[a] for a in range(len(self.shape))), torch.zeros_like(best)) / length
            self.chosen = torch.where(along > best, i, self.chosen)
            best = torch.maximum(along, best)
        self.length = lengths[self.chosen]
        self.reach = self.distance + SLACK * min(spacing)

    def stride(self) -> Tensor:
        """How far apart the voxels of a ray are in a flattened map, (B, K, *S)."""
        flat = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        return (self.steps * torch.tensor(flat, device=self.steps.device)).sum(1)[self.chosen]

    def number(self, most: int) -> Tensor:
        """How many voxels a ray has, at most ``most``; none where the centroid is outside of the class, (B, K, *S)."""
        found = torch.zeros_like(self.chosen)
        for k in range(1, most + 1 if self.steps.any() else 1):
            there = k * self.length <= self.reach
            for axis, n in enumerate(self.shape):
                place = self.grid[axis] + k * self.steps[:, axis][self.chosen]
                there = there & (place >= 0) & (place < n)
            found = found + there
        return found * self.inside.reshape(*self.inside.shape, *[1] * len(self.shape))


@torch.no_grad()
def strides(mask: Tensor, spacing: Spacing, most: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Stride of the ray of each voxel and its number of voxels, (B, K, *S), found for one class at a time."""
    stride, number = torch.zeros_like(mask, dtype=torch.int32), torch.zeros_like(mask, dtype=torch.int16)
    for _, where, _ in class_parts(mask, None):
        rays = Rays(mask[where], spacing, dtype)
        stride[where], number[where] = rays.stride().int(), rays.number(most).short()
    return stride, number


def after(k: int, stride: Tensor, there: Tensor) -> Tensor:
    """Index of the voxel after k steps, (B, K, N); of the voxel itself where its ray has none."""
    own = torch.arange(stride[0, 0].numel(), device=stride.device)
    return own + (k * stride * there).flatten(2)


def follow(x: Tensor, index: Tensor) -> Tensor:
    """The values of maps (B, K, *S) at other voxels."""
    return x.flatten(2).gather(2, index.expand(*x.shape[:2], -1)).reshape(x.shape)
