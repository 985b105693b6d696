"""A loss that is a sum of voxel statistics with factors: summed in one pass, or kept per voxel."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from monai_segloss.core.batch import ClassView, SegBatch
from monai_segloss.core.counts import FORMULAS, Stat, soft_statistics
from monai_segloss.core.errors import Renamed
from monai_segloss.core.module import SegLoss
from monai_segloss.core.reduce import Unreduced, times

Factors = Mapping[Stat, Tensor | float]
"""Statistic -> its factor: a number, or one per scored class (C,)."""
VOXELS = Stat("voxels")
"""In a divisor: the voxels that count, or the sum of their entries in the weight map."""


@dataclass(frozen=True)
class VoxelSum:
    """sum over voxels i and classes c of m_i sum_k f_kc s_k(p_ic, g_ic), and what its mean divides by.

    Args:
        batch: as read.
        parts: statistic s_k -> factor f_k.
        divisor: the same form for what the mean divides by; None: the voxels, each once (one class per voxel) or once
            per channel (regions).
        weight_map: m (B, *S), (B, 1, *S) or, for regions, (B, C, *S); None where all voxels weigh 1.
        first: first scored class; 1 leaves the background out.
        unweighted: the mean divides by the voxels themselves, whatever the map.
        by_channel: channels are regions whatever the activation says, also where ``input`` holds probabilities.
    """

    batch: SegBatch
    parts: Factors
    divisor: Factors | None = None
    weight_map: Tensor | None = None
    first: int = 0
    unweighted: bool = False
    by_channel: bool = False
    _sums: dict[Stat, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @property
    def view(self) -> ClassView:
        """The scored classes."""
        return ClassView(self.batch, include_background=not self.first, over_batch=False)

    @property
    def multilabel(self) -> bool:
        """Whether channels are independent rather than one class per voxel."""
        return self.by_channel or self.batch.multilabel

    @property
    def statistics(self) -> tuple[Stat, ...]:
        """The sums that `summed` needs."""
        return tuple(stat for stat in dict.fromkeys((*self.parts, *(self.divisor or ()))) if stat != VOXELS)

    def summed(self) -> Unreduced:
        """The table (B, C) of the sums, and the divisor."""
        total = self._combined(self.parts)
        if self.divisor is not None:
            return Unreduced(total, self._combined(self.divisor))
        voxels = self._voxels()
        return Unreduced(total, voxels if self.multilabel else voxels / total.shape[1])

    def per_voxel(self) -> Tensor:
        """The map (B, 1, *S) of one class per voxel, (B, C, *S) of regions; 0 where ignored."""
        view = self.view
        value = sum(self._value(view, stat, factor) for stat, factor in self.parts.items())
        assert isinstance(value, Tensor)
        if self.weight_map is not None:
            m = self.weight_map if self.weight_map.ndim == value.ndim else self.weight_map[:, None]
            value = value * m.to(value.dtype)
        return value if self.batch.mask is None else value * self.batch.mask[:, None]

    scores = Renamed("unreduced")

    def unreduced(self, reduction: str) -> Unreduced:
        """What a loss hands to the reduction: the map for ``"none"``, else the sums."""
        return Unreduced(self.per_voxel(), self.batch.voxels) if reduction == "none" else self.summed()

    def _value(self, view: ClassView, stat: Stat, factor: Tensor | float) -> Tensor:
        """One statistic of each voxel times its factor; summed over the classes where a voxel has one."""
        batch = self.batch
        if stat.name == "ce" and batch.has_labels and not self.multilabel and not self.first:  # no one-hot
            lp = batch.log_prob.contiguous()  # else nll_loss may have no gradient
            weight = (factor.to(lp) if isinstance(factor, Tensor) else lp.new_tensor(factor)).expand(batch.classes)
            return F.nll_loss(lp, batch.labels, weight, reduction="none")[:, None]
        value = FORMULAS[stat.name](view.voxels, stat.power)
        if isinstance(factor, Tensor):
            factor = factor.to(value).reshape(-1, *(1,) * (value.ndim - 2))
        value = factor * value
        return value if self.multilabel else value.sum(1, keepdim=True)

    def _combined(self, factors: Factors) -> Tensor:
        sums = {**self.totals(), **({VOXELS: self._voxels()} if VOXELS in factors else {})}
        found = [times(factor, sums[stat]) for stat, factor in factors.items()]
        total = found[0]
        for each in found[1:]:
            total = total + each
        return total

    def totals(self) -> dict[Stat, Tensor]:
        """Each statistic, summed over the voxels with their weights: (B, C) of the scored classes."""
        if not self._sums:
            which = self.statistics
            self._sums.update(zip(which, self._summed(which), strict=True))
        return self._sums

    def _summed(self, which: tuple[Stat, ...]) -> list[Tensor]:
        batch, w, view = self.batch, self.weight_map, self.view
        if w is None:
            return view.sums(*which)
        if w.ndim == batch.ndim and w.shape[1] > 1:
            return [batch.total(w * FORMULAS[stat.name](view.voxels, stat.power)) for stat in which]
        weight, logits, target = self._masked(), batch.logits, batch.target
        if weight.requires_grad:  # what is ignored must not even come near its gradient
            logits, target = batch.masked_logits, batch.one_hot
        return [
            view.drop_background(x) for x in soft_statistics(logits, target, which, batch.activation, weight).unbind(2)
        ]

    def _voxels(self) -> Tensor:
        """Number of voxels that count, or the sum of their entries in the map, (B, 1)."""
        if self.weight_map is None or self.unweighted:
            return self.batch.voxels
        w = self._masked()
        return w.reshape(len(w), -1).sum(1, keepdim=True, dtype=self.batch.voxels.dtype)

    def _masked(self) -> Tensor:
        """The weight map (B, *S), 0 where ignored."""
        assert self.weight_map is not None
        w = self.weight_map if self.weight_map.ndim < self.batch.ndim else self.weight_map[:, 0]
        return w if self.batch.mask is None else w * self.batch.mask


class VoxelLoss(SegLoss):
    """A loss that is a `VoxelSum`: a card says which statistics with which factors.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``: a value per voxel, (B, 1, *S), of regions (B, C, *S); not normalized.
    """

    own_pass: ClassVar[bool] = False
    """Whether its sums are of another batch or of weighted voxels, which no other loss can share."""

    @abstractmethod
    def voxel_sum(self, batch: SegBatch) -> VoxelSum:
        """The formula as data."""

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        if self.own_pass or self.reduction == "none" or "weight_map" in batch.maps:
            return ()
        return self.voxel_sum(batch).statistics

    def loss(self, batch: SegBatch) -> Unreduced:
        return self.voxel_sum(batch).unreduced(self.reduction)
