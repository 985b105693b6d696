"""Soft Dice loss.  Drozdzal et al., DLMIA 2016 (un-squared); Milletari et al., 3DV 2016 (squared)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import AREA, AREA_L1, ClassView
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.reduce import Unreduced, quotient
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register

POSITIONAL = (
    "include_background to_onehot_y sigmoid softmax other_act squared_pred jaccard reduction smooth_nr smooth_dr batch "
    "weight"
)


def dice(tp: Tensor, error: Tensor, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5) -> Tensor:
    """1 - (2 TP + nr) / (2 TP + error + dr), written as its complement so that small losses keep their digits.

    ``error`` is FP + FN for Dice, sum (p - g)^2 for the squared form, 2 (FP + FN) for Jaccard.  Shape as given, (B, C).
    """
    return one_minus_ratio(2 * tp, error, smooth_nr, smooth_dr)


def one_minus_ratio(hits: Tensor, error: Tensor, smooth_nr: float, smooth_dr: float) -> Tensor:
    """1 - (hits + nr) / (hits + error + dr) as its complement, same shape; 0 / 0, where nothing is smoothed, is 0."""
    return quotient(error + (smooth_dr - smooth_nr), hits + error + smooth_dr)


@dataclass(frozen=True)
class DiceForm:
    """Which Dice: what `DiceLoss` and the compounds with a Dice term share."""

    squared_pred: bool
    jaccard: bool
    smooth_nr: float
    smooth_dr: float
    soft_label: bool = False

    @property
    def statistics(self) -> tuple[Stat, ...]:
        """The true positives first, then what adds up to the error."""
        if self.squared_pred:
            return (Stat("tp"), Stat("se"))
        return AREA_L1 if self.soft_label else AREA

    def table(self, view: ClassView) -> Tensor:
        """Dice loss per (sample, class), (B | 1, C)."""
        tp, *errors = view.sums(*self.statistics)
        error = errors[0] if len(errors) == 1 else errors[0] + errors[1]
        error = 2 * error if self.jaccard else error
        return dice(tp, error, self.smooth_nr, self.smooth_dr)

    def unreduced(self, view: ClassView, weight: Tensor | None) -> Unreduced:
        """The table with the samples that count."""
        return Unreduced.table(self.table(view), view.voxel_count, weight)


@register(
    "dice",
    positional=POSITIONAL + " soft_label ignore_index",
    aliases=("soft_dice",),
    tags=("overlap", "imbalance"),
)
class DiceLoss(RegionLoss):
    r"""One minus the soft Dice coefficient of each class.

    Formula:
        1 - \frac{2\,TP + s_n}{2\,TP + FP + FN + s_d}

    When:
        The usual region loss. Alone it trains slowly and is unstable for small structures; add cross-entropy.

    The mean runs over samples and classes. ``batch=True`` sums over the batch, which cures classes that are absent from
    a sample.

    Args:
        squared_pred: square prediction and target in the denominator, the V-Net form.
        jaccard: Jaccard index instead of Dice, smoothed as in MONAI (half of the effect of the Dice smoothing).
        soft_label: TP = (|p| + |g| - |p - g|) / 2, whose minimum lies at p = g also for soft labels.

    Example:
        >>> import torch
        >>> from monai_segloss import DiceLoss
        >>> logits, label = torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])
        >>> round(DiceLoss(softmax=True, to_onehot_y=True)(logits, label).item(), 4)
        0.5

    Reference:
        Drozdzal et al., The importance of skip connections in biomedical image segmentation, DLMIA 2016,
        arXiv:1608.04117; Milletari et al., V-Net, 3DV 2016 (squared_pred), arXiv:1606.04797; Kodym et al., GCPR 2018
        (batch), arXiv:1812.02427.
    """

    def __init__(
        self,
        *,
        squared_pred: bool = False,
        jaccard: bool = False,
        soft_label: bool = False,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(**common)
        self.dice = DiceForm(squared_pred, jaccard, self.smooth_nr, self.smooth_dr, soft_label)
        self.sums = self.dice.statistics

    def table(self, view: ClassView) -> Tensor:
        return self.dice.table(view)
