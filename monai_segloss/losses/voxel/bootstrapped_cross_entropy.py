"""Cross-entropy of the voxels that are not yet certain.  Wu et al., 2016."""

from __future__ import annotations

import math
from typing import Unpack

import torch

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.module import ReadingArgs, SegLoss
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.voxel.cross_entropy import cross_entropy
from monai_segloss.losses.voxel.topk_cross_entropy import hardest, percentage


def bootstrapped_cross_entropy(batch: SegBatch, threshold: float, k: float) -> Unreduced:
    """Sum of the cross-entropies above -log(threshold) and their number; of the k percent hardest where these are more."""
    values = cross_entropy(batch).per_voxel()
    least = hardest(batch, values, k)
    # so written, NaN is not hidden; in float32 p_t can round to 1, which is below a threshold of 1 all the same
    uncertain = ~(values <= -math.log(threshold)) if threshold < 1 else torch.ones_like(values, dtype=torch.bool)
    if batch.mask is not None:
        uncertain = uncertain & batch.mask[:, None]
    count = uncertain.sum().to(values.dtype)
    total = torch.where(uncertain, values, values.new_zeros(())).sum()
    return Unreduced(torch.where(count > least.count, total, least.total), torch.maximum(count, least.count))


@register(
    "bootstrapped_cross_entropy",
    aliases=("bootstrapped_ce", "ohem_cross_entropy"),
    tags=("likelihood", "imbalance"),
    recommended=Recommended(include_background=None, batch=None),
    exempt={"shards_equal_the_batch": "under DDP each process takes the hard voxels of its own part of the batch"},
)
class BootstrappedCrossEntropyLoss(SegLoss):
    r"""Mean cross-entropy of the voxels whose true class has a probability below a threshold, at least k percent.

    Formula:
        \frac{\sum_i [p_{i,y_i} < t]\,(-\log p_{i,y_i})}{\sum_i [p_{i,y_i} < t]}

    When:
        Most voxels easy from early on. Early in training nearly all voxels count, later only the hard ones, and with
        them the wrongly labeled ones: avoid it where labels are noisy.

    Voxels are ranked over the batch. Where fewer than ``k`` percent of the voxels that count are below the
    ``threshold``, the k percent hardest take their place, at least one. With sigmoid the voxels of all channels are
    ranked together. With soft labels p_y is exp(-cross-entropy). The paper keeps a number of pixels; here it is a
    percentage, so that patches of any size mean the same. The defaults are those of widespread code (threshold 0.7),
    not the paper's. Under DistributedDataParallel each process takes the hard voxels of its own part of the batch.

    Args:
        threshold: t in (0, 1]; 1 is the cross-entropy.
        k: percentage in (0, 100] of the voxels that is kept at least; 100 is the cross-entropy.
        reading: see `SegLoss`; one number for the batch, so ``reduction="none"`` is refused.

    Example:
        >>> import torch
        >>> from monai_segloss import BootstrappedCrossEntropyLoss
        >>> loss = BootstrappedCrossEntropyLoss(softmax=True, to_onehot_y=True)
        >>> logits = torch.tensor([[[9.0, 9.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]]])
        >>> round(loss(logits, torch.zeros(1, 1, 4, dtype=torch.long)).item(), 4)
        0.5836

    Reference:
        Wu, Shen & van den Hengel, Bridging category-level and instance-level semantic image segmentation, 2016,
        arXiv:1605.06885.
    """

    formula_arguments = ()
    scalar_only = True

    def __init__(self, *, threshold: float = 0.7, k: float = 10.0, **reading: Unpack[ReadingArgs]) -> None:
        super().__init__(**reading)
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is a probability and must lie in (0, 1], got {threshold!r}.")
        self.threshold, self.k = float(threshold), percentage(k)

    def loss(self, batch: SegBatch) -> Unreduced:
        return bootstrapped_cross_entropy(batch, self.threshold, self.k)
