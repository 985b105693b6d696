"""Statistics of classes in which each voxel has a weight of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_segloss.core.batch import ClassView
from monai_segloss.core.counts import FORMULAS, Voxels
from monai_segloss.kernels.recomputed import by_name, sums, voxel_parts


def weighted_statistics(names: Sequence[str], view: ClassView, weights: Tensor) -> list[Tensor]:
    """Statistics of the scored classes with the weights (B, C', *S) of their voxels, which the gradient computes again.

    Returns:
        (B, C') for each name, or (1, C') of a view over the batch.
    """
    batch = view.batch
    z, activation = by_name(batch.masked_logits, batch.activation)

    def table(_: slice, z: Tensor, g: Tensor, w: Tensor, counted: Tensor | None) -> Tensor:
        v, w = Voxels(z, g.to(z.dtype), activation, view.first), w if counted is None else w * counted
        return torch.stack([(w * FORMULAS[name](v, 0)).sum(2) for name in names], 2)

    z, g, w = (x.reshape(*x.shape[:2], -1) for x in (z, batch.one_hot, weights))
    counted = None if batch.mask is None else batch.mask.reshape(len(z), 1, -1)
    found = sums(table, voxel_parts(z, by_sample=True), (len(z),), z, g, w, counted)
    return [view.reduce_batch(x) for x in found.unbind(2)]
