"""Pairs of boundaries and the transformation between them, for the training of a regressor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monai_segloss.prior.boundaries import FULL, soft_boundary
from monai_segloss.prior.networks import parameters
from monai_segloss.prior.patches import Labels, View, in_voxels, rotation

SHIFT, SCALE, ANGLE = 1 / 6, 0.2, math.radians(20)
"""Largest translation, in edges of a tile; logarithm of scale; rotation."""


def affine(theta: Tensor, tile: int, spacing: Sequence[float] | None) -> tuple[Tensor, Tensor]:
    """Matrix and translation, in voxels, of parameters in units of the largest ones."""
    axes = 2 if len(theta) == 5 else 3
    shift, scale, angles = theta.double().tensor_split((axes, 2 * axes))
    return in_voxels(rotation(angles * ANGLE), spacing) * torch.exp(scale * SCALE), shift * SHIFT * tile


def softened(mask: Tensor, generator: torch.Generator) -> Tensor:
    """A mask (*S) with an edge as soft as that of probabilities may be: means over neighbors, none to three times."""
    axes = mask.ndim
    mean = {2: nn.functional.avg_pool2d, 3: nn.functional.avg_pool3d}[axes]
    x = mask[None, None]
    for _ in range(int(torch.randint(4, (1,), generator=generator))):
        x = mean(x, 3, 1, 1, count_include_pad=False)
    return x[0, 0]


def pair(
    view: View, labels: Labels, tile: int, spacing: Sequence[float] | None, generator: torch.Generator
) -> tuple[Tensor, Tensor] | None:
    """Two boundaries (2, *T) of one class and the parameters that take the second to the first; None where one is empty."""
    theta = 2 * torch.rand(parameters(len(view.size)), generator=generator) - 1
    wide = [tile + 2] * len(view.size)  # a margin, so that the edge of a tile is no edge of an image
    moved, straight = (view.take(wide, move)[None] for move in (affine(theta, tile, spacing), None))
    (first, here), (second, there) = (labels.onehot(x) for x in (moved, straight))
    present = [c for c in labels.scored if 0 < second[:, c].mean() < 1]
    if not present:
        return None
    c = present[int(torch.randint(len(present), (1,), generator=generator))]
    inner = (slice(1, -1),) * len(view.size)
    soft = softened(first[0, c], generator)[None, None]
    both = (soft_boundary(soft, here > 0), soft_boundary(second[:, c : c + 1], there > 0))
    found = torch.stack([x[0, 0][inner] for x in both])
    sums = found.flatten(1).sum(1)
    return (found, theta) if sums.min() > FULL * sums.max() else None
