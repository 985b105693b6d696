"""Features of predicted masks, their births and deaths, which losses of topology share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from monai_segloss.core.arguments import shown
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.errors import LossShapeError
from monai_segloss.core.reduce import Unreduced
from monai_segloss.kernels.betti import DIMENSIONS
from monai_segloss.kernels.persistence import complexes, persistence_pairs
from monai_segloss.losses.boundary.neighborhood import require_spatial

LARGEST = 64**3
"""Voxels of the largest map, 64^3 or 512^2."""
COST = (
    "0.1 to 0.2 s for each class and sample of a slice of 256x256 or a volume of 32x32x32, 1.2 to 2.9 s of 64x64x64, on one "
    "core of an AMD EPYC whatever the device (gudhi 3.13)"
)
BOUNDS: Mapping[str, float] = {"every": 1e6, "patch_size": 512.0}


@dataclass(frozen=True)
class Features:
    """The features of maps (N, *S), one entry each; births and deaths have the gradient of the maps there.

    Args:
        of: the map of each.
        dimension: 0 for components, 1 for tunnels (in 2-D holes), 2 for cavities.
        rank: by persistence among those of the same map and dimension.
        birth, death: the values at which it comes and goes; a component that stays dies at 0.
        maps: how many maps there are.
        asked: (3,), 0 for the dimensions that cost nothing.
    """

    of: Tensor
    dimension: Tensor
    rank: Tensor
    birth: Tensor
    death: Tensor
    maps: int
    asked: Tensor

    def cost(self, least: Tensor, most: Tensor, kept: Tensor, extra: Tensor, missing: float) -> Tensor:
        """The cost of each map, (N,).

        Args:
            least, most: how many features each map is to have, (N, 3), the most persistent ones first. Those between the
                two cost nothing.
            kept, extra: the cost of each feature, where it is kept and where it is one too many, (M,).
            missing: the cost of one that a map lacks.
        """
        few, many = (self.rank < betti[self.of, self.dimension] for betti in (least, most))
        each = torch.where(few, kept, torch.where(many, 0, extra)) * self.asked[self.dimension]
        cell = self.of * DIMENSIONS + self.dimension
        found = torch.zeros_like(least.flatten()).index_add(0, cell, torch.ones_like(cell)).view_as(least)
        absent = ((least - found).clamp_min(0) * self.asked).sum(1)
        return each.new_zeros(self.maps).index_add(0, self.of, each) + missing * absent.to(each.dtype)


def features(maps: Tensor, wanted: Tensor, dimensions: Sequence[int] = range(DIMENSIONS)) -> Features:
    """The features of maps (N, *S) of probabilities.

    Args:
        wanted: (); where it is 0 there are none.
        dimensions: of the features that cost something.

    Raises:
        ValueError: the maps are too large.
    """
    if maps.shape[1:].numel() > LARGEST:
        raise LossShapeError(
            f"input has {'x'.join(map(str, maps.shape[1:]))} voxels; persistent homology takes at most 64x64x64 or 512x512 "
            "at a time: crop it, or give a smaller patch_size where the loss has one."
        )
    of, dimension, rank, birth, death = persistence_pairs(maps, wanted).unbind(1)
    flat = maps.flatten(1)
    low = torch.where(death < 0, 0, flat[of, death.clamp_min(0)])
    asked = torch.tensor([k in dimensions for k in range(DIMENSIONS)], device=maps.device)
    return Features(of, dimension, rank, flat[of, birth], low, len(maps), asked)


class Steps(nn.Module):
    """Which calls a loss of persistence is computed in, as the factor of its value.

    In every k-th step of a training the factor is k, in the others 0, so that value and gradient are the same on average;
    without gradients and in evaluation it is 1, at the coarser scales of deep supervision 0.

    Args:
        every: k.

    Raises:
        ImportError: gudhi is not installed.
    """

    def __init__(self, every: int) -> None:
        super().__init__()
        complexes()
        self.every = whole(1, every=every)
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))
        self.done: Tensor

    def forward(self, batch: SegBatch) -> Tensor:
        require_spatial(batch)
        one = batch.voxels.new_ones(())
        if not batch.full_resolution:
            return 0 * one
        if self.every == 1 or not (self.training and torch.is_grad_enabled()):
            return one
        now = self.done
        self.done = now + 1
        return (self.every * (now % self.every == 0)).to(one)


def in_tiles(f: Callable[..., Tensor], edge: int, *maps: Tensor) -> Tensor:
    """The sum over tiles of ``f``, from maps (N, *S) to (N,), of maps (B, K, *S), as a table (B, K).

    Args:
        edge: of the tiles, in voxels; the last ones are what is left.
    """
    cuts = [[slice(i, i + edge) for i in range(0, n, edge)] for n in maps[0].shape[2:]]
    parts = [(slice(None), *part) for part in itertools.product(*cuts)]
    return torch.stack([f(*(x.flatten(0, 1)[part] for x in maps)) for part in parts]).sum(0).view(maps[0].shape[:2])


def of_dimensions(given: Sequence[int] | None) -> tuple[int, ...]:
    """The argument ``dimensions``, checked."""
    if given is None:
        return tuple(range(DIMENSIONS))
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    if not listed or not given or not all(type(k) is int and 0 <= k < DIMENSIONS for k in given):
        raise ValueError(f"dimensions must be some of 0, 1 and 2, got {shown(given)}.")
    return tuple(given)


def whole(least: int, **arguments: float) -> int:
    """A constructor argument that must be a whole number of at least ``least``."""
    ((name, value),) = arguments.items()
    if not least <= value or value != int(value):
        raise ValueError(f"{name} must be a whole number of at least {least}, got {shown(value)}.")
    return int(value)


def unreduced(table: Tensor, maps: Tensor, factor: Tensor, voxel_count: Tensor) -> Unreduced:
    """Of the value of each map (B, K, *S); what is not a number in a map shows."""
    return Unreduced.table(factor * table + 0 * maps.detach().flatten(2).sum(2), voxel_count)
