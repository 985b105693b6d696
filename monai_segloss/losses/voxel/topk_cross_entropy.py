"""Cross-entropy of the k percent hardest voxels.  Wu et al., 2016; nnU-Net."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.exact import widest_dtype
from monai_segloss.core.module import ReadingArgs, SegLoss, Weight
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.voxel.cross_entropy import cross_entropy, smoothing


def topk_cross_entropy(
    batch: SegBatch, k: float, weight: Tensor | None = None, label_smoothing: float = 0.0
) -> Unreduced:
    """Sum of the k percent largest cross-entropies among the valid voxels of the batch, and how many they are."""
    return hardest(batch, cross_entropy(batch, weight, label_smoothing).per_voxel(), k)


def hardest(batch: SegBatch, values: Tensor, k: float) -> Unreduced:
    """Sum and number of the k percent largest of ``values`` (B, 1 | C, *S) >= 0 that count, at least one."""
    if batch.mask is None:
        kept = max(1, int(values.numel() * k / 100))
        return Unreduced(values.flatten().topk(kept, sorted=False).values.sum(), values.new_tensor(float(kept)))
    channels = values.shape[1] if batch.multilabel else 1
    kept_of_mask = (batch.mask.sum().to(widest_dtype(values.device)) * channels * k / 100).floor().clamp_min(1)
    ranked = torch.where(batch.mask[:, None], values, values.new_full((), -1)).flatten()
    if ranked.device.type == "cpu" and not torch.compiler.is_compiling():
        ranked = ranked.topk(int(kept_of_mask), sorted=False).values
        return Unreduced(torch.where(ranked < 0, 0, ranked).sum(), kept_of_mask.to(values.dtype))
    # a number of voxels that depends on the mask, without waiting for the device: rank all, keep the first
    ranked = ranked.sort(descending=True).values
    chosen = (torch.arange(ranked.numel(), device=ranked.device) < kept_of_mask) & ~(ranked < 0)
    return Unreduced(torch.where(chosen, ranked, ranked.new_zeros(())).sum(), kept_of_mask.to(values.dtype))


def percentage(k: float) -> float:
    """``k``, checked."""
    if not 0 < k <= 100:
        raise ValueError(f"k is a percentage of the voxels and must lie in (0, 100], got {k!r}.")
    return float(k)


@register(
    "topk_cross_entropy",
    aliases=("topk", "topk_ce"),
    tags=("likelihood", "imbalance"),
    recommended=Recommended(include_background=None, batch=None),
    exempt={"shards_equal_the_batch": "under DDP each process takes the k percent of its own voxels, as in nnU-Net"},
)
class TopKCrossEntropyLoss(SegLoss):
    r"""Mean cross-entropy of the k percent hardest voxels.

    Formula:
        \frac{1}{m}\sum_{i \in \mathrm{top}_m} -\log p_{i,y_i},\quad m = \max(1, \lfloor k N / 100 \rfloor)

    When:
        Few hard voxels among many easy ones; with Dice (dice_topk) among the most robust in comparisons. Noisy labels
        are the hardest voxels: avoid it there.

    Voxels are ranked over the batch. The percentage is of the N valid voxels; nnU-Net counts the ignored ones, which
    enter there as zeros. Class weights are not renormalized. With sigmoid the k percent are taken of all channels'
    voxels. Under DistributedDataParallel each process takes the k percent of its own voxels, as in nnU-Net, not of the
    whole batch.

    Args:
        k: percentage in (0, 100]; 100 is the cross-entropy.
        weight: a factor per class, or one for all.
        label_smoothing: as in `CrossEntropyLoss`.
        reading: see `SegLoss`; one number for the batch, so ``reduction="none"`` is refused.

    Example:
        >>> import torch
        >>> from monai_segloss import TopKCrossEntropyLoss
        >>> loss = TopKCrossEntropyLoss(k=50, softmax=True, to_onehot_y=True)
        >>> logits = torch.tensor([[[9.0, 9.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
        >>> round(loss(logits, torch.zeros(1, 1, 4, dtype=torch.long)).item(), 4)
        0.6931

    Reference:
        Wu, Shen & van den Hengel, Bridging category-level and instance-level semantic image segmentation, 2016,
        arXiv:1605.06885 (a threshold in place of the percentage); Isensee et al., nnU-Net, Nat. Methods 2021.
    """

    formula_arguments = ("weight",)
    scalar_only = True

    def __init__(
        self,
        *,
        k: float = 10.0,
        weight: Weight | None = None,
        label_smoothing: float = 0.0,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        super().__init__(weight=weight, **reading)
        self.k, self.label_smoothing = percentage(k), smoothing(label_smoothing, self.reader.sigmoid)

    def loss(self, batch: SegBatch) -> Unreduced:
        return topk_cross_entropy(batch, self.k, self.weights(batch.classes), self.label_smoothing)
