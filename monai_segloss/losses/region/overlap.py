"""Overlap loss: foreground and background probability of a voxel should not both be large.  Yang et al., STACOM 2018."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import FORMULAS, Stat, Voxels
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register

PQ = Stat("pq")


def overlap(pq: Tensor, voxels: Tensor, multilabel: bool) -> Unreduced:
    """Mean over voxels of sum_c p_c (1 - p_c) / 2; channels by themselves: the mean of p (1 - p).  ``pq`` is (B, C)."""
    if multilabel:
        return Unreduced(pq, voxels)
    return Unreduced(pq / 2, voxels / pq.shape[1])


@register(
    "overlap",
    tags=("regularizer", "experimental"),
    recommended=Recommended(include_background=None, batch=None),
    exempt={
        "shards_equal_the_batch": "under DDP each process takes the mean of its own voxels, as the voxel losses do"
    },
)
class OverlapLoss(SegLoss):
    r"""Experimental: mean product of foreground and background probability, a term for sharp predictions.

    Formula:
        \frac{1}{N} \sum_i \tfrac12 \Bigl(1 - \sum_c p_{ic}^2\Bigr)

    When:
        Only as a small term alongside a loss that reads the labels: it is smallest at any certain prediction, right or
        wrong. Experimental: the formula is a reconstruction from the abstract, not verified against the paper.

    Two classes: the mean over voxels of p_fg p_bg. Sigmoid: the mean over channels and voxels of p (1 - p). The
    abstract says "reduce the overlap between foreground and background". ``reduction="none"``: (B, 1, *S), with sigmoid
    (B, C, *S).

    Args:
        reading: see `SegLoss`.

    Example:
        >>> import torch
        >>> from monai_segloss import OverlapLoss
        >>> loss = OverlapLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 4, 8), torch.zeros(1, 1, 8, dtype=torch.long)).item(), 4)
        0.375

    Reference:
        Yang, Wang et al., Combating uncertainty with novel losses for automatic left atrium segmentation, STACOM 2018
        (abstract only; the formula is a reconstruction), arXiv:1812.05807.
    """

    formula_arguments = ()

    def __init__(self, **reading: Unpack[ReadingArgs]) -> None:
        super().__init__(**reading)

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        return () if self.reduction == "none" else (PQ,)

    def loss(self, batch: SegBatch) -> Unreduced:
        multilabel = batch.multilabel
        if self.reduction != "none":
            return overlap(batch.sum(PQ), batch.voxels, multilabel)
        value = FORMULAS["pq"](Voxels(batch.masked_logits, batch.masked_logits, batch.activation), 0)
        value = value if multilabel else value.sum(1, keepdim=True) / 2
        return Unreduced(value if batch.mask is None else value * batch.mask[:, None], batch.voxels)
