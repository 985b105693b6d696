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
    if mask is None:
        return in_slabs(lambda *x: f(*x, None), halo, SLAB, *maps)
    return in_slabs(lambda *x: f(*x[:-1], x[-1][:, 0]), halo, SLAB, *maps, mask[:, None].expand_as(x))


def in_slabs(f: Callable[..., Tensor], halo: int, most: int, *maps: Tensor) -> Tensor:
    """``f(*maps)`` of maps (B, C, *S), rows of ``most`` voxels at a time, each with ``halo`` rows around them."""
    out = torch.empty_like(maps[0])
    for part, around, start in slabs(out.shape, halo, most):
        out[part] = f(*(x[around] for x in maps)).narrow(2, start, out[part].shape[2])
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
