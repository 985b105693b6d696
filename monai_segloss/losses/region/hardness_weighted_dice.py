"""Hardness-weighted Dice loss: voxels weigh by their error.  Wang et al., MICCAI 2019."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import AREA, ClassView
from monai_segloss.core.check import within
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register
from monai_segloss.losses.region.dice import dice

STATISTICS = (*AREA, Stat("ae_tp"), Stat("ae_err"))


def hardness_weighted_dice(
    sums: Sequence[Tensor], lam: float, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5
) -> Tensor:
    """1 - (2 sum w p g + nr) / (sum w (p + g) + dr) with w = lam |p - g| + 1 - lam as its complement, (B | 1, C).

    ``sums`` are TP, FP, FN and the sums of p g and of p (1 - g) + (1 - p) g, both weighted by |p - g|.
    """
    tp, fp, fn, hard_tp, hard_error = sums
    hits, error = (lam * hard + (1 - lam) * plain for hard, plain in ((hard_tp, tp), (hard_error, fp + fn)))
    return dice(hits, error, smooth_nr, smooth_dr)


@register(
    "hardness_weighted_dice",
    tags=("overlap", "imbalance", "hard voxels"),
    recommended=Recommended(include_background=True),
)
class HardnessWeightedDiceLoss(RegionLoss):
    r"""Dice in which each voxel weighs by how wrong it is.

    Formula:
        1 - \frac{2 \sum w p g + s_n}{\sum w (p + g) + s_d},\quad w = \lambda |p - g| + 1 - \lambda

    When:
        Small structures with hard borders, for example vestibular schwannoma. Wrong labels are the hardest voxels:
        avoid it with noisy labels.

    The mean runs over samples and classes. The gradient flows through the weights, as in the authors' code. This is not
    the hardness weighted sampling of Fidon et al., which is about samples.

    Args:
        lam: strength of the weighting in [0, 1]; 0 is the Dice loss, the paper uses 0.6.

    Raises:
        ValueError: ``lam`` outside of [0, 1].

    Example:
        >>> import torch
        >>> from monai_segloss import DiceLoss, HardnessWeightedDiceLoss
        >>> p, g = torch.tensor([[[0.9, 0.6, 0.2]]]), torch.tensor([[[1.0, 1.0, 0.0]]])
        >>> round(DiceLoss()(p, g).item(), 4), round(HardnessWeightedDiceLoss()(p, g).item(), 4)
        (0.1892, 0.2028)

    Reference:
        Wang et al., Automatic segmentation of vestibular schwannoma from T2-weighted MRI by deep spatial attention with
        hardness-weighted loss, MICCAI 2019, arXiv:1906.03906.
    """

    sums = STATISTICS

    def __init__(self, *, lam: float = 0.6, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        (self.lam,) = within(0, 1, lam=lam)

    def table(self, view: ClassView) -> Tensor:
        return hardness_weighted_dice(view.sums(*STATISTICS), self.lam, self.smooth_nr, self.smooth_dr)
