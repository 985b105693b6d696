"""Binary cross-entropy of each channel against the rest, with a weight on the positive term."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core import check
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import ReadingArgs, Weight, class_weight
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.registry import register
from monai_segloss.core.voxel_sum import VoxelLoss, VoxelSum

BINARY = (Stat("ce"), Stat("ce_neg"))


def binary_cross_entropy(
    batch: SegBatch, pos_weight: Tensor | None = None, weight_map: Tensor | None = None
) -> VoxelSum:
    """-(w g log p + (1 - g) log(1 - p)) over channels and voxels."""
    positive, negative = BINARY
    factors = {positive: 1.0 if pos_weight is None else pos_weight, negative: 1.0}
    return VoxelSum(batch, factors, weight_map=weight_map, by_channel=True)


@register(
    "binary_cross_entropy",
    aliases=("bce",),
    tags=("likelihood",),
    support=("regions", "soft labels", "ignore", "2-D", "3-D"),
    recommended=Recommended(include_background=None, batch=None),
)
class BinaryCrossEntropyLoss(VoxelLoss):
    r"""Binary cross-entropy of each channel, averaged over channels and voxels.

    Formula:
        -\frac{1}{C N}\sum_{c,i} \left[\beta_c\, g \log p + (1 - g) \log(1 - p)\right]

    When:
        Overlapping regions, or each class against the rest. A positive weight above 1 buys recall with precision and
        miscalibrates the probabilities.

    beta is ``pos_weight``. Every channel is scored against the rest, the background too, as
    `torch.nn.BCEWithLogitsLoss` does. Labels are read one-vs-rest with ``sigmoid=True, to_onehot_y=True``.
    ``reduction="none"``: (B, C, *S).

    Args:
        pos_weight: factor of the positive term, one per channel or one for all, at least 0; torch's ``pos_weight``.
            Above 1 it lowers the number of false negatives.

    A keyword ``weight_map`` of the call, (B, 1, *S) or (B, *S), weighs voxels; the mean divides by its sum.

    Raises:
        ValueError: ``softmax=True``; that is `CrossEntropyLoss`.

    Example:
        >>> import torch
        >>> from monai_segloss import BinaryCrossEntropyLoss
        >>> loss = BinaryCrossEntropyLoss(sigmoid=True, pos_weight=3)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1], [0, 0, 0, 0]]])).item(), 4)
        1.0397

    Reference:
        Jadon, A survey of loss functions for semantic segmentation, CIBCB 2020 (the weighted form), arXiv:2006.14822,
        equations 1 and 2.
    """

    formula_arguments = ()
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
