"""log(1 + p) of each class where it must not be.  Shi et al., MedIA 2021."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from monai_segloss.core.batch import SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import ReadingArgs, Weight
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.registry import register
from monai_segloss.core.voxel_sum import VoxelLoss, VoxelSum
from monai_segloss.losses.partial.merging import exclusion, labeled_classes, labeled_indices, refuse_sigmoid


@register(
    "exclusion_cross_entropy",
    aliases=("exclusion_ce",),
    tags=("partial labels", "likelihood"),
    support=("labels", "soft labels", "ignore", "2-D", "3-D"),
    recommended=Recommended(include_background=None, batch=None),
)
class ExclusionCrossEntropyLoss(VoxelLoss):
    r"""Mean over voxels of log(1 + p) of the classes that the labels exclude there.

    Formula:
        \frac{1}{N} \sum_i \sum_k w_k\, e_{i,k} \log(1 + p_{i,k})

    When:
        Alongside marginal_dice and marginal_cross_entropy on partially labeled data: an organ without labels is at least
        not where a labeled one is. Its gradient on p is at most 1, so alone it trains slowly.

    e_k is where the labels exclude class k: for a labeled organ where it is not, for the background and an organ
    without labels the union of the labeled organs. Between 0 and log 2 times the number of classes. One class per voxel
    only. The formula was not verified against the paper. ``reduction="none"``: (B, 1, *S).

    A keyword ``labeled`` of the call, (B, C) of 0 and 1, says which classes each sample has labels of; it comes before
    the argument.

    Args:
        labeled: indices of the labeled classes, the same for all samples; None is all.
        weight: a factor per class, or one for all.

    Raises:
        ValueError: ``sigmoid=True``, or ``labeled`` does not fit.

    Example:
        >>> import torch
        >>> from monai_segloss import ExclusionCrossEntropyLoss
        >>> loss = ExclusionCrossEntropyLoss(softmax=True, to_onehot_y=True, labeled=[1])
        >>> round(loss(torch.zeros(1, 3, 2), torch.tensor([[[0, 1]]])).item(), 4)
        0.4315

    Reference:
        Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ segmentation, MedIA 2021,
        arXiv:2007.03868.
    """

    formula_arguments = ("weight",)
    own_pass = True
    accepts = ("labeled",)

    def __init__(
        self, *, labeled: Sequence[int] | None = None, weight: Weight | None = None, **reading: Unpack[ReadingArgs]
    ) -> None:
        super().__init__(weight=weight, **reading)
        refuse_sigmoid(self.reader.sigmoid)
        self.labeled = labeled_indices(labeled)

    def voxel_sum(self, batch: SegBatch) -> VoxelSum:
        weight = self.weights(batch.classes)
        excluded = exclusion(batch, labeled_classes(batch, self.labeled))
        return VoxelSum(excluded, {Stat("log1p"): 1.0 if weight is None else weight})
