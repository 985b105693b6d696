"""Soft boundaries of masks, and their tiles."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn

POOLS = {1: nn.functional.max_pool1d, 2: nn.functional.max_pool2d, 3: nn.functional.max_pool3d}
FULL = 0.1
"""A tile of which one mask has less than this part of the boundary of the other is no pair."""


def soft_boundary(p: Tensor, valid: Tensor | None = None) -> Tensor:
    """A mask minus its erosion by one voxel in all directions, (B, C, *S) in [0, 1]; none at the edge of the image.

    Args:
        p: a mask or probabilities.
        valid: (B, 1, *S) bool; other voxels erode nothing and have no boundary.
    """
    filled = p if valid is None else torch.where(valid, p, 1)
    inner = -POOLS[p.ndim - 2](-filled, 3, 1, 1)
    found = p - torch.minimum(inner, p)
    return found if valid is None else torch.where(valid, found, 0)


def starts(n: int, tile: int) -> list[int]:
    """First voxels of tiles along an axis: half a tile apart, the last one at the end."""
    return [0] if n <= tile else [*range(0, n - tile, tile // 2), n - tile]


def tiles(x: Tensor, tile: int) -> Tensor:
    """All tiles (B, C, N, *T) of maps (B, C, *S); an axis shorter than a tile is filled up with zeros."""
    size = x.shape[2:]
    short = [max(0, tile - n) for n in size]
    x = nn.functional.pad(x, [end for n in reversed(short) for end in (0, n)])
    places = product(*(starts(n, tile) for n in size))
    return torch.stack([_cut(x, place, tile) for place in places], 2)


def _cut(x: Tensor, place: Sequence[int], tile: int) -> Tensor:
    for axis, start in enumerate(place, start=2):
        x = x.narrow(axis, start, tile)
    return x


def pairs(p: Tensor, y: Tensor) -> Tensor:
    """Whether tiles (B, C, N, *T) of two masks have a boundary in common that can be compared, (B, C, N)."""
    one, other = (x.detach().flatten(3).sum(3) for x in (p, y))
    return (torch.minimum(one, other) > FULL * torch.maximum(one, other)) & (other > 0)
