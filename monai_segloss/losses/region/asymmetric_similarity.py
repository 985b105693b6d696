"""Asymmetric similarity loss, one minus F_beta.  Hashemi et al., IEEE Access 2019."""

from __future__ import annotations

from typing import Unpack

from torch import Tensor

from monai_segloss.core.batch import ClassView
from monai_segloss.core.check import non_negative
from monai_segloss.core.counts import Counts
from monai_segloss.core.module import FormulaArgs
from monai_segloss.core.region_loss import RegionLoss
from monai_segloss.core.registry import register
from monai_segloss.losses.region.tversky import tversky


def asymmetric_similarity(n: Counts, beta: float, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5) -> Tensor:
    """1 - F_beta, (B | 1, C): the Tversky loss whose two weights add up to 1 and have the ratio 1 : beta^2."""
    fn = beta**2 / (1 + beta**2)
    return tversky(n, 1 / (1 + beta**2), fn, smooth_nr, smooth_dr)


@register(
    "asymmetric_similarity",
    aliases=("f_beta",),
    tags=("overlap", "imbalance", "recall"),
)
class AsymmetricSimilarityLoss(RegionLoss):
    r"""One minus the soft F_beta score of each class.

    Formula:
        1 - \frac{(1 + \beta^2)\,TP}{(1 + \beta^2)\,TP + \beta^2\,FN + FP}

    When:
        Small lesions whose recall counts beta times as much as precision, for example multiple sclerosis. Recall is
        bought with precision: report both.

    The mean runs over samples and classes. It is `TverskyLoss` with alpha = 1 / (1 + beta^2) and beta' = beta^2 / (1 +
    beta^2): smoothing is added to TP and to TP + alpha FP + beta' FN. A popular version squares the terms of the
    denominator, which is no F_beta.

    Args:
        beta: how many times as much recall counts as precision; 1 is Dice.  (Not a weight of false negatives.)

    Example:
        >>> import torch
        >>> from monai_segloss import AsymmetricSimilarityLoss
        >>> loss = AsymmetricSimilarityLoss(softmax=True, to_onehot_y=True, include_background=False)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]])).item(), 4)
        0.6176

    Reference:
        Hashemi et al., Asymmetric loss functions and deep densely connected networks for highly imbalanced medical
        image segmentation: application to multiple sclerosis lesion detection, IEEE Access 2019, arXiv:1803.11078.
    """

    def __init__(self, *, beta: float = 1.5, **common: Unpack[FormulaArgs]) -> None:
        super().__init__(**common)
        (self.beta,) = non_negative(beta=beta)

    def table(self, view: ClassView) -> Tensor:
        return asymmetric_similarity(view.counts(), self.beta, self.smooth_nr, self.smooth_dr)
