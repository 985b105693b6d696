"""Overlap of each class with where it must not be.  Shi et al., MedIA 2021."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import ClassView, SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.reduce import quotient
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register
from monai_segloss.losses.partial.merging import exclusion, labeled_classes, labeled_indices, refuse_sigmoid


def exclusion_dice(hit: Tensor, rest: Tensor, where: Tensor, smooth_dr: float) -> Tensor:
    """2 sum p e / (sum p + sum e + s) from sum p e, sum p (1 - e) and sum e, (B | 1, C); 0 / 0 is 0."""
    whole = hit + rest + where + smooth_dr
    return quotient(2 * hit, whole)


@register(
    "exclusion_dice",
    tags=("partial labels", "overlap"),
    support=("labels", "soft labels", "ignore", "2-D", "3-D"),
)
class ExclusionDiceLoss(RegionLoss):
    r"""Dice coefficient of each class with the region that the labels exclude it from.

    Formula:
        \frac{2 \sum_i p_i e_i}{\sum_i p_i + \sum_i e_i + s_d}

    When:
        Alongside marginal_dice and marginal_cross_entropy on partially labeled data: an organ without labels is at least
        not where a labeled one is. Alone it is satisfied by predicting no organ.

    The mean runs over samples and classes. e is the excluded region: for a labeled organ where it is not, for the
    background and an organ without labels the union of the labeled organs. Between 0 and 1, and 0 if no class is where
    it must not be. There is no smoothing in the numerator: it would charge a class that no voxel excludes. One class
    per voxel only. The formula was not verified against the paper.

    A keyword ``labeled`` of the call, (B, C) of 0 and 1, says which classes each sample has labels of; it comes before
    the argument.

    Args:
        labeled: indices of the labeled classes, the same for all samples; None is all.

    Raises:
        ValueError: ``sigmoid=True``, or ``labeled`` does not fit.

    Example:
        >>> import torch
        >>> from monai_segloss import ExclusionDiceLoss
        >>> loss = ExclusionDiceLoss(softmax=True, to_onehot_y=True, labeled=[1])
        >>> round(loss(torch.zeros(1, 3, 2), torch.tensor([[[0, 1]]])).item(), 4)
        0.4

    Reference:
        Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ segmentation, MedIA 2021,
        arXiv:2007.03868.
    """

    formula_arguments = ("include_background", "batch", "smooth_dr", "weight")
    accepts = ("labeled",)

    sums = ()

    def __init__(self, *, labeled: Sequence[int] | None = None, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        refuse_sigmoid(self.reader.sigmoid)
        self.labeled = labeled_indices(labeled)

    def view(self, batch: SegBatch) -> ClassView:
        return super().view(exclusion(batch, labeled_classes(batch, self.labeled)))

    def table(self, view: ClassView) -> Tensor:
        hit, rest, where = view.sums(Stat("tp"), Stat("fp"), Stat("g"))
        return exclusion_dice(hit, rest, where, self.smooth_dr)
