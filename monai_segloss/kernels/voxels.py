"""Voxels a few at a time, so that what is computed from them stays in cache and no second array of all classes is needed."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

CHUNK = {"cpu": 1 << 20}
"""Most numbers at a time, by device."""


def some_voxels(z: Tensor) -> Iterator[tuple[slice, slice]]:
    """One sample of (B, C, n) and some of its voxels at a time."""
    size = max(1, CHUNK.get(z.device.type, 1 << 26) // max(1, z.shape[1]))
    for b in range(len(z)):
        for start in range(0, z.shape[2], size):
            yield slice(b, b + 1), slice(start, start + size)
