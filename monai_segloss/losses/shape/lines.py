"""Lines through a voxel, with the same number of voxels to both sides."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from monai_segloss.core.arguments import shown


def bays(offsets: Sequence[int], _: slice, p: Tensor, counted: Tensor | None) -> Tensor:
    """Sum over lines, and their number, (B, K, 2)."""
    axes = [axis for axis in range(2, p.ndim) if p.shape[axis] > 1]
    total, number = p.new_zeros((2, *p.shape[:2]))
    for direction in itertools.product((-1, 0, 1), repeat=len(axes)):
        if direction <= (0,) * len(axes):  # of both directions of a line one
            continue
        for radius in offsets:
            reach = [radius * abs(d) for d in direction]
            if any(2 * r >= p.shape[axis] for axis, r in zip(axes, reach, strict=True)):
                continue

            def part(x: Tensor, side: int, direction: tuple[int, ...] = direction, radius: int = radius) -> Tensor:
                for axis, d in zip(axes, direction, strict=True):
                    x = x.narrow(axis, radius * (abs(d) + side * d), x.shape[axis] - 2 * radius * abs(d))
                return x

            one, middle, other = (part(p, side) for side in (-1, 0, 1))
            depth = (torch.minimum(one, other) - middle).clamp_min(0)
            kept = torch.ones_like(depth[:, :1])
            if counted is not None:
                kept = (part(counted, -1) & part(counted, 0) & part(counted, 1)).to(p.dtype)
            total = total + (depth * kept).flatten(2).sum(2)
            number = number + kept.flatten(2).sum(2)
    return torch.stack((total, number), 2)


def whole_numbers(offsets: Sequence[int]) -> tuple[int, ...]:
    """``offsets``, checked: whole numbers of at least 1."""
    try:
        found = tuple(int(r) for r in offsets)
        fits = bool(found) and all(r == given and r >= 1 for r, given in zip(found, offsets, strict=True))
    except (TypeError, ValueError, OverflowError, RuntimeError, NotImplementedError):
        fits = False
    if not fits:
        raise ValueError(f"offsets must hold whole numbers of at least 1, got {shown(offsets)}.")
    return found
