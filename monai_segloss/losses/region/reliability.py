"""Reliability: predicted probability against the share of voxels that are there, bin by bin."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_segloss.core.batch import ClassView
from monai_segloss.core.check import within
from monai_segloss.core.counts import Voxels
from monai_segloss.core.exact import widest_dtype
from monai_segloss.kernels.recomputed import by_name, sums, voxel_parts

LEAST = 0.01
"""A bin of less weight is empty."""
MOST_BINS = 1000


def whole_bins(bins: int) -> int:
    """``bins``, checked."""
    within(1, MOST_BINS, bins=bins)
    if bins != int(bins):
        raise ValueError(f"bins must be a whole number, got {bins!r}.")
    return int(bins)


def reliability(view: ClassView, bins: int, soft: bool) -> Tensor:
    """Weight, sum of p and sum of g of each bin, (B | 1, C', bins, 3), in the widest type.

    The gradient computes the voxels again.
    """
    batch = view.batch
    z, activation = by_name(batch.masked_logits, batch.activation)
    maps = [None if x is None else x.reshape(len(z), -1, z[0, 0].numel()) for x in (z, batch.one_hot, batch.mask)]

    def table(_: slice, z: Tensor, g: Tensor, counted: Tensor | None) -> Tensor:
        v = Voxels(z, g.to(z.dtype), activation, view.first)
        return binned(v.p, v.g, counted, bins, soft)

    assert maps[0] is not None
    return view.reduce_batch(sums(table, voxel_parts(maps[0], by_sample=True), (len(z),), *maps))


def binned(p: Tensor, g: Tensor, counted: Tensor | None, bins: int, soft: bool) -> Tensor:
    """Weight, sum of p and sum of g in equal bins on [0, 1], (B, C, bins, 3).

    Args:
        p: probabilities (B, C, n).
        g: target (B, C, n).
        counted: (B, 1, n) bool, the voxels that count, or None.
        bins: their number.
        soft: p is shared between the two nearest centers of bins, in proportion to how near they are; the outermost have
            what lies beyond them.
    """
    w = torch.ones_like(p) if counted is None else counted.to(p.dtype).expand_as(p)
    if soft:
        x = (bins * p - 0.5).clamp(0, bins - 1)
        low = _index(x, max(bins - 2, 0))
        share = x - low
        parts = [(low, w * (1 - share))] + ([(low + 1, w * share)] if bins > 1 else [])
    else:
        parts = [(_index(bins * p, bins - 1), w)]
    # one number is added after the other, which in float32 loses digits
    empty = p.new_zeros(*p.shape[:2], bins, dtype=widest_dtype(p.device))
    tables = [torch.stack([empty.scatter_add(2, at, v.to(empty)) for v in (u, u * p, u * g)], -1) for at, u in parts]
    return sum(tables[1:], tables[0])


def _index(x: Tensor, last: int) -> Tensor:
    """Whole numbers below x, 0 to ``last``."""
    return x.detach().nan_to_num().floor().clamp(0, last).long()


def average_calibration_error(table: Tensor) -> Tensor:
    """Mean over the bins with voxels of |mean p - mean g|, (B | 1, C); 0 for a class that is absent."""
    weight, p, g = table.unbind(-1)
    kept = ~(weight < LEAST)  # a bin of NaN too
    gap = (p - g).abs() / weight.masked_fill(~kept, 1)
    error = (gap * kept).sum(2) / kept.sum(2).clamp_min(1)
    return torch.where(g.sum(2) > 0, error, 0 * error.detach())
