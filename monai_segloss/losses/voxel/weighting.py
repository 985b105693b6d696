"""Sums and means over voxels that a map weighs; what the voxel losses share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import Stat, Voxels, soft_statistics


def is_multilabel(batch: SegBatch) -> bool:
    """Whether channels are independent (sigmoid, or a single channel) rather than one class per voxel."""
    return batch.activation == "sigmoid" or batch.classes == 1


def weighted_sums(batch: SegBatch, which: Sequence[Stat], weight_map: Tensor | None) -> list[Tensor]:
    """Statistics (B, C) of the voxels that count, each times its entry in the map."""
    if weight_map is None:
        batch.request(*which)
        return [batch.sum(stat) for stat in which]
    weight = _masked(batch, weight_map)
    return list(soft_statistics(batch.logits, batch.target, tuple(which), batch.activation, weight).unbind(2))


def weighted_voxels(batch: SegBatch, weight_map: Tensor | None) -> Tensor:
    """Number of voxels that count, or the sum of their entries in the map, (B, 1)."""
    if weight_map is None:
        return batch.voxels
    return _masked(batch, weight_map).reshape(len(batch.logits), -1).sum(1, keepdim=True, dtype=batch.voxels.dtype)


def weighted_map(batch: SegBatch, value: Tensor, weight_map: Tensor | None = None) -> Tensor:
    """A value per voxel (B, C | 1, *S) times the map; 0 where ignored."""
    value = value if weight_map is None else value * weight_map[:, None].to(value.dtype)
    return value if batch.mask is None else value * batch.mask[:, None]


def voxels(batch: SegBatch) -> Voxels:
    """Probabilities, logarithms and target of each voxel, for the formula of a statistic before its sum."""
    return Voxels(batch.clean, batch.one_hot.to(batch.clean.dtype), batch.activation)


def class_factor(batch: SegBatch, weight: Tensor | None) -> Tensor | float:
    """Factors per class as they multiply a map (B, C, *S)."""
    if weight is None:
        return 1.0
    return weight.to(batch.clean).expand(batch.classes).reshape(-1, *(1,) * (batch.ndim - 2))


def _masked(batch: SegBatch, weight_map: Tensor) -> Tensor:
    return weight_map if batch.mask is None else weight_map * batch.mask
