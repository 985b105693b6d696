from __future__ import annotations

from torch import Tensor

from monai_segloss.core.card import FormulaArgs, RegionLoss, Unpack, register, within
from monai_segloss.core.formula import ClassView, Stat
from monai_segloss.losses.region.dice_form import dice

LARGEST = 8.0
"""Nothing is left of an error of 1/2 beyond."""


@register("dice_plus_plus", aliases=("dice++",), tags=("overlap", "calibration"))
class DicePlusPlusLoss(RegionLoss):
    r"""Dice whose errors count by a power, so that sure mistakes cost and unsure ones hardly do.

    Formula: 1 - \frac{2\,TP + s_n}{2\,TP + FP + FN + s_d},\quad FP = \sum ((1 - g)\,p)^\gamma,\quad FN = \sum (g\,(1 -
    p))^\gamma

    When: Dice makes a network sure of everything, right or wrong; here an unsure voxel costs less than a sure mistake.
    Published as better calibrated than Dice at the same overlap. Alone it is as unstable for small structures.

    TP = sum p g. The mean runs over samples and classes. gamma 1 is the Dice loss. The errors are small at the start of
    a training, where most voxels are unsure.

    Args:
        gamma: exponent of the errors, 1 to 8.

    Example:
        >>> import torch
        >>> from monai_segloss import DicePlusPlusLoss
        >>> loss = DicePlusPlusLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])).item(), 4)
        0.3333

    Reference: Yeung et al., Calibrating the Dice loss to handle neural network overconfidence for biomedical image
    segmentation, J. Digit. Imaging 2023, arXiv:2111.00528.
    """

    def __init__(self, *, gamma: float = 2.0, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        (self.gamma,) = within(1, LARGEST, gamma=gamma)
        self.sums = (Stat("tp"), Stat("fp_power", self.gamma), Stat("fn_power", self.gamma))

    def table(self, view: ClassView) -> Tensor:
        tp, fp, fn = view.sums(*self.sums)
        return dice(tp, fp + fn, self.smooth_nr, self.smooth_dr)
