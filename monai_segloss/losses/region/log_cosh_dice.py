"""Log-cosh Dice loss.  Jadon, CIBCB 2020."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_segloss.core.batch import AREA, SegBatch
from monai_segloss.core.counts import Stat
from monai_segloss.core.module import FormulaArgs, SegLoss
from monai_segloss.core.reduce import Unreduced, reduce
from monai_segloss.core.registry import register
from monai_segloss.losses.region.dice import DiceForm


def log_cosh(x: Tensor) -> Tensor:
    """log cosh x, exact near 0 (where x + softplus(-2x) - log 2 loses all digits) and without overflow; same shape."""
    small, large = x.clamp(-1, 1), x.abs()
    near = torch.log1p(2 * torch.sinh(small / 2) ** 2)
    return torch.where(large < 1, near, large + F.softplus(-2 * large) - math.log(2))


@register(
    "log_cosh_dice",
    tags=("overlap",),
)
class LogCoshDiceLoss(SegLoss):
    r"""Logarithm of the hyperbolic cosine of the Dice loss.

    Formula:
        \log \cosh(1 - \mathrm{Dice})

    When:
        A smoother Dice loss for noisy optimization. About half of the squared Dice loss, so the gradient vanishes as
        the fit gets good: the last percent train slowly. Little independent evidence.

    The mean runs over samples and classes. It lies between 0 and 0.4338 where no class is weighted.

    Args:
        elementwise: take log cosh of each (sample, class) before the mean, and weigh it; False: of the mean of the
            weighted Dice losses, which is what the author's code for one class comes to, and without weights never
            larger.  Then ``reduction="none"`` is refused and ``"sum"`` is the same number as ``"mean"``.

    Raises:
        ValueError: ``elementwise=False`` with ``reduction="none"``.

    Example:
        >>> import torch
        >>> from monai_segloss import LogCoshDiceLoss
        >>> loss = LogCoshDiceLoss(softmax=True, to_onehot_y=True)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 1, 1]]])).item(), 4)
        0.1201

    Reference:
        Jadon, A survey of loss functions for semantic segmentation, CIBCB 2020, arXiv:2006.14822, equation 32.
    """

    def __init__(self, *, elementwise: bool = True, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        self.elementwise = bool(elementwise)
        if not elementwise and self.reduction == "none":
            raise ValueError("elementwise=False gives one number for the batch: reduction must be 'mean' or 'sum'.")
        self.dice = DiceForm(False, False, self.smooth_nr, self.smooth_dr)

    def statistics(self, batch: SegBatch) -> tuple[Stat, ...]:
        return AREA

    def loss(self, batch: SegBatch) -> Unreduced:
        view = batch.class_view(self.include_background, self.batch)
        weight = self.weights(view.classes)
        if not self.elementwise:
            mean, _ = reduce(self.dice.unreduced(view, weight), "mean", 2)
            return Unreduced(log_cosh(mean), mean.new_ones(()))
        dice = self.dice.unreduced(view, None)
        return Unreduced.table(log_cosh(dice.total), view.voxel_count, weight)
