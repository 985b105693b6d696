"""Voxels a few at a time, so that what is computed from them stays in cache and no second array of all classes is needed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = {"cpu": 1 << 20}
"""Most numbers at a time, by device."""


def some_voxels(z: Tensor) -> Iterator[tuple[slice, slice]]:
    """One sample of (B, C, n) and some of its voxels at a time."""
    size = max(1, CHUNK.get(z.device.type, 1 << 26) // max(1, z.shape[1]))
    for b in range(len(z)):
        for start in range(0, z.shape[2], size):
            yield slice(b, b + 1), slice(start, start + size)


class Left:
    """Memory of the size of ``z`` that a forward pass fills and a backward pass turns into the gradient.

    There is none where no gradient is wanted, in a second backward pass, and where the gradient is to have a graph.
    """

    def __init__(self, z: Tensor) -> None:
        self.wanted = z.requires_grad and torch.is_grad_enabled()
        self.x: Tensor | None = None

    def take(self) -> Tensor | None:
        """What the forward pass left; nothing from then on."""
        found, self.x = self.x, None
        return None if torch.is_grad_enabled() else found
