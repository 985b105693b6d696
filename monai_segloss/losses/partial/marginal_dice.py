"""Soft Dice with unlabeled classes as background.  Shi et al., MedIA 2021."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from monai_segloss.core.batch import AREA, SegBatch
from monai_segloss.core.module import FormulaArgs, SegLoss
from monai_segloss.core.reduce import Unreduced
from monai_segloss.core.registry import register
from monai_segloss.losses.partial.merging import labeled_classes, labeled_indices, merged, refuse_sigmoid
from monai_segloss.losses.region.dice import dice


@register(
    "marginal_dice",
    tags=("partial labels", "overlap"),
    support=("labels", "soft labels", "ignore", "2-D", "3-D"),
)
class MarginalDiceLoss(SegLoss):
    r"""Soft Dice in which the classes that a sample has no labels of count as its background.

    Formula:
        1 - \frac{2 \sum_i q_i g_i + s_n}{\sum_i q_i + \sum_i g_i + s_d},\quad q_0 = p_0 + \sum_{k\ \mathrm{unlabeled}}
        p_k

    When:
        Several data sets that label different organs, trained together, alongside marginal_cross_entropy. With
        include_background=False the merged background, and so the unlabeled classes, get no gradient from it.

    The mean runs over the classes that a sample has labels of. A target voxel of a class that is not labeled is read as
    background. Some code adds up the logits of the merged classes before the softmax; here it is their probabilities.
    One class per voxel only.

    A keyword ``labeled`` of the call, (B, C) of 0 and 1, says which classes each sample has labels of; it comes before
    the argument. The background is labeled in any case.

    Args:
        labeled: indices of the labeled classes, the same for all samples; None is all.
        common: see `SegLoss`; with ``batch`` a class sums over the samples that it is labeled in.

    Raises:
        ValueError: ``sigmoid=True``, or ``labeled`` does not fit.

    Example:
        >>> import torch
        >>> from monai_segloss import MarginalDiceLoss
        >>> loss = MarginalDiceLoss(softmax=True, to_onehot_y=True, labeled=[1])
        >>> round(loss(torch.zeros(1, 3, 2), torch.tensor([[[0, 1]]])).item(), 4)
        0.5143

    Reference:
        Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ segmentation, MedIA 2021,
        arXiv:2007.03868.
    """

    accepts = ("labeled",)

    def __init__(self, *, labeled: Sequence[int] | None = None, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        refuse_sigmoid(self.reader.sigmoid)
        self.labeled = labeled_indices(labeled)

    def loss(self, batch: SegBatch) -> Unreduced:
        labeled = labeled_classes(batch, self.labeled)
        view = merged(batch, labeled).class_view(self.include_background, self.batch)
        tp, fp, fn = view.sums(*AREA)
        voxel_count = view.voxel_count
        if labeled is not None:
            voxel_count = view.reduce_batch(batch.voxels * labeled[:, view.first :])
        return Unreduced.table(
            dice(tp, fp + fn, self.smooth_nr, self.smooth_dr), voxel_count, self.weights(view.classes)
        )
