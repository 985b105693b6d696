"""Binary cross-entropy of each channel against the rest, with a weight on the positive term."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core import check
from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import FORMULAS, Stat
from monai_segloss.core.module import ReadingArgs, SegLoss, Weight, class_weight
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.reduce import Scores
from monai_segloss.core.registry import register
from monai_segloss.losses.voxel.weighting import class_factor, voxels, weighted_map, weighted_sums, weighted_voxels

BINARY = (Stat("ce"), Stat("ce_neg"))


def binary_cross_entropy(batch: SegBatch, pos_weight: Tensor | None = None, weight_map: Tensor | None = None) -> Scores:
    """-(w sum g log p + sum (1 - g) log(1 - p)) per (sample, channel), (B, C), and the voxels (B, 1)."""
    positive, negative = weighted_sums(batch, BINARY, weight_map)
    positive = positive if pos_weight is None else positive * pos_weight.to(positive)
    return Scores(positive + negative, weighted_voxels(batch, weight_map))


def binary_cross_entropy_map(
    batch: SegBatch, pos_weight: Tensor | None = None, weight_map: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of each voxel and channel (B, C, *S); 0 where ignored."""
    v = voxels(batch)
    value = class_factor(batch, pos_weight) * FORMULAS["ce"](v, 0) + FORMULAS["ce_neg"](v, 0)
    return weighted_map(batch, value, weight_map)


@register(
    "binary_cross_entropy",
    family="voxel",
    summary="Binary cross-entropy of each channel, averaged over channels and voxels.",
    when="Overlapping regions, or each class against the rest. A positive weight above 1 buys recall with precision "
    "and miscalibrates the probabilities.",
    formula=r"-\frac{1}{C N}\sum_{c,i} \left[\beta_c\, g \log p + (1 - g) \log(1 - p)\right]",
    paper="Jadon, A survey of loss functions for semantic segmentation, CIBCB 2020 (the weighted form)",
    doi="arXiv:2006.14822",
    aliases=("bce",),
    tags=("likelihood",),
    support=("regions", "soft labels", "ignore", "2-D", "3-D"),
    recommended=Recommended(include_background=None, batch=None),
)
class BinaryCrossEntropyLoss(SegLoss):
    """Binary cross-entropy, the mean over channels and voxels of -(w g log p + (1 - g) log(1 - p)).

    Every channel is scored against the rest, the background too, as `torch.nn.BCEWithLogitsLoss` does.  Labels are read
    one-vs-rest with ``sigmoid=True, to_onehot_y=True``.  ``reduction="none"``: (B, C, *S).

    Args:
        pos_weight: factor of the positive term, one per channel or one for all, at least 0; torch's ``pos_weight``.
            Above 1 it lowers the number of false negatives.
        reading: see `SegLoss`.

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
        S. Jadon, CIBCB 2020, arXiv:2006.14822, equations 1 and 2.
    """

    scoring = ()
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

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        return () if self.reduction == "none" or "weight_map" in batch.maps else BINARY

    def loss(self, batch: SegBatch) -> Scores:
        pos_weight = check.per_class("pos_weight", self.pos_weight, batch.classes)
        weight_map = batch.map("weight_map")
        if self.reduction == "none":
            return Scores(binary_cross_entropy_map(batch, pos_weight, weight_map), batch.voxels)
        return binary_cross_entropy(batch, pos_weight, weight_map)
