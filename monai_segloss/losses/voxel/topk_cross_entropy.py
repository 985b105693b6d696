from __future__ import annotations

from torch import Tensor

from monai_segloss.core.card import ReadingArgs, SegLoss, Unpack, Weight, check, register
from monai_segloss.core.formula import SegBatch, Unreduced
from monai_segloss.losses.voxel.cross_entropy import cross_entropy
from monai_segloss.losses.voxel.hardest import hardest, percentage


@register(
    "topk_cross_entropy",
    aliases=("topk", "topk_ce"),
    tags=("likelihood", "imbalance"),
    exempt={"shards_equal_the_batch": "under DDP each process takes the k percent of its own voxels, as in nnU-Net"},
)
class TopKCrossEntropyLoss(SegLoss):
    r"""Mean cross-entropy of the k percent hardest voxels.

    Formula: \frac{1}{m}\sum_{i \in \mathrm{top}_m} -\log p_{i,y_i},\quad m = \max(1, \lfloor k N / 100 \rfloor)

    When: Few hard voxels among many easy ones; with Dice (dice_topk) among the most robust in comparisons. Noisy labels
    are the hardest voxels: avoid it there.

    Voxels are ranked over the batch. The percentage is of the N valid voxels; nnU-Net counts the ignored ones, which
    enter there as zeros. Class weights are not renormalized. With sigmoid the k percent are taken of all channels'
    voxels.

    Args:
        k: percentage in (0, 100]; 100 is the cross-entropy.
        weight: a factor per class, background included, or one for all.
        label_smoothing: as in `CrossEntropyLoss`.

    Example:
        >>> import torch
        >>> from monai_segloss import TopKCrossEntropyLoss
        >>> loss = TopKCrossEntropyLoss(k=50, softmax=True, to_onehot_y=True)
        >>> logits = torch.tensor([[[9.0, 9.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
        >>> round(loss(logits, torch.zeros(1, 1, 4, dtype=torch.long)).item(), 4)
        0.6931

    Reference: Wu, Shen & van den Hengel, Bridging category-level and instance-level semantic image segmentation, 2016,
    arXiv:1605.06885 (a threshold in place of the percentage); Isensee et al., nnU-Net, Nat. Methods 2021.
    """

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
        self.k, self.label_smoothing = percentage(k), check.smoothing(label_smoothing, self.reader.sigmoid)

    def loss(self, batch: SegBatch) -> Unreduced:
        return topk_cross_entropy(batch, self.k, self.weights(batch.classes), self.label_smoothing)


def topk_cross_entropy(
    batch: SegBatch, k: float, weight: Tensor | None = None, label_smoothing: float = 0.0
) -> Unreduced:
    """Sum of the k percent largest cross-entropies among the valid voxels of the batch, and how many they are."""
    return hardest(batch, cross_entropy(batch, weight, label_smoothing).per_voxel(), k)
