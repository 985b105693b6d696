from __future__ import annotations

from torch import Tensor

from monai_segloss.core.card import FormulaArgs, RegionLoss, Unpack, non_negative, register
from monai_segloss.core.formula import AREA_L1, ClassView
from monai_segloss.losses.region.tversky import tversky


@register("tversky_metric", tags=("overlap", "soft labels", "imbalance", "recall"))
class TverskyMetricLoss(RegionLoss):
    r"""Tversky loss in its L1 form, whose minimum lies at the target also for soft labels.

    Formula: 1 - \frac{TP + s_n}{TP + \alpha FP + \beta FN + s_d},\quad TP = \tfrac12 \sum (p + g - |p - g|)

    When: Soft labels of small lesions whose recall matters: beta above alpha buys recall with precision. With hard
    labels it is the Tversky loss.

    FP = sum max(p - g, 0) and FN = sum max(g - p, 0); the mean runs over samples and classes. alpha = beta = 0.5 is
    `DiceMetricLoss` (with half of its smoothing), alpha = beta = 1 `JaccardMetricLoss`. It is `TverskyLoss` with
    ``soft_label=True``. The authors' code leaves classes out whose largest label is below 0.01; here every class counts.
    The defaults .3/.7 are those of the Tversky paper.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.

    Example:
        >>> import torch
        >>> from monai_segloss import TverskyLoss, TverskyMetricLoss
        >>> g, ours = torch.full((1, 1, 4), 0.5), TverskyMetricLoss()
        >>> [round(kind(p, g).item(), 4) for kind in (TverskyLoss(alpha=0.3, beta=0.7), ours) for p in (g, 2 * g)]
        [0.5, 0.2308, 0.0, 0.2308]

    Reference: Wang et al., Dice semimetric losses: optimizing the Dice score with soft labels, MICCAI 2023,
    arXiv:2303.16296; Wang et al., Revisiting evaluation metrics for semantic segmentation, NeurIPS 2023,
    arXiv:2310.19252.
    """

    sums = AREA_L1

    def __init__(self, *, alpha: float = 0.3, beta: float = 0.7, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        self.alpha, self.beta = non_negative(alpha=alpha, beta=beta)

    def table(self, view: ClassView) -> Tensor:
        return tversky(view.counts(soft_label=True), self.alpha, self.beta, self.smooth_nr, self.smooth_dr)
