"""Pairs of voxels that lie within a radius of each other, one step after the other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_segloss.kernels.recomputed import row_parts, sums

Step = tuple[int, ...]
SLAB = 2**22
"""Most pairs that are counted at once."""


def steps(space: Sequence[int], radius: int, faces: bool = False) -> list[Step]:
    """Of each two opposite steps one, to all voxels of the box of so many to each side of a voxel.

    Args:
        space: of the image; no step leads out of all of it.
        radius: of the box, in voxels.
        faces: only as far as so many steps over faces lead.
    """
    reach = [min(radius, n - 1) for n in space]
    box = itertools.product(*(range(-r, r + 1) for r in reach))
    return [step for step in box if step > (0,) * len(reach) and not (faces and sum(map(abs, step)) > radius)]


def ends(x: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Both voxels of each pair that is this step apart, as views of a map whose last axes are spatial."""
    here = there = x
    for axis, move in enumerate(step, start=x.ndim - len(step)):
        n = x.shape[axis] - abs(move)
        here, there = here.narrow(axis, max(-move, 0), n), there.narrow(axis, max(move, 0), n)
    return here, there


def pair_counts(labels: Tensor, classes: int, radius: int, axes: int) -> Tensor:
    """How many pairs of voxels within the radius are of two classes, (classes, classes), symmetric.

    Args:
        labels: of any shape whose last ``axes`` are spatial; ``classes`` where a voxel does not count.
    """
    n = classes + 1
    table = torch.zeros(n * n, dtype=torch.int64, device=labels.device)
    slab = max(1, SLAB // labels.shape[1:].numel())
    for step in steps(labels.shape[-axes:], radius):
        for here, there in zip(*(torch.split(end, slab) for end in ends(labels, step)), strict=True):
            table += torch.bincount((here.long() * n + there).flatten(), minlength=n * n)
    square = table.view(n, n)[:classes, :classes]
    return square + square.mT


def meeting(labels: Tensor, apart: Tensor, radius: int, faces: bool = False) -> Tensor:
    """Where a voxel and another one within the radius are of two classes that must be apart, (B, *S) bool.

    Args:
        labels: classes (B, *S).
        apart: symmetric, (classes, classes) bool.
    """
    # in bytes, since TorchInductor for AVX2 makes no code of slices of bool
    found, n = torch.zeros_like(labels, dtype=torch.uint8), apart.shape[0]
    for step in steps(labels.shape[1:], radius, faces):
        here, there = ends(labels, step)
        meet = apart.flatten()[here * n + there].to(torch.uint8)
        for end in ends(found, step):
            end.bitwise_or_(meet)
    return found.bool()


def adjacency(p: Tensor, radius: int, include_center: bool = True) -> Tensor:
    """sum_i p_ia times the mean of p_b in the box of i, (B, C, C), symmetric, of p (B, C, *S) with at most three axes.

    Beyond the image p is 0; an axis of one voxel is none.
    """
    reach = [radius if n > 1 else 0 for n in p.shape[2:]]
    box = [2 * r + 1 for r in reach]
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(box) - 1]

    def table(rows: slice, p: Tensor) -> Tensor:
        near = pool(F.pad(p, [r for r in reversed(reach) for _ in range(2)]), box, 1)
        if not include_center:
            near = (near * math.prod(box) - p) / max(math.prod(box) - 1, 1)
        return p[:, :, rows].flatten(2) @ near[:, :, rows].flatten(2).mT

    return sums(table, row_parts(p, reach[0]), (len(p),), p)
