"""Penalty generalized Dice loss: errors count 1 + k times.  Yang et al., MIDL 2019."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import ClassView
from monai_segloss.core.check import non_negative
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register
from monai_segloss.losses.region.generalized_dice import GeneralizedForm


def penalize(loss: Tensor, k: float) -> Tensor:
    """1 - GD / (1 + k (1 - GD)) of the generalized Dice loss 1 - GD, same shape."""
    return (1 + k) * loss / (1 + k * loss)


@register(
    "penalty_generalized_dice",
    aliases=("pgdl",),
    tags=("overlap", "imbalance"),
    recommended=Recommended(include_background=True),
)
class PenaltyGeneralizedDiceLoss(RegionLoss):
    r"""Generalized Dice in which false positives and false negatives count 1 + k times.

    Formula:
        1 - \frac{GD}{1 + k\,(1 - GD)}

    When:
        Thin or small structures for which the generalized Dice loss is too lenient. It is a monotone function of that
        loss: the minimum is the same, the gradient is larger near it. Published for X-ray angiography only.

    GD is the generalized Dice coefficient of a sample; the mean runs over samples. Without smoothing it equals 1 - 2 TP
    / (2 TP + (1 + k)(FP + FN)), as the abstract wants it. Popular code puts the loss 1 - GD where the coefficient
    belongs, which gives true positives the extra weight. The formula has not been verified against the paper's text.

    Args:
        k: strength of the penalty, at least 0; 0 is the generalized Dice loss.
        w_type, soft_label, scale_free: see `GeneralizedDiceLoss`.

    Raises:
        ValueError: a negative ``k`` or an unknown ``w_type``.

    Example:
        >>> import torch
        >>> from monai_segloss import PenaltyGeneralizedDiceLoss
        >>> loss = PenaltyGeneralizedDiceLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]])).item(), 4)
        0.8537

    Reference:
        Yang et al., Major vessel segmentation on X-ray coronary angiography using deep networks with a novel penalty
        loss function, MIDL 2019 (formula from memory, not verified against the paper), openreview:H1lTh8unKN.
    """

    formula_arguments = ("include_background", "batch", "smooth_nr", "smooth_dr")

    def __init__(
        self,
        *,
        k: float = 2.5,
        w_type: str = "square",
        soft_label: bool = False,
        scale_free: bool = True,
        **common: Unpack[FormulaArgs],
    ) -> None:
        super().__init__(**common)
        (self.k,) = non_negative(k=k)
        self.form = GeneralizedForm.of(w_type, scale_free, self.smooth_nr, self.smooth_dr, soft_label)
        self.sums = self.form.statistics

    def table(self, view: ClassView) -> Tensor:
        return penalize(self.form.table(view), self.k)
