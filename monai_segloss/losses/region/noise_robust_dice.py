"""Noise-robust Dice loss: between Dice and the mean absolute error.  Wang et al., IEEE TMI 2020."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import ClassView
from monai_segloss.core.check import within
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register

TINY = 1e-30
"""Divides the error of a class that is neither there nor predicted, where there is no smoothing."""


def noise_robust_dice(error: Tensor, p_sq: Tensor, g_sq: Tensor, smooth_dr: float = 1e-5) -> Tensor:
    """sum |p - g|^gamma / (sum p^2 + sum g^2 + dr), (B | 1, C)."""
    return error / (p_sq + g_sq + smooth_dr).clamp_min(TINY)


@register(
    "noise_robust_dice",
    aliases=("nr_dice",),
    tags=("overlap", "noise"),
)
class NoiseRobustDiceLoss(RegionLoss):
    r"""V-Net Dice whose squared error becomes a smaller power, which wrong labels pull less.

    Formula:
        \frac{\sum |p - g|^\gamma}{\sum p^2 + \sum g^2 + s_d}

    When:
        Labels with errors. gamma towards 1 resists noise and trains slower. A class that is absent from a sample can
        cost more than 1.

    The mean runs over samples and classes. gamma 2 is the V-Net Dice loss, 1 a mean absolute error. The squares in the
    denominator are the paper's as far as secondary sources tell (its text was not at hand). The code published with it
    has them un-squared, and is then not Dice at gamma 2.

    Args:
        gamma: exponent of the error, 1 to 2.
        common: see `SegLoss`; the only smoothing is ``smooth_dr``.

    Raises:
        ValueError: ``gamma`` outside of [1, 2].

    Example:
        >>> import torch
        >>> from monai_segloss import NoiseRobustDiceLoss
        >>> loss = NoiseRobustDiceLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])).item(), 4)
        0.4714

    Reference:
        Wang et al., A noise-robust framework for automatic segmentation of COVID-19 pneumonia lesions from CT images,
        IEEE TMI 2020 (formula from memory, not verified against the paper), doi:10.1109/TMI.2020.3000314.
    """

    formula_arguments = ("include_background", "batch", "smooth_dr", "weight")

    def __init__(self, *, gamma: float = 1.5, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        (self.gamma,) = within(1, 2, gamma=gamma)
        self.sums = (Stat("ae", self.gamma), Stat("p_sq"), Stat("g_sq"))

    def table(self, view: ClassView) -> Tensor:
        error, p_sq, g_sq = view.sums(*self.sums)
        return noise_robust_dice(error, p_sq, g_sq, self.smooth_dr)
