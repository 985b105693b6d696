"""Lines through a voxel, with the same number of voxels to both sides."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from monai_segloss.core.arguments import shown


def steps(x: Tensor, offsets: Sequence[int]) -> list[tuple[int, ...]]:
    """From the middle of a line to an end, for all lines that fit into maps (B, K, *S); of both directions one.

    Where none fits the one to the voxel itself.
    """
    shape = x.shape[2:]
    still = (0,) * len(shape)
    ways = [way for way in itertools.product(*([-1, 0, 1] if n > 1 else [0] for n in shape)) if way > still]
    found = [tuple(r * d for d in way) for way in ways for r in offsets]
    return [step for step in found if all(2 * abs(d) < n for d, n in zip(step, shape, strict=True))] or [still]


def bays(step: tuple[int, ...], p: Tensor, counted: Tensor | None) -> Tensor:
    """Sum over the lines from i - step to i + step, and their number, (B, K, 2)."""

    def end(x: Tensor, side: int) -> Tensor:
        for axis, d in enumerate(step, 2):
            x = x.narrow(axis, abs(d) + side * d, x.shape[axis] - 2 * abs(d))
        return x

    one, middle, other = (end(p, side) for side in (-1, 0, 1))
    depth = (torch.minimum(one, other) - middle).clamp_min(0)
    if counted is None:
        return torch.stack([x.flatten(2).sum(2) for x in (depth, torch.ones_like(depth))], 2)
    kept = (end(counted, -1) & end(counted, 0) & end(counted, 1)).to(p.dtype)
    return torch.stack([x.flatten(2).sum(2) for x in (depth * kept, kept.expand_as(depth))], 2)


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
