"""Maps of windows some rows at a time, so that what is computed from them stays in cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

SLAB = 2**17
"""Voxels whose windows are measured at once on the CPU: few enough that they stay in cache."""

Part = tuple[slice, ...]


def by_slabs(f: Callable[..., Tensor], halo: int, mask: Tensor | None, *maps: Tensor) -> Tensor:
    """``f(*maps, mask)`` of maps (B, C, *S) and a mask (B, *S) or None; on the CPU some rows at a time.

    ``f`` gives a map of the same shape, each voxel of which depends on those at most ``halo`` rows away.
    """
    x = maps[0]
    if x.device.type != "cpu" or torch.compiler.is_compiling() or x.numel() <= SLAB:
        return f(*maps, mask)
    out = torch.empty_like(x)
    for part, around, start in slabs(x.shape, halo, SLAB):
        rows = None if mask is None else mask[around[0], around[2]]
        out[part] = f(*(each[around] for each in maps), rows).narrow(2, start, out[part].shape[2])
    return out


def slabs(shape: torch.Size, halo: int, most: int) -> Iterator[tuple[Part, Part, int]]:
    """Parts of a map (B, C, *S), each with the part that holds its windows too, and where it begins in that."""
    rows = max(1, most // shape[3:].numel())
    for b in range(shape[0]):
        for c in range(shape[1]):
            for start in range(0, shape[2], rows):
                stop, first = min(start + rows, shape[2]), max(start - halo, 0)
                sample, channel = slice(b, b + 1), slice(c, c + 1)
                yield (sample, channel, slice(start, stop)), (sample, channel, slice(first, stop + halo)), start - first
