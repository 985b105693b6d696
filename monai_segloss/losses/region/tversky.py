"""Tversky loss: false positives and false negatives weigh differently.  Salehi et al., MLMI 2017."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import AREA, AREA_L1, ClassView
from monai_segloss.core.check import non_negative
from monai_segloss.core.counts import Counts
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.recommend import Recommended
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register
from monai_segloss.losses.region.dice import one_minus_ratio


def tversky(n: Counts, alpha: float, beta: float, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5) -> Tensor:
    """1 - (TP + nr) / (TP + alpha FP + beta FN + dr) as its complement, (B | 1, C)."""
    return one_minus_ratio(n.tp, alpha * n.fp + beta * n.fn, smooth_nr, smooth_dr)


@register(
    "tversky",
    positional="include_background to_onehot_y sigmoid softmax other_act alpha beta reduction smooth_nr smooth_dr batch "
    "soft_label ignore_index",
    tags=("overlap", "imbalance", "recall"),
    example={"alpha": 0.3, "beta": 0.7},
    recommended=Recommended(arguments={"alpha": 0.3, "beta": 0.7}),
)
class TverskyLoss(RegionLoss):
    r"""Dice with separate weights of false positives (alpha) and false negatives (beta).

    Formula:
        1 - \frac{TP + s_n}{TP + \alpha FP + \beta FN + s_d}

    When:
        Small lesions whose recall matters: beta above alpha buys recall with precision. Report both.

    The mean runs over samples and classes. The defaults .5/.5 are MONAI's and make it the Dice loss. The paper's best
    setting is ``alpha=0.3, beta=0.7``, which the nnU-Net trainer uses. With two classes and the background included the
    two channels mirror each other and dilute the asymmetry: use ``include_background=False`` to control recall.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.
        soft_label: L1 form of the counts, for soft labels.

    Example:
        >>> import torch
        >>> from monai_segloss import TverskyLoss
        >>> loss = TverskyLoss(softmax=True, to_onehot_y=True, alpha=0.3, beta=0.7, include_background=False)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]])).item(), 4)
        0.6154

    Reference:
        Salehi et al., Tversky loss function for image segmentation using 3D fully convolutional deep networks, MLMI
        2017, arXiv:1706.05721.
    """

    def __init__(
        self, *, alpha: float = 0.5, beta: float = 0.5, soft_label: bool = False, **common: Unpack[FormulaArgs]
    ) -> None:
        super().__init__(**common)
        self.alpha, self.beta = non_negative(alpha=alpha, beta=beta)
        self.soft_label = soft_label
        self.sums = AREA_L1 if soft_label else AREA

    def table(self, view: ClassView) -> Tensor:
        return tversky(view.counts(self.soft_label), self.alpha, self.beta, self.smooth_nr, self.smooth_dr)
