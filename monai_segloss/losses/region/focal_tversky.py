"""Focal Tversky loss, (1 - TI)^(1/gamma).  Abraham & Khan, ISBI 2019."""

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

FLOOR = 1e-6
"""Below this 1 - TI has no gradient: the derivative of a power below 1 is infinite at 0."""


def focal_tversky(n: Counts, alpha: float, beta: float, gamma: float, smooth_nr: float, smooth_dr: float) -> Tensor:
    """(1 - TI)^(1/gamma) per (sample, class), (B | 1, C)."""
    loss = tversky(n, alpha, beta, smooth_nr, smooth_dr)
    return loss if gamma == 1 else loss.clamp_min(FLOOR) ** (1 / gamma)


@register(
    "focal_tversky",
    tags=("overlap", "imbalance", "recall"),
)
class FocalTverskyLoss(RegionLoss):
    r"""Tversky loss of each class to the power 1/gamma.

    Formula:
        \left(1 - \frac{TP + s_n}{TP + \alpha FP + \beta FN + s_d}\right)^{1/\gamma}

    When:
        Small lesions, where the Tversky loss alone leaves hard classes behind. With gamma above 1 the gradient grows as
        a class nears its optimum, so it can overfit easy classes; compare with tversky.

    The power is taken per class; the mean runs over samples and classes. A perfect class costs `FLOOR` ** (1 / gamma),
    about 3e-5, not exactly 0. The paper exchanges the letters alpha and beta. The authors' code calls the exponent
    gamma (0.75 = 1 / (4/3)).

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives.
        gamma: 1/exponent, at least 1; 1 is the Tversky loss.

    Raises:
        ValueError: ``gamma`` below 1, which is most often the exponent of the authors' code.

    Example:
        >>> import torch
        >>> from monai_segloss import FocalTverskyLoss
        >>> loss = FocalTverskyLoss(softmax=True, to_onehot_y=True, include_background=False)
        >>> round(loss(torch.zeros(1, 2, 4), torch.tensor([[[0, 0, 0, 1]]])).item(), 4)
        0.6948

    Reference:
        Abraham & Khan, A novel focal Tversky loss function with improved attention U-Net for lesion segmentation, ISBI
        2019, arXiv:1810.07842, equation 4.
    """

    def __init__(
        self, *, alpha: float = 0.3, beta: float = 0.7, gamma: float = 4 / 3, **common: Unpack[FormulaArgs]
    ) -> None:
        super().__init__(**common)
        self.alpha, self.beta = non_negative(alpha=alpha, beta=beta)
        if not 1 <= gamma < float("inf"):
            raise ValueError(
                f"gamma must be at least 1 (the exponent is 1/gamma), got {gamma!r}; code that calls the exponent gamma "
                "(0.75) means gamma=4/3 here."
            )
        self.gamma = float(gamma)

    def table(self, view: ClassView) -> Tensor:
        return focal_tversky(view.counts(), self.alpha, self.beta, self.gamma, self.smooth_nr, self.smooth_dr)
