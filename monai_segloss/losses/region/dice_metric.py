from __future__ import annotations

from torch import Tensor

from monai_segloss.core.card import RegionLoss, register
from monai_segloss.core.formula import AREA_L1, ClassView
from monai_segloss.losses.region.dice_form import dice


@register("dice_metric", aliases=("dml", "dice_semimetric"), tags=("overlap", "soft labels"))
class DiceMetricLoss(RegionLoss):
    r"""Dice loss in its L1 form, whose minimum lies at the target also for soft labels.

    Formula: 1 - \frac{2\,TP + s_n}{2\,TP + FP + FN + s_d},\quad TP = \tfrac12 \sum (p + g - |p - g|)

    When: Soft labels: several raters, distillation, smoothed or resampled labels. With hard labels it is the Dice loss.
    The authors train 0.25 cross-entropy + 0.75 of this (recipe wang_dice_metric).

    FP = sum max(p - g, 0) and FN = sum max(g - p, 0); the mean runs over samples and classes. Where the label is a
    fraction the usual product form is smallest at a prediction of 0 or 1. It is `DiceLoss` with ``soft_label=True``.
    The authors' code leaves classes out whose largest label is below 0.01; here every class counts, as in `DiceLoss`.

    Example:
        >>> import torch
        >>> from monai_segloss import DiceLoss, DiceMetricLoss
        >>> g = torch.full((1, 1, 4), 0.5)
        >>> [round(kind()(p, g).item(), 4) for kind in (DiceLoss, DiceMetricLoss) for p in (g, 2 * g)]
        [0.5, 0.3333, 0.0, 0.3333]

    Reference: Wang et al., Dice semimetric losses: optimizing the Dice score with soft labels, MICCAI 2023,
    arXiv:2303.16296.
    """

    sums = AREA_L1

    def table(self, view: ClassView) -> Tensor:
        n = view.counts(soft_label=True)
        return dice(n.tp, n.fp + n.fn, self.smooth_nr, self.smooth_dr)
