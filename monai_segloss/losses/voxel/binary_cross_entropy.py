from __future__ import annotations

from torch import Tensor

from monai_segloss.core.card import ReadingArgs, Unpack, VoxelLoss, Weight, check, class_weight, register
from monai_segloss.core.formula import SegBatch, Stat, VoxelSum

BINARY = (Stat("ce"), Stat("ce_neg"))


@register(
    "binary_cross_entropy",
    aliases=("bce",),
    tags=("likelihood",),
    support=("regions", "soft labels", "ignore", "2-D", "3-D"),
)
class BinaryCrossEntropyLoss(VoxelLoss):
    r"""Binary cross-entropy of each channel, averaged over channels and voxels.

    Formula: -\frac{1}{C N}\sum_{c,i} \left[\beta_c\, g \log p + (1 - g) \log(1 - p)\right]

    When: Overlapping regions, or each class against the rest. A positive weight above 1 buys recall with precision and
    miscalibrates the probabilities.

    beta is ``pos_weight``. Every channel is scored against the rest, the background too, as
    `torch.nn.BCEWithLogitsLoss` does. Labels are read one-vs-rest with ``sigmoid=True, to_onehot_y=True``. A keyword
    ``weight_map`` of the call, (B, 1, *S) or (B, *S), weighs voxels; the mean divides by its sum.

    Args:
        pos_weight: factor of the positive term, one per channel or one for all, at least 0; torch's ``pos_weight``.
            Above 1 it lowers the number of false negatives.

    Raises:
        ValueError: ``softmax=True``; that is `CrossEntropyLoss`.

    Example:
        >>> import torch
        >>> from monai_segloss import BinaryCrossEntropyLoss
        >>> loss = BinaryCrossEntropyLoss(sigmoid=True, pos_weight=3)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1], [0, 0, 0, 0]]])).item(), 4)
        1.0397

    Reference: Jadon, A survey of loss functions for semantic segmentation, CIBCB 2020 (the weighted form),
    arXiv:2006.14822, equations 1 and 2.
    """

    accepts = ("weight_map",)

    def __init__(self, *, pos_weight: Weight | None = None, **reading: Unpack[ReadingArgs]) -> None:
        super().__init__(**reading)
        if self.reader.softmax:
            raise ValueError(
                "softmax=True makes the channels depend on each other; BinaryCrossEntropyLoss scores each by itself: "
                "pass sigmoid=True, or take CrossEntropyLoss."
            )
        self.register_buffer("pos_weight", None if pos_weight is None else class_weight(pos_weight, "pos_weight"))
        self.pos_weight: Tensor | None

    def voxel_sum(self, batch: SegBatch) -> VoxelSum:
        pos_weight = check.per_class("pos_weight", self.pos_weight, batch.classes)
        return binary_cross_entropy(batch, pos_weight, batch.map("weight_map"))


def binary_cross_entropy(
    batch: SegBatch, pos_weight: Tensor | None = None, weight_map: Tensor | None = None
) -> VoxelSum:
    """-(w g log p + (1 - g) log(1 - p)) over channels and voxels."""
    positive, negative = BINARY
    factors = {positive: 1.0 if pos_weight is None else pos_weight, negative: 1.0}
    return VoxelSum(batch, factors, weight_map=weight_map, by_channel=True)
